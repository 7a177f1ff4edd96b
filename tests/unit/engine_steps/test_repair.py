"""`on_drift: repair`: the next run puts right what somebody put back, and nothing that nobody asked it to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import LONG, Bench
from vaultkeeper.engine.verdict import works_now
from vaultkeeper.model.rotation import Cause, State, Waiting
from vaultkeeper.ports import Pause
from vaultkeeper.testing.faults import Fault, Goes

NOW = timedelta(0)


def reverted(name: str, wait: timedelta = LONG, **more: Any) -> Bench:
    """v2 is CURRENT; somebody put its only consumer back to v1."""
    bench = Bench(name)
    bench.use(bench.make.overlap("s", bench.make.service("v", {"": "{password}"}), **more))
    bench.done("s")
    bench.world.backup("v")
    bench.rotate("s", wait=wait)
    bench.world.restore_backup("v")
    assert runs_on(bench) == 1
    return bench


def runs_on(bench: Bench) -> int:
    running = bench.running("v")[""]
    return next(n for n in (1, 2) if bench.version("s", n).fields["password"].reveal() == running)


def test_the_next_run_delivers_the_current_version_again() -> None:
    bench = reverted("repair", on_drift_repair=True)
    (report,) = bench.run_due()
    assert (report.state, report.exit_code, report.changed) == ("repaired", 0, True)
    assert "holds v1, not v2" in report.skipped
    assert runs_on(bench) == 2
    assert not bench.newest("s").open
    assert bench.run_due() == []


@pytest.mark.parametrize("how", ["told only", "disabled", "paused", "cannot be asked"])
def test_a_run_leaves_alone_what_it_may_not_repair(how: str) -> None:
    bench = reverted(f"leave {how}", on_drift_repair=how != "told only", enabled=True)
    if how == "disabled":
        bench.edit("s", enabled=False)
    if how == "paused":
        bench.store.pause("s", Pause(None, "a person looks at it", bench.clock.now()))
    if how == "cannot be asked":
        bench.faults.script = [Fault("v.spots", Goes.UNREACHABLE, call=0)]
    assert bench.run_due() == []
    assert runs_on(bench) == 1


def test_within_grace_it_is_repaired_and_the_grace_goes_on() -> None:
    bench = reverted("grace", NOW, on_drift_repair=True)
    assert bench.newest("s").waiting is Waiting.GRACE
    assert [report.state for report in bench.run_due(NOW)] == ["repaired"]
    assert runs_on(bench) == 2
    assert bench.newest("s").waiting is Waiting.GRACE
    assert bench.accepted("s") == {1, 2}
    assert [report.state for report in bench.resume()] == ["done"]
    assert bench.accepted("s") == {2}


def test_a_rotation_that_drift_stopped_after_its_finish_goes_on_when_it_is_repaired() -> None:
    bench = reverted("stopped", NOW, on_drift_repair=False)
    (report,) = bench.resume()
    assert (report.state, bench.newest("s").cause) == ("parked", Cause.DRIFT)
    assert works_now(bench.newest("s")).endswith("; a consumer holds an older one")  # true of one that came later, too
    bench.edit("s", on_drift_repair=True)
    assert [report.state for report in bench.run_due()] == ["repaired", "done"]
    assert bench.accepted("s") == {2}


def test_what_cannot_be_repaired_is_told_and_tried_again() -> None:
    bench = reverted("broken", on_drift_repair=True)
    bench.world.state["v"]["broken"] = {"app": {"": b"nothing suits it"}}
    for _ in range(2):
        (report,) = bench.run_due()
        assert (report.state, report.exit_code) == ("skipped", 5)
        assert report.error is not None
        assert "vaultkeeper reconcile s" in report.error.next
        assert bench.newest("s").state is State.PARKED
    del bench.world.state["v"]["broken"]
    assert [report.state for report in bench.run_due()] == ["repaired"]
    assert runs_on(bench) == 2
    assert not bench.newest("s").open
