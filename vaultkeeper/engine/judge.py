"""From one `Rotation` and one answer to the next `Rotation`. Pure; `rotation.md` section 3 is its table.

Nothing here reads a clock, draws a number or reaches outside, so every reachable state can be searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vaultkeeper.engine.moves import (
    NOTHING_IS_BACK,
    RETRY,
    Facts,
    advance,
    enter,
    gap_closed,
    on_this_clock,
    park,
    shape,
    turn_back,
    version_fact,
    wait,
    wait_unknown,
    waited,
)
from vaultkeeper.engine.plan import accepting_again, by_hand, dies_for_good, keeps_old
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
    Usage,
)
from vaultkeeper.model.rotation import Audience, Cause, Direction, End, Purpose, Rotation, State, Step, Waiting
from vaultkeeper.model.secret import Acceptance, GroupKey, StagingLabel
from vaultkeeper.ports import Change, VersionChange

MAX_CONFLICTS = 8  # rotation.md section 3
EVIDENCE_POLL = timedelta(hours=1)
EVIDENCE_SOON = timedelta(minutes=1)  # a session that ends by itself meanwhile holds nothing up for an hour
EVIDENCE_LIMIT = timedelta(days=7)
REVOKE_POLL = timedelta(hours=1)  # how often a person's revocation is looked for at first, and at the least
REVOKE_POLL_AT_MOST = timedelta(days=1)
NO_ANSWER = (Login.UNREACHABLE, Login.THROTTLED)

CAUSE_OF = {
    No.VALUE: Cause.VALUE,
    No.PRIVILEGE: Cause.PRIVILEGE,
    No.CAPACITY: Cause.CAPACITY,
    No.UNSUPPORTED: Cause.UNSUPPORTED,
    No.STALE: Cause.STALE,
    No.CONFLICT: Cause.CONFLICT,
    No.UNCHECKED: Cause.CHECKS_NOTHING,
}


@dataclass(frozen=True)
class Seen:
    """What the target holds now. None: not asked, or there is no such version."""

    to: Login | None = None
    from_: Login | None = None
    previous: Login | None = None
    newer_tag: bool = False
    account_usable: bool | None = None
    unanswered: Login | None = None  #: where the next value will be set nobody could be asked: UNREACHABLE or THROTTLED
    askable: bool = True  #: False: no target, or nothing about it can be known
    retry_after: timedelta | None = None
    detail: str = ""


@dataclass(frozen=True)
class Tested:
    """`wrong` None: the protocol proved that the server checks, so no wrong value was tried."""

    pending: Login
    wrong: Login | None = None
    unverified: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Proved:
    """Is the retired value dead? None: cannot be asked. `detail`: why it is not, and what a person is asked for."""

    old: Login | None
    unverified: str = ""
    detail: str = ""


# --------------------------------------------------------------------------------------------------------- observations


def needs_observation(rotation: Rotation) -> bool:
    """Only what a set, a mint or a checker's delivery may have changed can be in doubt at the target."""
    begun = rotation.phases[: rotation.reached + 1]
    if rotation.direction is Direction.BACK:  # what a copied value's own rotation never set, its way back may
        begun += rotation.back[: rotation.at + 1]
    return rotation.policy.target is not None and any(
        p.step in {Step.SET, Step.MINT, Step.RETIRE} or (p.step is Step.DELIVER and p.audience is Audience.CHECKER)
        for p in begun
    )


def judge_seen(rotation: Rotation, seen: Seen, now: datetime) -> Change:
    """The first phase of every rotation, and what follows every unknown outcome."""
    if seen.newer_tag:
        return park(rotation, Cause.STALE, seen.detail)
    if seen.from_ is Login.ACCEPTED:
        rotation = replace(rotation, gone=None)
    if rotation.phase is None or rotation.phase.step is not Step.OBSERVE:
        judged = _judge_doubt(rotation, seen, now)
    elif rotation.direction is Direction.FORWARD:
        judged = _judge_before_create(rotation, seen, now)
    else:
        judged = _judge_before_handing_back(rotation, seen, now)
    return replace(judged, facts={**_back_again(rotation, seen), **(judged.facts or {})} or None)


