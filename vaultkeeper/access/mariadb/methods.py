"""MariaDB's accounts: their methods of authentication, read and written as one declared list.

`IDENTIFIED VIA a OR b` tries them in their order, since 10.4.3 (https://mariadb.com/kb/en/create-user/). Tried on
10.11: a client's first answer serves the first method, each later one that talks to the client costs a change of
method, and PyMySQL and Go's driver follow one such change only. `unix_socket` talks to nobody, but in the first place
it uses the first answer up. So ours come first, the new before the old, and all others after them in their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vaultkeeper.access.mysql import Session, hashes, people
from vaultkeeper.access.mysql.people import Account

READING = ("SELECT", "mysql.global_priv")
CHANGING = ("CREATE USER", "*.*")
SILENT = frozenset({"unix_socket"})  # methods that ask the client for nothing
NOBODY = "invalid"  # what MariaDB itself writes where no password shall fit

_VIA = re.compile(
    r" IDENTIFIED (?:BY PASSWORD (?P<hash>'[^']*')|VIA (?P<methods>.*?))(?= REQUIRE | WITH | PASSWORD EX| ACC|$)"
)
_METHOD = re.compile(r"(?P<plugin>[\w]+)(?: USING '(?P<text>(?:[^'\\]|''|\\.)*)')?(?: OR |$)")


@dataclass(frozen=True)
class Method:
    """One way in. `text`: a hash, a key, a service's name, as the plugin wants it."""

    plugin: str
    text: str = field(default="", repr=False)

    @property
    def is_open(self) -> bool:
        """Lets in whoever gives no password."""
        return self.plugin == hashes.NATIVE and not self.text

    @property
    def is_dead(self) -> bool:
        """Lets nobody in."""
        return self.plugin == hashes.NATIVE and bool(self.text) and not hashes.is_native(self.text)


@dataclass(frozen=True)
class Credential:
    """A password of ours, in the forms that the server may hold."""

    password: bytes = field(repr=False)

    @cached_property
    def method(self) -> Method:
        return Method(hashes.NATIVE, hashes.native(self.password))

    @cached_property
    def _key(self) -> str:
        return hashes.ed25519(self.password)

    def fits(self, method: Method) -> bool:
        """Does this method let the password in? One of another kind with the same password is the same credential."""
        if method.plugin == hashes.ED25519:
            return method.text.rstrip("=") == self._key
        return method == self.method


@dataclass(frozen=True)
class Stored:
    """One account as it stands."""

    account: Account
    methods: tuple[Method, ...]
    locked: bool = False
    expired: bool = False
    requires: str = ""  #: "" | "SSL" | "X509" | "SPECIFIED": of the TLS connection

    @property
    def usable(self) -> bool:
        """Can it log in with some password?"""
        return not self.locked and any(not method.is_dead for method in self.methods)

    def accepts(self, credential: Credential) -> bool:
        return not self.locked and any(credential.fits(method) for method in self.methods)

    def foreign(self, known: Sequence[Credential]) -> list[Method]:
        """Ways in that are not ours."""
        return [m for m in self.methods if not m.is_dead and not any(one.fits(m) for one in known)]


def read(session: Session, names: Sequence[str]) -> Mapping[Account, Stored]:
    """Every account of these names, whatever its host. Raises NotAuthorised without SELECT on mysql.global_priv."""
    query = f"SELECT User, Host, Priv FROM mysql.global_priv WHERE User IN ({session.literals(names)})"  # noqa: S608 - PyMySQL quotes them
    rows = people.asked(session, query, *READING)
    found = (parsed(Account(str(name), str(host)), str(priv)) for name, host, priv in rows)
    return {stored.account: stored for stored in found}


def parsed(account: Account, document: str) -> Stored:
    """A row of `mysql.global_priv`. In `auth_or` an empty object stands for the method of the row itself."""
    row: dict[str, Any] = json.loads(document)
    own = Method(str(row.get("plugin") or hashes.NATIVE), str(row.get("authentication_string") or ""))
    methods = [_method(each, own) for each in row.get("auth_or") or [{}]]
    return Stored(
        account,
        tuple(methods),
        locked=bool(row.get("account_locked")),
        expired=row.get("password_last_changed") == 0,
        requires=("", "SSL", "X509", "SPECIFIED")[int(row.get("ssl_type") or 0) % 4],
    )


def _method(each: Mapping[str, Any], own: Method) -> Method:
    return Method(str(each["plugin"]), str(each.get("authentication_string") or "")) if "plugin" in each else own


def read_own(session: Session) -> tuple[Method, ...]:
    """The methods of the connected account, which it may always see (SHOW CREATE USER)."""
    text = session.rows("SHOW CREATE USER")[0][0]  # a second row tells of expiry
    found = _VIA.search(str(text))
    if found is None:
        return (Method(hashes.NATIVE),)
    if found["hash"]:
        return (Method(hashes.NATIVE, found["hash"].strip("'")),)
    return tuple(
        Method(each["plugin"], (each["text"] or "").replace("''", "'").replace("\\\\", "\\"))
        for each in _METHOD.finditer(found["methods"])
    )


def wanted(stored: Stored, accept: Sequence[Credential], refuse: Iterable[Credential]) -> tuple[Method, ...]:
    """The list that accepts and refuses exactly these of ours. A locked account's own ways in do not come back."""
    gone = [one for one in refuse if one.password not in {kept.password for kept in accept}]
    ours = tuple(dict.fromkeys(one.method for one in accept))
    others = () if stored.locked and accept else stored.methods
    kept = [m for m in others if m not in ours and not m.is_dead and not any(one.fits(m) for one in gone)]
    return (*ours, *kept) or (Method(hashes.NATIVE, NOBODY),)


def statement(session: Session, changes: Sequence[tuple[Account, Sequence[Method]]], *, unlock: bool) -> str:
    """One ALTER USER for all of them. It leaves REQUIRE, limits and expiry as they are."""
    each = (
        f"{session.literal(account.name)}@{session.literal(account.host)} IDENTIFIED VIA "
        + " OR ".join(_spelt(session, method) for method in methods)
        for account, methods in changes
    )
    return f"ALTER USER {', '.join(each)}" + (" ACCOUNT UNLOCK" if unlock else "")


def _spelt(session: Session, method: Method) -> str:
    plugin = "`" + method.plugin.replace("`", "``") + "`"
    return plugin + (f" USING {session.literal(method.text)}" if method.text else "")
