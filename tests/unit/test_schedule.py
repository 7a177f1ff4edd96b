from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultkeeper.engine.schedule import due_at, may_start, next_time, renew_by
from vaultkeeper.model import cron
from vaultkeeper.model.policy import Cron, Place, RotationPolicy, Window

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PARIS = "Europe/Paris"
H, D = timedelta(hours=1), timedelta(days=1)


def policy(name: str = "s", **changes: object) -> RotationPolicy:
    return RotationPolicy(name, Place("f"), **changes)  # type: ignore[arg-type]


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def times(text: str, after: datetime, count: int, zone: str = PARIS) -> list[str]:
    """As the wall clock of the zone shows them."""
    found = []
    for _ in range(count):
        after = next_time(cron.parse(text), zone, after)
        found.append(f"{after.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M%z}")
    return found


# ------------------------------------------------------------------------------------------------------------- cron


@pytest.mark.parametrize("sunday", ["0", "7", "sun", "SUN"])
def test_sunday_is_0_and_7_and_a_name(sunday: str) -> None:
    assert times(f"0 3 * * {sunday}", NOW, 2) == ["Sun 2026-11-22 03:00+0100", "Sun 2026-11-29 03:00+0100"]


def test_weekdays_count_from_sunday_and_not_as_the_scheduler_library_counts() -> None:
    assert times("0 3 * * 1", NOW, 1) == ["Mon 2026-11-23 03:00+0100"]
    assert times("0 3 * * 5-7", NOW, 3)[1:] == ["Fri 2026-11-27 03:00+0100", "Sat 2026-11-28 03:00+0100"]
    assert times("0 3 * * fri-sun", NOW, 3) == times("0 3 * * 5-7", NOW, 3)


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("@weekly", "Sun 2026-11-22 00:00+0100"),
        ("weekly", "Sun 2026-11-22 00:00+0100"),
        ("@daily", "Sun 2026-11-22 00:00+0100"),
        ("monthly", "Tue 2026-12-01 00:00+0100"),
        ("quarterly", "Fri 2027-01-01 00:00+0100"),
        ("half-yearly", "Fri 2027-01-01 00:00+0100"),
        ("yearly", "Fri 2027-01-01 00:00+0100"),
        ("@hourly", "Sat 2026-11-21 14:00+0100"),
    ],
)
def test_words_are_cron_lines(word: str, first: str) -> None:
    assert times(word, NOW, 1) == [first]


def test_a_day_of_month_and_a_weekday_mean_either_as_in_every_cron() -> None:
    found = times("0 0 13 * fri", at(2026, 11, 7), 3)
    assert found == ["Fri 2026-11-13 00:00+0100", "Fri 2026-11-20 00:00+0100", "Fri 2026-11-27 00:00+0100"]
    assert times("0 0 13 * fri", at(2026, 12, 11, 12), 1) == ["Sun 2026-12-13 00:00+0100"]
    assert times("0 0 */2 * fri", at(2026, 11, 7), 1) == ["Fri 2026-11-13 00:00+0100"]  # a star: both


def test_a_leap_day_is_found_years_ahead() -> None:
    assert times("0 0 29 2 *", NOW, 2, "UTC") == ["Tue 2028-02-29 00:00+0000", "Sun 2032-02-29 00:00+0000"]


# -------------------------------------------------------------------------------------------------- invariant 13


def test_invariant_13_a_time_that_a_dst_gap_skips_is_run_once() -> None:
    assert times("30 2 * * *", at(2026, 3, 28, 12), 2) == ["Sun 2026-03-29 03:30+0200", "Mon 2026-03-30 02:30+0200"]


def test_invariant_13_a_time_that_a_dst_fold_repeats_is_run_once() -> None:
    assert times("30 2 * * *", at(2026, 10, 24, 12), 2) == ["Sun 2026-10-25 02:30+0200", "Mon 2026-10-26 02:30+0100"]
    between_the_two = at(2026, 10, 25, 0, 45)
    assert times("30 2 * * *", between_the_two, 1) == ["Mon 2026-10-26 02:30+0100"]


