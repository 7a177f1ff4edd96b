"""A clock that moves only when told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class FakeClock:
    """`sleep` advances it at once; wall and monotonic time move together unless `step` shifts the wall clock."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._monotonic_s = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def sleep(self, duration: timedelta) -> None:
        self.advance(duration)

    def advance(self, duration: timedelta) -> None:
        """Let time pass. Raises ValueError for a negative duration: that is `step`."""
        if duration < timedelta(0):
            raise ValueError("time does not pass backwards; use step")
        self._now += duration
        self._monotonic_s += duration.total_seconds()

    def step(self, by: timedelta) -> None:
        """Somebody sets the wall clock, forwards or backwards; monotonic time does not notice."""
        self._now += by
