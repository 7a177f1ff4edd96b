"""What a person may say in the middle of it: rollback, adopt, reconcile, emergency, another policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import GRACE, HOUR, LONG, Bench
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.errors import AlreadyOpen, BackendError, NotFound, RotationFailed, UsageError
from vaultkeeper.model.outcome import Login, Unknown
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, Purpose, State, Waiting
from vaultkeeper.model.secret import Acceptance, GroupKey, StagingLabel
from vaultkeeper.testing.faults import Fault, Goes, SimulatedKill
from vaultkeeper.testing.simulators.service import ServiceDestination

NOW = timedelta(0)
Maker = Callable[[Bench], RotationPolicy]

CHECKED: dict[str, Maker] = {
    "overlap": lambda b: b.make.overlap("s", b.make.file("f")),
    "alternating": lambda b: b.make.alternating("s", b.make.file("f")),
    "minted": lambda b: b.make.minted("s", b.make.file("f", {"": "{token}"})),
    "single": lambda b: b.make.single("s", b.make.file("f")),
}
WITH_GRACE = ("overlap", "alternating", "minted")


def bench_of(kind: str, name: str) -> Bench:
    bench = Bench(f"{name}-{kind}")
    bench.use(CHECKED[kind](bench))
    bench.done("s")
    return bench


def spelled(bench: Bench, number: int) -> bytes:
    """What a file carries of a version."""
    fields = bench.version("s", number).fields
    if "token" in fields:
        return fields["token"].reveal()
    return fields["username"].reveal() + b":" + fields["password"].reveal()


def take_away(bench: Bench, number: int) -> None:
    """An operator refuses a version at the target."""
    state, value = bench.world.state["db_s"], bench.version("s", number).fields
    if "token" in value:
        kept = {key: token for key, token in state["tokens"].items() if token["value"] != value["token"].reveal()}
        state["tokens"] = kept
    else:
        state["accounts"][value["username"].text()].remove(value["password"].reveal())
    assert number not in bench.accepted("s")


def before_each(bench: Bench, look: Callable[[str], None]) -> None:
    """Look at the world before each hook."""
    strike = bench.faults.strike

    def looking(hook: str) -> Fault | None:
        look(hook)
        return strike(hook)

    bench.faults.strike = looking  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------------------------ rollback


@pytest.mark.parametrize("kind", CHECKED)
def test_before_finish_target_and_consumers_go_back_together(kind: str) -> None:
    bench = bench_of(kind, "before")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, call=2)]
    bench.rotate("s", wait=NOW)
    assert bench.running("f")[""] == spelled(bench, 2)
    report = bench.rollback("s")
    assert report.rotation is not None
    assert (report.state, report.rotation.cause) == ("rolled_back", Cause.ASKED)
    assert bench.running("f")[""] == spelled(bench, 1)
    assert bench.accepted("s") == {1}
    assert bench.current("s") == 1
    assert bench.record("s", 2).acceptance is Acceptance.REFUSED


@pytest.mark.parametrize("kind", ["overlap", "alternating"])
def test_going_back_to_a_value_that_the_target_refuses_by_now_sets_it_first(kind: str) -> None:
    bench = bench_of(kind, "refused-since")
    old = spelled(bench, 1)
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, call=2)]
    bench.rotate("s", wait=NOW)
    take_away(bench, 1)
    seen = []

    def accepted_when(hook: str) -> None:
        if hook == "f.deliver":
            seen.append(bench.accepted("s"))

    before_each(bench, accepted_when)
    assert bench.rollback("s").state == "rolled_back"
    assert seen == [{1, 2}]
    assert bench.running("f")[""] == old
    assert bench.accepted("s") == {1}


def test_going_back_to_a_token_that_its_system_lost_parks_and_leaves_consumers_on_the_one_that_works() -> None:
    bench = bench_of("minted", "lost-since")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, call=2)]
    bench.rotate("s", wait=NOW)
    take_away(bench, 1)
    report = bench.rollback("s")
    assert report.rotation is not None
    assert (report.rotation.state, report.rotation.cause) == (State.PARKED, Cause.OLD_REFUSED)
    assert bench.running("f")[""] == spelled(bench, 2)
    assert bench.accepted("s") == {2}
    assert report.error is not None
    assert report.error.works.startswith("v2 (new): the target accepts it, and refuses v1 (old)")
    assert "resume s" in report.error.next
    assert [one.state for one in bench.resume("s")] == ["done"]
    assert bench.current("s") == 2


def test_going_back_does_not_wait_for_a_target_that_does_not_say_what_it_accepts() -> None:
    bench = bench_of("overlap", "silent-back")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, call=2)]
    bench.rotate("s", wait=NOW)
    bench.faults.script = [
        Fault("db_s.observe", Goes.UNREACHABLE, call=bench.calls("db_s.observe") + n) for n in (1, 2)
    ]
    bench.rollback("s")
    assert bench.running("f")[""] == spelled(bench, 1)


@pytest.mark.parametrize("kind", WITH_GRACE)
def test_in_grace_the_retirement_is_cancelled_and_a_new_version_carries_the_old_fields(kind: str) -> None:
    bench = bench_of(kind, "grace")
    bench.rotate("s", wait=NOW)
    superseded = bench.newest("s").id
    report = bench.rollback("s")
    assert report.state == "done"
    assert bench.store.rotation(superseded).superseded
    assert bench.store.rotation(superseded).state is State.DONE
    assert bench.current("s") == 3
    assert bench.version("s", 3).fields == bench.version("s", 1).fields
    assert bench.running("f")[""] == spelled(bench, 1)
    assert bench.accepted("s") == {1, 3}  # one value
    assert {key.rpartition("|")[2] for key in bench.world.state["f"]["objects"]} == {bench.record("s", 3).id}


@pytest.mark.parametrize("kind", ["overlap", "alternating", "single"])
def test_after_retire_the_old_value_is_set_again(kind: str) -> None:
    bench = bench_of(kind, "after")
    bench.done("s")
    assert bench.accepted("s") == {2}
    assert bench.rollback("s").state == "done"
    assert bench.running("f")[""] == spelled(bench, 1)
    assert bench.accepted("s") == {1, 3}


@pytest.mark.parametrize("kind", ["overlap", "alternating", "single"])
def test_a_rollback_that_was_killed_goes_on_when_it_is_said_again(kind: str) -> None:
    """Whoever lost the connection says the same once more, and means the same."""
    bench = bench_of(kind, "killed-back")
    bench.done("s")
    bench.faults.script = [Fault("f.deliver", Goes.KILLED_BEFORE, call=bench.calls("f.deliver") + 1)]
    with pytest.raises(SimulatedKill):
        bench.rollback("s")
    assert bench.rollback("s").state == "done"
    assert bench.current("s") == 3
    assert bench.running("f")[""] == spelled(bench, 1)


@pytest.mark.parametrize("wait", [NOW, LONG])
def test_a_rollback_that_is_said_twice_does_not_undo_itself(wait: timedelta) -> None:
    """In its own grace, and after its end. `again` is the word for it."""
    bench = bench_of("overlap", f"twice-{wait.days}")
    bench.done("s")
    bench.rollback("s", wait=wait)
    with pytest.raises(UsageError, match="v3 is a rollback") as refused:
        bench.rollback("s")
    assert "rollback s --again" in refused.value.next
    assert bench.running("f")[""] == spelled(bench, 1)
    assert bench.rollback("s", again=True).state == "done"
    assert bench.version("s", 4).fields == bench.version("s", 2).fields
    assert bench.running("f")[""] == spelled(bench, 2)
    bench.done("s")
    assert bench.rollback("s").state == "done"  # after a rotation it is no repetition
    assert bench.running("f")[""] == spelled(bench, 2)


def test_after_retire_a_minted_value_cannot_come_back() -> None:
    bench = bench_of("minted", "gone")
    bench.done("s")
    with pytest.raises(UsageError, match="deleted at its system"):
        bench.rollback("s")


def test_never_back_to_a_compromised_version() -> None:
    bench = bench_of("overlap", "leaked")
    bench.emergency("s")
    with pytest.raises(UsageError, match="compromised"):
        bench.rollback("s")


def test_a_value_whose_retirement_was_cancelled_is_retired_with_the_next() -> None:
    """Rolled back in grace, and that rollback rolled back too: nobody had v1 on a list any more."""
    bench = bench_of("overlap", "leftover")
    bench.rotate("s", wait=NOW)
    bench.faults.script = [Fault("db_s.observe", Goes.KILLED_BEFORE, call=bench.calls("db_s.observe") + 1)]
    with pytest.raises(SimulatedKill):
        bench.rollback("s")
    assert bench.rollback("s", again=True).state == "rolled_back"
    assert bench.accepted("s") == {1, 2}
    bench.done("s")
    assert bench.accepted("s") == {bench.current("s")}
    assert len(bench.world.state["f"]["objects"]) == 1


@pytest.mark.parametrize("kind", ["overlap", "single"])
def test_an_equal_value_is_neither_a_retirement_that_failed_nor_a_target_that_checks_nothing(kind: str) -> None:
    """A person imports what was there already, or rolls back to it: the old value must work, as the new one does."""
    bench = bench_of(kind, "equal")
    bench.world.state["gen_s"]["generated"] = 0  # the generator starts over
    bench.done("s")
    assert bench.version("s", 2).fields == bench.version("s", 1).fields
    assert bench.accepted("s") == {1, 2}
    bench.done("s")
    assert bench.accepted("s") == {3}


# --------------------------------------------------------------------------------------------------------------- adopt


def test_adopting_proves_stores_and_changes_nothing() -> None:
    bench = Bench("adopts")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.world.system("db_s")["accounts"] = {"app": [b"what works today"]}
    before = bench.world.snapshot()
    version = bench.adopt("s", "what works today", username="app")
    assert bench.world.snapshot() == before
    assert bench.current("s") == version.number
    assert bench.record("s", version.number).verified


def test_a_value_that_does_not_work_is_not_adopted() -> None:
    bench = Bench("adopts-not")
    bench.use(bench.make.overlap("s"))
    bench.world.system("db_s")["accounts"] = {"app": [b"another"]}
    with pytest.raises(RotationFailed, match="not accepted"):
        bench.adopt("s", "what works today", username="app")
    assert bench.store.versions("s") == ()
    assert bench.adopt("s", "another", username="app").number == 1  # the failed one took none


@pytest.mark.parametrize("goes", [Goes.UNREACHABLE, Goes.THROTTLED])
def test_a_value_whose_target_gives_no_answer_is_not_called_a_wrong_one(goes: Goes) -> None:
    bench = Bench(f"adopts-unasked-{goes.name}")
    bench.use(bench.make.overlap("s"))
    bench.world.system("db_s")["accounts"] = {"app": [b"what works today"]}
    bench.faults.script = [Fault("db_s.test", goes)]
    with pytest.raises(BackendError, match="could not be asked") as told:
        bench.adopt("s", "what works today", username="app")
    assert "vaultkeeper adopt s   with the same value" in told.value.next
    assert bench.store.versions("s") == ()
    assert bench.adopt("s", "what works today", username="app").number == 1


def test_adopting_twice_is_adopting_once() -> None:
    bench = Bench("adopts-twice")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.world.system("db_s")["accounts"] = {"app": [b"what works today"]}
    one = bench.adopt("s", "what works today", username="app")
    stored = bench.memory.snapshot()
    other = bench.adopt("s", "what works today", username="app")
    assert (one.number, one.id) == (other.number, other.id)
    assert bench.memory.snapshot() == stored
    assert bench.previous("s") is None


def test_adopting_the_current_value_keeps_it_current_whatever_candidate_had_the_same_one() -> None:
    """Consumers run on v1's objects: as v2's they would be nobody's to collect."""
    bench = bench_of("overlap", "adopts-equal")
    bench.world.state["gen_s"]["generated"] = 0
    bench.faults.script = [Fault("f.confirm", Goes.REFUSED, call=bench.calls("f.confirm") + 1)]
    assert bench.one("s").state is State.ROLLED_BACK
    assert bench.version("s", 2).fields == bench.version("s", 1).fields
    assert bench.adopt("s", bench.version("s", 1).fields["password"].text(), username="app").number == 1
    assert (bench.current("s"), bench.previous("s")) == (1, None)
    bench.done("s")
    assert {key.rpartition("|")[2] for key in bench.world.state["f"]["objects"]} == {bench.record("s", 3).id}


