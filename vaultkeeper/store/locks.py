"""Exclusion by `flock(2)`, which the kernel releases when a holder dies, however it dies."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaultkeeper.errors import Locked

_WIDTH = 20  # of the holder's number: the same for all, because cutting a file costs more than writing over it


class FileLocks:
    """One file per name below `directory`. Files stay: removing one would let two holders lock two inodes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Exclusive among processes and among threads. Raises Locked at once, with the holder's process id."""
        path = self._directory / hashlib.sha256(name.encode()).hexdigest()[:32]  # names may hold any character
        # A new open file description each time: flock then excludes threads of this process too.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _locked(name, os.pread(descriptor, _WIDTH, 0).strip()) from None
            with suppress(OSError):  # for the other side's message only; a full disk does not matter here
                os.pwrite(descriptor, str(os.getpid()).ljust(_WIDTH).encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _locked(name: str, holder: bytes) -> Locked:
    who = f"process {holder.decode()}" if holder.isdigit() else "another process"
    return Locked(
        f"{name.replace(':', ' ', 1)} is held by {who}",
        why="only one process at a time may work on it",
        works="whatever worked before; nothing was changed",
        next="wait until that process is done, then run the command again",
    )
