"""A clock that was wrong, or is set: no wait gets longer than it was meant to be, and no grace shorter."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import GRACE, Bench
from vaultkeeper.model.outcome import NotYet
from vaultkeeper.model.rotation import Cause, State, Waiting
from vaultkeeper.testing.faults import Fault, Goes
from vaultkeeper.testing.simulators.service import ServiceDestination

YEAR = timedelta(days=365)
NOW = timedelta(0)


def in_grace(name: str) -> Bench:
    bench = Bench(name)
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.done()
    bench.rotate("s", wait=NOW)
    assert bench.newest("s").waiting is Waiting.GRACE
    return bench


def test_a_grace_that_began_on_a_wrong_clock_is_over_in_its_time_when_the_clock_is_right_again() -> None:
    bench = in_grace("grace-back")
    bench.clock.step(-YEAR)
    bench.run_due(NOW)
    assert bench.accepted("s") == {1, 2}
    bench.clock.advance(GRACE * 0.9)
    bench.run_due(NOW)
    assert bench.accepted("s") == {1, 2}  # never shorter
    bench.clock.advance(GRACE * 0.2)
    bench.run_due(NOW)
    assert bench.newest("s").state is State.DONE
    assert bench.accepted("s") == {2}


def test_somebody_who_asks_again_and_again_does_not_begin_the_grace_again_and_again() -> None:
    bench = in_grace("grace-asked")
    bench.clock.step(-YEAR)
    for _ in range(12):
        bench.resume("s", wait=NOW)
        bench.clock.advance(GRACE * 0.1)
    bench.resume("s", wait=NOW)
    assert bench.newest("s").state is State.DONE


@pytest.mark.parametrize("puts_back", [True, False])
def test_a_confirm_times_out_in_its_time_though_the_clock_was_set_back(
    puts_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(f"confirm-{puts_back}")
    bench.use(bench.make.overlap("s", bench.make.service("v", timeout=timedelta(minutes=2))))
    bench.done()
    confirm = ServiceDestination.confirm
    monkeypatch.setattr(ServiceDestination, "puts_back", puts_back)
    monkeypatch.setattr(ServiceDestination, "confirm", lambda *_: NotYet("starting", timedelta(seconds=30)))
    bench.rotate("s", wait=timedelta(minutes=1))
    bench.clock.step(-YEAR)
    for _ in range(6):
        bench.run_due(NOW)
        bench.clock.advance(timedelta(seconds=30))
    monkeypatch.setattr(ServiceDestination, "confirm", confirm)
    bench.run_due(NOW)
    assert bench.newest("s").cause is Cause.CONFIRM_TIMEOUT


def test_what_was_put_off_on_a_wrong_clock_is_tried_again_when_the_clock_is_right_again() -> None:
    bench = Bench("unreachable")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.faults.script = [Fault("db_s.set", Goes.UNREACHABLE)]
    bench.rotate("s", wait=NOW)
    assert bench.newest("s").waiting is Waiting.UNREACHABLE
    bench.clock.step(-YEAR)
    bench.run_due(NOW)
    bench.clock.advance(timedelta(minutes=1))
    bench.run_due(NOW)
    assert bench.newest("s").finished