def test_adopting_ends_an_ambiguous_rotation() -> None:
    bench = bench_of("overlap", "ambiguous")
    bench.world.state["db_s"]["accounts"] = {"app": [b"set by hand"]}
    rotation = bench.one("s")
    assert (rotation.state, rotation.cause) == (State.AMBIGUOUS, Cause.NONE_ACCEPTED)
    bench.adopt("s", "set by hand", username="app")
    assert not bench.newest("s").open
    bench.done("s")
    assert bench.accepted("s") == {bench.current("s")}


def test_an_open_rotation_that_goes_on_by_itself_forbids_adopting() -> None:
    bench = bench_of("overlap", "open")
    bench.rotate("s", wait=NOW)
    with pytest.raises(AlreadyOpen):
        bench.adopt("s", "x", username="app")


def test_a_store_that_lost_every_version_adopts_above_the_tag_at_the_target() -> None:
    bench = Bench("lost")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    empty = bench.memory.snapshot()
    for _ in range(3):
        bench.done("s")
    works = bench.version("s", 3).fields["password"].text()
    bench.memory.restore(empty)
    rotation = bench.one("s")
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.STALE)
    with pytest.raises(RotationFailed, match="no version") as told:
        reconcile("s", bench.parts())
    assert "vaultkeeper adopt s" in told.value.next
    assert bench.adopt("s", works, username="app").number == 4
    bench.done("s")


