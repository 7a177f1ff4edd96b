"""Exit codes, what works right now and the next command: rotation.md section 3, below the table."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.engine.standing import NOW, begun, standing
from vaultkeeper.engine import moves, verdict
from vaultkeeper.errors import HalfApplied, RotationFailed
from vaultkeeper.model.rotation import Cause, Rotation, State, Step, Waiting
from vaultkeeper.model.secret import Strategy

PATIENT = {Waiting.GRACE, Waiting.EVIDENCE, Waiting.INPUT, Waiting.WINDOW, Waiting.DEPENDENCY}


def parked(step: Step, cause: Cause, strategy: Strategy = Strategy.OVERLAP) -> Rotation:
    after = moves.park(begun(standing(step, strategy)), cause, "why").rotation
    assert after is not None
    return after


def waiting(step: Step, reason: Waiting, strategy: Strategy = Strategy.OVERLAP) -> Rotation:
    after = moves.wait(begun(standing(step, strategy)), reason, NOW + timedelta(hours=1)).rotation
    assert after is not None
    return after


def back(step: Step, strategy: Strategy) -> Rotation:
    after = moves.turn_back(begun(standing(step, strategy)), Cause.DELIVERY, NOW).rotation
    assert after is not None
    return after


def next_of(rotation: Rotation) -> str:
    told = verdict.told(rotation)
    assert told is not None
    return told.next


def test_done_exits_0_and_tells_nothing() -> None:
    done = standing(None, state=State.DONE)
    assert (verdict.exit_code(done), verdict.told(done)) == (0, None)


@pytest.mark.parametrize("reason", [reason for reason in Waiting if reason in PATIENT])
def test_waiting_for_grace_evidence_input_window_or_dependency_exits_0(reason: Waiting) -> None:
    assert verdict.exit_code(waiting(Step.GRACE, reason)) == 0


@pytest.mark.parametrize("reason", [reason for reason in Waiting if reason not in PATIENT])
def test_any_other_waiting_exits_5_while_consumers_hold_an_accepted_value_and_6_in_the_gap(reason: Waiting) -> None:
    assert verdict.exit_code(waiting(Step.CONFIRM, reason)) == 5
    assert verdict.exit_code(waiting(Step.PREPARE, reason, Strategy.SINGLE)) == 5
    assert verdict.exit_code(waiting(Step.SET, reason, Strategy.SINGLE)) == 6
    assert verdict.exit_code(waiting(Step.CONFIRM, reason, Strategy.SINGLE)) == 6


def test_rolled_back_exits_5() -> None:
    assert verdict.exit_code(standing(Step.SET, state=State.ROLLED_BACK, cause=Cause.REJECTED)) == 5


def test_ambiguous_exits_6() -> None:
    ambiguous = parked(Step.SET, Cause.NONE_ACCEPTED)
    assert (ambiguous.state, verdict.exit_code(ambiguous)) == (State.AMBIGUOUS, 6)


def test_parked_exits_5_while_consumers_are_proven_to_hold_an_accepted_value() -> None:
    assert verdict.exit_code(parked(Step.SET, Cause.CONFLICT)) == 5
    assert verdict.exit_code(parked(Step.RETIRE, Cause.PRIVILEGE)) == 5
    assert verdict.exit_code(parked(Step.PREPARE, Cause.CONFLICT, Strategy.SINGLE)) == 5


@pytest.mark.parametrize("cause", [Cause.TARGET_WENT_BACK, Cause.NONE_ACCEPTED])
def test_parked_exits_6_where_the_target_accepts_something_else(cause: Cause) -> None:
    assert verdict.exit_code(parked(Step.RETIRE, cause)) == 6


def test_parked_exits_6_in_the_gap_of_single() -> None:
    assert verdict.exit_code(parked(Step.SET, Cause.CONFLICT, Strategy.SINGLE)) == 6


def test_parked_on_the_way_back_exits_6_until_consumers_are_back() -> None:
    for strategy in (Strategy.OVERLAP, Strategy.SINGLE):
        rotation = back(Step.DELIVER, strategy)
        codes = []
        while rotation.phase is not None:
            stopped = moves.park(rotation, Cause.PRIVILEGE).rotation
            assert stopped is not None
            codes.append((rotation.phase.step, verdict.exit_code(stopped)))
            moved = moves.advance(rotation, NOW).rotation
            assert moved is not None
            rotation = moved
        back_again = codes.index((Step.CONFIRM, 6))
        assert {code for _, code in codes[: back_again + 1]} == {6}
        assert {code for _, code in codes[back_again + 1 :]} == {5}


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("step", [Step.OBSERVE, Step.SET, Step.CONFIRM, Step.RETIRE])
def test_invariant_14_every_stuck_state_names_its_cause_what_works_and_the_next_command(
    step: Step, cause: Cause
) -> None:
    told = verdict.told(parked(step, cause))
    assert told is not None
    assert cause.value.replace("_", " ") in told.what
    assert told.why
    assert told.works
    assert "vaultkeeper " in told.next
    assert "db" in told.next


def test_the_next_command_fits_the_state() -> None:
    assert next_of(parked(Step.SET, Cause.CONFLICT)).startswith("vaultkeeper resume db   (forward)")
    assert "vaultkeeper rollback db" in next_of(parked(Step.SET, Cause.CONFLICT))
    assert next_of(parked(Step.SET, Cause.STALE)) == "vaultkeeper reconcile db"
    assert next_of(parked(Step.SET, Cause.TARGET_WENT_BACK)) == "vaultkeeper reconcile db"
    assert "adopt db" in next_of(parked(Step.SET, Cause.NONE_ACCEPTED))
    assert next_of(waiting(Step.CONFIRM, Waiting.CONFIRM)) == "vaultkeeper resume db"
    assert "vaultkeeper rotate db" in next_of(standing(Step.SET, state=State.ROLLED_BACK, cause=Cause.REJECTED))


def test_who_asked_to_go_back_is_told_to_put_nothing_right() -> None:
    told = verdict.told(standing(Step.SET, state=State.ROLLED_BACK, cause=Cause.ASKED))
    assert told is not None
    assert "`vaultkeeper rollback`" in told.why
    assert told.next == "nothing; for a new value   vaultkeeper rotate db"


def test_the_error_class_follows_the_exit_code() -> None:
    assert isinstance(verdict.told(parked(Step.SET, Cause.CONFLICT)), RotationFailed)
    assert isinstance(verdict.told(parked(Step.SET, Cause.CONFLICT, Strategy.SINGLE)), HalfApplied)


@pytest.mark.parametrize(
    ("rotation", "works"),
    [
        (parked(Step.PREPARE, Cause.CONFLICT), "v2 (old): target and consumers are on it"),
        (parked(Step.SET, Cause.CONFLICT), "v2 (old): the target accepts it, v3 (new) may be refused"),
        (parked(Step.CONFIRM, Cause.CONFIRM_TIMEOUT), "v2 (old) and v3 (new): the target accepts both"),
        (parked(Step.RETIRE, Cause.PRIVILEGE), "v3 (new): every consumer runs on it; v2 (old) may still be accepted"),
        (
            parked(Step.SET, Cause.CONFLICT, Strategy.SINGLE),
            "v2 (old) or v3 (new): the target may accept only one of them",
        ),
        (parked(Step.SET, Cause.NONE_ACCEPTED), "none of the newest stored versions was accepted"),
        (parked(Step.SET, Cause.TARGET_WENT_BACK), "an older version than v2 (old): the target was put back"),
        (begun(standing(Step.SET, Strategy.SINGLE, first=True)), "nothing for certain: the target may accept v3 (new)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_works_right_now(rotation: Rotation, works: str) -> None:
    assert verdict.works_now(rotation) == works


@pytest.mark.parametrize(
    ("rotation", "works"),
    [
        (standing(Step.PREPARE), "none of the newest stored versions was accepted"),
        (standing(Step.PREPARE, state=State.ROLLED_BACK), "none of the newest stored versions was accepted"),
        (begun(standing(Step.SET)), "nothing for certain: the target may accept v3 (new)"),
        (begun(standing(Step.SET, Strategy.SINGLE)), "nothing for certain: the target may accept v3 (new)"),
        (standing(Step.DELIVER, Strategy.SINGLE), "v3 (new): it was proven"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_version_that_was_seen_refused_is_not_said_to_work(rotation: Rotation, works: str) -> None:
    seen = replace(rotation, gone=Cause.NONE_ACCEPTED)
    assert verdict.works_now(seen) == works
    assert verdict.exit_code(seen) == 6


def test_what_was_left_behind_refused_costs_a_finished_rotation_nothing() -> None:
    retiring = replace(waiting(Step.GRACE, Waiting.GRACE), gone=Cause.NONE_ACCEPTED)
    assert verdict.exit_code(retiring) == 0


def test_a_line_for_people_names_state_reason_and_time() -> None:
    assert verdict.described(waiting(Step.GRACE, Waiting.GRACE)) == "waiting (grace) until 2026-03-01 13:00:00 UTC"
    assert verdict.described(parked(Step.SET, Cause.CHECKS_NOTHING)) == "parked (checks nothing)"
    assert verdict.described(standing(Step.SET)) == "running"


def test_without_a_target_both_values_work_once_one_was_handed_over() -> None:
    before = parked(Step.PREPARE, Cause.CONFLICT, Strategy.PREVIOUS_KEYS)
    after = parked(Step.DELIVER, Cause.CONFLICT, Strategy.PREVIOUS_KEYS)
    assert verdict.works_now(before) == "v2 (old): target and consumers are on it"
    assert verdict.works_now(after) == "v2 (old) and v3 (new): no target checks either"
