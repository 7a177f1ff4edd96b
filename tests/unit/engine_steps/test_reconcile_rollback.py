"""What reconcile and rollback must never do: bring a leaked value back, or say "done" of what nobody reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.errors import AlreadyOpen, BackendError, NotFound, RotationFailed, UsageError
from vaultkeeper.model.outcome import Done, No, NotYet, Result
from vaultkeeper.model.rotation import Cause, State, Waiting
from vaultkeeper.model.secret import GroupKey, Strategy
from vaultkeeper.ports import Item
from vaultkeeper.testing.faults import Fault, Goes
from vaultkeeper.testing.simulators.file import FileDestination
from vaultkeeper.testing.simulators.service import ServiceDestination
from vaultkeeper.testing.simulators.single import SingleTarget

NOW = timedelta(0)
DAY = timedelta(days=1)


def parked_emergency(name: str) -> Bench:
    """v1 leaked; v2 is set and delivered, one client has not fetched it in time."""
    bench = Bench(name)
    bench.use(bench.make.alternating("s", bench.make.to("sim_clients", "c", timeout=10 * DAY)))
    bench.done("s")
    (report,) = bench.emergency("s", wait=DAY)
    assert report.rotation is not None
    assert (report.state, report.rotation.cause) == ("parked", Cause.LAGGARDS)
    assert bench.accepted("s") == {1, 2}
    return bench


def restored(name: str) -> Bench:
    """v2 is CURRENT; the target was put back to v1 and a rotation stands parked because of it."""
    bench = Bench(name)
    bench.use(bench.make.single("s", bench.make.service("f")))
    bench.done("s")
    bench.world.backup("db_s")
    bench.done("s")
    bench.world.restore_backup("db_s")
    assert bench.one("s").cause is Cause.TARGET_WENT_BACK
    return bench


def reverted(name: str) -> Bench:
    """v2 is CURRENT; the consumer was put back to v1."""
    bench = Bench(name)
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.done("s")
    bench.world.backup("f")
    bench.done("s")
    bench.world.restore_backup("f")
    return bench


def keys(bench: Bench) -> list[str]:
    return [proposal.key for proposal in reconcile("s", bench.parts())]


def epoch(bench: Bench) -> int:
    return bench.newest("s").epoch


# ---------------------------------------------------------------------------------------------------- a leaked value


@pytest.mark.parametrize("say", [keys, lambda b: apply("s", "deliver", b.parts())], ids=["reconcile", "apply"])
def test_reconcile_does_not_end_a_parked_emergency_with_the_leaked_value(say: Callable[[Bench], object]) -> None:
    bench = parked_emergency(f"park-{say.__name__}")
    before, stood = bench.world.snapshot(), bench.newest("s")
    with pytest.raises(AlreadyOpen) as told:
        say(bench)
    assert "vaultkeeper resume s" in told.value.next
    assert "rollback" not in told.value.next  # that would lead to the leaked value
    assert bench.world.snapshot() == before
    assert bench.newest("s") == stood
    bench.clock.advance(4 * DAY)
    bench.resume()
    assert bench.accepted("s") == {2}
    assert bench.current("s") == 2


def test_a_delivery_does_not_end_a_rotation_whose_new_value_is_out_there() -> None:
    bench = Bench("confirming")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.done("s")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, call=bench.calls("f.confirm") + 1)]
    bench.rotate("s", wait=NOW)
    with pytest.raises(AlreadyOpen) as told:
        apply("s", "deliver", bench.parts())
    assert "vaultkeeper resume s" in told.value.next
    assert "vaultkeeper rollback s" in told.value.next
    assert bench.rollback("s").state == "rolled_back"
    assert bench.accepted("s") == {1}


def test_a_rotation_that_drift_stopped_is_still_reconciled_by_a_delivery() -> None:
    bench = Bench("drift")
    bench.use(bench.make.alternating("s", bench.make.file("f")))
    bench.done("s")
    bench.world.backup("f")
    bench.done("s")
    bench.world.restore_backup("f")
    assert bench.one("s").cause is Cause.DRIFT
    assert keys(bench) == ["deliver"]
    apply("s", "deliver", bench.parts())
    assert not bench.newest("s").open
    bench.done("s")


def test_after_the_rollback_of_what_a_drift_stopped_no_consumer_is_said_to_run_on_it() -> None:
    bench = Bench("drift-back")
    bench.use(bench.make.alternating("s", bench.make.file("f")))
    bench.done("s")
    bench.world.backup("f")
    bench.done("s")
    bench.world.restore_backup("f")
    assert bench.one("s").cause is Cause.DRIFT
    error = bench.rollback("s").error
    assert error is not None
    assert error.works == "v2 (old): target and consumers are as they were"
    assert keys(bench) == ["deliver"]


def test_rollback_of_a_parked_emergency_never_delivers_the_leaked_value() -> None:
    bench = parked_emergency("roll")
    before, stood = bench.world.snapshot(), bench.newest("s")
    with pytest.raises(UsageError, match="compromised") as told:
        bench.rollback("s")
    assert "vaultkeeper resume s" in told.value.next
    assert "--emergency --cut" in told.value.next
    assert bench.world.snapshot() == before
    assert bench.newest("s") == stood


def test_an_emergency_that_did_nothing_yet_may_be_given_up() -> None:
    bench = Bench("untouched")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.done("s")
    bench.faults.script = [Fault("db_s.observe", Goes.UNREACHABLE, call=0)]
    bench.emergency("s", wait=NOW)
    assert bench.newest("s").waiting is Waiting.UNREACHABLE
    before = bench.world.snapshot()
    assert bench.rollback("s").state == "rolled_back"
    assert bench.world.snapshot() == before


def leaked_and_current(name: str) -> Bench:
    """The emergency went back because the target refused its new value: v1 is CURRENT, and compromised."""
    bench = Bench(name)
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.done("s")
    bench.faults.script = [Fault("db_s.set", Goes.REFUSED, call=bench.calls("db_s.set") + 1, no=No.VALUE)]
    (report,) = bench.emergency("s")
    assert report.state == "rolled_back"
    assert bench.record("s", 1).compromised
    return bench


def test_a_leaked_value_is_never_delivered_again() -> None:
    bench = leaked_and_current("leaked-deliver")
    bench.world.restore_backup("f")
    for say in (lambda: keys(bench), lambda: apply("s", "deliver", bench.parts())):
        with pytest.raises(RotationFailed, match="leaked") as told:
            say()
        assert "vaultkeeper rotate s --replace" in told.value.next
    assert bench.running("f") == {}


def test_a_leaked_value_is_never_set_again() -> None:
    bench = leaked_and_current("leaked-set")
    bench.world.state["db_s"]["accounts"] = {}
    with pytest.raises(RotationFailed, match="leaked"):
        apply("s", "set-current", bench.parts())
    assert bench.accepted("s") == set()


def test_a_leaked_value_never_overwrites_a_newer_target() -> None:
    bench = leaked_and_current("leaked-stale")
    bench.world.state["db_s"]["tag"][2] = 99
    with pytest.raises(RotationFailed, match="leaked"):
        apply("s", "trust-store", bench.parts())


def test_a_leaked_previous_value_is_never_taken_again() -> None:
    bench = Bench("leaked-previous")
    bench.use(bench.make.single("s", bench.make.file("f")))
    bench.done("s")
    bench.world.backup("db_s")
    (report,) = bench.emergency("s")
    assert report.state == "done"
    bench.world.restore_backup("db_s")
    assert keys(bench) == ["set-current"]
    with pytest.raises(NotFound):
        apply("s", "take-previous", bench.parts())
    apply("s", "set-current", bench.parts())
    assert bench.accepted("s") == {2}


# -------------------------------------------------------------------------------------------------- a policy is gone


@pytest.mark.parametrize("wait", [NOW, 400 * DAY], ids=["in grace", "closed"])
def test_without_a_policy_rollback_and_reconcile_say_so_before_anything_is_taken(wait: timedelta) -> None:
    bench = Bench(f"gone-{wait.days}")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.done("s")
    bench.rotate("s", wait=wait)
    stood, before = epoch(bench), bench.world.snapshot()
    del bench.policies["s"]
    commands = (lambda: bench.rollback("s"), lambda: keys(bench), lambda: apply("s", "deliver", bench.parts()))
    for command in commands:
        with pytest.raises(NotFound, match="policy is gone") as told:
            command()
        assert told.value.next
    assert epoch(bench) == stood
    assert bench.world.snapshot() == before


def test_an_unfinished_rotation_goes_back_without_its_policy() -> None:
    bench = Bench("gone-open")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.done("s")
    old = bench.running("f")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, call=bench.calls("f.confirm") + 1)]
    bench.rotate("s", wait=NOW)
    assert bench.running("f") != old
    policy = bench.policies.pop("s")
    assert bench.rollback("s").state == "rolled_back"
    assert bench.running("f") == old
    bench.use(policy)
    assert bench.accepted("s") == {1}


def test_reconcile_of_an_unknown_name_says_so() -> None:
    with pytest.raises(NotFound, match="no secret"):
        reconcile("nobody", Bench("unknown").parts())


# ------------------------------------------------------------------------------------------- "done" is never a guess


@pytest.mark.parametrize("hook", ["prepare", "deliver"])
def test_a_delivery_put_off_is_not_done(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = reverted(f"put-off-{hook}")
    with monkeypatch.context() as patched:
        patched.setattr(FileDestination, hook, lambda *_: NotYet("it is being updated", timedelta(seconds=5)))
        with pytest.raises(RotationFailed, match="being updated"):
            apply("s", "deliver", bench.parts())
    assert bench.newest("s").state is State.PARKED
    apply("s", "deliver", bench.parts())
    assert keys(bench) == []


def test_consumers_that_cannot_be_listed_are_not_agreement() -> None:
    bench = reverted("unlisted")
    bench.faults.script = [Fault("f.spots", Goes.UNREACHABLE, call=0)]
    with pytest.raises(BackendError, match="could not be listed"):
        reconcile("s", bench.parts())


def test_consumers_that_cannot_be_listed_leave_the_target_alone() -> None:
    bench = restored("unlisted-set")
    bench.faults.script = [Fault("f.spots", Goes.UNREACHABLE, call=0)]
    with pytest.raises(RotationFailed, match="could not be listed"):
        apply("s", "set-current", bench.parts())
    assert bench.accepted("s") == {1}


def test_what_was_set_is_proven_before_it_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = restored("unproven")
    delivered = bench.calls("f.deliver")
    with monkeypatch.context() as patched:
        patched.setattr(SingleTarget, "set", lambda *_: Done())
        with pytest.raises(RotationFailed, match="refuses it"):
            apply("s", "set-current", bench.parts())
    assert bench.newest("s").state is State.PARKED
    assert bench.calls("f.deliver") == delivered
    apply("s", "set-current", bench.parts())
    assert bench.accepted("s") == {2}


def test_a_consumer_that_cannot_run_on_it_is_named() -> None:
    bench = restored("broken")
    bench.world.state["f"]["broken"] = {"app": {"": b"something else"}}
    with pytest.raises(RotationFailed, match="app cannot run") as told:
        apply("s", "set-current", bench.parts())
    assert "exits after start" in str(told.value)
    assert bench.newest("s").state is State.PARKED
    del bench.world.state["f"]["broken"]
    bench.resume()
    assert bench.newest("s").state is State.DONE


# --------------------------------------------------------------------------------------------- what is shared, in grace


def test_a_redelivery_hands_over_everything_that_the_consumer_has_of_ours() -> None:
    bench = Bench("shared")
    make = bench.make
    bench.use(
        make.overlap("s", make.service("v", {"s": "{password}"})),
        make.overlap("n", make.service("v", {"n": "{password}"})),
    )
    bench.done()
    seen: list[set[str]] = []
    deliver = ServiceDestination.deliver

    def watching(destination: ServiceDestination, group: GroupKey, items: Sequence[Item], ctx: Any) -> Result:
        seen.append({item.secret for item in items})
        return deliver(destination, group, items, ctx)

    bench.world.state["v"]["running"]["app"]["s"] = {"content": b"by hand", "version": "not ours"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServiceDestination, "deliver", watching)
        apply("s", "deliver", bench.parts())
    assert seen == [{"s", "n"}]
    assert set(bench.running("v")) == {"s", "n"}


def test_a_redelivery_in_grace_leaves_the_old_value_in_the_checkers_list() -> None:
    bench = Bench("via-grace")
    bench.use(bench.make.via("v", Strategy.OVERLAP, "sim_file", bench.make.file("f", {"": "{password}"})))
    bench.done()
    bench.rotate("v", wait=NOW)
    assert bench.newest("v").waiting is Waiting.GRACE
    bench.world.state["f"]["running"]["app"][""] = {"content": b"by hand", "version": "not ours"}
    apply("v", "deliver", bench.parts())
    assert bench.accepted("v") == {1, 2}
    assert bench.running("f")[""] == bench.version("v", 2).fields["password"].reveal()
    bench.resume()
    assert bench.accepted("v") == {2}


def test_a_redelivery_whose_consumer_fails_is_proposed_again_until_it_runs() -> None:
    """Else only `resume` would lead on, and that draws a new value."""
    bench = Bench("failed-confirm")
    bench.use(bench.make.alternating("s", bench.make.service("f")))
    bench.done("s")
    bench.world.backup("f")
    bench.done("s")
    bench.world.restore_backup("f")
    bench.world.state["f"]["broken"] = {"app": {"": b"nothing suits it"}}
    with pytest.raises(RotationFailed) as told:
        apply("s", "deliver", bench.parts())
    assert "vaultkeeper reconcile s" in told.value.next
    assert keys(bench) == ["deliver"]
    del bench.world.state["f"]["broken"]
    apply("s", "deliver", bench.parts())
    assert not bench.newest("s").open
    assert keys(bench) == []
    assert bench.current("s") == 2


def test_a_consumer_that_cannot_be_looked_at_is_not_said_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("unseen-confirm")
    bench.use(bench.make.overlap("s", bench.make.service("f")))
    bench.done("s")
    bench.world.state["f"]["running"] = {}

    def blind(*_: object) -> None:
        raise NotFound("the key's file is gone")

    monkeypatch.setattr(ServiceDestination, "confirm", blind)
    with pytest.raises(RotationFailed, match="could not be looked at") as told:
        apply("s", "deliver", bench.parts())
    assert "does not run on it" not in told.value.works
    assert "the key's file is gone" in told.value.why


# --------------------------------------------------------------------------------------------------- many consumers


def test_more_consumers_than_may_move_at_once_are_all_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Swarm answers: one rollout takes 5 s here, and another service may begin only when it is over."""
    bench = Bench("many")
    services = tuple(f"app{n:02}" for n in range(20))
    bench.use(bench.make.overlap("s", bench.make.service("v", services=services)))
    bench.done("s")
    current = bench.running("v", services[0])
    for service in services:
        bench.world.state["v"]["running"][service][""] = {"content": b"by hand", "version": "not ours"}
    deliver, began = ServiceDestination.deliver, list[Any]()

    def one_at_a_time(destination: ServiceDestination, group: GroupKey, items: Sequence[Item], ctx: Any) -> Result:
        if began and bench.clock.now() - began[-1] < timedelta(seconds=5):
            return NotYet("another service is being updated", timedelta(seconds=1))
        began.append(bench.clock.now())
        return deliver(destination, group, items, ctx)

    monkeypatch.setattr(ServiceDestination, "deliver", one_at_a_time)
    apply("s", "deliver", bench.parts())
    assert all(bench.running("v", service) == current for service in services)
    assert len(began) == len(services)
    assert any("app01 waits: another service" in event.text for event in bench.events)
