"""The real command in a subprocess, in a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


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
        done = subprocess.run(
            [sys.executable, "-m", "vaultkeeper", *map(str, arguments)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=environment(home) | (env or {}),
            cwd=home,
            timeout=120,
            check=False,
        )
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
