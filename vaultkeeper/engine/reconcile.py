"""Store and systems disagree: a restored backup on either side, a destination put back or added.

Nothing here guesses. `reconcile` only looks; `apply` does the one proposal that a person chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vaultkeeper.engine.book import Book, bound_to
from vaultkeeper.engine.groups import Holder, asked, delivery_context, find_places
from vaultkeeper.engine.judge import Seen
from vaultkeeper.engine.observe import look, open_target
from vaultkeeper.engine.opening import new_rotation
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.rotate import newest_open
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import BackendError, NotFound, RotationFailed
from vaultkeeper.model.outcome import Done, Held, Login, Refused, Unknown
from vaultkeeper.model.rotation import Options, Placed, Purpose, Rotation, State
from vaultkeeper.model.secret import GroupKey, SecretVersion, StagingLabel
from vaultkeeper.ports import Change

SET_CURRENT = "set-current"
TAKE_PREVIOUS = "take-previous"
TRUST_STORE = "trust-store"
DELIVER = "deliver"


@dataclass(frozen=True)
class Proposal:
    """One direction. `key` is what a person answers."""

    key: str
    text: str


def reconcile(name: str, parts: Parts) -> list[Proposal]:
    """Compare, read-only. Empty: store, target and destinations agree. Raises BackendError where it cannot be asked."""
    work = _work(name, parts)
    seen = look(work)
    if isinstance(seen, Refused):
        raise BackendError(f"{name}: the target could not be asked", why=seen.detail)
    if Login.UNREACHABLE in (seen.from_, seen.previous) or Login.THROTTLED in (seen.from_, seen.previous):
        raise BackendError(f"{name}: the target gave no answer", why=seen.detail, next=f"vaultkeeper reconcile {name}")
    return [*_about_target(work, seen), *_about_destinations(work, parts)]


def _about_target(work: Work, seen: Seen) -> list[Proposal]:
    current, previous = work.rotation.from_version, work.rotation.previous_version
    if seen.newer_tag:
        text = (
            f"{seen.detail}: restore a newer backup of the state, or let this store's v{current} overwrite the target"
        )
        return [Proposal(TRUST_STORE, text)]
    if not seen.askable or seen.from_ in (None, Login.ACCEPTED):
        return []
    found = [Proposal(SET_CURRENT, f"the target refuses v{current} (CURRENT): set it there again")]
    if seen.previous is Login.ACCEPTED:
        text = f"the target accepts v{previous} (PREVIOUS): make it CURRENT and deliver it to every consumer"
        found.append(Proposal(TAKE_PREVIOUS, text))
    return found


def _about_destinations(work: Work, parts: Parts) -> list[Proposal]:
    current = work.rotation.from_version
    stray = [name for _, name, held in _held(work, parts) if held.version != current]
    if not stray or current is None:
        return []
    return [Proposal(DELIVER, f"not on v{current}: {', '.join(stray)}; deliver it there again")]


def _held(work: Work, parts: Parts) -> list[tuple[GroupKey, str, Held]]:
    found: list[tuple[GroupKey, str, Held]] = []
    holder = _holder(work, parts)
    for group in dict.fromkeys(place.group for place in holder.places):
        items = holder.items(group, parts)
        if not items:
            continue
        destination = parts.backends.destination(items[0].spec.kind)
        seen = asked(
            parts,
            f"{destination.kind}.observe",
            lambda d=destination, g=group, i=items: d.observe(g, i, delivery_context(parts)),  # type: ignore[misc]
        )
        if isinstance(seen, Unknown | Refused):
            raise BackendError(f"{group} could not be asked", why=seen.detail)
        found += [(group, place.name, seen[place.slot]) for place in holder.places if place.group == group]
    return found


def apply(name: str, key: str, parts: Parts) -> None:
    """Do one proposal. Idempotent. Raises NotFound for a key that is not proposed now, RotationFailed if it fails."""
    if key not in {proposal.key for proposal in reconcile(name, parts)}:
        raise NotFound(f"{name}: {key} is not proposed now", next=f"vaultkeeper reconcile {name}")
    with parts.store.hold(f"secret:{name}"):
        parts.store.audit({"event": "reconcile", "secret": name, "what": key})
        _close_stuck(name, parts, key)
        work = _work(name, parts)
        if key == TAKE_PREVIOUS:
            _swap_labels(work, parts)
            work = _work(name, parts)
        if key in {SET_CURRENT, TRUST_STORE}:
            _set_current(work, parts, overwrite=key == TRUST_STORE)
        _deliver_current(work, parts)


def _close_stuck(name: str, parts: Parts, key: str) -> None:
    """A rotation that parked or found nothing accepted has done nothing further; the chosen direction replaces it."""
    rotation = newest_open(name, parts)
    if rotation is None or rotation.state not in {State.PARKED, State.AMBIGUOUS}:
        return
    taken = parts.store.take(rotation.id)
    closed = replace(taken, state=State.ROLLED_BACK, ended_at=parts.clock.now(), detail=f"reconciled: {key}")
    parts.store.commit(Change(closed, labels={StagingLabel.PENDING: None}))


def _swap_labels(work: Work, parts: Parts) -> None:
    rotation = work.rotation
    labels = {StagingLabel.CURRENT: rotation.previous_version, StagingLabel.PREVIOUS: rotation.from_version}
    parts.store.amend(rotation.secret, Change(labels=labels))


def _set_current(work: Work, parts: Parts, *, overwrite: bool) -> None:
    current = _current(work)
    target = open_target(parts, current.binding)
    if target is None:
        return
    if overwrite:
        # The number must rise above the tag at the target, or every later run would find the store stale again.
        seen = asked(parts, f"{target.kind}.observe", lambda: target.observe([current], work.context()))
        if not isinstance(seen, Unknown | Refused) and seen.tag is not None:
            current = _renumbered(current, seen.tag.generation + 1, work, parts)
            work = _work(current.secret, parts)
    done = asked(parts, f"{target.kind}.set", lambda: target.set([current], [], work.context()))
    if not isinstance(done, Done):
        raise RotationFailed(f"{work.rotation.secret}: the target could not be set", why=getattr(done, "detail", ""))


def _renumbered(version: SecretVersion, at_least: int, work: Work, parts: Parts) -> SecretVersion:
    number = parts.store.next_number(version.secret, at_least)
    sealed = parts.envelope.seal(version.fields, secret=version.secret, bound_to=bound_to(number, version.id))
    record = replace(work.book.record(version.number), number=number, sealed=sealed)
    labels = {StagingLabel.CURRENT: number, StagingLabel.PREVIOUS: work.rotation.previous_version}
    parts.store.amend(version.secret, Change(new_version=record, labels=labels))
    return replace(version, number=number)


def _deliver_current(work: Work, parts: Parts) -> None:
    holder = _holder(work, parts)
    for group in dict.fromkeys(place.group for place in holder.places):
        items = holder.items(group, parts)
        if not items:
            continue
        destination = parts.backends.destination(items[0].spec.kind)
        with parts.store.hold(f"group:{group}"):
            for hook in (destination.prepare, destination.deliver):
                answer = asked(
                    parts,
                    f"{destination.kind}.{hook.__name__}",
                    lambda h=hook, g=group, i=items: h(g, i, delivery_context(parts)),  # type: ignore[misc]
                )
                if isinstance(answer, Unknown | Refused):
                    raise RotationFailed(f"{group} could not be delivered", why=answer.detail)


def _current(work: Work) -> SecretVersion:
    current = work.book.maybe(work.rotation.from_version)
    if current is None:
        name = work.rotation.secret
        raise NotFound(f"{name} has no current version", next=f"vaultkeeper adopt {name}")
    return current


def _holder(work: Work, parts: Parts) -> Holder:
    places = find_places(work.rotation.policy, parts, delivery_context(parts))
    found: Sequence[Placed] = places if isinstance(places, tuple) else ()
    return Holder(work.rotation.secret, work.rotation.policy, tuple(found), None, work.book)


def _work(name: str, parts: Parts) -> Work:
    """A rotation that is never journalled: it only carries the versions to be compared."""
    rotation: Rotation = new_rotation(name, parts, Purpose.ROTATE, Options())
    return Work(rotation, parts, Book(name, parts.store, parts.envelope, parts.redactor))
