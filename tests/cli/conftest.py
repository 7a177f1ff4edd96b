"""The real command in a process of its own, in a home of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import forked


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Vk = Callable[..., Ran]


def environment(home: Path) -> dict[str, str]:
    """Nothing of the developer's own vaultkeeper shines through."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "COVERAGE_PROCESS_START") if name in os.environ}
    return kept | {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir(mode=0o700)
    return made


def command(home: Path) -> Vk:
    """`vk("status", "--json", stdin="…", env={…})`. Runs in the home folder."""

    def run(*arguments: str | Path, stdin: bytes | str = b"", env: dict[str, str] | None = None) -> Ran:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = forked.run([*map(str, arguments)], env=environment(home) | (env or {}), cwd=home, stdin=given)
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def vk(home: Path) -> Vk:
    return command(home)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after `init`, to be copied: making one takes a second."""
    home = tmp_path_factory.mktemp("made") / "home"
    home.mkdir(mode=0o700)
    ran = command(home)("init", "--without-recovery")
    assert ran.code == 0, ran.err
    return home


@pytest.fixture
def installed(vk: Vk, home: Path, made: Path) -> Vk:
    """The same, after `init`."""
    shutil.copytree(made, home, dirs_exist_ok=True)
    return vk


def on_a_terminal(
    home: Path, *arguments: str, env: dict[str, str] | None = None, answers: dict[str, str] | None = None
) -> tuple[int, str]:
    """(exit code, everything shown) of the command with a terminal as all three streams.

    `answers`: prompt → what is typed once it is shown, in this order.
    """
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vaultkeeper", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(home) | {"TERM": "xterm-256color"} | (env or {}),
        cwd=home,
        start_new_session=True,
    )
    os.close(theirs)
    shown, seen_until, left = "", 0, list((answers or {}).items())
    while select.select([mine], [], [], 60)[0]:
        try:
            part = os.read(mine, 65536)
        except OSError:  # EIO: the other side has closed
            break
        if not part:
            break
        shown += part.decode(errors="replace")
        if left and left[0][0] in shown[seen_until:]:
            seen_until = len(shown)
            os.write(mine, left.pop(0)[1].encode() + b"\n")
    os.close(mine)
    assert not left, f"was never asked for {left[0][0]!r}: {shown}"
    return process.wait(60), shown
