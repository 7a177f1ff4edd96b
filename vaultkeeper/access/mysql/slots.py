"""MySQL's two slots for passwords, since 8.0.14: read first, then changed by the fewest statements that cut nobody off.

`RETAIN CURRENT PASSWORD` is no "add": it moves the primary into the second slot and drops what was there, so saying it
twice loses the old password. Without it a new primary leaves the second slot alone; DISCARD OLD PASSWORD empties it.
https://dev.mysql.com/doc/refman/8.4/en/password-management.html#dual-passwords and alter-user.html

The second slot stands in `User_attributes ->> '$.additional_password'` of mysql.user. Of the ways to say a password the
manual's grammar gives RETAIN to `IDENTIFIED BY` alone, which is readable; all others are said as hashes. (9.7.4 takes
RETAIN behind a hash too, and tells its replicas so.)
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vaultkeeper.access.mysql import Session, hashes, people
from vaultkeeper.access.mysql.people import Account

READING = ("SELECT", "mysql.user")
CHANGING = ("CREATE USER", "*.*")
SLOTS_SINCE = (8, 0, 14)
PLUGINS = (hashes.SHA2, hashes.NATIVE)  # which keep the password in mysql.user, and whose forms we can make

_COLUMNS = """
SELECT User, Host, plugin, authentication_string, account_locked = 'Y', password_expired = 'Y', ssl_type,
{} FROM mysql.user WHERE User IN ({})"""
_ATTRIBUTES = """
User_attributes ->> '$.additional_password', User_attributes ->> '$.Password_locking.failed_login_attempts'"""


@dataclass(frozen=True)
class Credential:
    """A password of ours. `verifier`: its form for caching_sha2_password, made once."""

    password: bytes = field(repr=False)
    verifier: str = field(repr=False)

    def form(self, plugin: str) -> str:
        return hashes.native(self.password) if plugin == hashes.NATIVE else self.verifier

    def fits(self, plugin: str, stored: str) -> bool | None:
        """None: cannot be told without a login."""
        if plugin == hashes.NATIVE:
            return hmac.compare_digest(stored.encode(), hashes.native(self.password).encode())
        return stored == self.verifier or hashes.matches_sha2(stored, self.password)


@dataclass(frozen=True)
class Stored:
    """One account as it stands."""

    account: Account
    plugin: str
    primary: str = field(repr=False)
    secondary: str = field(default="", repr=False)
    locked: bool = False
    expired: bool = False
    requires: str = ""  #: of the TLS connection, as in MariaDB's
    most_failures: int = 0  #: FAILED_LOGIN_ATTEMPTS; 0: any number

    @property
    def is_open(self) -> bool:
        """Lets in whoever gives no password."""
        return self.plugin in PLUGINS and not self.primary and not self.locked

    @property
    def usable(self) -> bool:
        """Can it log in with some password?"""
        return not self.locked and (self.plugin not in PLUGINS or slots_of(self, ()) != (None, None))

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.primary, self.secondary)))

    def accepts(self, credential: Credential) -> bool | None:
        """None: cannot be told without a login."""
        if self.locked or self.plugin not in PLUGINS:
            return False
        said = [credential.fits(self.plugin, stored) for stored in self.slots]
        return True if True in said else None if None in said else False


def read(session: Session, names: Sequence[str]) -> Mapping[Account, Stored]:
    """Every account of these names, whatever its host. Raises NotAuthorised without SELECT on mysql.user."""
    more = _ATTRIBUTES if session.version >= SLOTS_SINCE else "NULL, NULL"
    rows = people.asked(session, _COLUMNS.format(more, session.literals(names)), *READING)
    found = {}
    for name, host, plugin, primary, locked, expired, tls, secondary, failures in rows:
        account = Account(str(name), str(host))
        requires = {"ANY": "SSL"}.get(str(tls or ""), str(tls or ""))
        found[account] = Stored(
            account, str(plugin), _text(primary), _text(secondary), bool(locked), bool(expired), requires,
            int(failures or 0),
        )  # fmt: skip
    return found


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


# ---------------------------------------------------------------------------------------------------------- the change

Held = int | str
"""A password of ours by its number, or a stranger's stored form."""

