"""A seeded part of the kill sweep; `scripts/crash-sweep` runs all points."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.contract.found import marks
from tests.crash.sweep import Scenario, scenarios, sweep
from tests.servers import ServerMissing

POINTS = 9  # per scenario; the scenarios and the control make far more than sixty
MORE = {"swarm": 12}  # its own tasks go on while we are dead
SEED = 20261121


@pytest.fixture(autouse=True)
def needs_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")


@pytest.mark.parametrize(
    "scenario", [pytest.param(s, marks=marks(s.kind), id=s.name.replace(" ", "-")) for s in scenarios()]
)
def test_invariant_07_a_kill_at_any_call_locks_nobody_out_and_one_resume_converges(
    scenario: Scenario, tmp_path: Path
) -> None:
    most = MORE.get(scenario.kind, POINTS)
    try:
        report = sweep(scenario, tmp_path / "sweep", most=most, seed=SEED)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    print(report.line())
    assert not report.lockouts
    assert not report.stuck
    assert not report.unreached_writes
    assert len(report.hit) >= most - 1


def test_invariant_01_setting_before_storing_would_lock_people_out(tmp_path: Path) -> None:
    """The control: the same sweep, over an order of steps that a script would have."""
    (single,) = scenarios(["postgres single"])
    among_late_writes = sweep(
        single, tmp_path / "control", most=12, seed=SEED, wrong_order=True,
        among=lambda point: point.task == 0 and point.call == "pwrite64" and point.where.endswith("-wal"),
    )  # fmt: skip
    print(among_late_writes.line())
    assert among_late_writes.lockouts
