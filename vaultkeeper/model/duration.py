"""Durations as people write them in policy files: `90d`, `1d12h`, `5min30s`, ISO 8601 (`P90D`).

A month is 30 days and a year 365: rotation periods are spacing, not calendar dates (those have `rotation_schedule`).
"""

from __future__ import annotations

import re
from datetime import timedelta

SECONDS = {"y": 365 * 86400, "mo": 30 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "min": 60, "s": 1}
_PART = re.compile(r"([0-9]{1,9})([a-z]+)")
_ISO = re.compile(
    r"P(?=.)(?:([0-9]{1,9})Y)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})W)?(?:([0-9]{1,9})D)?"
    r"(?:T(?=.)(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})S)?)?"
)
_LONGEST_S = 100 * SECONDS["y"]
EXPECTED = "a duration such as 30s, 5min, 24h, 90d, 6mo, 1d12h or P90D"


def parse(text: str) -> timedelta:
    """The duration `text` names. Raises ValueError saying what to write instead."""
    iso = _ISO.fullmatch(text)
    parts = list(zip(iso.groups(default="0"), SECONDS, strict=True)) if iso else _compound(text)
    seconds = sum(int(number) * SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST_S:
        raise ValueError(f"expected {EXPECTED}, of at most 100y")
    return timedelta(seconds=seconds)


def _compound(text: str) -> list[tuple[str, str]]:
    found = _PART.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ValueError(f"expected {EXPECTED}")
    units = [unit for _, unit in found]
    if "m" in units:
        number = found[units.index("m")][0]
        if len(found) == 1:
            raise ValueError(f"`m` is both minutes and months: {number}min or {number}mo?")
        meant = "".join(n + ("min" if u == "m" else u) for n, u in found)
        raise ValueError(f"`m` is both minutes and months: write {meant}")
    for unit in units:
        if unit not in SECONDS:
            raise ValueError(f"`{unit}` is no unit: expected {EXPECTED}")
    if len(set(units)) != len(units):
        raise ValueError(f"a unit stands twice: expected {EXPECTED}")
    return list(found)


def show(duration: timedelta) -> str:
    """The shortest exact spelling in days, hours, minutes and seconds: `parse(show(d)) == d` for whole seconds."""
    left = int(duration.total_seconds())
    parts = []
    for unit in ("d", "h", "min", "s"):
        number, left = divmod(left, SECONDS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