# ----------------------------------------------------------------------------------------------------------- reconcile


def proposed(bench: Bench) -> list[str]:
    return [proposal.key for proposal in reconcile("s", bench.parts())]


def test_where_all_agree_nothing_is_proposed() -> None:
    assert proposed(bench_of("overlap", "agree")) == []


def test_invariant_12_a_restored_store_writes_nothing_and_may_be_trusted_by_a_person() -> None:
    bench = bench_of("overlap", "stale")
    backup = bench.memory.snapshot()
    bench.done("s")
    bench.memory.restore(backup)
    before = bench.world.snapshot()
    rotation = bench.one("s")
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.STALE)
    assert bench.world.snapshot() == before
    assert proposed(bench) == ["trust-store"]
    apply("s", "trust-store", bench.parts())
    assert bench.current("s") in bench.accepted("s")
    bench.done("s")
    assert bench.running("f")[""] == spelled(bench, bench.current("s") or 0)


def test_invariant_12_a_restored_store_is_found_stale_at_the_place_that_its_target_moved_to() -> None:
    """CURRENT was made for the old place; who trusts the store must rise above the tags of both."""
    bench = bench_of("overlap", "stale-moved")
    backup, policy = bench.memory.snapshot(), bench.policies["s"]
    assert policy.target is not None
    bench.use(replace(policy, target=replace(policy.target, settings=bench.make.place("db_new"))))
    for _ in range(3):
        bench.done("s")  # the first of them retires v1 at the old place
    bench.memory.restore(backup)
    bench.world.state["db_s"] = {"accounts": {"app": [bench.version("s", 1).fields["password"].reveal()]}}
    before = bench.world.snapshot()
    rotation = bench.one("s")
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.STALE)
    assert bench.world.snapshot() == before
    assert proposed(bench) == ["trust-store"]
    apply("s", "trust-store", bench.parts())
    assert proposed(bench) == []
    bench.done("s")
    assert bench.world.accepts("db_new", bench.version("s", bench.current("s") or 0))


