"""What a rotation's journal means for people: exit code, which value works right now, what to do next. Pure."""

from __future__ import annotations

from vaultkeeper.engine.judge import needs_observation
from vaultkeeper.engine.moves import NOTHING_IS_BACK
from vaultkeeper.engine.plan import by_hand, keeps_old, one_at_a_time
from vaultkeeper.errors import HalfApplied, RotationFailed, VaultkeeperError
from vaultkeeper.model.rotation import Audience, Cause, Direction, End, Purpose, Rotation, State, Step, Waiting

CHANGES_WHAT_WORKS = frozenset({Step.MINT, Step.SET, Step.DELIVER})


def consumers_served(rotation: Rotation) -> bool:
    """Is every consumer proven to hold an accepted value, judging by the journal alone?"""
    if _nothing_is_back(rotation) or rotation.cause in {Cause.DRIFT, Cause.OLD_REFUSED}:
        return False
    if rotation.finished:
        return not rotation.unverified.startswith("cut ")
    if rotation.direction is Direction.BACK:
        left = {phase.step for phase in rotation.back[rotation.at :]}
        if one_at_a_time(rotation.policy):
            return not left & {Step.SET, Step.DELIVER, Step.CONFIRM}
        return rotation.state is not State.PARKED or not left & {Step.DELIVER, Step.CONFIRM}
    return not (one_at_a_time(rotation.policy) and needs_observation(rotation))


def _nothing_is_back(rotation: Rotation) -> Cause | None:
    """Why the target does not accept what consumers had, as far as the journal knows."""
    if rotation.cause in NOTHING_IS_BACK:
        return rotation.cause
    return None if rotation.finished else rotation.gone


def closes_the_gap(rotation: Rotation) -> bool:
    """Does the present phase hand consumers the one value that the target may accept already?"""
    phase = rotation.phase
    to_consumers = phase is not None and phase.step is Step.DELIVER and phase.audience is Audience.CONSUMERS
    return to_consumers and _may_accept_only_one(rotation)


def gap_is_open(rotation: Rotation) -> bool:
    """May consumers be locked out at this moment, on the way forward?"""
    return rotation.direction is Direction.FORWARD and _may_accept_only_one(rotation)


def _may_accept_only_one(rotation: Rotation) -> bool:
    return not rotation.finished and one_at_a_time(rotation.policy) and needs_observation(rotation)


def exit_code(rotation: Rotation) -> int:
    """rotation.md section 3, last paragraph but one."""
    patient = {Waiting.GRACE, Waiting.EVIDENCE, Waiting.INPUT, Waiting.WINDOW, Waiting.DEPENDENCY}
    if rotation.leaking:  # a leaked value that works on because something is not ready is no success
        patient = {Waiting.INPUT}
    match rotation.state:
        case State.DONE:
            return 0
        case State.WAITING if rotation.waiting in patient and consumers_served(rotation):
            return 0
        case State.ROLLED_BACK if rotation.superseded:
            return 0
        case State.ROLLED_BACK:
            return 6 if _nothing_is_back(rotation) else 5
        case State.AMBIGUOUS:
            return 6
        case _:
            return 5 if consumers_served(rotation) else 6


def described(rotation: Rotation) -> str:
    """One line for people: state, reason, until when. Nobody knows when a person will come."""
    reason = rotation.waiting or rotation.cause
    text = rotation.state.value.replace("_", " ") + (f" ({reason.value.replace('_', ' ')})" if reason else "")
    timed = rotation.not_before is not None and rotation.waiting is not Waiting.INPUT
    return text + (f" until {rotation.not_before:%Y-%m-%d %H:%M:%S} UTC" if timed else "")


def awaited(rotation: Rotation) -> str:
    """The next command, where it waits for what only a person can do; else empty."""
    if rotation.waiting is not Waiting.INPUT or not by_hand(rotation.policy):
        return ""
    if not rotation.finished:
        return f"vaultkeeper import {rotation.secret}"
    blind = rotation.policy.target is not None and rotation.policy.target.unverified
    return f"vaultkeeper resume {rotation.secret}{' --revoked' if blind else ''}   once it is revoked"


def told(rotation: Rotation) -> VaultkeeperError | None:
    """What happened, why, which credential works right now, and the next command."""
    if exit_code(rotation) == 0:
        return None
    kind = RotationFailed if exit_code(rotation) == RotationFailed.exit_code else HalfApplied
    name = rotation.secret
    forward, back = f"vaultkeeper resume {name}", f"vaultkeeper rollback {name}"
    helps = f"vaultkeeper adopt {name}   with the value that works, or   vaultkeeper rotate {name} --replace"
    if by_hand(rotation.policy) and not rotation.finished:
        helps = import_or_adopt(name)
    nexts = {
        State.WAITING: awaited(rotation) or forward,
        State.ROLLED_BACK: _after_going_back(rotation, helps),
        State.PARKED: f"{forward}   (forward)   or   {back}   (back)",
        State.AMBIGUOUS: helps,
    }
    if rotation.cause in NOTHING_IS_BACK - {Cause.NONE_ACCEPTED} or rotation.cause is Cause.DRIFT:
        nexts[State.PARKED] = f"vaultkeeper reconcile {name}"
    if rotation.cause is Cause.BINDING:
        nexts[State.PARKED] = f"{forward}   when it is back, or   vaultkeeper rotate {name} --forget-old"
    if rotation.purpose is Purpose.EMERGENCY and not (rotation.finished and rotation.cause is Cause.DRIFT):
        if rotation.phase is not None and rotation.phase.step in {Step.DELIVER, Step.CONFIRM, Step.RELEASE}:
            forward += f"   (waits for them once more)   or   vaultkeeper rotate {name} --emergency --cut"
            nexts[State.WAITING] = forward
        nexts[State.PARKED] = forward  # back would be to the leaked value
    if rotation.waiting is Waiting.UNREACHABLE and rotation.to_version is None:
        nexts[State.WAITING] = f"{forward}   when it answers, or   {back}   where the policy was wrong"
    if rotation.cause is Cause.ACCOUNT_IN_USE:
        overwrite = f"vaultkeeper rotate {name} --replace   (no way back)"
        nexts[rotation.state] = f"vaultkeeper adopt {name}   with the value that works, or   {overwrite}"
    return kind(
        f"{name}: {described(rotation)}",
        why=_why(rotation),
        works=works_now(rotation),
        next=nexts.get(rotation.state, forward),
    )