def _back_again(rotation: Rotation, seen: Seen) -> Facts:
    """A retired value that works again is retired again, where the next retirement collects what was left."""
    collected = by_hand(rotation.policy) or any(phase.step is Step.RETIRE for phase in rotation.phases)
    if rotation.previous_version is None or not _revived(rotation, seen) or not collected:
        return {}
    return {rotation.previous_version: VersionChange(acceptance=Acceptance.ACCEPTED)}


def _revived(rotation: Rotation, seen: Seen) -> bool:
    """Is PREVIOUS accepted, and not because a rollback hands it out again?"""
    return seen.previous is Login.ACCEPTED and rotation.purpose is not Purpose.ROLLBACK


def _judge_before_create(rotation: Rotation, seen: Seen, now: datetime) -> Change:  # noqa: PLR0911 - one return a row
    if not seen.askable:
        return advance(replace(rotation, unverified=seen.detail), now)
    if seen.unanswered is not None:
        return _nothing_concluded(rotation, seen, seen.unanswered, now)
    if rotation.from_version is None:
        if seen.account_usable and not rotation.options.replace:
            return turn_back(rotation, Cause.ACCOUNT_IN_USE, now)
        return advance(rotation, now)
    if seen.from_ is Login.ACCEPTED:
        return advance(rotation, now, version_fact(rotation, End.FROM, VersionChange(acceptance=Acceptance.ACCEPTED)))
    if seen.from_ in NO_ANSWER:
        return _nothing_concluded(rotation, seen, seen.from_, now)
    if rotation.options.replace or (rotation.options.forget_old and seen.from_ is None):
        return advance(_known_gone(rotation, seen), now)
    if seen.previous is Login.ACCEPTED:
        return park(rotation, Cause.TARGET_WENT_BACK, seen.detail)
    if seen.previous in NO_ANSWER:
        return _nothing_concluded(rotation, seen, seen.previous, now)
    return park(rotation, Cause.NONE_ACCEPTED, seen.detail)


def _known_gone(rotation: Rotation, seen: Seen) -> Rotation:
    """It goes on, as a person said, but nobody is told that the old value works."""
    if seen.from_ is not Login.REJECTED:
        return rotation
    return replace(rotation, gone=Cause.TARGET_WENT_BACK if seen.previous is Login.ACCEPTED else Cause.NONE_ACCEPTED)


def _judge_before_handing_back(rotation: Rotation, seen: Seen, now: datetime) -> Change:
    """Nobody who holds a P that works is handed a C that is refused. Without an answer neither is safer."""
    if seen.from_ is Login.REJECTED and seen.to is Login.REJECTED and dies_for_good(rotation.policy):
        return _judge_none_accepted(rotation, seen, now)
    if seen.from_ is Login.ACCEPTED and rotation.cause in NOTHING_IS_BACK:  # it is back since
        rotation = replace(rotation, cause=Cause.ASKED, detail="", why_back="")
    if seen.from_ is not Login.REJECTED or seen.to is not Login.ACCEPTED:
        return advance(rotation, now)
    first = accepting_again(shape(rotation))
    if first is None:
        return _park_old_refused(rotation, ": nobody was put back")
    here = rotation.at + 1
    return advance(replace(rotation, back=(*rotation.back[:here], *first, *rotation.back[here:])), now)


def _park_old_refused(rotation: Rotation, also: str = "") -> Change:
    old, new = f"v{rotation.from_version} (old)", f"v{rotation.to_version} (new)"
    return park(rotation, Cause.OLD_REFUSED, f"the target refuses {old}, and accepts {new}{also}")


def _judge_doubt(rotation: Rotation, seen: Seen, now: datetime) -> Change:
    """A phase with an unknown outcome: does the target hold what the phase wants?"""
    if not seen.askable:
        return Change(_again(rotation))
    answers = {End.TO: seen.to, End.FROM: seen.from_}
    silent = next((a for a in answers.values() if a in NO_ANSWER), None)
    if silent is not None:
        return _nothing_concluded(rotation, seen, silent, now)
    accepted = [end for end, answer in answers.items() if answer is Login.ACCEPTED]
    if not accepted:
        return _judge_none_accepted(rotation, seen, now)
    if End.TO not in accepted and rotation.finished:
        return park(rotation, Cause.TARGET_WENT_BACK, seen.detail)
    if _at_step(rotation, Step.RETIRE) and _revived(rotation, seen):
        return Change(_again(rotation))  # it refuses that one too
    if rotation.phase is not None and rotation.phase.step in {Step.SET, Step.RETIRE}:
        return _judge_doubted_set(rotation, answers, now)
    if End.TO not in accepted and rotation.direction is Direction.FORWARD:
        return Change(_rewound(rotation, now))
    return Change(_again(rotation))


