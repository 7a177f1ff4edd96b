"""Two things that take turns, and the line of a table that their medians make."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Line:
    """One comparison. `ours` and `theirs` are medians in `unit`; `limit` bounds ours / theirs from `side`."""

    name: str
    ours: float
    theirs: float
    unit: str
    side: str  #: "at most" or "at least"
    limit: float
    rounds: int
    parts: Mapping[str, float] = field(default_factory=dict)  #: medians of what `theirs` is made of

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def met(self) -> bool:
        return self.ratio <= self.limit if self.side == "at most" else self.ratio >= self.limit


@dataclass
class Turns:
    """Durations of two things that took turns, in seconds."""

    ours: list[float]
    theirs: list[float]

    def line(self, name: str, *, at_most: float, unit: str = "ms", each: int = 1) -> Line:
        """Both medians as time for one of `each`."""
        factor = (1000 if unit == "ms" else 1) / each
        ours, theirs = median(self.ours) * factor, median(self.theirs) * factor
        return Line(name, ours, theirs, unit, "at most", at_most, len(self.ours))

    def rate(self, name: str, *, at_least: float, each: int) -> Line:
        """Both medians as how many of `each` per second."""
        ours, theirs = each / median(self.ours), each / median(self.theirs)
        return Line(name, ours, theirs, "per second", "at least", at_least, len(self.ours))


def take_turns(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int, seconds: float, at_least: int = 3
) -> Turns:
    """Time both `rounds` times, who begins changing each time; fewer where `seconds` pass, but `at_least` so many."""
    turns = Turns([], [])
    end = time.monotonic() + seconds
    for number in range(rounds):
        if number >= at_least and time.monotonic() > end:
            break
        pair = [(ours, turns.ours), (theirs, turns.theirs)]
        for act, times in pair if number % 2 else reversed(pair):
            started = time.perf_counter()
            act()
            times.append(time.perf_counter() - started)
    return turns