def test_a_candidate_that_a_restored_store_does_not_know_to_be_set_is_retired_with_the_next_rotation() -> None:
    bench = bench_of("overlap", "stale-candidate")
    bench.faults.script = [Fault("db_s.set", Goes.THROTTLED, call=bench.calls("db_s.set") + 1)]
    bench.rotate("s", wait=NOW)
    backup = bench.memory.snapshot()
    bench.clock.advance(HOUR)
    bench.resume(wait=NOW)
    assert bench.accepted("s") == {1, 2}
    bench.done("s", purpose=Purpose.EMERGENCY)
    bench.memory.restore(backup)
    assert [report.state for report in bench.resume()] == ["parked"]
    accounts = {"app": [bench.version("s", number).fields["password"].reveal() for number in (1, 2)]}
    bench.world.state["db_s"]["accounts"] = accounts
    apply("s", "trust-store", bench.parts())
    bench.done("s")
    assert bench.accepted("s") == {bench.current("s")}


def test_a_restored_target_is_set_again_or_followed() -> None:
    for key in ("set-current", "take-previous"):
        bench = Bench(f"restored-{key}")
        bench.use(bench.make.single("s", bench.make.file("f")))
        bench.done("s")
        bench.world.backup("db_s")
        bench.done("s")
        bench.world.restore_backup("db_s")
        rotation = bench.one("s")
        assert (rotation.state, rotation.cause) == (State.PARKED, Cause.TARGET_WENT_BACK)
        assert proposed(bench) == ["set-current", "take-previous"]
        apply("s", key, bench.parts())
        assert bench.current("s") == (2 if key == "set-current" else 1)
        assert bench.accepted("s") == {bench.current("s")}
        assert bench.running("f")[""] == spelled(bench, bench.current("s") or 0)
        bench.done("s")


