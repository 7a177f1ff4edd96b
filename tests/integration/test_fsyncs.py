"""Durability costs as many fsyncs as a careful design needs, and no more (docs/benchmarks.md)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from bench_parts import COMMITS, FSYNCS, RECORDS

from tests.servers import in_ci

SYNC = re.compile(r"^(\d+) .*\b(?:fsync|fdatasync|msync|sync_file_range)\(\d+<([^>]*)>", re.MULTILINE)
MARK = "getsid(0"  # strace may write the rest of an interrupted call on a later line
SERVER = "postgres/"
JOURNAL, AUDIT = "state/state.db-wal", "state/audit.log"


@pytest.fixture(scope="module")
def synced() -> list[str]:
    """The paths that were synced during one rotation of a single account with a file, in their order.

    Without what the server's background writers do in the middle of it: they come every few seconds.
    """
    strace = shutil.which("strace")
    if strace is None:
        if in_ci():
            pytest.fail("strace is not installed")
        pytest.skip("strace is not installed")
    with tempfile.TemporaryDirectory(prefix="vk-fsyncs-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "stage").mkdir()
        log = folder / "trace"
        calls = "trace=fsync,fdatasync,msync,sync_file_range,getsid"
        script = Path(__file__).with_name("one_rotation.py")
        ran = subprocess.run(
            [strace, "-f", "-y", "-e", calls, "-o", log, sys.executable, script, folder / "stage"],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        _, inside, _ = log.read_text().split(MARK)
        background = set(ran.stdout.decode().split())
        synced = [path for pid, path in SYNC.findall(inside) if pid not in background]
        return [path.removeprefix(f"{folder}/stage/") for path in synced]


def test_a_rotation_costs_at_most_fourteen_fsyncs_and_as_many_as_the_benchmark_says(synced: list[str]) -> None:
    ours = [path for path in synced if not path.startswith(SERVER)]
    counted = Counter(ours)
    assert len(ours) == FSYNCS, ours
    assert (counted[JOURNAL], counted[AUDIT]) == (COMMITS, RECORDS)
    assert len(ours) + 1 <= 14, "one more is the server's own commit"


def test_invariant_01_journal_and_audit_log_are_on_the_disk_before_the_server_commits(synced: list[str]) -> None:
    commit = next(number for number, path in enumerate(synced) if path.startswith(SERVER))
    assert synced[commit - 1] == AUDIT
    assert JOURNAL in synced[: commit - 1]
