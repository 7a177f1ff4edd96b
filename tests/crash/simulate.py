"""What `scripts/simulate` does: play many seeds with progress, or replay one with its whole log."""

from __future__ import annotations

import argparse
import sys
import time
from multiprocessing import Pool

from tests.crash.simulation import Failure, run


def main() -> int:
    """Exit code 0: every invariant held; 1: the seeds that broke one are printed."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, metavar="N", help="how many schedules (default 20000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, help="replay this one and print its log")
    parser.add_argument("--minutes", type=float, default=120, help="stop after so long (default 120)")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="processes (default 1)")
    given = parser.parse_args()
    return _replay(given.seed) if given.seed is not None else _play_many(given)


def _replay(seed: int) -> int:
    try:
        played = run(seed)
    except Failure as failure:
        print("\n".join(failure.log))
        print(f"seed {seed}: {failure.why}")
        return 1
    print("\n".join(played.log))
    print(f"seed {seed}: every invariant held")
    return 0


def _play(seed: int) -> tuple[int, str, int]:
    try:
        return seed, "", run(seed).weather.strikes
    except Failure as failure:
        return seed, str(failure), 0


def _play_many(given: argparse.Namespace) -> int:
    started, failed, played, faults = time.monotonic(), [], 0, 0
    with Pool(given.parallel) as pool:
        for seed, failure, strikes in pool.imap_unordered(_play, range(given.first, given.first + given.count), 20):
            played, faults = played + 1, faults + strikes
            if failure:
                failed.append(seed)
                print(failure, flush=True)
            minutes = (time.monotonic() - started) / 60
            if played % 100 == 0 and sys.stderr.isatty():
                print(
                    f"\r{played}/{given.count} schedules, {len(failed)} failed, {minutes:.1f} min",
                    end="",
                    file=sys.stderr,
                )
            if minutes > given.minutes:
                print(f"stopped after {minutes:.0f} minutes", file=sys.stderr)
                pool.terminate()
                break
    print(f"{played} schedules with {faults} faults: {len(failed)} failed{': ' if failed else ''}{failed or ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
