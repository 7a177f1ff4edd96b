from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.store.conftest import Place
from tests.unit.store.samples import SECRET
from vaultkeeper.model.rotation import State
from vaultkeeper.model.secret import StagingLabel

ROOT = Path(__file__).parents[3]
# A small disk of its own needs root; a file size limit does not, and SQLite meets it on another path.
WAYS = ["limit", "fill", "restart"] if os.geteuid() == 0 else ["limit"]


def _busy(how: str, place: Place) -> list[str]:
    return [sys.executable, "-m", "tests.crash.store.busy", how, str(place.state_dir)]


@pytest.mark.parametrize("acknowledged", [1, 2, 7, 40, 300])
def test_a_killed_process_loses_nothing_acknowledged_and_leaves_nothing_half_done(
    here: Place, acknowledged: int
) -> None:
    here.create().close()
    child = subprocess.Popen(_busy("commit", here), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    last = 0
    while last < acknowledged:
        last = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    last = max([last, *map(int, child.stdout.read().split())])
    child.wait()
    child.stdout.close()

    store = here.open()
    (found,) = store.open_rotations()
    assert last <= found.tries <= last + 1
    assert [v.number for v in store.versions(SECRET)] == list(range(1, found.tries + 1))
    assert store.labels(SECRET) == {StagingLabel.PENDING: found.tries}
    assert store.verify_audit() is None
    assert found.tries <= store.audit_head().seq <= found.tries + 1
    with store.hold(f"secret:{SECRET}"):
        store.take(found.id)


def test_a_commit_is_one_sync_and_an_audit_record_is_one_sync(here: Place, tmp_path: Path) -> None:
    here.create().close()
    trace = tmp_path / "trace"
    calls = "trace=access,faccessat,faccessat2,fsync,fdatasync,sync_file_range,msync"
    subprocess.run(["strace", "-f", "-o", str(trace), "-e", calls, *_busy("count", here)], cwd=ROOT, check=True)
    *_, framed = re.split(r"marker-1\"", trace.read_text(), maxsplit=1)
    parts = re.split(r"marker-\w+\"", framed.partition('marker-end"')[0])
    syncs = [len(re.findall(r"\b(?:fsync|fdatasync|msync|sync_file_range)\(", part)) for part in parts]
    assert syncs == [1] * 21


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One mebibyte, where we may mount it."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.parametrize("way", WAYS)
def test_on_a_full_disk_nothing_new_begins_and_what_is_begun_ends(small_disk: Path, way: str) -> None:
    place = Place(small_disk / "state")
    place.create().close()
    limit = "ulimit -f 300; " if way == "limit" else ""  # in KiB
    child = subprocess.run(["bash", "-c", f'{limit}exec "$@"', "bash", *_busy(way, place)], cwd=ROOT, check=False)
    assert child.returncode == 0
    (small_disk / "others").unlink(missing_ok=True)
    store = place.open()
    (ended,) = store.rotations(SECRET)
    assert (ended.state, ended.tries) == (State.DONE, 40)
    assert store.verify_audit() is None
    assert (place.state_dir / "ballast").stat().st_size == 64 * 1024
    store.close()