Slots = tuple[Held | None, Held | None]
"""What primary and second slot hold. None: nothing that lets anybody in."""

NOBODY = ""
"""Instead of a stored form: one that no password fits."""


@dataclass(frozen=True)
class Move:
    """One statement. `to` None: DISCARD OLD PASSWORD."""

    to: Held | None
    retain: bool = False

    def apply(self, slots: Slots) -> Slots:
        if self.to is None:
            return slots[0], None
        return self.to, slots[0] if self.retain else slots[1]


def moves(
    start: Slots, accept: Sequence[int], refuse: Sequence[int], *, room: int = 2, forgets: bool = False
) -> list[Move] | None:
    """The shortest way from `start` to slots that hold `accept`, whatever is a stranger's, and none of `refuse`.

    On the way nothing is lost that shall be accepted. `forgets`: strangers go too. None: there is no room.
    """
    strangers = [held for held in start if isinstance(held, str)]
    stay: list[Held] = [*accept, *([] if forgets else strangers)]
    keep, gone = set(stay), {*refuse, *strangers} - set(stay)
    if len(keep) > room:
        return None
    if not keep:
        dead = [Move(NOBODY)] if start[0] is not None else []
        return [*dead, Move(None)] if start[1] is not None else dead
    possible = [*(Move(to, retain) for to in stay for retain in (False, True)), Move(None)]
    ways: deque[tuple[Slots, list[Move]]] = deque([(start, [])])
    seen = {start}
    while ways:
        slots, way = ways.popleft()
        if keep <= set(slots) and not gone & set(slots) and slots[0] != slots[1]:
            return way
        for move in possible:
            after = move.apply(slots)
            if after not in seen and (keep & set(slots)) <= set(after):
                seen.add(after)
                ways.append((after, [*way, move]))
    return None


def slots_of(stored: Stored, ours: Sequence[Credential]) -> Slots:
    """Ours by their place in the list."""

    def held(form: str) -> Held | None:
        if not form or form == _nobody(stored.plugin):
            return None
        return next((number for number, one in enumerate(ours) if one.fits(stored.plugin, form)), form)

    return held(stored.primary), held(stored.secondary)


def spelt(session: Session, stored: Stored, move: Move, ours: Sequence[Credential], *, own: bool) -> str:
    """The account and what becomes of it, in ALTER USER. `own`: USER(), whose grammar knows only `BY`."""
    account = "USER()" if own else named(session, stored)
    if move.to is None:
        return f"{account} DISCARD OLD PASSWORD"
    if isinstance(move.to, int) and (move.retain or own):
        said = session.literal(ours[move.to].password.decode())
        return f"{account} IDENTIFIED BY {said}" + (" RETAIN CURRENT PASSWORD" if move.retain else "")
    form = _form(stored, ours[move.to]) if isinstance(move.to, int) else move.to or _nobody(stored.plugin)
    return f"{account} IDENTIFIED WITH {stored.plugin} AS {session.literal(form)}"


def named(session: Session, stored: Stored) -> str:
    """The account, in SQL."""
    return f"{session.literal(stored.account.name)}@{session.literal(stored.account.host)}"


def _form(stored: Stored, credential: Credential) -> str:
    """The one that the server already holds, if any: the same bytes, the same salt."""
    there = (form for form in stored.slots if credential.fits(stored.plugin, form))
    return next(there, credential.form(stored.plugin))


def _nobody(plugin: str) -> str:
    return "*" + "0" * 40 if plugin == hashes.NATIVE else f"$A$005${'nobody' * 3}no{'.' * 43}"