def _judge_doubted_set(rotation: Rotation, answers: Mapping[End, Login | None], now: datetime) -> Change:
    wanted, refused = _wanted(rotation)
    held = all(answers[e] is Login.ACCEPTED for e in wanted) and all(answers[e] is Login.REJECTED for e in refused)
    if held:
        return advance(rotation, now, _acceptance(rotation, wanted, refused))
    if End.FROM in wanted and answers[End.FROM] is Login.REJECTED and dies_for_good(rotation.policy):
        return _park_old_refused(rotation)
    return Change(_again(rotation))


def _judge_none_accepted(rotation: Rotation, seen: Seen, now: datetime) -> Change:
    if seen.previous in NO_ANSWER:
        return _nothing_concluded(rotation, seen, seen.previous, now)
    if seen.previous is Login.ACCEPTED:
        return park(rotation, Cause.TARGET_WENT_BACK, seen.detail)
    target = rotation.policy.target
    nothing_before, back = rotation.from_version is None, rotation.direction is Direction.BACK
    if nothing_before and back:
        return Change(_again(rotation))  # as it was before the first version
    admitted = (nothing_before or rotation.options.replace) and target is not None and not target.self_service
    admitted = admitted and not (back and dies_for_good(rotation.policy))
    if admitted and not rotation.finished:  # what finished is not done again: its labels have moved
        return Change(_rewound(_known_gone(rotation, seen), now))
    return park(rotation, Cause.NONE_ACCEPTED, seen.detail)


def _nothing_concluded(rotation: Rotation, seen: Seen, answer: Login | None, now: datetime) -> Change:
    return wait_unknown(rotation, Unknown(answer or Login.UNREACHABLE, seen.detail, seen.retry_after), now)


def _wanted(rotation: Rotation) -> tuple[tuple[End, ...], tuple[End, ...]]:
    phase = rotation.phase
    if phase is None or phase.step not in {Step.SET, Step.RETIRE}:
        return (), ()
    return phase.carry, phase.refuse


def _acceptance(rotation: Rotation, accept: tuple[End, ...], refuse: tuple[End, ...]) -> Facts:
    facts: dict[int, VersionChange] = {}
    for end in accept:
        facts |= version_fact(rotation, end, VersionChange(acceptance=Acceptance.ACCEPTED))
    for end in refuse:
        facts |= version_fact(rotation, end, VersionChange(acceptance=Acceptance.REFUSED))
    return facts


def _set_again(rotation: Rotation) -> Facts:
    """On the way back nothing is tested: the target's own word is the last fact about C."""
    accept, _ = _wanted(rotation)
    return _acceptance(rotation, accept, ()) if rotation.direction is Direction.BACK else {}


def _again(rotation: Rotation) -> Rotation:
    """The same phase with the same P; the doubt stays noted: a later refusal does not mean that nothing was done."""
    return replace(
        rotation, state=State.RUNNING, waiting=None, not_before=None, outcome_unknown=False, begun=False, doubted=True
    )


def _rewound(rotation: Rotation, now: datetime) -> Rotation:
    """What was set and is refused now, the target lost: it is set again. On the way back that is C."""
    for index, phase in enumerate(rotation.track[: rotation.at]):
        if phase.step in {Step.SET, Step.MINT} or (phase.step is Step.DELIVER and phase.audience is Audience.CHECKER):
            return enter(rotation, index, now)
    return _again(rotation)


# -------------------------------------------------------------------------------------------------------- plain results


def judge_result(rotation: Rotation, result: Result, now: datetime, facts: Facts | None = None) -> Change:
    """Of create, mint, prepare, set, retire and release."""
    match result:
        case Done():
            return advance(rotation, now, facts if facts is not None else _set_again(rotation))
        case NotYet():
            from_a_person = _at_step(rotation, Step.CREATE) and by_hand(rotation.policy)
            reason = Waiting.INPUT if from_a_person else Waiting.DEPENDENCY
            return wait(rotation, reason, now + result.after, tuple(result.waiting_for), result.reason)
        case Unknown():
            return wait_unknown(rotation, result, now)
        case Refused():
            return _judge_refused(rotation, result, now)


