"""How a rotation moves: on, to sleep, back, to its end. Pure; `judge` decides which of these an answer means.

Every function returns the `Change` to be committed: the rotation as it then stands, with the facts about versions
and the labels that become true in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from vaultkeeper.engine.plan import Shape, keeps_old, one_at_a_time, shape_of, way_back
from vaultkeeper.model.outcome import Login, Unknown
from vaultkeeper.model.rotation import Audience, Cause, Direction, End, Phase, Purpose, Rotation, State, Step, Waiting
from vaultkeeper.model.secret import Acceptance, StagingLabel
from vaultkeeper.ports import Change, VersionChange

RETRY = timedelta(seconds=5)  # after an unreachable target or consumer, where it named no delay itself
PUT_OFF_AT_ONCE = 8  # so many places in a row that are not ready yet, and the rest is asked after the wait
MAX_VALUE_REFUSALS = 3  # the third rotation in a row that the target's own rules refuse is parked
ASKED_AT_ONCE = frozenset(  # when a person says so: asking again is harmless, and they know that the cause is gone
    {Waiting.UNREACHABLE, Waiting.CONFIRM, Waiting.EVIDENCE, Waiting.INPUT, Waiting.DEPENDENCY}
)
NOTHING_IS_BACK = frozenset({Cause.TARGET_WENT_BACK, Cause.NONE_ACCEPTED, Cause.STALE})
"""The target holds something else than this store knows: going back does not change that, so the cause stays told."""

Facts = Mapping[int, VersionChange]


def begin(rotation: Rotation, now: datetime) -> Rotation:
    """Before the phase's outward call: after a crash its outcome is unknown."""
    reached = max(rotation.reached, rotation.at) if rotation.direction is Direction.FORWARD else rotation.reached
    begun = replace(rotation, begun=True, reached=reached, state=State.RUNNING, waiting=None, waiting_for=())
    opens = rotation.gap_opened_at is None and opens_the_gap(rotation)
    return replace(begun, gap_opened_at=now) if opens else begun


def opens_the_gap(rotation: Rotation) -> bool:
    """Does the present phase take from consumers the only value that they have?"""
    phase = rotation.phase
    if phase is None or rotation.direction is Direction.BACK or rotation.from_version is None:
        return False
    at_target = phase.step is Step.SET or (phase.step is Step.DELIVER and phase.audience is Audience.CHECKER)
    return at_target and one_at_a_time(rotation.policy)


def gap_closed(rotation: Rotation, now: datetime) -> Rotation:
    """All consumers have a value that works, the new one or the old one again."""
    opened = rotation.gap_opened_at
    return rotation if opened is None else replace(rotation, gap=max(now - opened, timedelta(0)))


def advance(rotation: Rotation, now: datetime, facts: Facts | None = None) -> Change:
    """The present phase is behind us."""
    reached = max(rotation.reached, rotation.at) if rotation.direction is Direction.FORWARD else rotation.reached
    if _made_the_old_one_accepted(rotation.phase):
        rotation = replace(rotation, gone=None)
    moved = enter(rotation, rotation.at + 1, now, reached)
    if moved.phase is not None:
        return Change(moved, facts=facts)
    return _end(moved, now, facts)


def _made_the_old_one_accepted(phase: Phase | None) -> bool:
    """A checker accepts what it was handed once it runs on it."""
    if phase is None or End.FROM not in phase.carry:
        return False
    return phase.step is Step.SET or (phase.step is Step.CONFIRM and phase.audience is Audience.CHECKER)


def waited(rotation: Rotation, now: datetime) -> timedelta:
    """How long it has stood in its phase."""
    return max(now - rotation.entered_at, timedelta(0))


def on_this_clock(rotation: Rotation, now: datetime) -> Rotation:
    """The phase was entered later than now: the clock was set back since, or was wrong then.

    It counts as entered now, and a sleep keeps its length: no wait gets longer than it was meant to be, and no grace
    shorter.
    """
    ahead = rotation.entered_at - now
    if ahead <= timedelta(0):
        return rotation
    later = rotation.not_before
    return replace(rotation, entered_at=now, not_before=later and max(later - ahead, now))


def wait(rotation: Rotation, reason: Waiting, until: datetime, who: tuple[str, ...] = (), detail: str = "") -> Change:
    """The same phase again, not sooner than `until`."""
    return Change(
        replace(
            rotation, state=State.WAITING, waiting=reason, waiting_for=who, not_before=until, begun=False, detail=detail
        )
    )


