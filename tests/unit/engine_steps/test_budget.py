"""Failed logins are spent durably before they are tried, and never more than a target forgives (section 6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.model.rotation import Cause, State, Step, Waiting
from vaultkeeper.ports import Change
from vaultkeeper.testing.faults import Fault, Goes, SimulatedKill
from vaultkeeper.testing.simulators.throttling import LOCKS_AT, WINDOW


def failures(bench: Bench) -> int:
    """The most failed logins of one account within any window, as the target counts them."""
    worst = 0
    for times in bench.world.state["db_t"].get("failures", {}).values():
        for last in times:
            worst = max(worst, sum(last - WINDOW < at <= last for at in times))
    return worst


def throttling(name: str) -> Bench:
    bench = Bench(name)
    bench.use(bench.make.throttling("t", bench.make.file("f")))
    bench.done()
    bench.clock.advance(WINDOW)
    return bench


def test_a_rotation_costs_one_failure() -> None:
    bench = throttling("one")
    bench.world.state["db_t"]["failures"] = {}
    bench.done()
    assert sum(map(len, bench.world.state["db_t"]["failures"].values())) == 1


@pytest.mark.parametrize("call", range(1, 7))
def test_a_crash_at_any_login_never_locks_the_account(call: int) -> None:
    bench = throttling(f"crash-{call}")
    begun = bench.calls("db_t.test")
    bench.faults.script = [Fault("db_t.test", Goes.KILLED_AFTER, call=begun + n) for n in range(1, call + 1)]
    for _ in range(call):
        with pytest.raises(SimulatedKill):
            bench.rotate() if not bench.store.open_rotations() else bench.resume()
        assert failures(bench) < LOCKS_AT
    bench.resume() if bench.store.open_rotations() else bench.done()
    assert bench.newest("t").state is State.DONE
    assert failures(bench) < LOCKS_AT


def test_a_spent_budget_is_waited_for_and_not_tried_every_few_seconds() -> None:
    """It was once: each try spent what the last wait had freed, for ever."""
    bench = throttling("wait")
    bench.store.spend_login("app", "db_t", (LOCKS_AT - 1, WINDOW), bench.clock.now())
    before = bench.calls("db_t.test")
    bench.done()
    assert bench.calls("db_t.test") - before <= 6
    assert failures(bench) < LOCKS_AT


def test_an_observation_after_a_crash_leaves_the_failure_that_the_test_needs() -> None:
    """It was livelock once: looking spent the one failure of each window, and the control was put off again."""
    bench = throttling("livelock")
    bench.faults.script = [Fault("db_t.set", Goes.KILLED_AFTER, call=bench.calls("db_t.set") + 1)]
    with pytest.raises(SimulatedKill):
        bench.rotate()
    bench.faults.script = [Fault("db_t.test", Goes.THROTTLED, call=bench.calls("db_t.test") + 2)]
    bench.resume(wait=timedelta(0))
    stands = bench.newest("t")
    assert stands.phase is not None
    assert stands.phase.step is Step.TEST
    bench.store.commit(Change(replace(stands, outcome_unknown=True, doubted=True)))  # as a person's resume notes it
    before = bench.calls("db_t.test")
    bench.resume(wait=timedelta(hours=1))
    assert bench.newest("t").state is State.DONE
    assert bench.calls("db_t.test") - before < 10
    assert failures(bench) < LOCKS_AT


def test_three_dead_values_are_told_apart_within_the_budget() -> None:
    """The target forgives two failures per window; what was found rejected is remembered over the wait."""
    bench = throttling("dead")
    bench.done()
    bench.clock.advance(WINDOW)
    bench.world.state["db_t"]["accounts"] = {"app": [b"set by hand"]}
    rotation = bench.one("t", wait=timedelta(hours=1))
    assert (rotation.state, rotation.cause) == (State.AMBIGUOUS, Cause.NONE_ACCEPTED)
    assert failures(bench) < LOCKS_AT


def test_a_rejection_after_a_failure_counts_as_throttled_until_the_window_has_passed() -> None:
    bench = throttling("lockout")
    bench.store.spend_login("app", "db_t", (LOCKS_AT - 1, WINDOW), bench.clock.now())
    bench.world.state["db_t"]["accounts"] = {"app": [b"set by hand"]}
    rotation = bench.one("t", wait=timedelta(0))
    assert (rotation.state, rotation.waiting) == (State.WAITING, Waiting.THROTTLED)
    assert rotation.not_before is not None
    assert rotation.not_before - bench.clock.now() == WINDOW
