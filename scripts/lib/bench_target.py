"""Kinds of target that are measured: every `bench_target_<kind>.py` beside this file, by existing.

Such a module has `start(folder) -> Subject`. Both sides rotate an account of their own at one server, and deliver to a
file; the bare side does the necessary parts one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, Self

from vaultkeeper.model.policy import TargetSpec
from vaultkeeper.model.secret import Fields

PREFIX = "bench_target_"
BLOCK = b"\0" * 4096

COMMITS = 5
"""Of a rotation whose old value is retired at once: open it, begin to set, to deliver, to retire; end it."""
RECORDS = 4
"""In its audit log: a change of the target begins, a delivery, the retirement, and it has ended."""


class Subject(Protocol):
    """A running system. `parts`: what a rotation cannot do without, in order."""

    target: TargetSpec
    works_today: Fields

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    @property
    def parts(self) -> Mapping[str, Callable[[], None]]: ...


def kinds() -> list[str]:
    """Those that can be measured."""
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def start(kind: str, folder: Path) -> Subject:
    """Raises ServerMissing where it cannot be started here."""
    subject: Subject = import_module(f"{PREFIX}{kind}").start(folder)
    return subject


class Durable:
    """A journal, an audit log and a delivered file, written as durably as a rotation must. `folder` is its own."""

    def __init__(self, folder: Path, *, commits: int = COMMITS, records: int = RECORDS) -> None:
        folder.mkdir()
        self._folder, self._commits, self._records = folder, commits, records
        self._journal = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._audit = os.open(folder / "audit", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def close(self) -> None:
        os.close(self._journal)
        os.close(self._audit)

    def sync(self, value: bytes) -> None:
        for descriptor, block, times in (
            (self._journal, BLOCK, self._commits),
            (self._audit, BLOCK[:400], self._records),
        ):
            for _ in range(times):
                os.write(descriptor, block)
                os.fdatasync(descriptor)
        temporary = self._folder / "new"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(file, value)
        os.fsync(file)
        os.close(file)
        temporary.rename(self._folder / "value")
        directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
