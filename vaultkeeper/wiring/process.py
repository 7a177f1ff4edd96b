"""This process and its clock: no core files, no readable memory for others, no files for others."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from datetime import UTC, datetime, timedelta

PR_SET_DUMPABLE = 4  # linux/prctl.h


def harden() -> None:
    """Keep values out of core files and away from other processes of the same user. Idempotent.

    What the system cannot do is left undone: nothing here is promised, only made harder (DESIGN.md, facts on memory:
    CPython leaves copies of a value behind whatever one does).
    """
    os.umask(0o077)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, duration: timedelta) -> None:
        time.sleep(max(duration.total_seconds(), 0.0))
