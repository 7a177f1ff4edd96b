"""A rotation is opened, or taken over from whoever drove it before. The caller holds the secret."""

from __future__ import annotations

import secrets
from dataclasses import replace

from vaultkeeper.engine import moves
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Event, Parts
from vaultkeeper.engine.plan import KEEPS_OLD, REHEARSABLE, by_hand, plan, shape_of
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import UsageError
from vaultkeeper.model.rotation import Cause, Direction, Options, Purpose, Rotation, State
from vaultkeeper.model.secret import StagingLabel
from vaultkeeper.ports import Change, VersionChange


def newest_open(name: str, parts: Parts) -> Rotation | None:
    """The one open rotation of a secret, if there is one (invariant 4)."""
    newest = parts.store.rotations(name, limit=1)
    return newest[0] if newest and newest[0].open else None


def open_work(name: str, parts: Parts, purpose: Purpose, options: Options, superseded: Rotation | None = None) -> Work:
    """Journal a new rotation with its phases. The caller holds the secret."""
    rotation = new_rotation(name, parts, purpose, options)
    if superseded is None and options.replace:
        superseded = _replaced(name, parts)
    if superseded is None and purpose is Purpose.EMERGENCY:
        superseded = _overtaken(name, parts)
    if superseded is not None:  # until its own look says otherwise
        inherited = superseded.cause if superseded.cause is Cause.NONE_ACCEPTED else superseded.gone
        rotation = replace(rotation, gone=inherited)
    leaked = rotation.from_version if purpose is Purpose.EMERGENCY else None
    facts = None if leaked is None else {leaked: VersionChange(compromised=True)}
    opened = parts.store.open_rotation(rotation, Change(rotation=superseded, facts=facts))
    parts.watch(Event(name, "open", purpose.value))
    return Work(opened, parts, Book(name, parts.store, parts.envelope, parts.redactor))


def replaceable(rotation: Rotation, *, replace: bool) -> bool:
    """With `--replace` an administrator overwrites where nothing of ours was accepted (rotation.md section 3)."""
    return replace and rotation.state is State.AMBIGUOUS


def _replaced(name: str, parts: Parts) -> Rotation | None:
    newest = next(iter(parts.store.rotations(name, limit=1)), None)
    if newest is None or not replaceable(newest, replace=True):
        return None
    return moves.replaced(giving_way(newest, parts), parts.clock.now())


def giving_way(rotation: Rotation, parts: Parts) -> Rotation:
    """Taken over to be ended by another choice: what its journal owes the audit log is written first."""
    taken = parts.store.take(rotation.id)
    for record in taken.unaudited:
        parts.store.audit(record)
    return replace(taken, unaudited=())


def _overtaken(name: str, parts: Parts) -> Rotation | None:
    """A leak waits for no retirement of the version before: what that one left, the emergency releases and refuses."""
    newest = newest_open(name, parts)
    if newest is None or not overtakable(newest):
        return None
    taken = giving_way(newest, parts)
    if not newest.finished:
        return moves.replaced(taken, parts.clock.now())
    return moves.superseded(taken, parts.clock.now()).rotation


def overtakable(rotation: Rotation) -> bool:
    """Does an emergency take its place: has it finished, or does it wait calmly for a value?"""
    return rotation.finished or (awaits_value(rotation) and rotation.purpose is not Purpose.EMERGENCY)


def awaits_value(rotation: Rotation) -> bool:
    """Has a person still to give the value, so that nothing was begun yet?"""
    going = rotation.direction is Direction.FORWARD and rotation.purpose is not Purpose.ROLLBACK
    return going and by_hand(rotation.policy) and rotation.to_version is None


def takes_value(rotation: Rotation) -> bool:
    """Does a person's value go on with it, or take its place?"""
    return awaits_value(rotation) or replaceable(rotation, replace=True)


def new_rotation(name: str, parts: Parts, purpose: Purpose, options: Options) -> Rotation:
    """As it would be journalled now; nothing is written. Raises UsageError for a rehearsal that cannot be."""
    policy, now = parts.policies[name], parts.clock.now()
    labels = parts.store.labels(name)
    current, previous = labels.get(StagingLabel.CURRENT), labels.get(StagingLabel.PREVIOUS)
    shape = shape_of(policy, first=current is None, purpose=purpose, data_loss=options.data_loss)
    if purpose is Purpose.REHEARSE and (shape.strategy not in REHEARSABLE or shape.via or shape.first):
        raise UsageError(f"{name} cannot be rehearsed", why="only a second value beside the first one can be tried")
    if purpose is Purpose.EMERGENCY and shape.strategy in KEEPS_OLD and not shape.first:
        _ask_about_old_data(name, options)
    return Rotation(
        id=secrets.token_hex(16),
        secret=name,
        policy=policy,
        phases=plan(shape),
        opened_at=now,
        entered_at=now,
        purpose=purpose,
        options=options,
        from_version=current,
        previous_version=previous,
        value_refusals=_value_refusals(name, parts),
    )


def _ask_about_old_data(name: str, options: Options) -> None:
    """rotation.md section 12: the leaked key still opens old data, so what becomes of that is never silent."""
    if options.keep_old_key == options.data_loss:
        raise UsageError(
            f"{name}: what becomes of the data that the leaked key protects?",
            why="as long as the key stays in the fallback list it opens that data; without it nobody can",
            next=f"re-encrypt it, then   vaultkeeper rotate {name} --emergency --data-loss   or --keep-old-key",
        )


def take_up(
    rotation: Rotation, parts: Parts, *, hasten: bool = False, forward: bool = True, said: Options | None = None
) -> Work:
    """Take an open rotation over with the next epoch; what was begun has an unknown outcome.

    `said`: what a person declares only now, of a target that is gone, of laggards, of a value that is revoked.
    """
    now = parts.clock.now()
    journalled = moves.taken_up(parts.store.take(rotation.id))
    taken = on_this_clock = moves.on_this_clock(journalled, now)
    if forward:
        taken = moves.resumed(taken, now)
    if hasten and taken.finished:
        taken = moves.hastened(taken, now)
    if said is not None:
        earlier = taken.options
        both = replace(
            earlier,
            reason=said.reason or earlier.reason,
            replace=said.replace or earlier.replace,
            forget_old=said.forget_old or earlier.forget_old,
            cut=said.cut or earlier.cut,
            revoked=said.revoked or earlier.revoked,
        )
        taken = replace(taken, options=both)
    work = Work(taken, parts, Book(taken.secret, parts.store, parts.envelope, parts.redactor))
    if on_this_clock is not journalled:  # or it would be entered now at every look
        work.apply(Change(taken))
    return work


def _value_refusals(name: str, parts: Parts) -> int:
    """How many rotations in a row, up to now, ended because the target refused the value by its own rules."""
    count = 0
    for rotation in parts.store.rotations(name, limit=moves.MAX_VALUE_REFUSALS):
        if rotation.state is not State.ROLLED_BACK or rotation.cause is not Cause.VALUE:
            break
        count += 1
    return count
