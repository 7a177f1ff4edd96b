"""The phase plans of rotation.md section 1 and the ways back of section 11, spelled as there: a test for each row.

`set[P,C]` accepts both, P first; `!C` refuses C; `deliver@checker` goes to the destination that the checker reads.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.engine.standing import NOW, begun, standing
from vaultkeeper.engine import moves
from vaultkeeper.engine.plan import ROLLS_BACK_AFTER_RETIRE, Shape, carried, keeps_old, one_at_a_time, plan
from vaultkeeper.model.rotation import Audience, Cause, Direction, End, Phase, Purpose, Rotation, State, Step
from vaultkeeper.model.secret import Strategy

NAMES = {End.TO: "P", End.FROM: "C"}
RETIREMENT = "grace[C] release[C] evidence[C] retire[P]!C prove[C]"


def spelled(phases: tuple[Phase, ...]) -> str:
    return " ".join(map(_spelled, phases))


def _spelled(phase: Phase) -> str:
    carry = f"[{','.join(NAMES[end] for end in phase.carry)}]" if phase.carry else ""
    refuse = "".join(f"!{NAMES[end]}" for end in phase.refuse)
    return phase.step.value + ("@checker" if phase.audience is Audience.CHECKER else "") + carry + refuse


def planned(strategy: Strategy | None, **shape: object) -> str:
    return spelled(plan(replace(Shape(strategy), **shape)))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------- section 1, forward


@pytest.mark.parametrize("strategy", [Strategy.OVERLAP, Strategy.ALTERNATING_USERS])
def test_overlap_and_alternating_users(strategy: Strategy) -> None:
    assert planned(strategy) == (
        f"observe create[P] prepare[P] set[P,C] test[P] deliver[P] confirm[P] finish[P] {RETIREMENT}"
    )


def test_overlap_checker_behind_a_destination() -> None:
    assert planned(Strategy.OVERLAP, via=True) == (
        "observe create[P] prepare@checker[P,C] prepare[P] deliver@checker[P,C] confirm@checker[P,C] test[P] "
        "deliver[P] confirm[P] finish[P] grace[C] release[C] evidence[C] "
        "prepare@checker[P] deliver@checker[P] confirm@checker[P] prove[C]"
    )


def test_minted() -> None:
    assert planned(Strategy.MINTED) == (
        f"observe create[P] mint[P] test[P] prepare[P] deliver[P] confirm[P] finish[P] {RETIREMENT}"
    )


def test_single_prepares_everything_before_its_barrier() -> None:
    assert planned(Strategy.SINGLE) == (
        "observe create[P] prepare[P] barrier[P] set[P]!C test[P] deliver[P] confirm[P] finish[P] release[C]"
    )


def test_single_checker_behind_a_destination() -> None:
    assert planned(Strategy.SINGLE, via=True) == (
        "observe create[P] prepare@checker[P] prepare[P] barrier[P] "
        "deliver@checker[P] confirm@checker[P] test[P] deliver[P] confirm[P] finish[P] release[C]"
    )


def test_previous_keys_goes_round_twice_and_keeps_the_old_key() -> None:
    assert planned(Strategy.PREVIOUS_KEYS) == (
        "observe create[P] prepare[C,P] deliver[C,P] confirm[C,P] prepare[P,C] deliver[P,C] confirm[P,C] finish[P] "
        "release[C]"
    )


def test_previous_keys_whose_data_may_be_lost_leaves_the_old_key_out_before_its_release() -> None:
    assert planned(Strategy.PREVIOUS_KEYS, purpose=Purpose.EMERGENCY, drops_old=True).endswith(
        "finish[P] prepare[P] deliver[P] confirm[P] release[C]"
    )


def test_manual_waits_for_input_and_for_a_person_to_revoke() -> None:
    assert planned(Strategy.MANUAL) == (
        "observe create[P] test[P] prepare[P] deliver[P] confirm[P] finish[P] grace[C] release[C] evidence[C] prove[C]"
    )


def test_no_target() -> None:
    assert planned(None) == "observe create[P] prepare[P] deliver[P] confirm[P] finish[P] release[C]"


@pytest.mark.parametrize("strategy", [Strategy.OVERLAP, Strategy.ALTERNATING_USERS])
def test_rehearsal_touches_no_consumer(strategy: Strategy) -> None:
    assert planned(strategy, purpose=Purpose.REHEARSE) == "observe create[P] set[P,C] test[P] set[C]!P prove[P]"


@pytest.mark.parametrize("strategy", [*Strategy, None])
def test_a_first_rotation_keeps_and_retires_nothing_old(strategy: Strategy | None) -> None:
    text = planned(strategy, first=True)
    assert "C" not in text
    assert text.endswith("finish[P]")


@pytest.mark.parametrize("strategy", [*Strategy, None])
def test_an_emergency_knows_neither_grace_nor_evidence_and_retires_the_same(strategy: Strategy | None) -> None:
    calm = planned(strategy).replace("grace[C] ", "").replace("evidence[C] ", "")
    assert planned(strategy, purpose=Purpose.EMERGENCY) == calm


@pytest.mark.parametrize("purpose", [Purpose.ROTATE, Purpose.ROLLBACK, Purpose.EMERGENCY])
@pytest.mark.parametrize("strategy", [*Strategy, None])
def test_every_plan_releases_what_it_left_after_its_last_delivery_to_consumers(
    strategy: Strategy | None, purpose: Purpose
) -> None:
    """Without it a rollback path to the old value stays open for ever (Docker Swarm)."""
    phases = plan(Shape(strategy, purpose=purpose))
    release = phases.index(Phase(Step.RELEASE, (End.FROM,)))
    handed_over = [i for i, p in enumerate(phases) if p.step is Step.CONFIRM and p.audience is Audience.CONSUMERS]
    assert release > max(handed_over)
    assert Phase(Step.FINISH, (End.TO,)) in phases[:release]


@pytest.mark.parametrize("via", [False, True])
@pytest.mark.parametrize("strategy", [*Strategy, None])
def test_every_plan_begins_with_an_observation(strategy: Strategy | None, via: bool) -> None:
    assert planned(strategy, via=via).startswith("observe create[P] ")


@pytest.mark.parametrize("via", [False, True])
@pytest.mark.parametrize("strategy", [*Strategy, None])
def test_invariant_06_the_old_value_is_refused_last(strategy: Strategy | None, via: bool) -> None:
    """Only `single` cannot wait: there the new value takes its place."""
    phases = plan(Shape(strategy, via=via))
    if strategy is Strategy.SINGLE:
        return
    finish = next(i for i, phase in enumerate(phases) if phase.step is Step.FINISH)
    order = [Step.DELIVER, Step.CONFIRM, Step.FINISH]
    before = [phase.step for phase in phases[: finish + 1] if phase.audience is Audience.CONSUMERS]
    assert before[-3:] == order
    assert not any(End.FROM in phase.refuse for phase in phases[:finish])
    retirement = [p.step for p in phases[finish + 1 :]]
    if strategy in {None, Strategy.PREVIOUS_KEYS}:
        assert retirement == [Step.RELEASE]
    else:
        assert retirement[:3] == [Step.GRACE, Step.RELEASE, Step.EVIDENCE]
        assert retirement[-1] is Step.PROVE


# ------------------------------------------------------------------------------------- sections 1 and 11, before finish


def back_from(step: Step, strategy: Strategy | None, *, nth: int = 0, **more: object) -> str | None:
    rotation = begun(standing(step, strategy, nth=nth, **more))  # type: ignore[arg-type]
    after = moves.turn_back(rotation, Cause.ASKED, NOW).rotation
    assert after is not None
    if after.direction is Direction.FORWARD:
        assert (after.state, after.cause) == (State.PARKED, Cause.NO_WAY_BACK)
        return None
    return spelled(after.back)


@pytest.mark.parametrize("strategy", [Strategy.OVERLAP, Strategy.ALTERNATING_USERS, Strategy.MINTED])
def test_rollback_before_finish_overlap_puts_consumers_back_first(strategy: Strategy) -> None:
    assert back_from(Step.DELIVER, strategy) == "observe[C] deliver[C] confirm[C] set[C]!P release[P]"


def test_rollback_before_finish_overlap_behind_a_destination_shortens_the_list_last() -> None:
    assert back_from(Step.DELIVER, Strategy.OVERLAP, via=True, audience=Audience.CONSUMERS) == (
        "observe[C] deliver[C] confirm[C] prepare@checker[C] deliver@checker[C] confirm@checker[C] release[P]"
    )


def test_rollback_before_finish_minted_deletes_the_new_token() -> None:
    assert back_from(Step.MINT, Strategy.MINTED) == "set[C]!P"


def test_rollback_before_finish_single_puts_the_target_back_first() -> None:
    assert back_from(Step.DELIVER, Strategy.SINGLE) == "set[C]!P deliver[C] confirm[C] release[P]"


def test_rollback_before_finish_single_behind_a_destination_puts_the_checker_back_first() -> None:
    assert back_from(Step.DELIVER, Strategy.SINGLE, via=True, audience=Audience.CHECKER) == (
        "prepare@checker[C] deliver@checker[C] confirm@checker[C] release[P]"
    )


def test_rollback_before_finish_previous_keys_after_round_one_takes_the_new_key_out() -> None:
    assert back_from(Step.DELIVER, Strategy.PREVIOUS_KEYS) == "deliver[C] confirm[C] release[P]"


def test_rollback_before_finish_previous_keys_after_round_two_keeps_it_because_data_may_need_it() -> None:
    assert back_from(Step.DELIVER, Strategy.PREVIOUS_KEYS, nth=1) == "deliver[C,P] confirm[C,P] release[P]"


def test_rollback_before_finish_manual_and_no_target_deliver_the_old_value() -> None:
    assert back_from(Step.DELIVER, Strategy.MANUAL) == "observe[C] deliver[C] confirm[C] release[P]"
    assert back_from(Step.DELIVER, None) == "deliver[C] confirm[C] release[P]"


@pytest.mark.parametrize("strategy", [Strategy.OVERLAP, Strategy.SINGLE])
def test_rollback_before_finish_touches_only_what_was_begun(strategy: Strategy) -> None:
    assert back_from(Step.CREATE, strategy) == ""
    assert back_from(Step.PREPARE, strategy) == "release[P]"
    assert back_from(Step.SET, strategy) == "set[C]!P release[P]"


def test_rollback_before_finish_of_a_first_version_hands_over_nothing() -> None:
    assert back_from(Step.DELIVER, Strategy.OVERLAP, first=True) == "deliver confirm set!P release[P]"


def test_rollback_before_finish_single_has_no_way_back_from_a_first_version_that_was_set() -> None:
    assert back_from(Step.SET, Strategy.SINGLE, first=True) is None
    assert back_from(Step.DELIVER, Strategy.SINGLE, first=True, via=True, audience=Audience.CHECKER) is None


# -------------------------------------------------------------------------------- section 11, in grace and after retire


@pytest.mark.parametrize("strategy", [Strategy.OVERLAP, Strategy.ALTERNATING_USERS, Strategy.SINGLE, None])
def test_rollback_later_is_a_whole_rotation_with_the_old_fields(strategy: Strategy | None) -> None:
    """In grace the set is "already so"; after retire it sets the old password again (`single`: an outage)."""
    assert planned(strategy, purpose=Purpose.ROLLBACK, values_exist=True) == planned(strategy)


def test_rollback_later_minted_in_grace_mints_nothing() -> None:
    again = planned(Strategy.MINTED, purpose=Purpose.ROLLBACK, values_exist=True)
    assert again == planned(Strategy.MINTED).replace("mint[P] ", "")


def test_rollback_later_minted_after_retire_is_impossible() -> None:
    assert Strategy.MINTED not in ROLLS_BACK_AFTER_RETIRE
    assert {*Strategy, None} - {Strategy.MINTED} == ROLLS_BACK_AFTER_RETIRE


def test_rollback_later_previous_keys_promotes_the_old_key_and_the_other_stays_in_the_list() -> None:
    again = planned(Strategy.PREVIOUS_KEYS, purpose=Purpose.ROLLBACK, values_exist=True)
    assert "deliver[P,C]" in again
    assert "retire" not in again


def test_rollback_later_manual_delivers_the_old_value_only_if_the_probe_accepts_it() -> None:
    again = planned(Strategy.MANUAL, purpose=Purpose.ROLLBACK, values_exist=True)
    assert again.index("test[P]") < again.index("deliver[P]")


def test_a_rollback_that_is_taken_back_refuses_the_copied_value_again() -> None:
    """Its predecessor's retirement was cancelled, so the target may still accept it."""
    assert back_from(Step.PREPARE, Strategy.OVERLAP, purpose=Purpose.ROLLBACK) == "set[C]!P release[P]"