def cuts(rotation: Rotation) -> bool:
    """Shall a leaked value die whatever still leads back to it?"""
    return rotation.leaking and rotation.options.cut


def judge_released(rotation: Rotation, still_open: Sequence[NotYet | Refused | Unknown], now: datetime) -> Change:
    """`still_open`: what places say that did not release; none: all have.

    A leaked value dies last too, but it waits for a way back no longer than for laggards, and with `--cut` not at all:
    whoever takes that way afterwards is cut off, as the person said.
    """
    if not still_open:
        return advance(rotation, now)
    if cuts(rotation):
        said = "; ".join(dict.fromkeys(a.reason if isinstance(a, NotYet) else a.detail for a in still_open))
        return advance(_noted(rotation, f"a way back to v{rotation.from_version} may still be open: {said}"), now)
    rotation = on_this_clock(rotation, now)
    waits = [answer for answer in still_open if isinstance(answer, NotYet)]
    if len(waits) < len(still_open):
        return judge_result(rotation, next(a for a in still_open if not isinstance(a, NotYet)), now)
    soonest = min(waits, key=lambda answer: answer.after)
    if rotation.leaking and waited(rotation, now) >= rotation.options.deadline:
        return park(rotation, Cause.LAGGARDS, soonest.reason)
    return judge_result(rotation, soonest, now)


def _judge_refused(rotation: Rotation, refused: Refused, now: datetime) -> Change:
    cause = CAUSE_OF[refused.why]
    if refused.why is No.STALE:
        return park(rotation, cause, refused.detail)
    if refused.why is No.CONFLICT and rotation.tries < MAX_CONFLICTS:
        return Change(
            replace(
                rotation,
                tries=rotation.tries + 1,
                begun=False,
                not_before=now + conflict_delay(rotation),
                detail=refused.detail,
            )
        )
    if refused.why is No.UNSUPPORTED and _shall_accept_what_died(rotation) and not rotation.looked_into:
        # What works is told from a look: a token that its system lost is refused here first.
        return Change(replace(_again(rotation), outcome_unknown=True, looked_into=True, detail=refused.detail))
    if refused.why is No.CONFLICT or rotation.finished or rotation.direction is Direction.BACK:
        return park(rotation, cause, refused.detail)
    return turn_back(rotation, cause, now, refused.detail, untouched=not rotation.doubted and not rotation.settled)


def _shall_accept_what_died(rotation: Rotation) -> bool:
    """May what this set is to accept be gone, so that nothing can make it accepted again?"""
    wanted, _ = _wanted(rotation)
    return bool(wanted) and dies_for_good(rotation.policy)


def conflict_delay(rotation: Rotation) -> timedelta:
    """Doubling from 50 ms, spread by the rotation's random id so that two writers do not meet again."""
    spread = int(rotation.id[:4] or "0", 16) / 0xFFFF if _is_hex(rotation.id[:4]) else 0.5
    return timedelta(milliseconds=50 * 2**rotation.tries * (0.5 + spread))


def _is_hex(text: str) -> bool:
    return bool(text) and all(c in "0123456789abcdef" for c in text)


def _at_step(rotation: Rotation, step: Step) -> bool:
    return rotation.phase is not None and rotation.phase.step is step


def judge_tested(rotation: Rotation, tested: Tested, now: datetime) -> Change:
    """P must be accepted and a wrong value refused, unless the protocol proves that the server checks."""
    for answer in (tested.pending, tested.wrong):
        if answer in NO_ANSWER:
            return wait_unknown(rotation, Unknown(answer, tested.detail), now)
    if tested.unverified:
        return advance(replace(rotation, unverified=tested.unverified), now)
    if tested.pending is Login.REJECTED:
        return turn_back(rotation, Cause.REJECTED, now, tested.detail)
    if tested.wrong is Login.ACCEPTED:
        return turn_back(rotation, Cause.CHECKS_NOTHING, now, tested.detail)
    tried_out = rotation.purpose is Purpose.REHEARSE  # it is taken away again, so nobody is given it
    proven = VersionChange(acceptance=Acceptance.ACCEPTED, verified=not tried_out)
    return advance(rotation, now, version_fact(rotation, End.TO, proven))