def test_invariant_13_a_run_by_hand_in_the_gap_does_not_lose_the_skipped_time() -> None:
    assert times("30 2 * * *", at(2026, 3, 29, 1, 5), 1) == ["Sun 2026-03-29 03:30+0200"]


@settings(deadline=None, max_examples=60)
@given(
    zone=st.sampled_from([PARIS, "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Tehran", "UTC"]),
    line=st.sampled_from(["30 2 * * *", "0 * * * *", "*/20 1-3 * * *", "15 0,2,3 * * sun", "59 23 31 12 *"]),
    start=st.datetimes(at(2024, 1, 1).replace(tzinfo=None), at(2027, 1, 1).replace(tzinfo=None)),
)
def test_invariant_13_times_strictly_increase_and_name_what_the_line_says(
    zone: str, line: str, start: datetime
) -> None:
    fields = cron.fields(cron.parse(line).expression)
    after = start.replace(tzinfo=UTC)
    for _ in range(5):
        found = next_time(Cron(line), zone, after)
        assert found > after
        wall = found.astimezone(ZoneInfo(zone))
        if wall.hour in fields.hours and wall.minute in fields.minutes:
            assert wall.fold == 0
        else:  # a skipped time, as far after the gap as it would have been
            assert (found - 3 * H).astimezone(ZoneInfo(zone)).utcoffset() != wall.utcoffset()
        after = found


def test_invariant_13_many_missed_runs_make_one() -> None:
    daily = policy(rotation_schedule=Cron("0 3 * * *"))
    due = due_at(daily, NOW - 30 * D, None, NOW)
    assert due is not None
    assert due <= NOW
    assert due_at(daily, NOW, None, NOW) == at(2026, 11, 22, 3)


def test_invariant_13_a_clock_stepped_back_does_not_double_a_run() -> None:
    daily = policy(rotation_period=D)
    finished = NOW
    stepped_back = NOW - 5 * D
    due = due_at(daily, finished, None, stepped_back)
    assert due == NOW + D
    assert due > stepped_back


def test_invariant_13_never_sooner_than_the_least_interval() -> None:
    often = policy(rotation_schedule=Cron("* * * * *"), min_interval=2 * H)
    assert due_at(often, NOW, None, NOW) == NOW + 2 * H
    renewed = policy(rotation_period=90 * D, min_interval=2 * D)
    assert due_at(renewed, NOW, NOW + D, NOW) == NOW + 2 * D  # dying, and still not sooner


# ---------------------------------------------------------------------------------------------------------- due times


def test_without_period_schedule_or_expiry_nothing_is_ever_due() -> None:
    assert due_at(policy(), NOW - 900 * D, None, NOW) is None
    assert not may_start(policy(), None, NOW)


def test_a_disabled_policy_is_never_due() -> None:
    assert due_at(policy(rotation_period=D, enabled=False), None, None, NOW) is None


def test_a_secret_without_a_current_version_is_due_at_once() -> None:
    assert due_at(policy(rotation_period=90 * D), None, None, NOW) == NOW
    assert due_at(policy(rotation_schedule=Cron("0 0 1 1 *"), rotation_window=Window(H)), None, None, NOW) == NOW


def test_a_first_version_waits_for_a_window_of_its_own_and_starts_in_it() -> None:
    sundays = policy(rotation_period=90 * D, rotation_window=Window(2 * H, Cron("0 3 * * 0")), jitter=H)
    due = due_at(sundays, None, None, NOW)
    assert due is not None
    assert at(2026, 11, 22, 3) <= due <= at(2026, 11, 22, 4)
    assert due_at(sundays, None, None, at(2026, 11, 22, 4, 30)) == due  # it does not run away while we look


def test_a_period_counts_from_the_last_finish() -> None:
    assert due_at(policy(rotation_period=90 * D), NOW, None, NOW) == NOW + 90 * D