# ------------------------------------------------------------------------------------------------- what slots carry now


def test_slots_carry_what_the_last_delivery_handed_over() -> None:
    assert carried(standing(Step.TEST), Audience.CONSUMERS) is None
    assert carried(begun(standing(Step.DELIVER)), Audience.CONSUMERS) == (End.TO,)
    assert carried(begun(standing(Step.GRACE)), Audience.CONSUMERS) == (End.TO,)
    keys = begun(standing(Step.CONFIRM, Strategy.PREVIOUS_KEYS))
    assert carried(keys, Audience.CONSUMERS) == (End.FROM, End.TO)


def test_a_delivery_that_was_not_begun_carries_nothing_that_a_neighbour_could_hand_over() -> None:
    assert carried(standing(Step.DELIVER), Audience.CONSUMERS) is None


def test_slots_carry_the_new_value_on_the_way_back_until_they_are_delivered_again() -> None:
    rotation: Rotation | None = begun(standing(Step.CONFIRM, Strategy.SINGLE))
    assert rotation is not None
    rotation = moves.turn_back(rotation, Cause.ASKED, NOW).rotation
    assert rotation is not None
    assert carried(rotation, Audience.CONSUMERS) == (End.TO,)
    rotation = moves.advance(rotation, NOW).rotation
    assert rotation is not None
    assert carried(rotation, Audience.CONSUMERS) == (End.FROM,)


def test_only_single_knows_a_gap_and_only_previous_keys_keeps_old_ones() -> None:
    policies = {strategy: standing(Step.OBSERVE, strategy).policy for strategy in (*Strategy, None)}
    assert [s for s, policy in policies.items() if one_at_a_time(policy)] == [Strategy.SINGLE]
    assert [s for s, policy in policies.items() if keeps_old(policy)] == [Strategy.PREVIOUS_KEYS]