def wait_unknown(rotation: Rotation, unknown: Unknown, now: datetime) -> Change:
    """Nothing is concluded; where something may have been changed, it is observed before anything else."""
    reason = Waiting.THROTTLED if unknown.reason is Login.THROTTLED else Waiting.UNREACHABLE
    doubtful = rotation.begun or rotation.doubted
    asleep = wait(rotation, reason, now + (unknown.retry_after or RETRY), detail=unknown.detail)
    assert asleep.rotation is not None  # noqa: S101 - for the type checker: wait always carries one
    return replace(asleep, rotation=replace(asleep.rotation, outcome_unknown=doubtful, doubted=doubtful))


def park(rotation: Rotation, cause: Cause, detail: str = "") -> Change:
    """A person has the next word. Nothing more is touched."""
    state = State.AMBIGUOUS if cause is Cause.NONE_ACCEPTED else State.PARKED
    return Change(
        replace(
            rotation,
            state=state,
            cause=cause,
            detail=detail or rotation.detail,
            waiting=None,
            not_before=None,
            begun=False,
        )
    )


def turn_back(rotation: Rotation, cause: Cause, now: datetime, detail: str = "", *, untouched: bool = False) -> Change:
    """Target and consumers go back to C together. `untouched`: the present phase certainly changed nothing."""
    if rotation.finished or rotation.direction is Direction.BACK:
        return park(rotation, cause, detail)
    reached = min(rotation.reached, rotation.at - 1) if untouched else max(rotation.reached, _last_begun(rotation))
    stopped = replace(rotation, reached=reached, cause=cause, detail=detail, why_back=detail)
    back = way_back(stopped, shape(rotation))
    if back is None:
        return park(stopped, Cause.NO_WAY_BACK, detail)
    turned = enter(replace(stopped, direction=Direction.BACK, back=back, proof=None), 0, now)
    doubts = version_fact(rotation, End.TO, VersionChange(verified=False))
    return Change(turned, facts=doubts) if back else _end(turned, now, doubts)


def _last_begun(rotation: Rotation) -> int:
    return rotation.at if rotation.begun else rotation.reached


def enter(rotation: Rotation, at: int, now: datetime, reached: int | None = None) -> Rotation:
    """Stand before a phase of the present track, with nothing of it begun; unless it was reached once before."""
    return replace(
        rotation,
        at=at,
        reached=rotation.reached if reached is None else reached,
        entered_at=now,
        state=State.RUNNING,
        begun=False,
        outcome_unknown=False,
        doubted=rotation.direction is Direction.FORWARD and at <= rotation.reached,
        settled=(),
        tries=0,
        looked_into=False,
        waiting=None,
        waiting_for=(),
        not_before=None,
    )


def _end(rotation: Rotation, now: datetime, facts: Facts | None) -> Change:
    """The track is behind us: done, rolled back, or parked because a person must know why it went back."""
    facts = dict(facts or {})
    pending = {StagingLabel.PENDING: None}
    rehearsed = rotation.purpose is Purpose.REHEARSE
    if rotation.direction is Direction.FORWARD and not rehearsed:
        return Change(replace(rotation, state=State.DONE, ended_at=now), facts=facts)
    if rotation.direction is Direction.BACK:
        rotation = gap_closed(replace(rotation, detail=rotation.why_back or rotation.detail), now)
        if _a_person_must_know(rotation):
            return Change(replace(rotation, state=State.PARKED), facts=facts)
    data_needs_it = keeps_old(rotation.policy) and _was_handed_over_first(rotation)
    if rotation.to_version is not None and not data_needs_it:
        facts[rotation.to_version] = VersionChange(acceptance=Acceptance.REFUSED, verified=False)
    state = State.DONE if rotation.direction is Direction.FORWARD else State.ROLLED_BACK
    return Change(replace(rotation, state=state, ended_at=now), facts=facts, labels=pending)


def _was_handed_over_first(rotation: Rotation) -> bool:
    """Consumers may have encrypted data with P."""
    begun = rotation.phases[: rotation.reached + 1]
    return any(p.step is Step.DELIVER and p.carry[:1] == (End.TO,) for p in begun)


def _a_person_must_know(rotation: Rotation) -> bool:
    if rotation.cause is Cause.VALUE:
        return rotation.value_refusals + 1 >= MAX_VALUE_REFUSALS
    return rotation.cause is Cause.CHECKS_NOTHING


