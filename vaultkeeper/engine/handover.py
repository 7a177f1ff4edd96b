"""Deliver and confirm, a whole group at a time, for every rotation of the command that has a slot in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from vaultkeeper.engine import judge
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import (
    Holder,
    Layout,
    asked,
    confirm_timeout,
    delivery_context,
    group_destination,
)
from vaultkeeper.engine.moves import advance
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.plan import carried
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import EpochLost, Locked
from vaultkeeper.model.outcome import (
    Confirmation,
    Confirmed,
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
from vaultkeeper.model.rotation import Audience, Direction, End, Step
from vaultkeeper.model.secret import GroupKey
from vaultkeeper.ports import Change, Item

NEIGHBOUR_BUSY = timedelta(milliseconds=200)  # until a group that another process is delivering is tried again


def hand_over(awake: Sequence[Work], works: Sequence[Work], layout: Layout) -> None:
    """All awake rotations stand at a delivery or a confirm: checkers first, then deliveries, confirms last.

    Consumers follow their checker; a group that a neighbour still delivers is not confirmed too early. `works` are
    those asleep too: they have slots in the same groups, and go back with the others.
    """
    for audience in (Audience.CHECKER, Audience.CONSUMERS):
        for step, act in ((Step.DELIVER, _deliver), (Step.CONFIRM, _confirm)):
            there = [
                w
                for w in awake
                if w.rotation.phase and (w.rotation.phase.step, w.rotation.phase.audience) == (step, audience)
            ]
            if there:
                _pass_without_places(there)
                for group in _next_groups(there):
                    act(group, [w for w in there if _waits_for(w, group)], works, layout)
                return


def _pass_without_places(works: Sequence[Work]) -> None:
    """A policy without destinations is valid: there is nothing to hand over."""
    for work in works:
        phase = work.rotation.phase
        if phase is not None and not work.groups(phase):
            work.apply(advance(work.rotation, work.parts.clock.now()))


def _next_groups(works: Sequence[Work]) -> list[GroupKey]:
    """In the written order of the destinations."""
    groups: dict[GroupKey, None] = {}
    for work in works:
        phase = work.rotation.phase
        if phase is not None and phase.step in {Step.DELIVER, Step.CONFIRM}:
            groups |= {place.group: None for place in work.places(phase.audience) if _waits_for(work, place.group)}
    return list(groups)


def _waits_for(work: Work, group: GroupKey) -> bool:
    phase = work.rotation.phase
    if phase is None or phase.step not in {Step.DELIVER, Step.CONFIRM}:
        return False
    now = work.parts.clock.now()
    return work.awake(now) and group in work.groups(phase) and group not in work.rotation.settled


def _deliver(group: GroupKey, works: Sequence[Work], batch: Sequence[Work], layout: Layout) -> None:
    """One call for everything that the batch has for this consumer."""
    if not works:
        return
    parts = works[0].parts
    try:
        with parts.store.hold(f"group:{group}"):
            for work in works:
                work.begin()
            items, holders = _desired(group, batch, layout, parts)
            destination = group_destination(holders, group, parts)
            ctx = delivery_context(parts, {w.rotation.secret: w.rotation.epoch for w in works})
            result: Result = asked(parts, f"{destination.kind}.deliver", lambda: destination.deliver(group, items, ctx))
    except EpochLost:
        raise
    except Locked as busy:
        result = NotYet(str(busy), NEIGHBOUR_BUSY)
    now = parts.clock.now()
    for work in works:
        phase = work.rotation.phase
        if phase is not None:
            work.apply(judge.judge_delivered(work.rotation, group, work.groups(phase), result, now))


def _confirm(group: GroupKey, works: Sequence[Work], batch: Sequence[Work], layout: Layout) -> None:
    """Does the consumer run on it? A definite failure sends back every rotation with an item in this group."""
    if not works:
        return
    parts = works[0].parts
    items, holders = _desired(group, batch, layout, parts)
    destination = group_destination(holders, group, parts)
    answer: Confirmation | Refused = Confirmed(Proof.WRITTEN)
    if any(item.spec.read is not Read.FIRST_START for item in items):
        ctx = delivery_context(parts, {w.rotation.secret: w.rotation.epoch for w in works})
        answer = asked(parts, f"{destination.kind}.confirm", lambda: destination.confirm(group, items, ctx))
    if isinstance(answer, Refused):
        answer = Failed(str(group), answer.detail) if answer.why is not No.CONFLICT else Unknown(Login.UNREACHABLE)
    affected = [w for w in batch if _carries_new(w, group)] if isinstance(answer, Failed) else list(works)
    timeout, now = confirm_timeout(destination, group, items), parts.clock.now()
    for work in affected or works:
        phase = work.rotation.phase
        groups = work.groups(phase) if phase is not None else frozenset[GroupKey]()
        work.apply(
            judge.judge_confirmed(
                work.rotation, group, groups, answer, now, timeout=timeout, puts_back=destination.puts_back
            )
        )
    if isinstance(answer, Failed):
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
    holders = [_holder(name, at_hand.get(name), layout, parts) for name in sorted(names)]
    return [item for holder in holders for item in holder.items(group, parts)], holders


def _holder(secret: str, work: Work | None, layout: Layout, parts: Parts) -> Holder:
    if work is not None and work.rotation.open:
        return Holder(secret, work.rotation.policy, work.rotation.places, work.rotation, work.book)
    book = work.book if work is not None else Book(secret, parts.store, parts.envelope, parts.redactor)
    newest = parts.store.rotations(secret, limit=1)
    rotation = newest[0] if newest and newest[0].open and work is None else None
    policy = rotation.policy if rotation else parts.policies[secret]
    places = rotation.places if rotation else layout.places(secret)
    return Holder(secret, policy, places, rotation, book)