def test_a_reverted_destination_is_delivered_again() -> None:
    bench = bench_of("overlap", "reverted")
    bench.world.backup("f")
    bench.done("s")
    bench.world.restore_backup("f")
    assert proposed(bench) == ["deliver"]
    apply("s", "deliver", bench.parts())
    assert bench.running("f")[""] == spelled(bench, 2)
    with pytest.raises(NotFound):
        apply("s", "deliver", bench.parts())


def test_a_minted_value_that_its_system_lost_can_only_be_replaced() -> None:
    bench = bench_of("minted", "lost-token")
    bench.world.state["db_s"]["tokens"] = {}
    assert bench.one("s").state is State.AMBIGUOUS
    with pytest.raises(RotationFailed, match="refuses v1") as told:
        reconcile("s", bench.parts())
    assert "--replace" in told.value.next
    assert bench.one("s", replace=True).state is State.DONE


# ----------------------------------------------------------------------------------------------------------- emergency


def test_an_emergency_waits_for_neither_grace_nor_evidence() -> None:
    bench = bench_of("alternating", "emergency")
    bench.world.state["db_s"]["sessions"] = {"app_a": ["10.0.0.9"]}
    (report,) = bench.emergency("s", wait=NOW)
    assert report.state == "done"
    assert bench.accepted("s") == {2}
    assert bench.record("s", 1).compromised
    assert bench.world.state["db_s"]["sessions"]["app_a"] == []


def test_an_emergency_ends_an_open_grace_at_once() -> None:
    bench = bench_of("overlap", "hasten")
    bench.rotate("s", wait=NOW)
    assert bench.newest("s").waiting is Waiting.GRACE
    (report,) = bench.emergency("s", wait=NOW)
    assert report.state == "done"
    assert bench.accepted("s") == {3}


@pytest.mark.parametrize("stuck", ["f.release", "db_s.set"])
@pytest.mark.parametrize("no", [Goes.REFUSED, Goes.UNREACHABLE])
def test_an_emergency_takes_the_place_of_a_rotation_that_cannot_end(stuck: str, no: Goes) -> None:
    """The leaked value is the one in use: it must not wait for the retirement of the one before it."""
    bench = bench_of("overlap", f"overtakes-{stuck}-{no.value}")
    bench.rotate("s", wait=NOW)
    bench.clock.advance(2 * GRACE)
    calls = bench.calls(stuck)
    bench.faults.script = [Fault(stuck, no, call=calls + tries) for tries in (1, 2)]
    bench.resume(wait=NOW)
    before = bench.newest("s")
    assert before.open
    assert before.finished
    (report,) = bench.emergency("s", wait=NOW)
    assert report.state == "done"
    assert report.rotation is not None
    assert (report.rotation.from_version, report.rotation.to_version) == (2, 3)
    assert bench.store.rotation(before.id).superseded
    assert bench.record("s", 2).compromised
    assert bench.accepted("s") == {3}
    assert {key.rpartition("|")[2] for key in bench.world.state["f"]["objects"]} == {bench.record("s", 3).id}


