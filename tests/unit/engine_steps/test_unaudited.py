"""Invariant 14 and its one exception: a gap that an audited set has opened is closed, aloud, without the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine.reconcile import apply
from vaultkeeper.errors import AuditUnwritable
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, State
from vaultkeeper.testing.faults import Fault, Faults, Goes, SimulatedKill


def spoils(bench: Bench, hook: str) -> None:
    """From the first call of this hook on nothing can be written to the audit log."""

    class Spoiling(Faults):
        def strike(self, name: str) -> Fault | None:
            bench.memory.audit_unwritable |= name == hook
            return super().strike(name)

    bench.world.faults = Spoiling()


def made(name: str, policies: Sequence[str]) -> Bench:
    bench = Bench(f"unaudited-{name}")
    make = bench.make
    known: dict[str, RotationPolicy] = {
        "gap": make.single("gap", make.service("stack", {"gap": "{password}"})),
        "calm": make.overlap("calm", make.service("stack", {"calm": "{password}"})),
    }
    bench.use(*(known[policy] for policy in policies))
    bench.done()
    return bench


def held(bench: Bench, name: str, version: int) -> bool:
    return bench.running("stack")[name] == bench.version(name, version).fields["password"].reveal()


def test_a_gap_is_closed_though_the_audit_log_broke_inside_it_and_nothing_ends_before_it_is_audited() -> None:
    bench = made("gap", ["gap"])
    spoils(bench, "db_gap.set")
    (report,) = bench.rotate("gap")
    assert bench.accepted("gap") == {2}
    assert held(bench, "gap", 2)
    assert isinstance(report.error, AuditUnwritable)
    assert bench.newest("gap").open
    assert any("audit log" in event.text and "locked out" in event.text for event in bench.events)
    bench.world.faults = Faults()
    bench.memory.audit_unwritable = False
    assert [one.state for one in bench.resume("gap")] == ["done"]


def test_what_could_not_be_audited_is_written_as_soon_as_it_can_be() -> None:
    bench = made("late", ["gap"])
    before = len(bench.memory.disk.audit)

    class Once(Faults):
        def strike(self, name: str) -> Fault | None:
            if name in {"db_gap.set", "stack.confirm"}:
                bench.memory.audit_unwritable = name == "db_gap.set"
            return super().strike(name)

    bench.world.faults = Once()
    bench.done("gap")
    told = [(record["event"], record["what"]) for record in bench.memory.disk.audit[before:]]
    assert told == [("begin", "set"), ("begin", "deliver"), ("end", "done")]


def told_since(bench: Bench, before: int) -> list[tuple[object, object, object]]:
    return [(record["event"], record.get("what"), record.get("epoch")) for record in bench.memory.disk.audit[before:]]


def writable_again(bench: Bench, *faults: Fault) -> None:
    bench.world.faults = bench.memory.faults = Faults(faults)
    bench.memory.audit_unwritable = False


def kills(bench: Bench, goes: Goes) -> None:
    """From the set on nothing can be written to the audit log, and the process dies at the delivery."""

    class Killing(Faults):
        def strike(self, name: str) -> Fault | None:
            bench.memory.audit_unwritable |= name == "db_gap.set"
            return Fault(name, goes) if name == "stack.deliver" else super().strike(name)

    bench.world.faults = Killing()


@pytest.mark.parametrize("killed", [Goes.KILLED_BEFORE, Goes.KILLED_AFTER])
def test_what_could_not_be_audited_outlives_a_kill_and_is_written_by_the_next_process(killed: Goes) -> None:
    bench = made(f"killed-{killed.value}", ["gap"])
    before = len(bench.memory.disk.audit)
    kills(bench, killed)
    with pytest.raises(SimulatedKill):
        bench.rotate("gap")
    writable_again(bench)
    assert [one.state for one in bench.resume("gap")] == ["done"]
    # The first delivery's own epoch: nobody takes it for what the process after the kill did.
    deliveries = [("begin", "deliver", 2), ("begin", "deliver", 3)]
    assert told_since(bench, before) == [("begin", "set", 2), *deliveries, ("end", "done", 3)]
    assert bench.newest("gap").unaudited == ()


def test_each_process_that_closes_the_gap_without_the_audit_log_is_told_of() -> None:
    bench = made("twice", ["gap"])
    before = len(bench.memory.disk.audit)
    kills(bench, Goes.KILLED_BEFORE)
    for process in (bench.rotate, bench.resume):
        with pytest.raises(SimulatedKill):
            process("gap")
    assert told_since(bench, before) == [("begin", "set", 2)]
    writable_again(bench)
    bench.resume("gap")
    deliveries = [("begin", "deliver", epoch) for epoch in (2, 3, 4)]
    assert told_since(bench, before) == [("begin", "set", 2), *deliveries, ("end", "done", 4)]


@pytest.mark.parametrize("chosen", ["adopt", "replace", "reconcile"])
def test_whoever_ends_it_otherwise_writes_what_it_owes(chosen: str) -> None:
    bench = made(f"chosen-{chosen}", ["gap"])
    before = len(bench.memory.disk.audit)
    kills(bench, Goes.KILLED_BEFORE)
    with pytest.raises(SimulatedKill):
        bench.rotate("gap")
    bench.world.state["db_gap"]["accounts"] = {"app": [b"set by hand"]}
    bench.world.faults = Faults()
    bench.resume("gap", wait=timedelta(0))
    stuck = bench.newest("gap")
    assert stuck.state is State.AMBIGUOUS
    assert [record["what"] for record in stuck.unaudited] == ["deliver", "ambiguous"]
    writable_again(bench)
    if chosen == "adopt":
        bench.adopt("gap", "set by hand", username="app")
    elif chosen == "replace":
        bench.done("gap", replace=True)
    else:
        apply("gap", "set-current", bench.parts())
    written = told_since(bench, before)
    assert {("begin", "deliver", 2), ("end", "ambiguous", 3)} <= set(written)
    ended = next(r for r in bench.store.rotations("gap") if r.id == stuck.id)
    assert (ended.open, ended.unaudited) == (False, ())


def test_one_delivery_tried_often_is_one_word() -> None:
    """It waits for a busy neighbour, and the journal does not grow with every look."""
    bench = made("often", ["gap"])
    before = len(bench.memory.disk.audit)

    class Busy(Faults):
        def strike(self, name: str) -> Fault | None:
            bench.memory.audit_unwritable |= name == "db_gap.set"
            busy = name == "stack.deliver" and self.calls[name] < 4
            return Fault(name, Goes.UNREACHABLE, 0) if busy and super().strike(name) is None else None

    bench.world.faults = Busy()
    bench.rotate("gap")
    assert len(bench.newest("gap").unaudited) == 1
    writable_again(bench)
    bench.resume("gap")
    assert told_since(bench, before)[:2] == [("begin", "set", 2), ("begin", "deliver", 2)]


def test_a_log_that_takes_a_part_is_owed_the_rest() -> None:
    bench = made("part", ["gap"])
    before = len(bench.memory.disk.audit)
    kills(bench, Goes.KILLED_BEFORE)
    for process in (bench.rotate, bench.resume):
        with pytest.raises(SimulatedKill):
            process("gap")
    writable_again(bench, Fault("store.audit", Goes.REFUSED, 2))
    bench.resume("gap")
    deliveries = [("begin", "deliver", epoch) for epoch in (2, 3, 4)]
    assert told_since(bench, before) == [("begin", "set", 2), *deliveries, ("end", "done", 4)]


def test_a_stop_in_the_gap_is_journalled_and_its_word_is_owed_too() -> None:
    """A first version has no way back. A neighbour's gap in the same command is closed all the same."""
    bench = Bench("unaudited-stop")
    both = bench.make.service("both", {"a": "{password}"}), bench.make.service("both", {"b": "{password}"})
    bench.use(bench.make.single("a", bench.make.service("of_a", {"a": "{password}"}), both[0]))
    bench.use(bench.make.single("b", both[1]))

    class Refusing(Faults):
        def strike(self, name: str) -> Fault | None:
            bench.memory.audit_unwritable |= name == "db_b.set"
            return Fault(name, Goes.REFUSED) if name == "of_a.deliver" else super().strike(name)

    bench.world.faults = Refusing()
    bench.rotate(wait=timedelta(0))
    stopped = bench.newest("a")
    assert (stopped.state, stopped.cause) == (State.PARKED, Cause.NO_WAY_BACK)
    assert stopped.detail == "refused by the fault script"
    assert [record["what"] for record in stopped.unaudited] == ["deliver", "parked"]
    assert bench.running("both")["b"] == bench.version("b", 1).fields["password"].reveal()
    writable_again(bench)
    assert {one.state for one in bench.resume()} == {"done"}
    words = [(record["event"], record["what"]) for record in bench.memory.disk.audit if record["secret"] == "a"]
    assert words == [("begin", "set"), ("begin", "deliver"), ("end", "parked"), ("begin", "deliver"), ("end", "done")]


