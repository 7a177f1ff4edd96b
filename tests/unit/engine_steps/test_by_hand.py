"""Secrets that only a person can change: asked for, imported, delivered, and open until the old value is dead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import GRACE, HOUR, Bench
from vaultkeeper.engine.preview import preview
from vaultkeeper.engine.reconcile import reconcile
from vaultkeeper.engine.status import SecretStatus, status
from vaultkeeper.engine.verdict import awaited
from vaultkeeper.errors import AlreadyOpen, NotFound, PolicyInvalid, RotationFailed, UsageError
from vaultkeeper.model.policy import GeneratorSpec
from vaultkeeper.model.rotation import Cause, Purpose, State, Waiting
from vaultkeeper.model.secret import Acceptance, Strategy
from vaultkeeper.testing.faults import Fault, Goes, SimulatedKill

OWNER = "payments@example.com"
PAGE = "https://db_key.example/keys"
DAY = timedelta(days=1)
SOON = 2 * HOUR
BLIND = "no harmless call"


def bench_with(name: str, *, adopted: bool = True, **more: Any) -> Bench:
    bench = Bench(name)
    more = {"owner": OWNER, "rotation_period": timedelta(days=180), **more}
    bench.use(bench.make.manual("key", bench.make.service("app"), **more))
    if adopted:
        bench.adopt("key", bench.made_by_hand("key", "old-key"))
    return bench


def seen(bench: Bench) -> SecretStatus:
    (found,) = status(bench.parts())
    return found


def test_a_due_secret_asks_its_owner_and_names_the_page_and_the_next_command() -> None:
    bench = bench_with("asks")
    bench.clock.advance(181 * DAY)
    assert (seen(bench).state, seen(bench).next) == ("due", "vaultkeeper import key")
    (report,) = bench.run_due(wait=timedelta(0))
    assert report.rotation is not None
    assert (report.rotation.state, report.rotation.waiting) == (State.WAITING, Waiting.INPUT)
    assert (report.exit_code, report.changed) == (0, False)
    assert report.rotation.detail == f"{OWNER} makes a new value at {PAGE}"
    told = seen(bench)
    assert (told.state, told.last_result, told.next) == ("waiting", "waiting (input)", "vaultkeeper import key")
    assert (told.waits_for, told.page, told.owner) == (report.rotation.detail, PAGE, OWNER)
    assert told.due_at is not None
    assert told.due_at < bench.clock.now()


def test_whoever_waits_for_a_person_is_named_again_each_time() -> None:
    bench = bench_with("reminds")
    bench.clock.advance(181 * DAY)
    bench.run_due(wait=timedelta(0))
    (report,) = bench.run_due(wait=timedelta(0))  # within the hour: nothing is asked again
    due = f"{seen(bench).due_at:%Y-%m-%d}"
    assert (report.skipped, report.state, report.changed) == (f"reminder, due {due}", "waiting", False)
    bench.imported("key", bench.made_by_hand("key", "new-key"), wait=timedelta(0))
    bench.clock.advance(GRACE)
    bench.run_due(wait=timedelta(0))
    (report,) = bench.run_due(wait=timedelta(0))
    assert report.skipped == "reminder"
    assert not report.changed
    assert awaited(bench.newest("key")) == "vaultkeeper resume key   once it is revoked"


def test_all_calls_for_nobody_before_the_time_and_by_name_and_when_due_it_does() -> None:
    bench = bench_with("all")
    (report,) = bench.rotate("key", by_name=False, wait=SOON)
    assert (report.state, report.exit_code) == ("skipped", 0)
    assert report.skipped == "not due, and only a person can change it: vaultkeeper import key"
    bench.clock.advance(181 * DAY)
    (report,) = bench.rotate("key", by_name=False, wait=SOON)
    assert report.state == "waiting"
    (report,) = bench.rotate("key", by_name=False, wait=SOON)
    assert report.skipped.endswith("is open: waiting (input); next: vaultkeeper import key")
    (report,) = bench.rotate("key", wait=SOON)
    assert (report.exit_code, report.error and report.error.next) == (7, "vaultkeeper import key")
    assert report.error is not None
    assert report.error.works == "v1 (old): target and consumers are on it"


def test_a_person_who_asks_by_name_starts_it_before_its_time() -> None:
    bench = bench_with("by-name")
    assert bench.one("key", wait=SOON).waiting is Waiting.INPUT


@pytest.mark.parametrize("waited", [True, False], ids=["it waited", "nothing was open"])
def test_an_imported_value_is_proven_delivered_and_open_until_the_old_one_is_dead(waited: bool) -> None:
    bench = bench_with(f"life-{waited}")
    if waited:
        bench.one("key", wait=SOON)
    rotation = bench.imported("key", bench.made_by_hand("key", "new-key"), wait=timedelta(0))
    assert (rotation.waiting, rotation.finished) == (Waiting.GRACE, True)
    assert len(bench.store.rotations("key")) == 1
    assert bench.running("app")[""] == b"app:new-key"
    assert (bench.current("key"), bench.previous("key")) == (2, 1)
    bench.clock.advance(GRACE)
    (report,) = bench.resume("key", wait=timedelta(0))
    assert report.rotation is not None
    assert (report.rotation.waiting, report.exit_code) == (Waiting.INPUT, 0)
    assert report.rotation.detail == f"v1 is still accepted; {OWNER} revokes it at {PAGE}"
    bench.revoke("key", 1)
    (report,) = bench.resume("key", wait=timedelta(0))
    assert (report.state, report.rotation and report.rotation.unverified) == ("done", "")
    assert bench.record("key", 1).acceptance is Acceptance.REFUSED


def test_the_first_value_of_all_may_be_imported() -> None:
    bench = bench_with("first", adopted=False)
    assert bench.imported("key", bench.made_by_hand("key", "first-key")).state is State.DONE
    assert bench.running("app")[""] == b"app:first-key"


def test_it_is_looked_for_less_often_the_longer_nobody_comes_and_at_least_once_a_day() -> None:
    bench = bench_with("poll")
    bench.imported("key", bench.made_by_hand("key", "new-key"), wait=timedelta(0))
    bench.clock.advance(GRACE)
    pauses = []
    for _ in range(30):
        bench.run_due(wait=timedelta(0))
        rotation = bench.newest("key")
        assert rotation.not_before is not None
        pauses.append(rotation.not_before - bench.clock.now())
        bench.clock.advance(pauses[-1])
    assert pauses[0] == HOUR
    assert pauses == sorted(pauses)
    assert pauses[-1] == DAY
    bench.revoke("key", 1)
    (report,) = bench.run_due(wait=timedelta(0))
    assert report.state == "done"


# ----------------------------------------------------------------------------------------------------- without a probe


def test_without_proof_only_a_persons_word_ends_it_and_it_is_shown_as_unverified() -> None:
    bench = bench_with("blind", unverified=BLIND)
    assert seen(bench).unverified == BLIND
    bench.imported("key", "new-key", wait=timedelta(0))
    bench.clock.advance(GRACE)
    (report,) = bench.resume("key", wait=timedelta(0))
    assert report.rotation is not None
    assert report.rotation.waiting is Waiting.INPUT
    assert report.rotation.detail == f"whether v1 is still accepted cannot be seen; {OWNER} revokes it at {PAGE}"
    assert awaited(report.rotation) == "vaultkeeper resume key --revoked   once it is revoked"
    bench.clock.advance(30 * DAY)
    bench.run_due(wait=timedelta(0))
    bench.resume(wait=timedelta(0))  # of a crash, say: nobody has said anything
    assert bench.newest("key").waiting is Waiting.INPUT
    (report,) = bench.resume("key", revoked=True)
    assert report.state == "done"
    assert seen(bench).unverified == f"{BLIND}; a person said that the old value is revoked"


def test_a_persons_word_counts_for_nothing_where_the_old_value_is_seen_alive() -> None:
    bench = bench_with("word")
    bench.imported("key", bench.made_by_hand("key", "new-key"), wait=timedelta(0))
    bench.clock.advance(GRACE)
    (report,) = bench.resume("key", revoked=True, wait=timedelta(0))
    assert report.rotation is not None
    assert report.rotation.waiting is Waiting.INPUT


def test_a_word_about_nothing_is_refused() -> None:
    bench = bench_with("early", unverified=BLIND)
    bench.use(bench.make.overlap("machine", bench.make.file("out")))
    bench.done("machine", wait=timedelta(0))
    bench.one("key", wait=SOON)
    for name, following in (("key", "vaultkeeper import key"), ("machine", "vaultkeeper history machine")):
        with pytest.raises(UsageError) as refused:
            bench.resume(name, revoked=True)
        assert refused.value.next == following


# ------------------------------------------------------------------------------------------------------ what is refused


def test_what_is_no_value_of_this_secret_is_refused_before_anything_is_opened() -> None:
    bench = bench_with("refused")
    bench.imported("key", bench.made_by_hand("key", "second-key"))
    bench.revoke("key", 1)
    bench.resume("key", wait=SOON)
    cases = {
        "old-key": "this is the value of v1, which was in use before",
        "second-key": "this is the value of v2, which is current",
        "no-key": "this value cannot be right: `password` is no key of this vendor",
    }
    for value, told in cases.items():
        found = None
        try:
            found = bench.import_value("key", value).error
        except UsageError as error:
            found = error
        assert isinstance(found, UsageError)
        assert f"key: {told}" in str(found)
        assert value not in f"{found}{found.works}{found.next}{bench.events}"
    assert bench.newest("key").state is State.DONE


def test_a_leaked_value_is_named_as_such_when_it_comes_again() -> None:
    bench = bench_with("leaked-again")
    bench.emergency("key", wait=SOON)
    report = bench.import_value("key", "old-key")
    assert str(report.error) == "key: this is the value of v1, which is current, and it leaked"


def test_only_manual_secrets_are_imported() -> None:
    bench = bench_with("kinds")
    bench.use(bench.make.overlap("machine", bench.make.file("out")))
    with pytest.raises(UsageError, match="its values are not made by a person"):
        bench.import_value("machine", "a-value")
    with pytest.raises(NotFound):
        bench.import_value("nobody", "a-value")
    bench.one("key", wait=SOON)
    bench.edit("key", strategy=Strategy.OVERLAP, target=bench.policies["machine"].target, generator=GeneratorSpec("x"))
    with pytest.raises(UsageError) as refused:
        bench.import_value("key", "a-value")
    assert refused.value.next.startswith("vaultkeeper rollback key")
    assert bench.rollback("key", wait=SOON).state == "rolled_back"


def test_a_value_that_would_break_out_of_its_place_is_refused() -> None:
    bench = bench_with("break-out")
    bench.edit("key", destinations=(bench.make.file("url", {"": "postgresql://app:{password}@db"}),))
    with pytest.raises(PolicyInvalid, match="would break out"):
        bench.import_value("key", "p@ss/word")


def test_paused_and_disabled_secrets_take_no_value_of_their_own_accord() -> None:
    bench = bench_with("disabled")
    bench.edit("key", enabled=False)
    report = bench.import_value("key", "new-key")
    assert (report.exit_code, report.skipped) == (7, "its policy is disabled (enabled: false)")


def test_a_value_that_the_vendor_refuses_goes_nowhere_and_may_be_given_again() -> None:
    bench = bench_with("wrong")
    bench.one("key", wait=SOON)
    report = bench.import_value("key", "new-key")
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == ("rolled_back", Cause.REJECTED, 5)
    assert report.error is not None
    assert report.error.next.endswith("vaultkeeper import key   (the same value, or a new one)")
    assert bench.calls("deliver") == 0
    bench.made_by_hand("key", "new-key")  # it took the vendor a moment
    assert bench.imported("key", "new-key", wait=timedelta(0)).finished


def test_a_second_value_is_refused_while_the_first_one_is_under_way() -> None:
    bench = bench_with("twice")
    bench.imported("key", bench.made_by_hand("key", "new-key"), wait=timedelta(0))
    report = bench.import_value("key", bench.made_by_hand("key", "third-key"))
    assert isinstance(report.error, AlreadyOpen)
    assert "v2 was given already, and its rotation is open: waiting (grace)" in str(report.error)
    assert report.exit_code == 7


# ------------------------------------------------------------------------------------------------- when things go wrong


def test_a_value_is_not_stored_where_the_vendor_cannot_be_asked_first_and_that_is_said() -> None:
    bench = bench_with("silent")
    bench.faults.script = [Fault("test", Goes.UNREACHABLE, call=0)]
    with pytest.raises(RotationFailed) as told:
        bench.import_value("key", "new-key", wait=timedelta(0))
    assert "the value was not stored" in str(told.value)
    assert len(bench.store.versions("key")) == 1


def test_the_old_value_may_be_dead_already_when_the_new_one_comes() -> None:
    bench = bench_with("rolled-at-vendor")
    bench.revoke("key", 1)
    bench.made_by_hand("key", "new-key")
    stuck = bench.one("key", wait=SOON)
    assert stuck.state is State.AMBIGUOUS
    with pytest.raises(RotationFailed) as told:
        reconcile("key", bench.parts())
    ways = "vaultkeeper import key   with a new value, or   vaultkeeper adopt key   with the value that works"
    assert (told.value.next, seen(bench).next) == (ways, ways)
    assert bench.imported("key", "new-key").state is State.DONE
    assert bench.running("app")[""] == b"app:new-key"


def test_a_consumer_that_cannot_run_on_it_sends_it_back_and_the_same_value_may_come_again() -> None:
    bench = bench_with("back")
    bench.imported("key", bench.made_by_hand("key", "second-key"))
    bench.revoke("key", 1)
    bench.resume("key", wait=SOON)
    bench.world.system("app")["broken"] = {"app": {"": b"app:second-key"}}
    report = bench.import_value("key", bench.made_by_hand("key", "third-key"))
    assert (report.state, report.exit_code) == ("rolled_back", 5)
    assert bench.running("app")[""] == b"app:second-key"
    bench.world.system("app").pop("broken")
    assert bench.imported("key", "third-key", wait=timedelta(0)).finished


def test_a_policy_edited_while_it_waited_counts() -> None:
    bench = bench_with("edited")
    waiting = bench.one("key", wait=SOON)
    bench.edit("key", destinations=(bench.make.service("other"),))
    rotation = bench.imported("key", bench.made_by_hand("key", "new-key"), wait=timedelta(0))
    assert rotation.id != waiting.id
    assert bench.store.rotation(waiting.id).superseded
    assert bench.running("other")[""] == b"app:new-key"


def test_an_emergency_tells_the_owner_now_and_takes_the_place_of_a_calm_wait() -> None:
    bench = bench_with("leak")
    calm = bench.one("key", wait=SOON)
    (report,) = bench.emergency("key", wait=SOON)
    assert report.rotation is not None
    assert (report.rotation.purpose, report.rotation.waiting) == (Purpose.EMERGENCY, Waiting.INPUT)
    assert report.rotation.detail == f"the value leaked: tell {OWNER} now, who makes a new one at {PAGE}"
    assert bench.record("key", 1).compromised
    assert bench.store.rotation(calm.id).superseded
    (again,) = bench.emergency("key", wait=SOON)
    assert again.exit_code == 7
    rotation = bench.imported("key", bench.made_by_hand("key", "new-key"))
    assert (rotation.purpose, rotation.waiting) == (Purpose.EMERGENCY, Waiting.INPUT)  # without grace
    assert rotation.detail == f"v1 is still accepted; {OWNER} revokes it at {PAGE} now: it leaked"
    bench.revoke("key", 1)
    (report,) = bench.resume("key", wait=SOON)
    assert report.state == "done"


def test_what_an_overtaken_rotation_left_alive_must_die_too() -> None:
    bench = bench_with("left")
    bench.imported("key", bench.made_by_hand("key", "second-key"))
    bench.emergency("key", wait=SOON)
    rotation = bench.imported("key", bench.made_by_hand("key", "third-key"))
    assert rotation.detail.startswith("v1 is still accepted; ")
    bench.revoke("key", 1)
    (report,) = bench.resume("key", wait=SOON)
    assert report.rotation is not None
    assert report.rotation.detail.startswith("v2 is still accepted; ")
    bench.revoke("key", 2)
    (report,) = bench.resume("key", wait=SOON)
    assert report.state == "done"
    assert {bench.record("key", n).acceptance for n in (1, 2)} == {Acceptance.REFUSED}


def test_a_rollback_hands_the_old_value_out_again_and_then_the_new_one_must_die() -> None:
    bench = bench_with("rollback")
    bench.imported("key", bench.made_by_hand("key", "new-key"), wait=timedelta(0))
    report = bench.rollback("key", wait=SOON)
    assert bench.running("app")[""] == b"app:old-key"
    assert report.rotation is not None
    assert report.rotation.detail.startswith("v2 is still accepted; ")
    bench.revoke("key", 2)
    (report,) = bench.resume("key", wait=SOON)
    assert report.state == "done"


def test_the_plan_says_who_does_what() -> None:
    bench = bench_with("plan")
    (plan,) = preview(["key"], bench.parts(), ask_servers=False)
    assert f"create    {OWNER} makes a new value at {PAGE}; then   vaultkeeper import key" in plan.steps
    assert f"prove     {OWNER} revokes the old value at {PAGE}; then   vaultkeeper resume key" in plan.steps
    bench = bench_with("blind-plan", unverified=BLIND, owner="")
    (plan,) = preview(["key"], bench.parts(), ask_servers=False)
    assert f"test      nothing can be proven here: {BLIND}" in plan.steps
    assert plan.steps[-1].endswith("then   vaultkeeper resume key --revoked")
    assert "create    a person makes a new value" in "".join(plan.steps)


def test_a_value_that_was_not_stored_yet_dies_with_the_process_and_is_asked_for_again() -> None:
    bench = bench_with("killed")
    bench.one("key", wait=SOON)
    bench.made_by_hand("key", "new-key")
    bench.faults.script = [Fault("check", Goes.KILLED_BEFORE)]
    with pytest.raises(SimulatedKill):
        bench.import_value("key", "new-key")
    bench.faults.script = []
    (report,) = bench.resume("key", wait=timedelta(0))
    assert report.rotation is not None
    assert (report.rotation.waiting, awaited(report.rotation)) == (Waiting.INPUT, "vaultkeeper import key")
    assert bench.imported("key", "new-key", wait=timedelta(0)).finished


def test_a_value_that_was_stored_survives_the_process() -> None:
    bench = bench_with("stored")
    bench.made_by_hand("key", "new-key")
    bench.faults.script = [Fault("test", Goes.KILLED_BEFORE, call=bench.calls("test") + 2)]  # 1: of CURRENT
    with pytest.raises(SimulatedKill):
        bench.import_value("key", "new-key")
    bench.faults.script = []
    bench.resume("key", wait=timedelta(0))
    assert bench.running("app")[""] == b"app:new-key"


def test_what_a_person_called_dead_is_not_handed_out_again_where_nothing_can_show_otherwise() -> None:
    bench = bench_with("blind-rollback", unverified=BLIND)
    bench.imported("key", "new-key")
    bench.resume("key", wait=SOON, revoked=True)
    with pytest.raises(UsageError, match="v1 is revoked, as a person said"):
        bench.rollback("key", wait=SOON)
