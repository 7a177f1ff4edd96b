"""Standard 5-field cron expressions: read, checked and brought into one spelling, before anything is scheduled.

Sunday is 0 or 7, names are English and three letters long. As in every cron since Vixie's, a restricted day of month
and a restricted weekday mean "either" (crontab(5)).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise

from vaultkeeper.model.policy import Cron

WORDS = {
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "midnight": "0 0 * * *",
    "weekly": "0 0 * * 0",
    "monthly": "0 0 1 * *",
    "quarterly": "0 0 1 1,4,7,10 *",
    "half-yearly": "0 0 1 1,7 *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
PLAIN_WORDS = ("weekly", "monthly", "quarterly", "half-yearly", "yearly")  #: allowed without the @
EXPECTED = f"five cron fields such as `0 3 * * sun`, @weekly and kin, or one of {', '.join(PLAIN_WORDS)}"

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_PIECE = re.compile(r"(?:\*|(?P<low>[0-9]{1,2}|[a-z]{3})(?:-(?P<high>[0-9]{1,2}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,2}))?")
_DAYS_AT_MOST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class CronFields:
    """The times an expression names. Weekdays count from Sunday = 0."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool  #: day of month and weekday are both restricted: one of them suffices


def parse(text: str) -> Cron:
    """A checked expression from a cron line, an @word or a plain word. Raises ValueError saying what was expected."""
    word = text.strip().lower()
    if word.startswith("@") and word[1:] in WORDS:
        return Cron(WORDS[word[1:]])
    if word in PLAIN_WORDS:
        return Cron(WORDS[word])
    if len(word.split()) != 5:
        raise ValueError(f"expected {EXPECTED}")
    expression = " ".join(word.split())
    fields(expression)
    return Cron(expression)


@lru_cache(maxsize=1024)
def fields(expression: str) -> CronFields:
    """What a 5-field expression means. Raises ValueError where it is malformed or can never come true."""
    minute, hour, day, month, weekday = expression.split()
    numbered = {name: number for number, name in enumerate(_MONTHS, start=1)}
    days = _values("day of month", day, 1, 31, {})
    months = _values("month", month, 1, 12, numbered)
    weekdays = _values("weekday", weekday, 0, 7, {name: number for number, name in enumerate(WEEKDAYS)})
    either = not day.startswith("*") and not weekday.startswith("*")
    if not either and not any(min(days) <= _DAYS_AT_MOST[number - 1] for number in months):
        raise ValueError("no such day ever comes: expected a day that one of the months has")
    return CronFields(
        _values("minute", minute, 0, 59, {}),
        _values("hour", hour, 0, 23, {}),
        days,
        months,
        tuple(sorted({number % 7 for number in weekdays})),
        either,
    )


def _values(what: str, text: str, least: int, most: int, names: dict[str, int]) -> tuple[int, ...]:
    found: set[int] = set()
    for piece in text.split(","):
        match = _PIECE.fullmatch(piece)
        if match is None:
            raise ValueError(f"`{piece}` is no {what}: expected {least} to {most}, `*`, a-b, a,b or */n")
        low, high, step = match["low"], match["high"], int(match["step"] or 1)
        if low is None:
            first, last = least, most
        else:
            first = _number(what, low, least, most, names)
            last = _number(what, high, least, most, names) if high else first
            if what == "weekday" and last == 0 < first:
                last = 7  # fri-sun
        if step == 0 or last < first or (match["step"] and low is not None and high is None):
            raise ValueError(f"`{piece}` is no {what}: expected a-b with a before b, and steps as */n or a-b/n")
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _number(what: str, text: str, least: int, most: int, names: dict[str, int]) -> int:
    number = int(text) if text.isdigit() else names.get(text, -1)
    if not least <= number <= most:
        also = f" or {', '.join(names)}" if names else ""
        raise ValueError(f"`{text}` is no {what}: expected {least} to {most}{also}")
    return number


@lru_cache(maxsize=1024)
def shortest_gap(expression: str) -> timedelta:
    """The shortest time between two neighbouring times of an expression, as far as 9 years show."""
    named = fields(expression)
    times = [60 * hour + minute for hour in named.hours for minute in named.minutes]
    within = min((later - earlier for earlier, later in pairwise(times)), default=1440)
    days = [day for day in map(_FIRST_DAY.__add__, map(timedelta, range(9 * 366))) if _matches(named, day)]
    between = min((later - earlier for earlier, later in pairwise(days)), default=timedelta(days=8 * 365))
    over_night = between - timedelta(minutes=times[-1] - times[0])
    return min(timedelta(minutes=within), over_night) if len(times) > 1 else between


_FIRST_DAY = date(2024, 1, 1)  # a leap year


def _matches(named: CronFields, day: date) -> bool:
    by_day, by_weekday = day.day in named.days, day.isoweekday() % 7 in named.weekdays
    wanted = by_day or by_weekday if named.either_day else by_day and by_weekday
    return wanted and day.month in named.months