def judge_finish(rotation: Rotation, now: datetime) -> Change:
    """PENDING → CURRENT → PREVIOUS, in one transaction. A value that nobody checks counts as proven when delivered."""
    facts = {}
    if rotation.policy.target is None or rotation.unverified:
        facts = version_fact(rotation, End.TO, VersionChange(acceptance=Acceptance.ACCEPTED, verified=True))
    if rotation.options.data_loss and keeps_old(rotation.policy):
        facts = {**facts, **version_fact(rotation, End.FROM, VersionChange(acceptance=Acceptance.REFUSED))}
    labels = {
        StagingLabel.CURRENT: rotation.to_version,
        StagingLabel.PREVIOUS: rotation.from_version,
        StagingLabel.PENDING: None,
    }
    moved = advance(gap_closed(rotation, now), now, facts)
    return replace(moved, labels={**(moved.labels or {}), **labels})


def judge_grace(rotation: Rotation, now: datetime) -> Change:
    """Both values stay valid until grace is over; it counts from the finish."""
    rotation = on_this_clock(rotation, now)
    until = rotation.entered_at + rotation.policy.grace_period
    if now < until:
        return wait(rotation, Waiting.GRACE, until)
    return advance(rotation, now)


def judge_usage(rotation: Rotation, usage: Usage | Unknown, now: datetime, *, due_again: bool) -> Change:
    """Is the old value still in use? Where that cannot be seen, grace alone governed, and history says so."""
    rotation = on_this_clock(rotation, now)
    if isinstance(usage, Unknown):
        return wait_unknown(rotation, usage, now)
    if usage.in_use is None:
        return advance(replace(rotation, detail="use of the old value cannot be seen here; grace alone governed"), now)
    if not usage.in_use:
        return advance(rotation, now)
    holders = tuple(usage.holders)
    if due_again or waited(rotation, now) >= EVIDENCE_LIMIT:
        return park(replace(rotation, waiting_for=holders), Cause.IN_USE, ", ".join(holders))
    stood = waited(rotation, now)
    again = max(RETRY, stood) if stood < EVIDENCE_SOON else EVIDENCE_POLL
    return wait(rotation, Waiting.EVIDENCE, now + again, holders)


def judge_proved(rotation: Rotation, proved: Proved, now: datetime) -> Change:
    """After retire the old value must be refused: once more, then a person."""
    if proved.old is Login.UNREACHABLE or proved.old is Login.THROTTLED:
        return wait_unknown(rotation, Unknown(proved.old), now)
    if proved.old is None:
        if only_a_person_revokes(rotation) and not rotation.options.revoked:
            return _wait_for_revocation(rotation, proved, now)
        return advance(replace(rotation, unverified=proved.unverified), now)
    phase = rotation.phase
    end = phase.carry[0] if phase is not None else End.FROM
    if proved.old is Login.REJECTED:
        if rotation.waiting is Waiting.INPUT:  # what a person was asked for is done
            rotation = replace(rotation, detail="")
        return advance(rotation, now, version_fact(rotation, end, VersionChange(acceptance=Acceptance.REFUSED)))
    retirement = _retirement_index(rotation)
    if retirement is None:
        return _wait_for_revocation(rotation, proved, now)
    if rotation.failed_proofs:
        return park(rotation, Cause.STILL_ACCEPTED, proved.detail)
    return Change(enter(replace(rotation, failed_proofs=1), retirement, now))


def only_a_person_revokes(rotation: Rotation) -> bool:
    """Has nothing in this rotation refused the old value before it is to be proven?"""
    return _retirement_index(rotation) is None


def _wait_for_revocation(rotation: Rotation, proved: Proved, now: datetime) -> Change:
    """It stays open until the old value is dead, and is looked at less often the longer nobody comes."""
    rotation = on_this_clock(rotation, now)
    pause = min(max(REVOKE_POLL, waited(rotation, now) / 4), REVOKE_POLL_AT_MOST)
    return wait(rotation, Waiting.INPUT, now + pause, detail=proved.detail)


def _retirement_index(rotation: Rotation) -> int | None:
    """Where the old value was last refused: a retire, a rehearsal's undoing set, or the checker's shorter list."""
    for index in range(rotation.at - 1, -1, -1):
        phase = rotation.track[index]
        if phase.refuse or (phase.step is Step.PREPARE and phase.audience is Audience.CHECKER):
            return index
        if phase.step is Step.FINISH:
            return None
    return None


# ---------------------------------------------------------------------------------------------------------- delivery