def _after_going_back(rotation: Rotation, helps: str) -> str:
    """The next command after a way back. `helps`: what does where nothing of ours is accepted."""
    name, first = rotation.secret, "put right what is named above, then   "
    missing = _nothing_is_back(rotation)
    if missing is Cause.NONE_ACCEPTED:
        return helps if rotation.cause in {Cause.NONE_ACCEPTED, Cause.ASKED} else first + helps
    if missing is not None or rotation.cause is Cause.DRIFT:
        return f"vaultkeeper reconcile {name}"
    given = by_hand(rotation.policy)
    renewed = f"vaultkeeper import {name}" if given else f"vaultkeeper rotate {name}"
    if rotation.cause is Cause.ASKED:
        return f"nothing; for a new value   {renewed}"
    return first + renewed + ("   (the same value, or a new one)" if given else "")


def import_or_adopt(name: str) -> str:
    """What gives a secret that only a person can change a value that works, where none of ours is accepted."""
    return f"vaultkeeper import {name}   with a new value, or   vaultkeeper adopt {name}   with the value that works"


_WHY = {
    Cause.ASKED: "`vaultkeeper rollback` was said before the rotation had finished",
    Cause.NONE_ACCEPTED: "the target refuses the newest versions of this store: was it changed by hand, or put back?",
    Cause.TARGET_WENT_BACK: "the target refuses the newest version and accepts an older one: was a backup put back?",
}


def _why(rotation: Rotation) -> str:
    if rotation.detail or rotation.cause is None:
        return rotation.detail
    return _WHY.get(rotation.cause, rotation.cause.value.replace("_", " "))


def works_now(rotation: Rotation) -> str:
    """Which version works right now, judging by the journal. Before the colon stands only what is certain."""
    old = f"v{rotation.from_version} (old)" if rotation.from_version else "no stored version"
    new = f"v{rotation.to_version} (new)"
    at_target = new if rotation.finished else old
    nothing_of_ours = {
        Cause.NONE_ACCEPTED: "none of the newest stored versions was accepted",
        Cause.DRIFT: f"{at_target} at the target; a consumer holds an older one",
        Cause.STALE: "what a newer state of this installation set last; this store does not hold it",
        Cause.OLD_REFUSED: f"{new}: the target accepts it, and refuses {old}",
        Cause.TARGET_WENT_BACK: f"an older version than {old}: the target was put back",
    }
    if rotation.finished:  # what was left is not retired yet, and may be what it was put back to
        nothing_of_ours[Cause.TARGET_WENT_BACK] = f"an older version than {new}: the target was put back"
    begun = rotation.phases[: rotation.reached + 1]
    unchanged = rotation.state is State.ROLLED_BACK or not any(p.step in CHANGES_WHAT_WORKS for p in begun)
    unchanged = unchanged and not rotation.finished
    known = rotation.cause if rotation.cause in nothing_of_ours else rotation.gone if unchanged else None
    if known is Cause.DRIFT and not rotation.finished:
        known = rotation.gone or known
    if known is not None:
        return nothing_of_ours[known]
    if rotation.finished:
        return f"{new}: every consumer runs on it; {_of_the_old(rotation, old)}"
    if unchanged:
        as_found = rotation.to_version is None and rotation.cause is Cause.ASKED  # a drift that was seen is still there
        on_it = f"{old}: target and consumers are {'as they were' if as_found else 'on it'}"
        return on_it if rotation.from_version else "whatever worked before: target and consumers are as they were"
    if rotation.policy.target is None:
        return f"{old} and {new}: no target checks either"
    proven, alone = rotation.direction is Direction.FORWARD and _new_is_proven(rotation), one_at_a_time(rotation.policy)
    if rotation.gone is not None or (alone and rotation.from_version is None):
        return f"{new}: it was proven" if proven else f"nothing for certain: the target may accept {new}"
    if alone:
        return f"{old} or {new}: the target may accept only one of them"
    if not proven:
        return f"{old}: the target accepts it, {new} may be refused"
    return f"{old} and {new}: the target accepts both" if rotation.from_version else f"{new}: it was proven"


def _of_the_old(rotation: Rotation, old: str) -> str:
    """What a person may still count on of the value that was left."""
    if one_at_a_time(rotation.policy):
        return f"{old} is refused"
    if rotation.policy.target is None:
        kept = keeps_old(rotation.policy) and not rotation.options.data_loss
        return f"{old} stays in its list" if kept else "no target checks it"
    return f"{old} may still be accepted"


def _new_is_proven(rotation: Rotation) -> bool:
    """Did P pass its test, and has nothing since begun to refuse it?"""
    passed = rotation.phases[: rotation.at]
    refused = any(End.TO in phase.refuse for phase in rotation.phases[: rotation.at + 1])
    return any(phase.step is Step.TEST for phase in passed) and not refused
