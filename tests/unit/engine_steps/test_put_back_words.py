"""A target that was put back: what works then is told as it was seen, and what leaked does not come back for good."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import GRACE, HOUR, Bench
from vaultkeeper.engine.rotate import Report
from vaultkeeper.model.rotation import Cause, State
from vaultkeeper.testing.faults import Fault, Goes

NOW = timedelta(0)
ALTERNATING, OVERLAP = "alternating", "overlap"


def at_rest(name: str, kind: str, versions: int) -> Bench:
    bench = Bench(f"words-{name}")
    bench.use(getattr(bench.make, kind)("s", bench.make.file("f")))
    for _ in range(versions):
        bench.done()
    return bench


def words(report: Report) -> tuple[Cause | None, str]:
    assert report.rotation is not None
    assert report.error is not None
    assert report.exit_code == 6
    return report.rotation.cause, report.error.works


def retiring(bench: Bench) -> Bench:
    """Grace is over, and the retirement had no answer yet."""
    bench.rotate("s", wait=NOW)
    bench.faults.script = [Fault("db_s.set", Goes.UNREACHABLE, bench.calls("db_s.set") + 1)]
    bench.clock.advance(GRACE + HOUR)
    bench.resume("s", wait=NOW)
    return bench


@pytest.mark.parametrize("backup_of", [2, 1])
def test_after_the_finish_the_one_that_was_left_is_not_said_to_be_refused(backup_of: int) -> None:
    """Once "older than v2 (old)" was told, where v2 was the one that worked; and why it had waited before."""
    bench = at_rest(f"left-{backup_of}", OVERLAP, backup_of)
    bench.world.backup("db_s")
    for _ in range(2 - backup_of):
        bench.done()
    retiring(bench)
    bench.world.restore_backup("db_s")
    (report,) = bench.resume("s")
    assert bench.accepted("s") == {backup_of}
    assert words(report) == (Cause.TARGET_WENT_BACK, "an older version than v3 (new): the target was put back")
    assert report.error is not None
    assert "unreachable" not in report.error.why


def both_put_back(name: str) -> Bench:
    """The machine of the target and of its consumer is what it was a rotation ago."""
    bench = at_rest(name, ALTERNATING, 1)
    bench.world.backup("db_s")
    bench.world.backup("f")
    bench.done()
    bench.world.restore_backup("db_s")
    bench.world.restore_backup("f")
    assert bench.accepted("s") == {1}
    return bench


def test_where_target_and_consumers_were_put_back_together_the_current_version_is_not_said_to_work() -> None:
    (report,) = both_put_back("together").rotate("s")
    assert words(report) == (Cause.TARGET_WENT_BACK, "an older version than v2 (old): the target was put back")


def test_nor_where_it_shall_be_replaced_which_would_cut_the_consumers_off() -> None:
    bench = both_put_back("replacing")
    (report,) = bench.rotate("s", replace=True)
    assert words(report) == (Cause.DRIFT, "an older version than v2 (old): the target was put back")
    assert bench.accepted("s") == {1}


def test_what_is_put_back_further_than_was_asked_is_not_said_to_be_refused() -> None:
    bench = at_rest("further", OVERLAP, 1)
    bench.world.backup("db_s")
    bench.done()
    bench.done()
    bench.world.restore_backup("db_s")
    (report,) = bench.rotate("s")
    assert bench.newest("s").state is State.AMBIGUOUS
    assert bench.accepted("s") == {1}
    assert words(report) == (Cause.NONE_ACCEPTED, "none of the newest stored versions was accepted")
    assert report.error is not None
    assert "every" not in report.error.why


@pytest.mark.parametrize("kind", [OVERLAP, "minted"])
def test_a_leaked_value_that_was_brought_back_is_refused_by_the_next_retirement_however_old_it_is(kind: str) -> None:
    """No look goes further than PREVIOUS, and it was not retired twice."""
    bench = Bench(f"words-leaked-{kind}")
    to = bench.make.file("f", {"": "{token}"} if kind == "minted" else None)
    bench.use(getattr(bench.make, kind)("s", to))
    bench.done()
    bench.world.backup("db_s")
    (report,) = bench.emergency("s")
    assert report.state == "done"
    bench.done()
    bench.world.restore_backup("db_s")
    assert bench.accepted("s") == {1}
    bench.done(replace=True)
    assert 4 in bench.accepted("s")
    assert 1 not in bench.accepted("s")
