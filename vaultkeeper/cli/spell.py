"""How moments, spans and durations are written and read on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vaultkeeper.errors import UsageError
from vaultkeeper.model import duration


def moment(when: datetime | None) -> str | None:
    """ISO 8601 in UTC, whole seconds."""
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if when else None


def from_now(when: datetime | None, now: datetime) -> str:
    """For people: "in 3d 4h", "2h ago", "–"."""
    if when is None:
        return "–"
    return f"in {span(when - now)}" if when > now else f"{span(now - when)} ago"


def span(length: timedelta) -> str:
    """The two largest units."""
    left, parts = int(length.total_seconds()), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"


def seconds(length: timedelta) -> str:
    """What is measured: "36ms", "4.2s", "3min 5s"."""
    if length < timedelta(seconds=1):
        return f"{length / timedelta(milliseconds=1):.0f}ms"
    return f"{length.total_seconds():.1f}s" if length < timedelta(minutes=1) else span(length)


def read_duration(text: str | None, option: str) -> timedelta | None:
    """Raises UsageError."""
    if text is None:
        return None
    try:
        return duration.parse(text)
    except ValueError as error:
        raise UsageError(f"{option} {text}", why=str(error)) from None


def read_moment(text: str | None, option: str) -> datetime | None:
    """A date (its end, UTC) or a date and time, UTC unless it says otherwise. Raises UsageError."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}", why="expected a date such as 2026-11-21 or 2026-11-21T08:00Z") from None
    if len(text) == len("2026-11-21"):
        when += timedelta(days=1) - timedelta(seconds=1)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
