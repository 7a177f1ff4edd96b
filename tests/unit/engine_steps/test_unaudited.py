"""Invariant 14 and its one exception: a gap that an audited set has opened is closed, aloud, without the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.errors import AuditUnwritable
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import State
from vaultkeeper.testing.faults import Fault, Faults


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
