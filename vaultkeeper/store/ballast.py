"""Room set aside on the disk, so that a rotation that has begun can still journal its end when the disk is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

SIZE_BYTES = 64 * 1024

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when there is no room: disk, quota, RLIMIT_FSIZE."""


class Ballast:
    """A file of random bytes (zeros would compress away on some file systems)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ensure(self) -> bool:
        """Is the room set aside, now at the latest? Raises OSError for anything but a full disk."""
        try:
            if self._path.stat().st_size == SIZE_BYTES:
                return True
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                written = os.write(descriptor, os.urandom(SIZE_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in FULL:
                raise
            written = 0
        if written < SIZE_BYTES:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give the room back. Idempotent."""
        self._path.unlink(missing_ok=True)