def test_an_emergency_does_not_take_the_place_of_a_rotation_whose_new_value_is_not_in_use_yet() -> None:
    bench = bench_of("overlap", "overtakes-not")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, call=bench.calls("f.confirm") + 1)]
    bench.rotate("s", wait=NOW)
    (report,) = bench.emergency("s", wait=NOW)
    assert report.exit_code == 7
    assert [r.state for r in bench.resume("s")] == ["done"]


def test_an_emergency_overrides_min_interval_and_pause() -> None:
    bench = bench_of("overlap", "override")
    bench.edit("s", min_interval=HOUR)
    assert [report.exit_code for report in bench.rotate("s")] == [7]
    assert [report.state for report in bench.emergency("s")] == ["done"]


@pytest.mark.parametrize("cut", [False, True])
def test_laggards_stop_an_emergency_unless_they_are_cut(cut: bool) -> None:
    bench = Bench(f"laggards-{cut}")
    bench.use(bench.make.overlap("s", bench.make.to("sim_clients", "c", timeout=timedelta(days=10))))
    bench.done("s")
    (report,) = bench.emergency("s", cut=cut, wait=timedelta(days=1))
    assert report.rotation is not None
    if cut:
        assert report.state == "done"
        assert bench.accepted("s") == {2}
        assert "laptop" in report.rotation.unverified
    else:
        assert (report.state, report.rotation.cause) == ("parked", Cause.LAGGARDS)
        assert "laptop" in report.rotation.detail
        assert bench.accepted("s") == {1, 2}
        (report,) = bench.emergency("s", cut=True, wait=timedelta(days=1))  # the word that rollback names
        assert report.state == "done"
        assert bench.accepted("s") == {2}


@pytest.mark.parametrize("hook", ["deliver", "confirm"])
def test_a_place_that_gives_no_answer_keeps_no_leaked_value_alive_where_it_is_cut(
    hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(f"silent-{hook}")
    services = bench.make.service("v", {"": "{password}"}, services=("far", "near"))
    bench.use(bench.make.overlap("s", services))
    bench.done("s")
    real = getattr(ServiceDestination, hook)

    def silent(self: ServiceDestination, group: GroupKey, *rest: Any) -> Any:
        far = group.endswith("/far")
        return Unknown(Login.UNREACHABLE, "the Engine is away") if far else real(self, group, *rest)

    monkeypatch.setattr(ServiceDestination, hook, silent)
    (report,) = bench.emergency("s", wait=HOUR)
    assert report.rotation is not None
    assert (report.rotation.waiting, report.exit_code) == (Waiting.UNREACHABLE, 5)
    assert report.error is not None
    assert "rotate s --emergency --cut" in report.error.next
    assert bench.accepted("s") == {1, 2}
    (report,) = bench.emergency("s", cut=True, wait=HOUR)
    assert report.state == "done"
    assert report.rotation is not None
    assert report.rotation.unverified.startswith(f"cut without {hook}: the Engine is away")
    assert bench.accepted("s") == {2}
    assert bench.running("v", "near")[""] == bench.version("s", 2).fields["password"].reveal()


# ------------------------------------------------------------------------------------------------------------ evidence


def test_an_old_account_in_use_is_not_retired_and_its_holders_are_named() -> None:
    bench = bench_of("alternating", "in-use")
    bench.world.state["db_s"]["sessions"] = {"app_a": ["10.0.0.9"]}
    rotation = bench.one("s", wait=timedelta(days=2))
    assert (rotation.waiting, rotation.waiting_for) == (Waiting.EVIDENCE, ("10.0.0.9",))
    assert bench.accepted("s") == {1, 2}
    bench.resume(wait=timedelta(days=8))
    rotation = bench.newest("s")
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.IN_USE)
    bench.world.state["db_s"]["sessions"] = {}
    bench.resume()
    assert bench.newest("s").state is State.DONE
    assert bench.accepted("s") == {2}