def test_a_window_of_its_own_takes_the_first_one_at_or_after_the_due_time() -> None:
    sundays = policy(rotation_period=7 * D, rotation_window=Window(2 * H, Cron("0 3 * * 0")))
    assert due_at(sundays, at(2026, 11, 10), None, NOW) == at(2026, 11, 22, 3)
    in_it = at(2026, 11, 15, 4)
    assert due_at(sundays, in_it - 7 * D, None, NOW - 10 * D) == in_it  # due inside a window: at once
    missed = at(2026, 11, 15, 3)
    assert due_at(sundays, missed - 8 * D, None, at(2026, 11, 15, 6)) == missed + 7 * D


def test_a_window_after_a_scheduled_time_is_missed_until_the_next_one() -> None:
    weekly = policy(rotation_schedule=Cron("0 3 * * 0"), rotation_window=Window(2 * H))
    opened = at(2026, 11, 15, 3)
    assert due_at(weekly, opened - 7 * D, None, opened + H) == opened
    assert may_start(weekly, opened, opened + H)
    assert due_at(weekly, opened - 7 * D, None, opened + 2 * H) == opened + 7 * D
    assert not may_start(weekly, opened, opened + 2 * H)


def test_may_start_needs_an_open_window() -> None:
    sundays = policy(rotation_period=7 * D, rotation_window=Window(2 * H, Cron("0 3 * * 0")))
    due = at(2026, 11, 15, 3)
    assert may_start(sundays, due, due)
    assert may_start(sundays, due, due + 2 * H - timedelta(seconds=1))
    assert not may_start(sundays, due, due + 2 * H)
    assert may_start(sundays, due, due + 7 * D)
    assert may_start(sundays, due, due + D, expires_at=due + 2 * D)
    assert not may_start(sundays, due, due - H)


def test_jitter_is_the_same_at_every_look_and_differs_between_secrets() -> None:
    def due(name: str) -> datetime | None:
        return due_at(policy(name, rotation_period=30 * D, jitter=6 * H), NOW, None, NOW)

    found = [due(f"secret-{number}") for number in range(50)]
    assert found == [due(f"secret-{number}") for number in range(50)]
    assert all(when is not None and NOW + 30 * D <= when < NOW + 30 * D + 6 * H for when in found)
    assert len(set(found)) == 50


@settings(deadline=None, max_examples=100)
@given(
    name=st.text("abc", min_size=1, max_size=8),
    jitter=st.timedeltas(timedelta(0), timedelta(hours=30)),
    ago=st.timedeltas(timedelta(0), timedelta(days=60)),
    ahead=st.timedeltas(timedelta(0), timedelta(days=30)),
)
def test_a_due_time_with_jitter_lies_in_a_window_that_is_not_over(
    name: str, jitter: timedelta, ago: timedelta, ahead: timedelta
) -> None:
    now = NOW + ahead
    secret = policy(name, rotation_period=10 * D, rotation_window=Window(2 * H, Cron("0 3 * * 0")), jitter=jitter)
    due = due_at(secret, NOW - ago, None, now)
    assert due is not None
    assert due >= NOW - ago + 10 * D
    assert (due.isoweekday(), 3 <= due.hour < 5) == (7, True)
    assert due + 2 * H > now
    if due <= now:
        assert may_start(secret, due, now)


def test_a_dying_value_is_renewed_before_its_end_whatever_the_schedule_says() -> None:
    yearly = policy(rotation_schedule=Cron("0 0 1 1 *"), rotation_window=Window(H))
    finished, dies = at(2026, 2, 1), at(2026, 12, 1)
    assert due_at(yearly, finished, dies, NOW) == dies - 7 * D
    assert renew_by(yearly, NOW, NOW + 3 * D) == NOW + 2 * D  # a short life: a third of it
    assert due_at(policy(), finished, dies, NOW) == dies - 7 * D
    assert due_at(policy(rotation_period=30 * D), finished, dies, NOW) == finished + 30 * D
