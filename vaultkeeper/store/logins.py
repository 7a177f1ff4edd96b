"""Failed logins, charged before they are tried: fail2ban and its like count over restarts, so must we."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from vaultkeeper.store.tables import charges

# Windows are minutes; a week covers any of them, and keeps the table small.
_KEPT = timedelta(days=7)

_TIMES = (
    select(charges.c.at)
    .where(
        charges.c.scope == bindparam("scope_"),
        charges.c.name == bindparam("name_"),
        charges.c.at > bindparam("after"),
        # Charged before a clock was set back: without this bound, an account would stay blocked for years.
        charges.c.at <= bindparam("until"),
    )
    .order_by(charges.c.at)
)
_PRUNE = delete(charges).where((charges.c.at <= bindparam("before")) | (charges.c.at > bindparam("beyond")))
_CHARGE = insert(charges)
_LATEST = select(func.max(charges.c.seq)).where(
    charges.c.scope == bindparam("scope_"), charges.c.name == bindparam("name_")
)
_REFUND = delete(charges).where(charges.c.seq == bindparam("seq_"))


def times(connection: Connection, key: tuple[str, str], window: timedelta, now: datetime) -> list[datetime]:
    """When `key` (scope, name) was charged within the window, oldest first."""
    scope, name = key
    given = {"scope_": scope, "name_": name, "after": now - window, "until": now + window}
    return list(connection.execute(_TIMES, given).scalars())


def spend(
    connection: Connection, keys: tuple[tuple[str, str], ...], budget: tuple[int, timedelta], now: datetime
) -> timedelta | None:
    """Charge all keys, or none of them and say how long until all have room."""
    allowed, window = budget
    wait = max(_wait(times(connection, key, window, now), allowed, window, now) for key in keys)
    if wait > timedelta(0):
        return wait
    kept = max(window, _KEPT)
    connection.execute(_PRUNE, {"before": now - kept, "beyond": now + kept})
    connection.execute(_CHARGE, [{"scope": scope, "name": name, "at": now} for scope, name in keys])
    return None


def refund(connection: Connection, keys: tuple[tuple[str, str], ...]) -> None:
    """Take the newest charge of each key back."""
    for scope, name in keys:
        seq = connection.execute(_LATEST, {"scope_": scope, "name_": name}).scalar()
        connection.execute(_REFUND, {"seq_": seq})


def _wait(spent: list[datetime], allowed: int, window: timedelta, now: datetime) -> timedelta:
    if len(spent) < allowed:
        return timedelta(0)
    if allowed < 1:
        return window
    frees = spent[len(spent) - allowed] + window  # when this one has left the window, fewer than allowed are in it
    return min(max(frees - now, timedelta(microseconds=1)), window)
