"""Many processes at one secret."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from tests.cli.conftest import environment
from tests.integration.shop_kit import NAME, Shop, shop
from tests.servers.postgres import PostgresServer

ROTATING = Path(__file__).with_name("rotating.py")
PROCESSES, TIMES = 8, 25


def most_open(place: Shop, stop: threading.Event) -> int:
    """Until `stop`: the largest number of open rotations that another reader ever sees, and of ways to have none."""
    most = 0
    with closing(sqlite3.connect(place.state / "state.db", isolation_level=None, timeout=30)) as db:
        while not stop.wait(0.02):
            ((now,),) = db.execute("SELECT count(*) FROM rotations WHERE open")
            most = max(most, now)
    return most


def test_invariant_04_eight_processes_rotate_one_secret_25_times_each_and_lose_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    place = shop(tmp_path, postgres, postgres.account())
    argv = [sys.executable, str(ROTATING), str(TIMES), "rotate", NAME, "--json"]
    stop, seen = threading.Event(), []
    watcher = threading.Thread(target=lambda: seen.append(most_open(place, stop)))
    watcher.start()
    processes = [
        subprocess.Popen(argv, env=environment(place.home), cwd=place.home, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    said = [process.communicate(timeout=1800)[0] for process in processes]
    stop.set()
    watcher.join()
    assert [process.returncode for process in processes] == [0] * PROCESSES
    assert seen == [1]

    told = [json.loads(line) for text in said for line in text.splitlines()]
    assert [entry for entry in told if (entry["code"], entry["state"]) != (0, "done")] == []
    made = sorted(entry["to_version"] for entry in told)
    assert len(made) == PROCESSES * TIMES
    assert made == list(range(2, PROCESSES * TIMES + 2))  # none twice, none lost
    follows = {entry["from_version"]: entry["to_version"] for entry in told}
    assert follows == {number - 1: number for number in made}  # each began where the one before had ended

    history = place.history()
    assert sorted(entry["to_version"] for entry in history) == made
    assert {entry["state"] for entry in history} == {"done"}
    spans = sorted((entry["opened_at"], entry["ended_at"]) for entry in history)
    assert all(ended <= opened for (_, ended), (opened, _) in pairwise(spans))
    assert place.status()["version"] == made[-1]
    assert place.agrees() == ""
    assert place.ok("audit", "verify").code == 0
