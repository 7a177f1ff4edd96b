"""Back to the value before, as far as the systems allow it (rotation.md section 11).

Before FINISH the open rotation turns round. Afterwards PREVIOUS's fields become a new version in a rotation of their
own, which supersedes one still in grace in the same transaction.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from vaultkeeper.engine import moves
from vaultkeeper.engine.opening import giving_way, newest_open, open_work, take_up
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.plan import ROLLS_BACK_AFTER_RETIRE, by_hand
from vaultkeeper.engine.rotate import Report, run
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import NotFound, UsageError
from vaultkeeper.model.rotation import Direction, Options, Purpose, Rotation, State, Step
from vaultkeeper.model.secret import Acceptance, StagingLabel, VersionRecord

UNDONE = frozenset({Step.PREPARE, Step.MINT, Step.SET, Step.DELIVER})


def rollback(
    name: str, parts: Parts, *, wait: timedelta | None = None, reason: str = "", again: bool = False
) -> Report:
    """Drive the secret back and report. Raises NotFound, UsageError where there is no way back.

    Said twice, as whoever lost the connection does, it goes on or is refused; `again`: undo a rollback.
    """
    if name not in parts.policies and name not in parts.store.secrets():
        raise NotFound(f"no secret is called {name}", next="vaultkeeper status   lists them")
    rotation = newest_open(name, parts)
    if rotation is not None and not again and _is_under_way(rotation):
        opener = partial(take_up, rotation, parts)
    elif rotation is not None and not rotation.finished:
        _refuse_the_leaked(rotation, parts)
        opener = partial(_turn_round, rotation, parts)
    else:
        if name not in parts.policies:  # before an epoch is taken: an open rotation would have its snapshot
            raise NotFound(f"{name}: its policy is gone", next=f"put it back, or   vaultkeeper forget {name}")
        _refuse_the_impossible(name, parts)
        if not again:
            _refuse_the_repeated(name, parts)
        opener = partial(_open_back, name, parts, rotation, Options(reason=reason))
    return run({name: opener}, parts, by_name=True, wait=wait)[0]


def _is_under_way(rotation: Rotation) -> bool:
    """Is it a rollback itself, that nothing but time or a kill has stopped?"""
    forward = rotation.direction is Direction.FORWARD and not rotation.finished
    return rotation.purpose is Purpose.ROLLBACK and forward and rotation.state in {State.RUNNING, State.WAITING}


def _refuse_the_leaked(rotation: Rotation, parts: Parts) -> None:
    """Turning round would hand over and set the version that it left. Where nothing is to be undone, it only ends."""
    left = next((r for r in parts.store.versions(rotation.secret) if r.number == rotation.from_version), None)
    begun = {phase.step for phase in rotation.phases[: rotation.reached + 1]}
    is_back = rotation.direction is Direction.BACK and rotation.phase is None
    if left is None or not left.compromised or is_back or not begun & UNDONE:
        return
    forward = f"vaultkeeper resume {rotation.secret}"
    if rotation.purpose is Purpose.EMERGENCY:
        forward += f"   or   vaultkeeper rotate {rotation.secret} --emergency --cut"
    raise UsageError(
        f"{rotation.secret}: v{left.number}, which this rotation left, is marked compromised",
        why="a leaked value never becomes the current one again",
        works="nothing was changed by this command",
        next=forward,
    )


def _turn_round(rotation: Rotation, parts: Parts) -> Work:
    work = take_up(rotation, parts, forward=False)
    work.apply(moves.sent_back(work.rotation, parts.clock.now()))
    return work


def _open_back(name: str, parts: Parts, in_grace: Rotation | None, options: Options) -> Work:
    superseded = None
    if in_grace is not None:
        superseded = moves.superseded(giving_way(in_grace, parts), parts.clock.now()).rotation
    return open_work(name, parts, Purpose.ROLLBACK, options, superseded)


def _refuse_the_impossible(name: str, parts: Parts) -> None:
    previous = _previous(name, parts)
    if previous is None or previous.sealed is None:
        raise UsageError(f"{name} has no previous version to go back to", next=f"vaultkeeper rotate {name}")
    if previous.compromised:
        raise UsageError(
            f"{name}: v{previous.number} is marked compromised",
            why="a leaked value never becomes the current one again",
            next=f"vaultkeeper rotate {name}",
        )
    retired = previous.acceptance is Acceptance.REFUSED
    spec = parts.policies[name].target
    if retired and by_hand(parts.policies[name]) and spec is not None and spec.unverified:
        raise UsageError(
            f"{name}: v{previous.number} is revoked, as a person said",
            why="nothing here can show that it is accepted again",
            works="nothing was changed by this command",
            next=f"vaultkeeper import {name}",
        )
    if retired and previous.binding.strategy not in ROLLS_BACK_AFTER_RETIRE:
        raise UsageError(
            f"{name}: v{previous.number} was deleted at its system",
            why="a value that the system itself made cannot be set again",
            next=f"vaultkeeper rotate {name}",
        )


def _refuse_the_repeated(name: str, parts: Parts) -> None:
    """Where CURRENT came by a rollback, PREVIOUS is what that one left."""
    current = parts.store.labels(name).get(StagingLabel.CURRENT)
    last = next((r for r in parts.store.rotations(name) if r.to_version == current), None)
    if last is not None and last.purpose is Purpose.ROLLBACK:
        raise UsageError(
            f"{name}: v{current} is a rollback already",
            why=f"once more would bring back v{last.from_version}, which it left",
            works="nothing was changed by this command",
            next=f"vaultkeeper rotate {name}   for a new value, or   vaultkeeper rollback {name} --again",
        )


def _previous(name: str, parts: Parts) -> VersionRecord | None:
    number = parts.store.labels(name).get(StagingLabel.PREVIOUS)
    return next((record for record in parts.store.versions(name) if record.number == number), None)