def shape(rotation: Rotation) -> Shape:
    """All that its phases depend on, as its journal has it."""
    return shape_of(rotation.policy, first=rotation.from_version is None, purpose=rotation.purpose)


def version_fact(rotation: Rotation, end: End, change: VersionChange) -> dict[int, VersionChange]:
    """A new fact about one end of the rotation; none where there is no such version."""
    number = rotation.number(end)
    return {} if number is None else {number: change}


def taken_up(rotation: Rotation) -> Rotation:
    """By another process than the one that journalled it: what was begun has an unknown outcome."""
    if rotation.begun:
        return replace(rotation, begun=False, outcome_unknown=True, doubted=True)
    return rotation


def resumed(rotation: Rotation, now: datetime) -> Rotation:
    """A person says: forward. Parked on the way back, it goes forward again from the first thing it undid."""
    if rotation.waiting in ASKED_AT_ONCE:
        return replace(rotation, not_before=None)
    if rotation.state not in {State.PARKED, State.AMBIGUOUS}:
        return rotation
    observe = replace(
        rotation, cause=None, detail="", outcome_unknown=True, doubted=True, failed_proofs=0, looked_into=False
    )
    if rotation.direction is Direction.FORWARD:
        return replace(_handing_over_again(observe, now), state=State.RUNNING, tries=0, entered_at=now, not_before=None)
    create = next(i for i, phase in enumerate(rotation.phases) if phase.step is Step.CREATE)
    start = 0 if rotation.to_version is None else create + 1
    return replace(enter(replace(observe, direction=Direction.FORWARD), start, now), outcome_unknown=True)


def _handing_over_again(rotation: Rotation, now: datetime) -> Rotation:
    """Consumers that never came to run on it may have been put back by somebody since: a delivery costs nothing."""
    phase, before = rotation.phase, rotation.track[rotation.at - 1]
    if phase is None or phase.step is not Step.CONFIRM or before.step is not Step.DELIVER:
        return rotation
    return replace(enter(rotation, rotation.at - 1, now), outcome_unknown=rotation.outcome_unknown, doubted=True)


def sent_back(rotation: Rotation, now: datetime) -> Change:
    """A person says: back. Before FINISH only; afterwards a rollback is a rotation of its own."""
    if rotation.direction is Direction.BACK:
        cause = Cause.ASKED if rotation.cause is Cause.OLD_REFUSED else rotation.cause
        running = replace(
            rotation,
            state=State.RUNNING,
            cause=cause,
            outcome_unknown=True,
            doubted=True,
            looked_into=False,
            not_before=None,
            entered_at=now,
        )
        return Change(running) if rotation.phase is not None else _closed(rotation, now)
    doubted = replace(rotation, begun=rotation.begun or rotation.outcome_unknown)
    kept = rotation.cause if rotation.cause in NOTHING_IS_BACK else None
    return turn_back(doubted, kept or Cause.ASKED, now, rotation.detail if kept else "")


def _closed(rotation: Rotation, now: datetime) -> Change:
    """Everything is back already; the person has seen why."""
    facts = version_fact(rotation, End.TO, VersionChange(acceptance=Acceptance.REFUSED, verified=False))
    return Change(
        replace(rotation, state=State.ROLLED_BACK, ended_at=now), facts=facts, labels={StagingLabel.PENDING: None}
    )


def superseded(rotation: Rotation, now: datetime) -> Change:
    """A rollback in grace: the retirement is cancelled, a new rotation takes over."""
    return Change(replace(rotation, state=State.DONE, superseded=True, ended_at=now, waiting=None, not_before=None))


def replaced(rotation: Rotation, now: datetime) -> Rotation:
    """What a person chose instead ends it; its versions stay in the store."""
    return replace(rotation, state=State.ROLLED_BACK, superseded=True, ended_at=now, waiting=None, not_before=None)


def hastened(rotation: Rotation, now: datetime) -> Rotation:
    """An emergency does not wait for the open grace or evidence of the rotation before it."""
    phases = tuple(
        p for i, p in enumerate(rotation.phases) if i < rotation.at or p.step not in {Step.GRACE, Step.EVIDENCE}
    )
    hurried = enter(replace(rotation, phases=phases), rotation.at, now)
    return replace(hurried, outcome_unknown=rotation.outcome_unknown, doubted=rotation.doubted)