def judge_delivered(
    rotation: Rotation, group: GroupKey, groups: frozenset[GroupKey], result: Result, now: datetime
) -> Change:
    """One group's delivery. The phase is over when every group has it."""
    if isinstance(result, Done):
        return _settle(rotation, group, groups, now)
    if isinstance(result, NotYet | Unknown) and _is_cut(rotation, now):
        said = result.reason if isinstance(result, NotYet) else result.detail
        return _settle(_noted(rotation, f"cut without deliver: {said}"), group, groups, now)
    return judge_result(rotation, result, now)


def _is_cut(rotation: Rotation, now: datetime) -> bool:
    """In an emergency nobody whom no answer is to be had of keeps the leaked value alive, if a person says so."""
    phase = rotation.phase
    forward = rotation.purpose is Purpose.EMERGENCY and rotation.direction is Direction.FORWARD
    consumers = phase is not None and phase.audience is Audience.CONSUMERS
    late = waited(rotation, now) >= rotation.options.deadline or rotation.unverified.startswith("cut ")
    return forward and consumers and rotation.options.cut and late


def _noted(rotation: Rotation, why: str) -> Rotation:
    """One more thing that could not be proven. Who was cut comes first; nothing is told twice."""
    before = rotation.unverified
    if not before or why in before:
        return replace(rotation, unverified=before or why)
    parts = (why, before) if why.startswith("cut ") and not before.startswith("cut ") else (before, why)
    return replace(rotation, unverified="; ".join(parts))


def judge_confirmed(
    rotation: Rotation,
    group: GroupKey,
    groups: frozenset[GroupKey],
    answer: Confirmation,
    now: datetime,
    *,
    timeout: timedelta,
    puts_back: bool,
) -> Change:
    """One group's confirm. Only `Failed` sends a rotation back; a time-out does where consumers can be put back."""
    match answer:
        case Confirmed():
            weaker = Proof.WRITTEN if Proof.WRITTEN in (answer.proof, rotation.proof) else answer.proof
            return _settle(replace(rotation, proof=weaker), group, groups, now)
        case Unknown() if _is_cut(rotation, now):
            return _settle(_noted(rotation, f"cut without confirm: {answer.detail}"), group, groups, now)
        case Unknown():
            return wait_unknown(rotation, answer, now)
        case Failed():
            return turn_back(rotation, Cause.DELIVERY, now, f"{answer.consumer}: {answer.why}")
        case NotYet():
            return _judge_not_yet(rotation, group, groups, answer, now, timeout=timeout, puts_back=puts_back)


def _judge_not_yet(
    rotation: Rotation,
    group: GroupKey,
    groups: frozenset[GroupKey],
    answer: NotYet,
    now: datetime,
    *,
    timeout: timedelta,
    puts_back: bool,
) -> Change:
    rotation = on_this_clock(rotation, now)
    emergency = rotation.purpose is Purpose.EMERGENCY and rotation.direction is Direction.FORWARD
    limit = min(timeout, rotation.options.deadline) if emergency else timeout
    detail = answer.reason + (f" ({', '.join(answer.waiting_for)})" if answer.waiting_for else "")
    if waited(rotation, now) < limit:
        return wait(rotation, Waiting.CONFIRM, now + answer.after, tuple(answer.waiting_for), answer.reason)
    if emergency and rotation.options.cut:
        return _settle(_noted(rotation, f"cut without confirm: {detail}"), group, groups, now)
    if emergency:
        return park(rotation, Cause.LAGGARDS, detail)
    if puts_back and not rotation.finished and rotation.direction is Direction.FORWARD:
        return turn_back(rotation, Cause.CONFIRM_TIMEOUT, now, detail)
    return park(rotation, Cause.CONFIRM_TIMEOUT, detail)


def _settle(rotation: Rotation, group: GroupKey, groups: frozenset[GroupKey], now: datetime) -> Change:
    settled = {*rotation.settled, group}
    if groups <= settled:
        return advance(rotation, now)
    return Change(replace(rotation, settled=tuple(sorted(settled)), state=State.RUNNING, waiting=None, not_before=None))


def confirm_again(rotation: Rotation, groups: frozenset[GroupKey]) -> Rotation:
    """A neighbour went back and its groups are delivered anew: what was confirmed of them counts no more."""
    if not _at_step(rotation, Step.CONFIRM):
        return rotation
    return replace(rotation, settled=tuple(group for group in rotation.settled if group not in groups))
