"""Durations and cron lines, as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultkeeper.model import cron, duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0), ("90s", 90), ("5min", 300), ("5min30s", 330), ("24h", 86400), ("1d12h", 129600), ("2w", 1209600),
        ("6mo", 15552000), ("1y", 31536000), ("P90D", 7776000), ("PT30M", 1800), ("P1M", 2592000), ("P1DT12H", 129600),
        ("P2W", 1209600), ("P1Y", 31536000),
    ],
)  # fmt: skip
def test_a_duration_is_read_in_every_spelling(text: str, seconds: int) -> None:
    assert duration.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("30m", "30min or 30mo?"),
        ("5m30s", "write 5min30s"),
        ("1d6m", "write 1d6min"),
        ("90", "expected a duration"),
        ("", "expected a duration"),
        ("-1d", "expected a duration"),
        ("1.5h", "expected a duration"),
        ("1 d", "expected a duration"),
        ("3days", "`days` is no unit"),
        ("1h1h", "a unit stands twice"),
        ("P", "expected a duration"),
        ("P1DT", "expected a duration"),
        ("200y", "of at most 100y"),
        ("99999999999d", "expected a duration"),
    ],
)
def test_a_duration_that_could_be_misread_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        duration.parse(text)
    assert told in str(caught.value)


@given(st.integers(0, 100 * 365 * 86400))
def test_a_shown_duration_reads_back(seconds: int) -> None:
    assert duration.parse(duration.show(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("* * * *", "expected five cron fields"),
        ("fortnightly", "expected five cron fields"),
        ("@reboot", "expected five cron fields"),
        ("60 * * * *", "`60` is no minute: expected 0 to 59"),
        ("* 24 * * *", "`24` is no hour: expected 0 to 23"),
        ("* * 0 * *", "`0` is no day of month: expected 1 to 31"),
        ("* * * 13 *", "`13` is no month: expected 1 to 12 or jan"),
        ("* * * * 8", "`8` is no weekday: expected 0 to 7 or sun"),
        ("* * * * xyz", "`xyz` is no weekday"),
        ("*/0 * * * *", "steps as */n or a-b/n"),
        ("5/10 * * * *", "steps as */n or a-b/n"),
        ("30-10 * * * *", "a before b"),
        ("1,,2 * * * *", "`` is no minute"),
        ("0 0 31 2,4,6 *", "no such day ever comes"),
        ("0 0 L * *", "`l` is no day of month"),
    ],
)
def test_a_cron_line_that_is_wrong_or_never_comes_is_refused(line: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        cron.parse(line)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("line", "gap"),
    [
        ("@hourly", timedelta(hours=1)),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("0 0,12 * * *", timedelta(hours=12)),
        ("0 22,2 * * *", timedelta(hours=4)),
        ("0 3 * * mon,thu", timedelta(days=3)),
        ("monthly", timedelta(days=28)),
        ("quarterly", timedelta(days=90)),
        ("0 0 29 2 *", timedelta(days=1461)),
    ],
)
def test_the_shortest_gap_of_a_line_stands_for_its_period(line: str, gap: timedelta) -> None:
    assert cron.shortest_gap(cron.parse(line).expression) == gap