def test_close_sessions_ends_what_is_left_after_grace_and_waits_for_nobody_to_leave() -> None:
    bench = bench_of("alternating", "closing")
    bench.use(bench.make.alternating("s", bench.make.file("f"), close_sessions=True))
    bench.world.state["db_s"]["sessions"] = {"app_a": ["10.0.0.9"]}
    in_grace = bench.one("s", wait=NOW)
    assert in_grace.waiting is Waiting.GRACE
    assert bench.world.state["db_s"]["sessions"]["app_a"] == ["10.0.0.9"]
    bench.resume(wait=timedelta(days=2))
    assert bench.newest("s").state is State.DONE
    assert bench.accepted("s") == {2}
    assert bench.world.state["db_s"]["sessions"]["app_a"] == []


# --------------------------------------------------------------------------------------------------- another policy


def test_an_open_rotation_keeps_the_policy_that_it_was_opened_under() -> None:
    bench = bench_of("overlap", "snapshot")
    bench.rotate("s", wait=NOW)
    bench.edit("s", grace_period=10 * GRACE, destinations=())
    bench.resume(wait=2 * GRACE)
    assert bench.newest("s").state is State.DONE


def test_a_moved_target_is_set_at_its_new_place_and_retired_at_the_old_one() -> None:
    bench = bench_of("overlap", "moved")
    policy = bench.policies["s"]
    assert policy.target is not None
    bench.use(replace(policy, target=replace(policy.target, settings=bench.make.place("db_new"))))
    bench.done("s")
    assert bench.world.accepts("db_new", bench.version("s", 2))
    assert not bench.world.accepts("db_s", bench.version("s", 1))


def test_going_back_from_a_moved_target_sets_the_old_value_at_its_old_place_again() -> None:
    bench = bench_of("single", "moved-back")
    policy = bench.policies["s"]
    assert policy.target is not None
    bench.use(replace(policy, target=replace(policy.target, settings=bench.make.place("db_new"))))
    bench.faults.script = [Fault("f.confirm", Goes.REFUSED, call=2)]
    assert bench.one("s").state is State.ROLLED_BACK
    assert bench.world.accepts("db_s", bench.version("s", 1))
    assert bench.running("f")[""] == spelled(bench, 1)


def test_a_moved_target_may_be_given_the_value_that_it_had_before() -> None:
    """The old value is no control then, wherever it was made for."""
    bench = bench_of("single", "moved-equal")
    policy = bench.policies["s"]
    assert policy.target is not None
    bench.world.state["gen_s"]["generated"] = 0
    bench.use(replace(policy, target=replace(policy.target, settings=bench.make.place("db_new"))))
    bench.done("s")


@pytest.mark.parametrize("kind", ["overlap", "alternating", "single"])
def test_at_a_new_place_that_does_not_answer_nothing_is_begun_and_a_rollback_ends_it_at_once(kind: str) -> None:
    """A wrong port in an edited policy: a rotation keeps the policy it began with, and would ask there for ever."""
    bench = bench_of(kind, "moved-nowhere")
    policy = bench.policies["s"]
    assert policy.target is not None
    moved = {**policy.target.settings, "system": "db_nowhere"}
    bench.use(replace(policy, target=replace(policy.target, settings=moved)))
    bench.faults.script = [Fault(f"db_nowhere.{hook}", Goes.UNREACHABLE, call=0) for hook in ("set", "observe", "test")]
    rotation = bench.one("s", wait=NOW)
    assert (rotation.state, rotation.waiting) == (State.WAITING, Waiting.UNREACHABLE)
    assert rotation.to_version is None
    assert bench.world.accepts("db_s", bench.version("s", 1))
    assert bench.rollback("s").state == "rolled_back"
    bench.use(policy)
    bench.done("s")


