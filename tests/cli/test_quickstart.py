"""The newcomer's first command, whole: its own environment, a real PostgreSQL, and again in the same folder."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "quickstart", folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("VAULTKEEPER_")},
    )


def quickstart(folder: Path) -> str:
    done = run(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_quickstart_rotates_twice_and_leaves_one_folder_that_answers() -> None:
    # PostgreSQL's own user must be able to enter it, which it cannot below pytest's 0700 folders.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="vk-quickstart-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        first = quickstart(folder)
        assert "v1 → v2" in first
        assert " logins, 0 failures" in first
        assert "refused: password authentication failed" in first
        again = quickstart(folder)
        assert "v2 → v3" in again
        assert " logins, 0 failures" in again
        next_command = again.strip().splitlines()[-1].partition("try next:  ")[2].split()
        answer = subprocess.run(next_command, capture_output=True, text=True, check=True)
        assert answer.stdout.count("done") == 2
        assert not list(folder.rglob(".vaultkeeper-*"))


if os.geteuid() == 0:  # only then is PostgreSQL run as somebody else

    def test_a_folder_that_postgresql_cannot_enter_is_refused_before_anything_is_made(tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        done = run(tmp_path / "new")
        assert done.returncode == 1
        assert "its own user may not enter" in done.stderr
        assert "  next   " in done.stderr
        assert list(tmp_path.iterdir()) == []
