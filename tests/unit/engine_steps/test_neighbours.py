"""What an adversary found between secrets that share a consumer, and in the gap of `single`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.model.rotation import Cause, State

NOW = timedelta(0)


def shared(name: str) -> Bench:
    bench = Bench(name)
    bench.use(
        bench.make.single("a", bench.make.service("stack", {"a": "{username}:{password}"})),
        bench.make.single("b", bench.make.service("stack", {"b": "{username}:{password}"})),
    )
    bench.done()
    return bench


def group(bench: Bench) -> str:
    return f"group:{bench.store.rotations('a', limit=1)[0].places[0].group}"


def test_a_neighbour_does_not_hand_over_a_value_whose_own_delivery_has_not_begun() -> None:
    bench = shared("undelivered")
    old = bench.running("stack")["a"]
    with bench.memory.hold(group(bench)):
        waiting = bench.one("a", wait=NOW)
    assert waiting.state is State.WAITING
    bench.done("b")
    assert bench.running("stack")["a"] == old
    bench.rollback("a")
    assert bench.running("stack")["a"] == old
    assert bench.world.serves("db_a", old)


def test_a_command_that_ends_in_the_gap_of_single_does_not_end_with_success() -> None:
    bench = shared("gap")
    with bench.memory.hold(group(bench)):
        (report,) = bench.rotate("a", wait=NOW)
    assert not bench.world.serves("db_a", bench.running("stack")["a"])
    assert report.exit_code == 6


def test_a_busy_second_group_is_waited_for_and_not_taken_for_a_lost_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("second")
    bench.use(bench.make.single("a", *(bench.make.service(s, {"a": "{username}:{password}"}) for s in ("one", "two"))))
    bench.done()
    busy = bench.memory.hold(f"group:{bench.newest('a').places[1].group}")
    busy.__enter__()
    sleep, busy_still = bench.clock.sleep, [busy]

    def the_neighbour_ends(duration: timedelta) -> None:
        while busy_still:
            busy_still.pop().__exit__(None, None, None)
        sleep(duration)

    monkeypatch.setattr(bench.clock, "sleep", the_neighbour_ends)
    bench.done("a")
    assert bench.world.serves("db_a", bench.running("two")["a"])


def test_going_back_from_a_target_that_was_put_back_does_not_claim_that_it_is_served() -> None:
    bench = Bench("restored")
    bench.use(bench.make.single("a", bench.make.file("f")))
    bench.done()
    bench.world.backup("db_a")
    bench.done()
    bench.world.restore_backup("db_a")
    assert bench.one("a").cause is Cause.TARGET_WENT_BACK
    report = bench.rollback("a")
    assert report.exit_code == 6
    assert report.error is not None
    assert "reconcile" in report.error.next