def test_an_old_place_out_of_reach_parks_until_it_is_given_up() -> None:
    bench = bench_of("overlap", "unreachable")
    policy = bench.policies["s"]
    assert policy.target is not None
    bench.use(replace(policy, target=replace(policy.target, settings=bench.make.place("db_new"))))
    bench.rotate("s", wait=NOW)
    bench.faults.script = [Fault("db_s.set", Goes.UNREACHABLE, call=0)]
    bench.resume()
    assert (bench.newest("s").state, bench.newest("s").cause) == (State.PARKED, Cause.BINDING)
    (report,) = bench.rotate("s", forget_old=True)
    assert report.state == "done"
    assert bench.world.accepts("db_new", bench.version("s", 2))


def test_an_old_place_that_is_gone_does_not_stop_the_next_rotation_once_it_is_given_up() -> None:
    bench = bench_of("overlap", "gone-for-good")
    policy = bench.policies["s"]
    assert policy.target is not None
    bench.use(replace(policy, target=replace(policy.target, settings=bench.make.place("db_new"))))
    bench.faults.script = [Fault(f"db_s.{hook}", Goes.UNREACHABLE, call=0) for hook in ("set", "observe", "test")]
    rotation = bench.one("s", wait=NOW)
    assert rotation.waiting is Waiting.UNREACHABLE
    (report,) = bench.rotate("s", forget_old=True)
    assert report.state == "done"
    assert bench.running("f")[""] == spelled(bench, 2)


def test_a_strategy_may_change_between_two_rotations() -> None:
    bench = bench_of("overlap", "strategies")
    pair = bench.make.alternating("s", bench.make.file("f"))
    assert pair.target is not None
    bench.use(replace(pair, target=replace(pair.target, settings=bench.make.place("db_pair"))))
    bench.done("s")
    assert bench.running("f")[""] == spelled(bench, 2)
    assert bench.world.accepts("db_pair", bench.version("s", 2))
    assert not bench.world.accepts("db_s", bench.version("s", 1))


def test_a_policy_that_is_gone_does_not_strand_its_open_rotation() -> None:
    bench = bench_of("overlap", "deleted")
    bench.rotate("s", wait=NOW)
    del bench.policies["s"]
    bench.resume()
    assert bench.newest("s").state is State.DONE
    assert bench.store.labels("s")[StagingLabel.CURRENT] == 2


def test_a_rehearsal_touches_no_consumer_and_leaves_no_trace_at_the_target() -> None:
    bench = bench_of("overlap", "rehearsal")
    before = dict(bench.running("f"))
    (report,) = bench.rotate("s", purpose=Purpose.REHEARSE)
    assert report.state == "done"
    assert bench.running("f") == before
    assert bench.accepted("s") == {1}
    assert bench.current("s") == 1


def test_a_place_that_cannot_be_read_keeps_the_account_that_it_may_be_on_from_being_reset() -> None:
    bench = Bench("unread")
    bench.use(bench.make.alternating("s", bench.make.service("f")))
    bench.done("s")
    bench.world.backup("f")
    bench.done("s")
    bench.world.restore_backup("f")  # somebody put the service back to v1, and nobody can see it
    bench.faults.script = [Fault("f.observe", Goes.UNREACHABLE, call=0)]
    before = bench.accepted("s")
    rotation = bench.one("s", wait=timedelta(0))
    assert "did not say what it holds: simulated: unreachable" in rotation.detail
    assert (rotation.state, rotation.waiting) == (State.WAITING, Waiting.UNREACHABLE)
    assert bench.accepted("s") == before
    bench.faults.script = []
    bench.resume("s")
    assert bench.newest("s").cause is Cause.DRIFT


def test_a_place_that_says_how_long_to_wait_is_not_asked_what_it_holds_before() -> None:
    bench = Bench("untold")
    bench.use(bench.make.alternating("s", bench.make.service("f")))
    bench.done("s")
    bench.done("s")
    bench.faults.script = [Fault("f.observe", Goes.THROTTLED, call=0, retry_after=timedelta(minutes=5))]
    rotation = bench.one("s", wait=timedelta(0))
    assert (rotation.state, rotation.waiting) == (State.WAITING, Waiting.THROTTLED)
    assert rotation.not_before == bench.clock.now() + timedelta(minutes=5)
    assert "did not say what it holds: simulated: throttled" in rotation.detail