def test_nothing_is_set_and_no_gap_opened_without_the_audit_log() -> None:
    bench = made("closed", ["gap"])
    spoils(bench, "stack.prepare")
    (report,) = bench.rotate("gap")
    assert isinstance(report.error, AuditUnwritable)
    assert bench.accepted("gap") == {1}
    assert held(bench, "gap", 1)


def test_a_neighbour_who_is_in_no_gap_is_not_handed_anything_new() -> None:
    bench = made("both", ["gap", "calm"])
    spoils(bench, "db_gap.set")
    bench.rotate()
    assert held(bench, "gap", 2)
    assert held(bench, "calm", 1)
    bench.world.faults = Faults()
    bench.memory.audit_unwritable = False
    assert {one.state for one in bench.resume()} == {"done"}
    assert held(bench, "calm", 2)


def test_on_the_way_back_the_target_is_left_alone_and_its_consumers_are_not() -> None:
    bench = made("back", ["gap"])
    bench.world.state["stack"]["broken"] = {"app": dict(bench.running("stack"))}
    spoils(bench, "stack.confirm")
    bench.rotate("gap", wait=timedelta(0))
    assert bench.accepted("gap") == {2}
    bench.world.faults = Faults()
    bench.memory.audit_unwritable = False
    bench.resume("gap")
    assert bench.newest("gap").state is State.ROLLED_BACK
    assert bench.accepted("gap") == {1}
    assert held(bench, "gap", 1)


@pytest.mark.parametrize("hook", ["db_calm.set", "stack.deliver"])
def test_where_both_values_work_nothing_goes_on_without_the_audit_log(hook: str) -> None:
    bench = made(f"overlap-{hook}", ["calm"])
    spoils(bench, hook)
    (report,) = bench.rotate("calm", wait=timedelta(0))
    assert bench.accepted("calm") == {1, 2}
    assert held(bench, "calm", 1 if hook == "db_calm.set" else 2)
    assert isinstance(report.error, AuditUnwritable) == (hook == "db_calm.set")
