"""The table of rotation.md section 3, a test for each row. The search shows that they work together."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.engine.standing import GROUP, NOW, OTHER, begun, standing
from vaultkeeper.engine import judge, moves
from vaultkeeper.engine.judge import Proved, Seen
from vaultkeeper.model.outcome import Confirmed, Done, Failed, Login, No, NotYet, Proof, Refused, Unknown, Usage
from vaultkeeper.model.rotation import (
    Audience,
    Cause,
    Direction,
    End,
    Options,
    Phase,
    Purpose,
    Rotation,
    State,
    Step,
    Waiting,
)
from vaultkeeper.model.secret import Acceptance, GroupKey, StagingLabel, Strategy
from vaultkeeper.ports import Change

ONE = frozenset([GROUP])
BOTH = frozenset([GROUP, OTHER])
ACCEPTED, REJECTED = Login.ACCEPTED, Login.REJECTED


def moved(change: Change) -> Rotation:
    assert change.rotation is not None
    return change.rotation


def step_of(rotation: Rotation) -> Step | None:
    return rotation.phase.step if rotation.phase else None


# ------------------------------------------------------------------------------------------------------------- running


def test_running_done_goes_to_the_next_phase() -> None:
    after = moved(judge.judge_result(standing(Step.SET), Done(), NOW))
    assert (step_of(after), after.state) == (Step.TEST, State.RUNNING)


def test_running_done_at_the_end_is_done() -> None:
    after = moved(judge.judge_proved(standing(Step.PROVE), Proved(REJECTED), NOW))
    assert (after.state, after.ended_at) == (State.DONE, NOW)


def test_running_done_at_the_end_of_the_way_back_is_rolled_back() -> None:
    change = judge.judge_result(_going_back(Step.RELEASE), Done(), NOW)
    assert moved(change).state is State.ROLLED_BACK
    assert change.labels == {StagingLabel.PENDING: None}
    assert change.facts
    assert change.facts[3].acceptance is Acceptance.REFUSED


def test_what_ended_on_the_way_back_tells_why_it_turned_and_not_what_it_waited_for_since() -> None:
    turned = moved(moves.turn_back(begun(standing(Step.SET)), Cause.DELIVERY, NOW, "shop_api: crashes"))
    waiting = moved(judge.judge_result(turned, NotYet("still starting", timedelta(minutes=1)), NOW))
    assert waiting.detail == "still starting"
    after = waiting
    while after.phase is not None:
        after = moved(moves.advance(after, NOW))
    assert (after.state, after.detail) == (State.ROLLED_BACK, "shop_api: crashes")


def test_running_not_yet_waits_in_the_same_phase() -> None:
    after = moved(judge.judge_result(standing(Step.SET), NotYet("locked", timedelta(minutes=5), ("restic",)), NOW))
    assert (step_of(after), after.state, after.waiting) == (Step.SET, State.WAITING, Waiting.DEPENDENCY)
    assert (after.not_before, after.waiting_for, after.detail) == (NOW + timedelta(minutes=5), ("restic",), "locked")


@pytest.mark.parametrize(
    ("strategy", "reason"), [(Strategy.MANUAL, Waiting.INPUT), (Strategy.OVERLAP, Waiting.DEPENDENCY)]
)
def test_running_not_yet_at_create_waits_for_a_person_only_where_one_makes_the_value(
    strategy: Strategy, reason: Waiting
) -> None:
    creating = standing(Step.CREATE, strategy)
    after = moved(judge.judge_result(creating, NotYet("not yet", timedelta(hours=1)), NOW))
    assert (after.state, after.waiting) == (State.WAITING, reason)


@pytest.mark.parametrize(("reason", "waiting"), [("UNREACHABLE", "UNREACHABLE"), ("THROTTLED", "THROTTLED")])
def test_running_unknown_waits_and_observes_before_anything_else(reason: str, waiting: str) -> None:
    unknown = Unknown(Login[reason], "no reply", timedelta(minutes=1))
    after = moved(judge.judge_result(begun(standing(Step.SET)), unknown, NOW))
    assert (after.state, after.waiting, after.outcome_unknown) == (State.WAITING, Waiting[waiting], True)
    assert after.not_before == NOW + timedelta(minutes=1)


def test_running_unknown_before_the_call_was_made_leaves_no_doubt() -> None:
    after = moved(judge.judge_result(standing(Step.CREATE), Unknown(Login.UNREACHABLE), NOW))
    assert (after.waiting, after.outcome_unknown) == (Waiting.UNREACHABLE, False)


# -------------------------------------------------------------------------------------------------------------- refused


def test_set_refused_for_its_value_discards_the_version_and_rolls_back() -> None:
    after = _to_the_end(judge.judge_result(begun(standing(Step.SET)), Refused(No.VALUE, "too short"), NOW))
    assert (after.state, after.cause, after.detail) == (State.ROLLED_BACK, Cause.VALUE, "too short")


def test_set_refused_for_its_value_the_third_time_is_parked() -> None:
    for refusals, state in ((1, State.ROLLED_BACK), (2, State.PARKED)):
        rotation = begun(standing(Step.SET, value_refusals=refusals))
        after = _to_the_end(judge.judge_result(rotation, Refused(No.VALUE, "too short"), NOW))
        assert (after.state, after.cause) == (state, Cause.VALUE)


@pytest.mark.parametrize("no", [No.PRIVILEGE, No.CAPACITY, No.UNSUPPORTED])
def test_before_any_set_refused_rolls_back_without_touching_the_target(no: No) -> None:
    change = judge.judge_result(standing(Step.CREATE), Refused(no, "why"), NOW)
    after = moved(change)
    assert (after.state, after.cause, after.back) == (State.ROLLED_BACK, judge.CAUSE_OF[no], ())


@pytest.mark.parametrize("no", [No.PRIVILEGE, No.CAPACITY, No.UNSUPPORTED])
def test_after_a_set_refused_goes_back(no: No) -> None:
    after = moved(judge.judge_delivered(begun(standing(Step.DELIVER)), GROUP, ONE, Refused(no, "why"), NOW))
    assert (after.direction, after.cause) == (Direction.BACK, judge.CAUSE_OF[no])
    assert [p.step for p in after.back] == [Step.SET, Step.RELEASE]


@pytest.mark.parametrize("no", [No.PRIVILEGE, No.CAPACITY, No.UNSUPPORTED])
def test_after_a_set_refused_on_the_way_back_too_is_parked(no: No) -> None:
    after = moved(judge.judge_result(_going_back(Step.SET), Refused(no, "why"), NOW))
    assert (after.state, after.cause, after.direction) == (State.PARKED, judge.CAUSE_OF[no], Direction.BACK)


@pytest.mark.parametrize("step", [Step.CREATE, Step.SET, Step.DELIVER, Step.RELEASE, Step.RETIRE])
def test_invariant_12_anywhere_refused_as_stale_is_parked(step: Step) -> None:
    after = moved(judge.judge_result(begun(standing(step)), Refused(No.STALE, "generation 9"), NOW))
    assert (after.state, after.cause, step_of(after)) == (State.PARKED, Cause.STALE, step)


def test_anywhere_refused_for_a_conflict_tries_eight_times_with_growing_pauses_then_parks() -> None:
    rotation, pauses = standing(Step.SET), []
    for _ in range(8):
        rotation = moved(judge.judge_result(begun(rotation), Refused(No.CONFLICT, "changed"), NOW))
        assert (rotation.state, step_of(rotation)) == (State.RUNNING, Step.SET)
        assert rotation.not_before is not None
        pauses.append(rotation.not_before - NOW)
    assert pauses == sorted(pauses)
    assert pauses[0] > timedelta(0)
    parked = moved(judge.judge_result(begun(rotation), Refused(No.CONFLICT, "changed"), NOW))
    assert (parked.state, parked.cause) == (State.PARKED, Cause.CONFLICT)


def test_two_writers_in_conflict_do_not_meet_again() -> None:
    one, other = standing(Step.SET), standing(Step.SET, id="ff" * 16)
    assert judge.conflict_delay(one) != judge.conflict_delay(other)


def test_a_refusal_after_an_unknown_outcome_does_not_mean_that_nothing_was_done() -> None:
    rotation = begun(standing(Step.SET, doubted=True))
    after = moved(judge.judge_result(rotation, Refused(No.VALUE, "too short"), NOW))
    assert [p.step for p in after.back] == [Step.SET, Step.RELEASE]


# ---------------------------------------------------------------------------------------------------------------- test


def test_invariant_05_test_accepted_and_a_wrong_value_rejected_goes_on_and_is_verified() -> None:
    change = judge.judge_tested(standing(Step.TEST), judge.Tested(ACCEPTED, REJECTED), NOW)
    assert step_of(moved(change)) is Step.DELIVER
    assert change.facts
    assert change.facts[3].verified is True
    assert change.facts[3].acceptance is Acceptance.ACCEPTED


def test_invariant_05_test_accepted_by_a_protocol_that_proves_the_server_goes_on() -> None:
    assert step_of(moved(judge.judge_tested(standing(Step.TEST), judge.Tested(ACCEPTED), NOW))) is Step.DELIVER


def test_test_rejected_goes_back() -> None:
    change = judge.judge_tested(standing(Step.TEST), judge.Tested(REJECTED), NOW)
    assert (moved(change).direction, moved(change).cause) == (Direction.BACK, Cause.REJECTED)
    assert change.facts
    assert change.facts[3].verified is False


def test_invariant_05_test_with_a_wrong_value_accepted_goes_back_and_parks() -> None:
    change = judge.judge_tested(standing(Step.TEST), judge.Tested(ACCEPTED, ACCEPTED), NOW)
    assert (moved(change).direction, moved(change).cause) == (Direction.BACK, Cause.CHECKS_NOTHING)
    assert _to_the_end(change).state is State.PARKED


@pytest.mark.parametrize("silent", [judge.Tested(Login.UNREACHABLE), judge.Tested(ACCEPTED, Login.THROTTLED)])
def test_test_without_an_answer_concludes_nothing(silent: judge.Tested) -> None:
    after = moved(judge.judge_tested(standing(Step.TEST), silent, NOW))
    assert (after.state, step_of(after)) == (State.WAITING, Step.TEST)


def test_invariant_05_what_cannot_be_proven_goes_on_and_says_so() -> None:
    change = judge.judge_tested(standing(Step.TEST), judge.Tested(ACCEPTED, unverified="verify: none"), NOW)
    assert moved(change).unverified == "verify: none"
    assert not change.facts


# ------------------------------------------------------------------------------------------------- deliver and confirm


def test_deliver_and_confirm_are_over_when_every_group_has_it() -> None:
    half = moved(judge.judge_delivered(standing(Step.DELIVER), GROUP, BOTH, Done(), NOW))
    assert (step_of(half), half.settled) == (Step.DELIVER, (GROUP,))
    assert step_of(moved(judge.judge_delivered(half, OTHER, BOTH, Done(), NOW))) is Step.CONFIRM


def test_what_is_behind_a_phase_is_told_alike_in_whatever_order_it_came() -> None:
    more = BOTH | {GroupKey("z")}
    told = []
    for first, second in ((GROUP, OTHER), (OTHER, GROUP)):
        half = moved(judge.judge_delivered(standing(Step.DELIVER), first, more, Done(), NOW))
        told.append(moved(judge.judge_delivered(half, second, more, Done(), NOW)).settled)
    assert told[0] == told[1]


def test_confirm_remembers_the_weakest_proof() -> None:
    after = _confirmed(standing(Step.CONFIRM), Confirmed(Proof.WRITTEN), groups=BOTH)
    assert after.proof is Proof.WRITTEN
    assert moved(_confirm(after, Confirmed(Proof.DEMONSTRATED), group=OTHER, groups=BOTH)).proof is Proof.WRITTEN


def test_confirm_failed_for_certain_goes_back_in_all_groups() -> None:
    after = _confirmed(standing(Step.CONFIRM), Failed("shop_api", "crashes"))
    assert (after.direction, after.cause, after.detail) == (Direction.BACK, Cause.DELIVERY, "shop_api: crashes")
    assert [p.step for p in after.back] == [
        Step.OBSERVE,
        Step.DELIVER,
        Step.CONFIRM,
        Step.SET,
        Step.RELEASE,
    ]


def _before_handing_back(
    strategy: Strategy, seen: Seen, *, via: bool = False, purpose: Purpose = Purpose.ROTATE
) -> Rotation:
    confirming = standing(Step.CONFIRM, strategy, via=via, audience=Audience.CONSUMERS, purpose=purpose)
    turned = moves.turn_back(begun(confirming), Cause.DELIVERY, NOW, "crashes").rotation
    assert turned is not None
    return moved(judge.judge_seen(turned, seen, NOW))


GONE = Seen(to=Login.ACCEPTED, from_=Login.REJECTED)


@pytest.mark.parametrize("strategy", [Strategy.OVERLAP, Strategy.ALTERNATING_USERS, Strategy.MINTED, Strategy.MANUAL])
@pytest.mark.parametrize(
    "seen",
    [
        Seen(to=Login.ACCEPTED, from_=Login.ACCEPTED),
        Seen(from_=Login.UNREACHABLE),
        Seen(from_=Login.THROTTLED),
        Seen(to=Login.UNREACHABLE, from_=Login.REJECTED),
        Seen(askable=False),
    ],
)
def test_going_back_goes_on_unless_the_old_value_is_refused_for_certain_and_the_new_one_works(
    strategy: Strategy, seen: Seen
) -> None:
    after = _before_handing_back(strategy, seen)
    assert (after.state, after.at) == (State.RUNNING, 1)
    assert after.phase is not None
    assert after.phase.step is Step.DELIVER


@pytest.mark.parametrize("strategy", [Strategy.OVERLAP, Strategy.ALTERNATING_USERS])
def test_going_back_goes_on_where_neither_works_and_the_old_value_may_work_again(strategy: Strategy) -> None:
    after = _before_handing_back(strategy, Seen(to=Login.REJECTED, from_=Login.REJECTED))
    assert (after.state, after.at) == (State.RUNNING, 1)


@pytest.mark.parametrize("strategy", [Strategy.MINTED, Strategy.MANUAL])
@pytest.mark.parametrize(
    ("previous", "cause"),
    [
        (None, Cause.NONE_ACCEPTED),
        (Login.REJECTED, Cause.NONE_ACCEPTED),
        (Login.ACCEPTED, Cause.TARGET_WENT_BACK),
    ],
)
def test_nobody_is_handed_a_dead_value_that_nothing_here_can_set_again(
    previous: Login | None, cause: Cause, strategy: Strategy
) -> None:
    seen = Seen(to=Login.REJECTED, from_=Login.REJECTED, previous=previous)
    after = _before_handing_back(strategy, seen)
    assert (after.cause, after.at, after.phase and after.phase.step) == (cause, 0, Step.OBSERVE)


def test_a_target_that_cannot_accept_a_token_is_looked_at_once_before_a_person_is_called() -> None:
    retiring = begun(standing(Step.RETIRE, Strategy.MINTED))
    gone = Refused(No.UNSUPPORTED, "a deleted token cannot be made again")
    looking = moved(judge.judge_result(retiring, gone, NOW))
    assert (looking.state, looking.outcome_unknown, looking.at) == (State.RUNNING, True, retiring.at)
    both = Seen(to=Login.ACCEPTED, from_=Login.ACCEPTED)
    again = moved(judge.judge_seen(looking, both, NOW))
    assert (again.state, again.outcome_unknown, again.at) == (State.RUNNING, False, retiring.at)
    after = moved(judge.judge_result(begun(again), gone, NOW))
    assert (after.state, after.cause, after.detail) == (State.PARKED, Cause.UNSUPPORTED, gone.detail)


def _going_back_at(step: Step, confirming: Rotation) -> Rotation:
    turned = moves.turn_back(begun(confirming), Cause.DELIVERY, NOW, "crashes").rotation
    assert turned is not None
    return replace(turned, at=[phase.step for phase in turned.back].index(step))


def test_what_a_way_back_set_and_the_target_lost_is_set_again_where_an_administrator_overwrites() -> None:
    replacing = standing(Step.CONFIRM, Strategy.SINGLE, options=Options(replace=True))
    doubted = replace(_going_back_at(Step.CONFIRM, replacing), outcome_unknown=True)
    after = moved(judge.judge_seen(doubted, Seen(to=Login.REJECTED, from_=Login.REJECTED), NOW))
    assert (after.state, after.direction) == (State.RUNNING, Direction.BACK)
    assert after.phase == Phase(Step.SET, (End.FROM,), (End.TO,))


def test_what_only_the_way_back_of_a_copied_token_sets_can_be_in_doubt_too() -> None:
    copied = standing(Step.CONFIRM, Strategy.MINTED, purpose=Purpose.ROLLBACK)
    assert not judge.needs_observation(_going_back_at(Step.CONFIRM, copied))
    assert judge.needs_observation(_going_back_at(Step.SET, copied))


@pytest.mark.parametrize("strategy", [Strategy.OVERLAP, Strategy.ALTERNATING_USERS])
def test_going_back_to_a_refused_value_makes_the_target_accept_both_first(strategy: Strategy) -> None:
    after = _before_handing_back(strategy, GONE)
    assert after.phase is not None
    assert (after.phase.step, after.phase.carry, after.phase.refuse) == (Step.SET, (End.FROM, End.TO), ())
    assert [phase.step for phase in after.back[:4]] == [Step.OBSERVE, Step.SET, Step.DELIVER, Step.CONFIRM]


def test_going_back_to_a_value_that_its_checker_refuses_delivers_both_to_the_checker_first() -> None:
    after = _before_handing_back(Strategy.OVERLAP, GONE, via=True)
    lists = [p for p in after.back[:5] if p.audience is Audience.CHECKER]
    assert [phase.step for phase in lists] == [Step.PREPARE, Step.DELIVER, Step.CONFIRM]
    assert {phase.carry for phase in lists} == {(End.FROM, End.TO)}


@pytest.mark.parametrize("strategy", [Strategy.MINTED, Strategy.MANUAL])
def test_going_back_to_a_refused_value_that_nobody_here_can_set_parks_with_both_facts(strategy: Strategy) -> None:
    after = _before_handing_back(strategy, GONE)
    assert (after.state, after.cause, after.at) == (State.PARKED, Cause.OLD_REFUSED, 0)
    assert "refuses v2 (old), and accepts v3 (new)" in after.detail
    again = moved(moves.sent_back(after, NOW))
    assert (again.state, again.cause, again.at) == (State.RUNNING, Cause.ASKED, 0)


@pytest.mark.parametrize("via", [False, True])
def test_going_back_never_makes_a_leaked_value_work_again(via: bool) -> None:
    after = _before_handing_back(Strategy.OVERLAP, GONE, via=via, purpose=Purpose.EMERGENCY)
    assert (after.state, after.cause, after.at) == (State.PARKED, Cause.OLD_REFUSED, 0)


def test_going_back_writes_nothing_where_a_newer_store_was() -> None:
    after = _before_handing_back(Strategy.OVERLAP, Seen(newer_tag=True, detail="generation 9"))
    assert (after.state, after.cause) == (State.PARKED, Cause.STALE)


def test_confirm_of_the_others_is_done_again_after_a_neighbour_went_back() -> None:
    confirmed = standing(Step.CONFIRM, settled=(GROUP, OTHER))
    assert judge.confirm_again(confirmed, ONE).settled == (OTHER,)
    assert judge.confirm_again(standing(Step.FINISH, settled=(GROUP, OTHER)), ONE).settled == (GROUP, OTHER)


def test_confirm_not_yet_within_its_time_waits() -> None:
    after = _confirmed(standing(Step.CONFIRM), NotYet("restarting", timedelta(seconds=2), ("shop_api",)))
    assert (after.state, after.waiting, after.waiting_for) == (State.WAITING, Waiting.CONFIRM, ("shop_api",))


def test_confirm_not_yet_past_its_time_goes_back_where_consumers_can_be_put_back() -> None:
    late = standing(Step.CONFIRM, entered_at=NOW - timedelta(minutes=10))
    after = _confirmed(late, NotYet("restarting", timedelta(seconds=2), ("shop_api",)))
    assert (after.direction, after.cause) == (Direction.BACK, Cause.CONFIRM_TIMEOUT)
    assert after.detail == "restarting (shop_api)"


def test_confirm_not_yet_past_its_time_is_parked_where_they_cannot() -> None:
    late = standing(Step.CONFIRM, entered_at=NOW - timedelta(minutes=10))
    after = moved(_confirm(late, NotYet("offline", timedelta(hours=1), ("laptop",)), puts_back=False))
    assert (after.state, after.cause, after.direction) == (State.PARKED, Cause.CONFIRM_TIMEOUT, Direction.FORWARD)


@pytest.mark.parametrize(("cut", "state"), [(False, State.PARKED), (True, State.RUNNING)])
def test_confirm_in_an_emergency_stops_at_laggards_unless_cut(cut: bool, state: State) -> None:
    options = Options(cut=cut, deadline=timedelta(minutes=1))
    late = standing(Step.CONFIRM, purpose=Purpose.EMERGENCY, options=options, entered_at=NOW - timedelta(minutes=2))
    after = _confirmed(late, NotYet("offline", timedelta(hours=1), ("laptop",)))
    assert after.state is state
    assert after.unverified.startswith("cut ") if cut else after.cause is Cause.LAGGARDS


# --------------------------------------------------------------------------------------------------------- after finish


def test_finish_moves_the_labels_in_one_change() -> None:
    change = judge.judge_finish(standing(Step.FINISH), NOW)
    assert change.labels == {StagingLabel.CURRENT: 3, StagingLabel.PREVIOUS: 2, StagingLabel.PENDING: None}


@pytest.mark.parametrize("step", [Step.RELEASE, Step.RETIRE])
def test_after_finish_refused_is_parked_and_nothing_is_undone(step: Step) -> None:
    after = moved(judge.judge_result(begun(standing(step)), Refused(No.PRIVILEGE, "why"), NOW))
    assert (after.state, after.cause, after.direction) == (State.PARKED, Cause.PRIVILEGE, Direction.FORWARD)


def test_grace_counts_from_the_finish() -> None:
    rotation = standing(Step.GRACE)
    asleep = moved(judge.judge_grace(rotation, NOW + timedelta(hours=23)))
    assert (asleep.waiting, asleep.not_before) == (Waiting.GRACE, NOW + timedelta(hours=24))
    assert step_of(moved(judge.judge_grace(rotation, NOW + timedelta(hours=24)))) is Step.RELEASE


def test_prove_old_value_rejected_is_recorded() -> None:
    change = judge.judge_proved(standing(Step.PROVE), Proved(REJECTED), NOW)
    assert change.facts
    assert change.facts[2].acceptance is Acceptance.REFUSED


def test_prove_old_value_still_accepted_retires_once_more_then_parks() -> None:
    again = moved(judge.judge_proved(standing(Step.PROVE), Proved(ACCEPTED), NOW))
    assert (step_of(again), again.state) == (Step.RETIRE, State.RUNNING)
    back_at_prove = moved(judge.judge_result(begun(again), Done(), NOW))
    parked = moved(judge.judge_proved(back_at_prove, Proved(ACCEPTED, detail="it is deaf"), NOW))
    assert (parked.state, parked.cause, parked.detail) == (State.PARKED, Cause.STILL_ACCEPTED, "it is deaf")


def test_prove_behind_a_destination_delivers_the_shorter_list_once_more() -> None:
    again = moved(judge.judge_proved(standing(Step.PROVE, via=True), Proved(ACCEPTED), NOW))
    assert again.phase is not None
    assert (again.phase.step, again.phase.audience, again.phase.carry) == (Step.PREPARE, Audience.CHECKER, (End.TO,))


def test_prove_waits_for_a_person_where_only_a_person_revokes() -> None:
    after = moved(judge.judge_proved(standing(Step.PROVE, Strategy.MANUAL), Proved(ACCEPTED), NOW))
    assert (after.state, after.waiting) == (State.WAITING, Waiting.INPUT)


def test_invariant_05_prove_that_cannot_be_asked_is_shown_as_unverified() -> None:
    assert moved(judge.judge_proved(standing(Step.PROVE), Proved(None, "no login"), NOW)).unverified == "no login"


def test_invariant_06_evidence_of_use_waits() -> None:
    after = moved(judge.judge_usage(standing(Step.EVIDENCE), Usage(True, ("pid 7",)), NOW, due_again=False))
    assert (after.state, after.waiting, after.waiting_for) == (State.WAITING, Waiting.EVIDENCE, ("pid 7",))


def test_evidence_is_asked_for_soon_at_first_and_then_every_hour() -> None:
    rotation, now, looks = standing(Step.EVIDENCE), NOW, list[float]()
    for _ in range(7):
        rotation = moved(judge.judge_usage(rotation, Usage(True, ("pid 7",)), now, due_again=False))
        assert rotation.not_before is not None
        looks.append((rotation.not_before - NOW).total_seconds())
        now = rotation.not_before
    assert looks == [5, 10, 20, 40, 80, 80 + 3600, 80 + 7200]


@pytest.mark.parametrize(("days", "due_again"), [(0, True), (7, False)])
def test_evidence_of_use_when_due_again_or_after_seven_days_is_parked_with_holders_named(
    days: int, due_again: bool
) -> None:
    used, now = Usage(True, ("pid 7",)), NOW + timedelta(days=days)
    after = moved(judge.judge_usage(standing(Step.EVIDENCE), used, now, due_again=due_again))
    assert (after.state, after.cause, after.detail) == (State.PARKED, Cause.IN_USE, "pid 7")


def test_evidence_that_cannot_be_seen_leaves_grace_alone_to_govern_and_says_so() -> None:
    after = moved(judge.judge_usage(standing(Step.EVIDENCE), Usage(None), NOW, due_again=False))
    assert step_of(after) is Step.RETIRE
    assert "grace alone" in after.detail


def test_evidence_without_an_answer_concludes_nothing() -> None:
    silent = Unknown(Login.UNREACHABLE)
    assert moved(judge.judge_usage(standing(Step.EVIDENCE), silent, NOW, due_again=True)).state is State.WAITING


# ---------------------------------------------------------------------------------------------- observe, no version yet


def test_observe_no_version_yet_current_accepted_goes_on() -> None:
    assert step_of(_first_look(Seen(from_=ACCEPTED))) is Step.CREATE


def test_observe_no_version_yet_previous_accepted_is_parked_as_a_target_that_went_back() -> None:
    after = _first_look(Seen(from_=REJECTED, previous=ACCEPTED))
    assert (after.state, after.cause) == (State.PARKED, Cause.TARGET_WENT_BACK)


def test_observe_no_version_yet_none_accepted_is_ambiguous() -> None:
    after = _first_look(Seen(from_=REJECTED, previous=REJECTED))
    assert (after.state, after.cause) == (State.AMBIGUOUS, Cause.NONE_ACCEPTED)


def test_observe_no_version_yet_none_accepted_goes_on_with_replace() -> None:
    rotation = standing(Step.OBSERVE, options=Options(replace=True))
    assert step_of(moved(judge.judge_seen(rotation, Seen(from_=REJECTED), NOW))) is Step.CREATE


def test_observe_nothing_stored_goes_on_where_the_account_cannot_log_in_yet() -> None:
    after = moved(judge.judge_seen(standing(Step.OBSERVE, first=True), Seen(account_usable=False), NOW))
    assert step_of(after) is Step.CREATE


@pytest.mark.parametrize(("replace_", "state"), [(False, State.ROLLED_BACK), (True, State.RUNNING)])
def test_observe_nothing_stored_takes_over_an_account_in_use_only_with_replace(replace_: bool, state: State) -> None:
    rotation = standing(Step.OBSERVE, first=True, options=Options(replace=replace_))
    after = moved(judge.judge_seen(rotation, Seen(account_usable=True), NOW))
    assert (after.state, after.cause) == (state, None if replace_ else Cause.ACCOUNT_IN_USE)


def test_observe_nothing_stored_and_no_answer_concludes_nothing_about_the_account() -> None:
    seen = Seen(unanswered=Login.UNREACHABLE)
    after = moved(judge.judge_seen(standing(Step.OBSERVE, first=True), seen, NOW))
    assert (after.state, step_of(after)) == (State.WAITING, Step.OBSERVE)


@pytest.mark.parametrize("seen", [Seen(from_=Login.THROTTLED), Seen(from_=REJECTED, previous=Login.UNREACHABLE)])
def test_observe_unreachable_or_throttled_waits_and_concludes_nothing(seen: Seen) -> None:
    after = _first_look(seen)
    assert (after.state, step_of(after)) == (State.WAITING, Step.OBSERVE)


@pytest.mark.parametrize("step", [Step.OBSERVE, Step.SET, Step.RETIRE])
def test_invariant_12_observe_a_tag_newer_than_the_store_is_parked_as_stale(step: Step) -> None:
    rotation = standing(step, outcome_unknown=True)
    after = moved(judge.judge_seen(rotation, Seen(newer_tag=True, detail="generation 9"), NOW))
    assert (after.state, after.cause, step_of(after)) == (State.PARKED, Cause.STALE, step)


# ------------------------------------------------------------------------------------ observe, after an unknown outcome


def test_observe_new_accepted_counts_the_phase_as_done() -> None:
    assert step_of(_look_again(Step.SET, Seen(ACCEPTED, ACCEPTED))) is Step.TEST


def test_observe_new_accepted_and_old_too_repeats_a_phase_that_refuses_the_old_one() -> None:
    assert step_of(_look_again(Step.RETIRE, Seen(ACCEPTED, ACCEPTED))) is Step.RETIRE
    assert step_of(_look_again(Step.RETIRE, Seen(ACCEPTED, REJECTED))) is Step.PROVE


def test_invariant_03_observe_new_rejected_and_current_accepted_repeats_with_the_same_version() -> None:
    after = _look_again(Step.SET, Seen(REJECTED, ACCEPTED))
    assert (step_of(after), after.to_version, after.outcome_unknown) == (Step.SET, 3, False)


def test_observe_new_rejected_after_its_test_sets_the_same_version_again() -> None:
    assert step_of(_look_again(Step.DELIVER, Seen(REJECTED, ACCEPTED))) is Step.SET


def test_observe_new_rejected_without_a_current_repeats_with_an_admin() -> None:
    after = _look_again(Step.TEST, Seen(REJECTED), first=True)
    assert (step_of(after), after.state) == (Step.SET, State.RUNNING)


def test_observe_new_rejected_without_a_current_is_ambiguous_in_self_service() -> None:
    after = _look_again(Step.SET, Seen(REJECTED), strategy=Strategy.SINGLE, first=True, self_service=True)
    assert (after.state, after.cause) == (State.AMBIGUOUS, Cause.NONE_ACCEPTED)


def test_observe_only_previous_accepted_is_parked_as_a_restored_target() -> None:
    after = _look_again(Step.SET, Seen(REJECTED, REJECTED, ACCEPTED))
    assert (after.state, after.cause) == (State.PARKED, Cause.TARGET_WENT_BACK)


def test_observe_none_accepted_after_finish_is_ambiguous_also_for_whoever_may_replace() -> None:
    after = _look_again(Step.RELEASE, Seen(REJECTED, REJECTED), strategy=Strategy.SINGLE, replaces=True)
    assert (after.state, after.cause) == (State.AMBIGUOUS, Cause.NONE_ACCEPTED)


def test_observe_only_the_retired_value_accepted_after_finish_is_parked_as_a_restored_target() -> None:
    after = _look_again(Step.RETIRE, Seen(REJECTED, ACCEPTED))
    assert (after.state, after.cause) == (State.PARKED, Cause.TARGET_WENT_BACK)


def test_observe_all_rejected_is_ambiguous() -> None:
    after = _look_again(Step.SET, Seen(REJECTED, REJECTED, REJECTED))
    assert (after.state, after.cause) == (State.AMBIGUOUS, Cause.NONE_ACCEPTED)


@pytest.mark.parametrize("seen", [Seen(Login.UNREACHABLE, ACCEPTED), Seen(ACCEPTED, Login.THROTTLED)])
def test_invariant_03_observe_without_an_answer_waits_and_stays_in_doubt(seen: Seen) -> None:
    after = _look_again(Step.SET, seen)
    assert (after.state, after.outcome_unknown, after.to_version) == (State.WAITING, True, 3)


# -------------------------------------------------------------------------------------------------------------- persons


def test_waiting_in_grace_rollback_closes_it_as_superseded_and_cancels_the_retirement() -> None:
    after = moved(moves.superseded(standing(Step.GRACE, state=State.WAITING, waiting=Waiting.GRACE), NOW))
    assert (after.state, after.superseded, after.ended_at) == (State.DONE, True, NOW)


def test_parked_resume_goes_forward_and_observes_first() -> None:
    after = moves.resumed(standing(Step.SET, state=State.PARKED, cause=Cause.CONFLICT), NOW)
    assert (after.state, after.outcome_unknown, after.cause, step_of(after)) == (State.RUNNING, True, None, Step.SET)


def test_parked_resume_on_the_way_back_goes_forward_from_the_first_thing_undone() -> None:
    after = moves.resumed(replace(_going_back(Step.SET), state=State.PARKED), NOW)
    assert (after.direction, step_of(after), after.outcome_unknown) == (Direction.FORWARD, Step.PREPARE, True)
    assert after.doubted


def test_parked_resume_before_a_version_was_made_begins_again() -> None:
    refused = moved(judge.judge_result(standing(Step.CREATE), Refused(No.UNCHECKED, "trust"), NOW))
    assert refused.state is State.PARKED
    assert step_of(moves.resumed(refused, NOW)) is Step.OBSERVE


def test_parked_rollback_goes_back() -> None:
    after = moved(moves.sent_back(begun(standing(Step.SET, state=State.PARKED)), NOW))
    assert (after.direction, after.state, after.cause) == (Direction.BACK, State.RUNNING, Cause.ASKED)


def test_parked_rollback_after_everything_is_back_closes_it() -> None:
    parked = _to_the_end(judge.judge_tested(standing(Step.TEST), judge.Tested(ACCEPTED, ACCEPTED), NOW))
    change = moves.sent_back(parked, NOW)
    assert moved(change).state is State.ROLLED_BACK
    assert change.labels == {StagingLabel.PENDING: None}


def test_an_emergency_does_not_wait_for_an_open_grace() -> None:
    after = moves.hastened(standing(Step.GRACE), NOW)
    assert [p.step for p in after.phases[after.at :]] == [Step.RELEASE, Step.RETIRE, Step.PROVE]


def test_an_emergency_observes_first_where_the_open_rotation_is_in_doubt() -> None:
    stale = standing(Step.RETIRE, state=State.PARKED, cause=Cause.STALE)
    after = moves.hastened(moves.resumed(stale, NOW), NOW)
    assert (step_of(after), after.outcome_unknown) == (Step.RETIRE, True)


def test_invariant_03_a_phase_begun_by_somebody_else_has_an_unknown_outcome() -> None:
    after = moves.taken_up(begun(standing(Step.SET)))
    assert (after.outcome_unknown, after.begun, after.to_version) == (True, False, 3)
    assert moves.taken_up(standing(Step.SET)) == standing(Step.SET)


# -------------------------------------------------------------------------------------------------------------- helpers


def _confirm(
    rotation: Rotation,
    answer: Confirmed | NotYet | Failed | Unknown,
    *,
    group: str = GROUP,
    groups: frozenset[str] = ONE,
    puts_back: bool = True,
) -> Change:
    limit = timedelta(minutes=5)
    return judge.judge_confirmed(rotation, group, groups, answer, NOW, timeout=limit, puts_back=puts_back)  # type: ignore[arg-type]


def _confirmed(
    rotation: Rotation, answer: Confirmed | NotYet | Failed | Unknown, *, groups: frozenset[str] = ONE
) -> Rotation:
    return moved(_confirm(rotation, answer, groups=groups))


def _first_look(seen: Seen) -> Rotation:
    return moved(judge.judge_seen(standing(Step.OBSERVE), seen, NOW))


def _look_again(
    step: Step,
    seen: Seen,
    *,
    strategy: Strategy = Strategy.OVERLAP,
    first: bool = False,
    self_service: bool = False,
    replaces: bool = False,
) -> Rotation:
    options = Options(replace=replaces)
    rotation = begun(standing(step, strategy, first=first, self_service=self_service, options=options))
    return moved(judge.judge_seen(moves.taken_up(rotation), seen, NOW))


def _going_back(step: Step) -> Rotation:
    """Sent back after a set, standing before this step of the way back."""
    rotation = moved(moves.turn_back(begun(standing(Step.SET)), Cause.REJECTED, NOW))
    while step_of(rotation) is not step:
        rotation = moved(moves.advance(rotation, NOW))
    return rotation


def _to_the_end(change: Change) -> Rotation:
    """Everything on the way back is done."""
    rotation = moved(change)
    while rotation.phase is not None:
        rotation = moved(moves.advance(rotation, NOW))
    return rotation


def test_a_rehearsed_value_is_proven_and_given_to_nobody() -> None:
    rehearsed = standing(Step.TEST, Strategy.ALTERNATING_USERS, purpose=Purpose.REHEARSE)
    facts = judge.judge_tested(rehearsed, judge.Tested(Login.ACCEPTED), NOW).facts or {}
    assert rehearsed.to_version is not None
    assert facts[rehearsed.to_version].verified is False
