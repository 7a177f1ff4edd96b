"""When a secret is due. Pure: the same policy, history and clock reading give the same answer.

Nothing about the schedule is stored: due times are computed from the last finished rotation, so missed runs never
pile up, whether the machine slept, the clock stepped or the daemon was down. Cron fields are evaluated on the wall
clock of the policy's time zone and then placed on the time line: a time that a DST change skips counts as the same
distance after the change, one that it repeats counts once, the first time.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from vaultkeeper.model import cron
from vaultkeeper.model.policy import Cron, RotationPolicy

_ANY_DST_CHANGE = timedelta(hours=3)
_RENEW_BEFORE = timedelta(days=7)
_TICK = timedelta(microseconds=1)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def due_at(
    policy: RotationPolicy, last_finished: datetime | None, expires_at: datetime | None, now: datetime
) -> datetime | None:
    """When the next rotation may start, in UTC; None: only by hand. Due is what is not later than `now`.

    `last_finished`: of the last rotation, or of the adoption; None where there is no CURRENT, which is due at once
    (in the next window, where the policy has windows of its own). `expires_at`: of CURRENT. Windows that have passed
    are passed over; a window that opens only after the value has expired is not waited for.
    """
    if not policy.enabled or (policy.rotation_period is None and policy.rotation_schedule is None and not expires_at):
        return None
    if last_finished is None:
        return _in_window(policy, _LONG_AGO, now) if policy.rotation_window and policy.rotation_window.at else now
    earliest = last_finished + policy.min_interval
    planned = _planned(policy, last_finished, earliest, now)
    renewal = renew_by(policy, last_finished, expires_at)
    if renewal is None or (planned is not None and planned <= renewal):
        return planned
    return max(renewal, earliest)


def may_start(
    policy: RotationPolicy, due: datetime | None, now: datetime, *, expires_at: datetime | None = None
) -> bool:
    """Whether a rotation that is due at `due` may start at `now`: due, and its window is still open."""
    if due is None or now < due:
        return False
    window = policy.rotation_window
    if window is None or (expires_at is not None and expires_at - now <= _RENEW_BEFORE):
        return True
    if window.at is None:
        return now < due + window.length
    return _opening(window.at, window.length, policy.timezone, now) <= now


def renew_by(policy: RotationPolicy, last_finished: datetime, expires_at: datetime | None) -> datetime | None:
    """The latest start before a value dies: a week (or two graces) earlier, not in the first two thirds of its life."""
    if expires_at is None:
        return None
    life = max(expires_at - last_finished, timedelta(0))
    return expires_at - min(max(_RENEW_BEFORE, 2 * policy.grace_period), life / 3)


def next_time(expression: Cron, timezone: str, after: datetime) -> datetime:
    """The first time strictly after `after` that the expression names, in UTC."""
    zone = ZoneInfo(timezone)
    local = after.astimezone(zone)
    wall = local.replace(tzinfo=UTC, fold=0)
    if local.utcoffset() != (after - _ANY_DST_CHANGE).astimezone(zone).utcoffset():
        wall -= _ANY_DST_CHANGE  # times that the change skipped may still lie ahead
    triggers = _triggers(expression.expression)
    while True:
        # The wall clock is given to the trigger as if it were UTC: it then never meets a DST change itself.
        times: list[datetime] = [trigger.get_next_fire_time(None, wall + _TICK) for trigger in triggers]
        wall = min(times)
        found = wall.replace(tzinfo=zone).astimezone(UTC)
        if found > after:
            return found


def _planned(policy: RotationPolicy, last: datetime, earliest: datetime, now: datetime) -> datetime | None:
    """By period or schedule, window and jitter."""
    window = policy.rotation_window
    if policy.rotation_period is not None:
        raw = last + policy.rotation_period
    elif policy.rotation_schedule is not None:
        after = last
        if window is not None and window.at is None:
            after = max(last, now - window.length, earliest - window.length)  # later windows only
        raw = next_time(policy.rotation_schedule, policy.timezone, after)
    else:
        return None
    if window is None:
        return max(raw + _spread(policy, policy.jitter), earliest)
    if window.at is None:
        return max(raw + _spread(policy, min(policy.jitter, window.length)), earliest)
    return _in_window(policy, max(raw, earliest), now)


def _in_window(policy: RotationPolicy, ready: datetime, now: datetime) -> datetime:
    """The first instant at or after `ready` in a window of the policy's own that is not over at `now`."""
    window = policy.rotation_window
    if window is None or window.at is None:
        return ready
    opening = _opening(window.at, window.length, policy.timezone, max(ready, now))
    start = max(ready, opening)
    return start + _spread(policy, min(policy.jitter, opening + window.length - start))


def _opening(at: Cron, length: timedelta, timezone: str, when: datetime) -> datetime:
    """When the window that is open at `when` opened, else when the next one opens."""
    return next_time(at, timezone, when - length)


def _spread(policy: RotationPolicy, width: timedelta) -> timedelta:
    """A secret's own share of the jitter: the same every time, so that a due time never moves between two looks."""
    digest = hashlib.sha256(policy.name.encode()).digest()
    return width * (int.from_bytes(digest[:4]) / 2**32)


@lru_cache(maxsize=1024)
def _triggers(expression: str) -> tuple[CronTrigger, ...]:
    """APScheduler counts weekdays from Monday, so they go by name; it has no "either day" rule (its issue 1102)."""
    fields = cron.fields(expression)
    time = {"minute": _listed(fields.minutes), "hour": _listed(fields.hours), "month": _listed(fields.months)}
    day = {"day": _listed(fields.days)}
    weekday = {"day_of_week": ",".join(cron.WEEKDAYS[number] for number in fields.weekdays)}
    days = [day, weekday] if fields.either_day else [day | weekday]
    return tuple(CronTrigger(**time, **{"day": "*", "day_of_week": "*"} | one, timezone=UTC) for one in days)


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
