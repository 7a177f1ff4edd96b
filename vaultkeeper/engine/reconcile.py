"""Store and systems disagree: a restored backup on either side, a destination put back or added.

Nothing here guesses. `reconcile` only looks; `apply` does the one proposal that a person chose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from vaultkeeper.engine import moves
from vaultkeeper.engine.book import Book, bound_to
from vaultkeeper.engine.groups import Holder, asked, delivery_context, find_places
from vaultkeeper.engine.judge import Seen
from vaultkeeper.engine.observe import held_now, look, newest_generation
from vaultkeeper.engine.opening import giving_way, new_rotation, newest_open, takes_value
from vaultkeeper.engine.parts import Parts, open_target
from vaultkeeper.engine.plan import SET_AGAIN, by_hand
from vaultkeeper.engine.redeliver import deliver_current, places_of
from vaultkeeper.engine.verdict import described, import_or_adopt
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import AlreadyOpen, BackendError, NotFound, RotationFailed, VaultkeeperError
from vaultkeeper.model import duration
from vaultkeeper.model.outcome import Done, Login, Refused, Unknown
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, Direction, Options, Purpose, Rotation, State
from vaultkeeper.model.secret import SecretVersion, StagingLabel
from vaultkeeper.ports import Change, Context

SET_CURRENT = "set-current"
TAKE_PREVIOUS = "take-previous"
TRUST_STORE = "trust-store"
DELIVER = "deliver"
STUCK = frozenset({State.PARKED, State.AMBIGUOUS})
ELSEWHERE = moves.NOTHING_IS_BACK | {Cause.DRIFT}
"""Why a rotation stands that set nothing of its own, or whose target holds something else: here alone may a delivery
of CURRENT end it. Any other one has its new value out there, and only going on or going back takes one of them away."""


@dataclass(frozen=True)
class Proposal:
    """One direction. `key` is what a person answers."""

    key: str
    text: str


def reconcile(name: str, parts: Parts) -> list[Proposal]:
    """Compare, read-only. Empty: store, target and destinations agree.

    Raises NotFound without a policy, BackendError where it cannot be asked, AlreadyOpen where the difference is what
    an open rotation has not finished, RotationFailed where nothing but a new value can help.
    """
    _refuse_without_policy(name, parts)
    work = _work(name, parts)
    try:
        seen = look(work)
    finally:
        work.close()
    if isinstance(seen, Refused):
        raise BackendError(f"{name}: the target could not be asked", why=seen.detail)
    if Login.UNREACHABLE in (seen.from_, seen.previous) or Login.THROTTLED in (seen.from_, seen.previous):
        wait = f"; wait {duration.show(seen.retry_after)}" if seen.retry_after else ""
        raise BackendError(
            f"{name}: the target gave no answer", why=f"{seen.detail}{wait}", next=f"vaultkeeper reconcile {name}"
        )
    return _about_target(work, seen) or _about_destinations(work, parts)  # each of the former delivers, too


def _refuse_without_policy(name: str, parts: Parts) -> None:
    if name in parts.policies:
        return
    if name not in parts.store.secrets():
        raise NotFound(f"no secret is called {name}", next="vaultkeeper status   lists them")
    opened = newest_open(name, parts)
    leave = f"vaultkeeper forget {name}" if opened is None else f"vaultkeeper resume {name}"
    raise NotFound(f"{name}: its policy is gone", next=f"put it back, or   {leave}")


def _about_target(work: Work, seen: Seen) -> list[Proposal]:
    name, current, previous = work.rotation.secret, work.rotation.from_version, work.rotation.previous_version
    if seen.newer_tag and current is None:
        raise RotationFailed(
            f"{name}: {seen.detail}",
            why="this store has no version of it at all",
            works="what the target was given by the store that wrote there last",
            next=f"restore a newer backup of the state, or   vaultkeeper adopt {name}   with the value that works",
        )
    if seen.newer_tag:
        if _leaked(work, current):
            raise _nothing_to_propose(work, seen.detail)
        text = (
            f"{seen.detail}: restore a newer backup of the state, or let this store's v{current} overwrite the target"
        )
        return [Proposal(TRUST_STORE, text)]
    if not seen.askable or seen.from_ in (None, Login.ACCEPTED):
        return []
    found = []
    settable = _current(work).binding.strategy in SET_AGAIN
    if settable and not _leaked(work, current):
        found.append(Proposal(SET_CURRENT, f"the target refuses v{current} (CURRENT): set it there again"))
    if seen.previous is Login.ACCEPTED and not _leaked(work, previous):
        text = f"the target accepts v{previous} (PREVIOUS): make it CURRENT and deliver it to every consumer"
        found.append(Proposal(TAKE_PREVIOUS, text))
    if not found:
        alive = previous if seen.previous is Login.ACCEPTED else None  # and it leaked, or it would be proposed
        raise _nothing_to_propose(work, f"the target refuses v{current} (CURRENT)", alive)
    return found


def _leaked(work: Work, number: int | None) -> bool:
    return number is not None and work.book.record(number).compromised


def _nothing_to_propose(work: Work, what: str, alive: int | None = None) -> VaultkeeperError:
    """`alive`: a leaked version that the target accepts."""
    name, opened = work.rotation.secret, newest_open(work.rotation.secret, work.parts)
    if opened is not None and _unfinished_business(opened):
        return _open_already(opened, work)
    leaked = _leaked(work, work.rotation.from_version)
    adopt, overwrite = f"vaultkeeper adopt {name}   with a value that works", f"vaultkeeper rotate {name} --replace"
    if by_hand(work.rotation.policy) and (opened is None or takes_value(opened)):
        helps = import_or_adopt(name)
    elif opened is None or opened.state is State.AMBIGUOUS:
        helps = overwrite
    elif opened.cause is Cause.TARGET_WENT_BACK and _did_nothing(opened):
        helps = f"{adopt}, or   vaultkeeper rollback {name}   and then   {overwrite}"
    elif opened.cause is Cause.DRIFT:
        helps = f"put the consumers right by hand, then   vaultkeeper resume {name}"
    else:
        helps = f"restore a newer backup of the state, or   {adopt}" if opened.cause is Cause.STALE else adopt
    return RotationFailed(
        f"{name}: {what}",
        why="a leaked value never becomes the current one again"
        if leaked
        else "only a person can make a value there"
        if by_hand(work.rotation.policy)
        else "a value that the system itself made cannot be set again",
        works=f"v{alive} (PREVIOUS) alone, and it leaked: nobody is handed it again"
        if alive
        else "nothing was changed by this command"
        if leaked
        else "none of the newest stored versions was accepted",
        next=helps,
    )


def _did_nothing(rotation: Rotation) -> bool:
    """Has it made no value yet, so that `rollback` ends it at once?"""
    return rotation.to_version is None and rotation.direction is Direction.FORWARD


def _unfinished_business(rotation: Rotation) -> bool:
    """Has it a new value out there that nobody took back yet?"""
    return not rotation.finished and not _stopped_elsewhere(rotation)


def _stopped_elsewhere(rotation: Rotation) -> bool:
    """Has it stopped for a difference that is gone now? `resume` would go on to a new value."""
    return not rotation.finished and rotation.state in STUCK and rotation.cause in ELSEWHERE


def _open_already(rotation: Rotation, work: Work) -> AlreadyOpen:
    forward, back = f"vaultkeeper resume {rotation.secret}", f"vaultkeeper rollback {rotation.secret}"
    return AlreadyOpen(
        f"a rotation of {rotation.secret} is open",
        why=described(rotation),
        works="nothing was changed by this command",
        next=forward if _leaked(work, rotation.from_version) else f"{forward}   (forward)   or   {back}   (back)",
    )


def _about_destinations(work: Work, parts: Parts) -> list[Proposal]:
    current = work.rotation.from_version
    stray = [place.name for place, held in held_now(_holder(work, parts), parts) if held.version != current]
    opened = newest_open(work.rotation.secret, parts)
    if current is not None and not stray and opened is not None and _stopped_elsewhere(opened):
        text = f"all agree on v{current}: ask its consumers once more, and close what stands {described(opened)}"
        return [] if _leaked(work, current) else [Proposal(DELIVER, text)]
    if not stray or current is None:
        return []
    if opened is not None and _unfinished_business(opened):
        raise _open_already(opened, work)
    text = f"not on v{current}: {', '.join(stray)}"
    if _leaked(work, current):
        raise _nothing_to_propose(work, text)
    return [Proposal(DELIVER, f"{text}; deliver it there again")]


def apply(name: str, key: str, parts: Parts) -> None:
    """Do one proposal. Idempotent: what a failure leaves is proposed again.

    Raises NotFound for a key that is not proposed now, AlreadyOpen where a rotation must come to rest first,
    RotationFailed where a system does not follow.
    """
    with parts.store.hold(f"secret:{name}"):
        if key not in {proposal.key for proposal in reconcile(name, parts)}:
            raise NotFound(f"{name}: {key} is not proposed now", next=f"vaultkeeper reconcile {name}")
        places = places_of(parts.policies[name], parts)  # before anything is changed
        journal = _taken(name, key, parts)
        parts.store.audit({"event": "reconcile", "secret": name, "what": key, "epoch": journal.epoch})
        if key == TAKE_PREVIOUS:
            _swap_labels(_work(name, parts), journal, parts)
        if key in {SET_CURRENT, TRUST_STORE}:
            _set_current(_work(name, parts), journal, parts)
        in_grace = journal if journal.finished and key in {DELIVER, SET_CURRENT} else None
        deliver_current(name, places, _work(name, parts).book, in_grace, parts)
        if key != DELIVER and _set_by_delivery(parts.policies[name]):
            _prove_current(name, parts)
        closed = _closed(journal, key, parts.clock.now())
        if closed is not None:
            parts.store.audit({"event": "end", "secret": name, "what": closed.state.value, "rotation": closed.id})
            parts.store.commit(Change(closed, labels={StagingLabel.PENDING: None}))


def _taken(name: str, key: str, parts: Parts) -> Rotation:
    """The rotation under whose epoch we write: without one a target with a fence would take us for a latecomer.

    Where none is open, one is opened parked, so that a crash leaves `reconcile` as the next command.
    """
    rotation = newest_open(name, parts)
    if rotation is None:
        new = new_rotation(name, parts, Purpose.ROTATE, Options(reason=f"reconcile: {key}"))
        cause = Cause.STALE if key == TRUST_STORE else Cause.TARGET_WENT_BACK if key != DELIVER else Cause.DRIFT
        return parts.store.open_rotation(replace(new, state=State.PARKED, cause=cause), Change())
    if not rotation.finished and rotation.state not in STUCK:
        raise _open_already(rotation, _work(name, parts))
    return giving_way(rotation, parts)


def _closed(journal: Rotation, key: str, now: datetime) -> Rotation | None:
    """A chosen direction replaces what was stuck, and a retirement whose ends were exchanged; else it stays open."""
    ended = moves.replaced(journal, now)
    if journal.state in STUCK and not journal.finished:
        return replace(ended, cause=None, detail=f"reconciled: {key}")
    if journal.finished and key in {TAKE_PREVIOUS, TRUST_STORE}:
        return replace(ended, state=State.DONE)
    return None


def _swap_labels(work: Work, journal: Rotation, parts: Parts) -> None:
    rotation = work.rotation
    labels = {StagingLabel.CURRENT: rotation.previous_version, StagingLabel.PREVIOUS: rotation.from_version}
    parts.store.commit(Change(journal, labels=labels))


def _set_current(work: Work, journal: Rotation, parts: Parts) -> None:
    name, current = work.rotation.secret, _current(work)
    target = open_target(parts, current.binding)
    if target is None or _set_by_delivery(work.rotation.policy):
        return

    def context() -> Context:
        return replace(work.context(), epoch=journal.epoch)

    try:
        newest = max([newest_generation(work), *work.book.records()])
    finally:
        work.close()
    if newest > current.number:
        # Our number must rise above the tag and above what a latecomer may still write, or it would find us stale.
        current = _renumbered(current, newest + 1, work, journal, parts)
    done = asked(parts, f"{target.kind}.set", lambda: target.set([current], [], context()))
    if not isinstance(done, Done):
        raise RotationFailed(
            f"{name}: the target could not be set",
            why=getattr(done, "detail", ""),
            works="whatever worked before: nothing was delivered to anybody",
            next=f"vaultkeeper reconcile {name}",
        )
    _prove_current(name, parts)


def _set_by_delivery(policy: RotationPolicy) -> bool:
    """A checker behind a destination reads what is delivered there."""
    return policy.target is not None and policy.target.via is not None


def _prove_current(name: str, parts: Parts) -> None:
    """What was set is accepted, before anybody is told that it is done. Raises RotationFailed."""
    work = _work(name, parts)
    try:
        seen = look(work)
    finally:
        work.close()
    if isinstance(seen, Seen) and (not seen.askable or seen.from_ in (None, Login.ACCEPTED)):
        return
    refused = isinstance(seen, Seen) and seen.from_ is Login.REJECTED
    raise RotationFailed(
        f"{name}: v{work.rotation.from_version} was set, "
        + ("and the target refuses it" if refused else "and the target gave no answer to a login with it"),
        why=seen.detail,
        works=f"nothing for certain: v{work.rotation.from_version} could not be proven",
        next=f"vaultkeeper reconcile {name}   when the target answers, or   vaultkeeper resume {name}",
    )


def _renumbered(version: SecretVersion, at_least: int, work: Work, journal: Rotation, parts: Parts) -> SecretVersion:
    number = parts.store.next_number(version.secret, at_least)
    sealed = parts.envelope.seal(version.fields, secret=version.secret, bound_to=bound_to(number, version.id))
    record = replace(work.book.record(version.number), number=number, sealed=sealed)
    labels = {StagingLabel.CURRENT: number, StagingLabel.PREVIOUS: work.rotation.previous_version}
    parts.store.commit(Change(journal, new_version=record, labels=labels))
    work.book.forget()
    return replace(version, number=number)


def _current(work: Work) -> SecretVersion:
    current = work.book.maybe(work.rotation.from_version)
    if current is None:
        name = work.rotation.secret
        raise NotFound(f"{name} has no current version", next=f"vaultkeeper adopt {name}")
    return current


def _holder(work: Work, parts: Parts) -> Holder:
    places = find_places(work.rotation.policy, parts, delivery_context(parts))
    if isinstance(places, Unknown | Refused):
        raise BackendError(f"{work.rotation.secret}: its consumers could not be listed", why=places.detail)
    return Holder(work.rotation.secret, work.rotation.policy, places, None, work.book)


def _work(name: str, parts: Parts) -> Work:
    """A rotation that is never journalled: it only carries the versions to be compared."""
    rotation: Rotation = new_rotation(name, parts, Purpose.ROTATE, Options())
    return Work(rotation, parts, Book(name, parts.store, parts.envelope, parts.redactor))
