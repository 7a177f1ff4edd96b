"""Deliver and confirm, a whole group at a time, for every rotation of the command that has a slot in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import IntEnum, auto
from functools import partial

from vaultkeeper.engine import judge
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import (
    Holder,
    Layout,
    asked,
    confirm_timeout,
    delivery_context,
    group_destination,
    spec_of,
    specs,
)
from vaultkeeper.engine.moves import PUT_OFF_AT_ONCE, RETRY, advance
from vaultkeeper.engine.parts import Event, Parts
from vaultkeeper.engine.plan import carried
from vaultkeeper.engine.verdict import closes_the_gap
from vaultkeeper.engine.work import Work, phase_of
from vaultkeeper.errors import AuditUnwritable, EpochLost, Locked
from vaultkeeper.model.outcome import (
    Confirmation,
    Confirmed,
    Done,
    Failed,
    Login,
    No,
    NotYet,
    Proof,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import Read
from vaultkeeper.model.rotation import Audience, Direction, End, Phase, Step
from vaultkeeper.model.secret import GroupKey
from vaultkeeper.ports import Change, Item

NEIGHBOUR_BUSY = timedelta(milliseconds=200)  # until a group that another process is delivering is tried again


def hand_over(awake: Sequence[Work], works: Sequence[Work], layout: Layout) -> None:
    """All awake rotations stand at a delivery or a confirm: checkers first, then deliveries, confirms last.

    Consumers follow their checker; a group that a neighbour still delivers is not confirmed too early. `works` are
    those asleep too: they have slots in the same groups, and go back with the others.
    """
    for audience in (Audience.CHECKER, Audience.CONSUMERS):
        for step, act in ((Step.DELIVER, _deliver_all), (Step.CONFIRM, _confirm_all)):
            there = [
                w
                for w in awake
                if w.rotation.phase and (w.rotation.phase.step, w.rotation.phase.audience) == (step, audience)
            ]
            if there:
                _pass_without_places(there)
                act({work: _Stand(phase_of(work), work) for work in there if work.rotation.phase}, works, layout)
                return


class _Stand:
    """Where one stands when a pass over the groups begins: one that turned back meanwhile is not meant."""

    def __init__(self, phase: Phase, work: Work) -> None:
        self.phase = phase
        self.groups = dict.fromkeys(place.group for place in work.places(phase.audience))  #: in the written order


Stood = Mapping[Work, _Stand]


def _deliver_all(stood: Stood, batch: Sequence[Work], layout: Layout) -> None:
    """A group that is not ready, or gives no answer, keeps no other waiting but those that an `order` puts after it.

    Nor does one that refuses, on the way back: who is not put back then stays with a value that may be refused.
    """
    waits: dict[Work, list[_Wait]] = {}
    looks: dict[GroupKey, _Look] = {}
    put_off_in_a_row = 0
    for group in _next_groups(stood):
        works = _still_there(stood, group)
        if not works or put_off_in_a_row == PUT_OFF_AT_ONCE:
            continue
        wait = _whose_turn(group, works, batch, layout, looks)
        if wait is None:
            wait = _deliver(group, works, batch, layout)
            put_off_in_a_row = put_off_in_a_row + 1 if wait and wait.rank is not _Rank.REFUSED else 0
        if wait is not None:
            for work in wait.works:
                waits.setdefault(work, []).append(wait)
    for work, found in waits.items():
        if work.rotation.phase is stood[work].phase and work.awake(work.parts.clock.now()):
            min(found, key=lambda wait: (wait.rank, wait.after)).judge(work)


def _confirm_all(stood: Stood, batch: Sequence[Work], layout: Layout) -> None:
    for group in _next_groups(stood):
        works = _still_there(stood, group)
        if works:
            _judge_look(_look(group, works, batch, layout), works, batch)


def _next_groups(stood: Stood) -> list[GroupKey]:
    """In the written order of the destinations; of those that name an `order` first, and those `by_reference` last."""
    works = sorted(stood, key=lambda work: not _has_order(work))
    groups = dict.fromkeys(g for work in works for g in stood[work].groups if g not in work.rotation.settled)
    return sorted(groups, key=lambda group: any(_by_reference(work, group) for work in works))


def _still_there(stood: Stood, group: GroupKey) -> list[Work]:
    """Who waits for this group, and was not turned back or put to sleep since the pass began."""
    return [
        work
        for work, stand in stood.items()
        if work.rotation.phase is stand.phase
        and group in stand.groups
        and group not in work.rotation.settled
        and work.awake(work.parts.clock.now())
    ]


class _Rank(IntEnum):
    """Which of several is judged when the pass is over."""

    LIMITED = auto()  #: a consumer before it has only so long to show itself
    UNKNOWN = auto()
    PUT_OFF = auto()
    REFUSED = auto()  #: on the way back: it parks, after which nobody is asked again


@dataclass(frozen=True)
class _Wait:
    """A group that was not delivered."""

    works: Sequence[Work]
    after: timedelta
    judge: Callable[[Work], None]
    rank: _Rank


def _whose_turn(
    group: GroupKey, works: Sequence[Work], batch: Sequence[Work], layout: Layout, looks: dict[GroupKey, _Look]
) -> _Wait | None:
    """Must another consumer run on it first, as an `order` says? One that cannot takes everybody back at once.

    The group is everybody's, so all of them wait for it together. `looks`: what this pass has seen already.
    """
    for work in works:
        if unwritten := _referred_to(work, group):
            return _turn_to_come(works, group, unwritten, RETRY)
    for work in works:
        before = _before(work, group)
        if before is None:
            continue
        others = [w for w in works if w is not work]
        if before not in work.rotation.settled:  # whatever holds that one up is waited for already
            return _turn_to_come(others, group, before, RETRY)
        look = looks.get(before) or looks.setdefault(before, _look(before, [work], batch, layout))
        if isinstance(look.answer, NotYet):
            spent = replace(look, timeout=look.timeout * len(work.rotation.settled))
            kept = _turn_to_come(others, group, before, look.answer.after)
            return replace(kept, works=works, judge=partial(_judge_turn, spent, work, batch, kept), rank=_Rank.LIMITED)
        if not isinstance(look.answer, Confirmed):
            _judge_look(look, [work], batch)
            return _turn_to_come([w for w in others if w.rotation.phase], group, before, RETRY)
    return None


def _turn_to_come(works: Sequence[Work], group: GroupKey, before: GroupKey, after: timedelta) -> _Wait:
    answer = NotYet(f"{group} comes after {before}", after)

    def judged(work: Work) -> None:
        groups = work.groups(phase_of(work))
        work.apply(judge.judge_delivered(work.rotation, group, groups, answer, work.parts.clock.now()))

    return _Wait(works, after, judged, _Rank.PUT_OFF)


def _judge_turn(look: _Look, ordered: Work, batch: Sequence[Work], others: _Wait, work: Work) -> None:
    if work is ordered:
        _judge_look(look, [work], batch)
    else:
        others.judge(work)


def _referred_to(work: Work, group: GroupKey) -> GroupKey | None:
    """A consumer `by_reference` is only told to look elsewhere: what is written there comes first, going back too."""
    if not _by_reference(work, group):
        return None
    groups = dict.fromkeys(place.group for place in work.places(phase_of(work).audience))
    return next((g for g in groups if g not in work.rotation.settled and not _by_reference(work, g)), None)


def _by_reference(work: Work, group: GroupKey) -> bool:
    indexes = {place.destination for place in work.rotation.places if place.group == group}
    return any(spec_of(work.rotation.policy, index).settings.get("by_reference") is True for index in indexes)


def _has_order(work: Work) -> bool:
    return any(spec.settings.get("order") for _, spec, _ in specs(work.rotation.policy))


def _before(work: Work, group: GroupKey) -> GroupKey | None:
    """Who must run on it before this group is touched: `order` names the first places of its destination."""
    if work.rotation.direction is Direction.BACK:
        return None  # whoever was handed it is put back, also behind one that cannot be
    mine = [place for place in work.rotation.places if place.group == group]
    for index in {place.destination for place in mine}:
        order = spec_of(work.rotation.policy, index).settings.get("order")
        if isinstance(order, Sequence) and order:
            groups = list(dict.fromkeys(p.group for p in work.rotation.places if p.destination == index))
            turn = min(groups.index(group), len(order))
            if turn:
                return groups[turn - 1]
    return None


def _pass_without_places(works: Sequence[Work]) -> None:
    """A policy without destinations is valid: there is nothing to hand over."""
    for work in works:
        phase = work.rotation.phase
        if phase is not None and not work.groups(phase):
            work.apply(advance(work.rotation, work.parts.clock.now()))


def _deliver(group: GroupKey, works: Sequence[Work], batch: Sequence[Work], layout: Layout) -> _Wait | None:
    """One call for everything that the batch has for this consumer."""
    parts = works[0].parts
    try:
        with parts.store.hold(f"group:{group}"):
            works = _begun(works)
            items, holders = _desired(group, batch, layout, parts)
            destination = group_destination(holders, group, parts)
            ctx = delivery_context(parts, {w.rotation.secret: w.rotation.epoch for w in works})
            result: Result = asked(parts, f"{destination.kind}.deliver", lambda: destination.deliver(group, items, ctx))
    except EpochLost:
        raise
    except Locked as busy:
        result = NotYet(str(busy), NEIGHBOUR_BUSY)

    def judged(work: Work) -> None:
        phase = phase_of(work)
        work.apply(judge.judge_delivered(work.rotation, group, work.groups(phase), result, parts.clock.now()))

    if isinstance(result, NotYet):
        return _Wait(works, result.after, judged, _Rank.PUT_OFF)
    if isinstance(result, Unknown):
        for work in works:  # it may have been delivered, whatever the next one answers
            work.apply(Change(replace(work.rotation, doubted=True)))
        return _Wait(works, result.retry_after or RETRY, judged, _Rank.UNKNOWN)
    going_back = [work for work in works if work.rotation.direction is Direction.BACK]
    later = isinstance(result, Refused) and result.why is not No.STALE
    for work in works:
        if later and work in going_back:
            continue
        if isinstance(result, Done):
            done, of = len(work.rotation.settled) + 1, len(work.groups(phase_of(work)))
            parts.watch(Event(work.rotation.secret, Step.DELIVER.value, f"{done} of {of}: {group}"))
        judged(work)
    return _Wait(going_back, RETRY, judged, _Rank.REFUSED) if later and going_back else None


def _begun(works: Sequence[Work]) -> Sequence[Work]:
    """Journalled and audited once in each phase. Who may not begin now keeps nobody from closing the gap."""
    closing = [work for work in works if closes_the_gap(work.rotation)]
    for work in closing:
        if not work.rotation.begun:
            work.begin()
    for work in works:
        before = work.rotation
        if before.begun:
            continue
        try:
            work.begin()
        except AuditUnwritable:
            if not closing:
                raise
            work.apply(Change(before))  # it was journalled as begun, and is not
    return [work for work in works if work.rotation.begun]


@dataclass(frozen=True)
class _Look:
    """What one confirm of a group said."""

    group: GroupKey
    answer: Confirmation
    timeout: timedelta
    puts_back: bool


def _look(group: GroupKey, works: Sequence[Work], batch: Sequence[Work], layout: Layout) -> _Look:
    """Does the consumer run on it?"""
    parts = works[0].parts
    items, holders = _desired(group, batch, layout, parts)
    destination = group_destination(holders, group, parts)
    answer: Confirmation | Refused = Confirmed(Proof.WRITTEN)
    if any(item.spec.read is not Read.FIRST_START for item in items):
        ctx = delivery_context(parts, {w.rotation.secret: w.rotation.epoch for w in works})
        answer = asked(parts, f"{destination.kind}.confirm", lambda: destination.confirm(group, items, ctx))
    if isinstance(answer, Refused):  # it could not look (a credential is gone): nobody was seen failing on it
        answer = Unknown(Login.UNREACHABLE, answer.detail)
    return _Look(group, answer, confirm_timeout(destination, group, items), destination.puts_back)


def _judge_look(look: _Look, works: Sequence[Work], batch: Sequence[Work]) -> None:
    """A definite failure sends back every rotation with an item in this group."""
    failed, now = isinstance(look.answer, Failed), works[0].parts.clock.now()
    affected = [w for w in batch if _carries_new(w, look.group)] if failed else []
    for work in affected or works:
        phase, rotation = work.rotation.phase, work.rotation
        groups = work.groups(phase) if phase is not None else frozenset[GroupKey]()
        if isinstance(look.answer, Confirmed):
            done = len(rotation.settled) + 1
            work.parts.watch(Event(rotation.secret, Step.CONFIRM.value, f"{done} of {len(groups)}: {look.group}"))
        work.apply(
            judge.judge_confirmed(
                rotation, look.group, groups, look.answer, now, timeout=look.timeout, puts_back=look.puts_back
            )
        )
    if failed:
        _confirm_again(affected, batch)


def _carries_new(work: Work, group: GroupKey) -> bool:
    """Has this rotation an item in the group whose new value may be what the consumer cannot run on?"""
    rotation = work.rotation
    if not rotation.open or rotation.finished or rotation.direction is Direction.BACK:
        return False
    carry = carried(rotation, Audience.CONSUMERS)
    return bool(carry) and End.TO in (carry or ()) and any(place.group == group for place in rotation.places)


def _confirm_again(gone_back: Sequence[Work], batch: Sequence[Work]) -> None:
    groups = frozenset(place.group for work in gone_back for place in work.rotation.places)
    for work in batch:
        if work not in gone_back:
            work.apply(Change(judge.confirm_again(work.rotation, groups)))


def _desired(group: GroupKey, batch: Sequence[Work], layout: Layout, parts: Parts) -> tuple[list[Item], list[Holder]]:
    """Every slot of ours in this group, from the journals at hand and from the store for everybody else's."""
    at_hand = {work.rotation.secret: work for work in batch}
    names = layout.secrets_in(group) | {
        work.rotation.secret for work in batch if any(place.group == group for place in work.rotation.places)
    }
    holders = [holder_of(name, at_hand.get(name), layout, parts) for name in sorted(names)]
    return [item for holder in holders for item in holder.items(group, parts)], holders


def holder_of(secret: str, work: Work | None, layout: Layout, parts: Parts) -> Holder:
    """One secret with its slots, as `work` has it in hand, else as the store has it."""
    if work is not None and work.rotation.open:
        return Holder(secret, work.rotation.policy, work.rotation.places, work.rotation, work.book)
    book = work.book if work is not None else Book(secret, parts.store, parts.envelope, parts.redactor)
    newest = parts.store.rotations(secret, limit=1)
    rotation = newest[0] if newest and newest[0].open and work is None else None
    policy = rotation.policy if rotation else parts.policies[secret]
    places = rotation.places if rotation else layout.places(secret)
    return Holder(secret, policy, places, rotation, book)
