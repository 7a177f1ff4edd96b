"""`scripts/crash-sweep`: all points of all scenarios, side by side on as many cores as there are."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.util import Finalize
from pathlib import Path

from tests.crash.sweep import Outcome, Report, Scenario, scenarios, sweep

MISSED_AT_MOST = 0.02  # of all points; none of them a write to store, target or destination


def main() -> int:
    parser = argparse.ArgumentParser(prog="crash-sweep")
    parser.add_argument("only", nargs="*")
    parser.add_argument("--points", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", action="store_true")
    asked = parser.parse_args()
    chosen = scenarios(asked.only or (["postgres single"] if asked.control else []))
    with ProcessPoolExecutor(os.cpu_count(), initializer=_end_as_any) as pool:
        started = [pool.submit(_one, scenario, asked.points, asked.seed, asked.control) for scenario in chosen]
        reports = [each.result() for each in started]
    print("\nSCENARIO                   hit/tried of traced")
    for report in reports:
        print(report.line())
    return _verdict(reports, control=asked.control)


def _end_as_any() -> None:
    """A process of a pool ends without what was registered for its end: a server that it shares would stay."""
    Finalize(None, atexit._run_exitfuncs, exitpriority=0)


def _one(scenario: Scenario, most: int | None, seed: int, control: bool) -> Report:
    def told(outcome: Outcome) -> None:
        if outcome.lockout or outcome.stuck or not outcome.hit:
            problem = outcome.lockout or outcome.stuck or "not reached"
            print(f"{scenario.name}: {outcome.point}: {problem}", flush=True)

    with tempfile.TemporaryDirectory(prefix="vk-sweep-") as work:
        return sweep(scenario, Path(work) / "sweep", most=most, seed=seed, wrong_order=control, told=told)


def _verdict(reports: list[Report], *, control: bool) -> int:
    tried = sum(len(report.outcomes) for report in reports)
    missed = sum(len(report.missed) for report in reports)
    lockouts = sum(len(report.lockouts) for report in reports)
    stuck = sum(len(report.stuck) for report in reports)
    writes = sum(len(report.unreached_writes) for report in reports)
    print(
        f"{tried} points, {tried - missed} hit, {lockouts} lockouts, {stuck} not converged, {writes} writes not reached"
    )
    if control:
        return 0 if lockouts else 1
    return 1 if lockouts or stuck or writes or missed > MISSED_AT_MOST * tried else 0


if __name__ == "__main__":
    sys.exit(main())
