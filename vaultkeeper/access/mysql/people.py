"""Who may do what at MySQL or MariaDB, who is connected, and how accounts are spelt for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from vaultkeeper.access.mysql import Row, Session, StatementFailed
from vaultkeeper.errors import NotAuthorised

_GRANT = re.compile(r"(?P<verb>GRANT|REVOKE) (?P<what>.+?) ON (?:TABLE )?(?P<where>\S+) (?:TO|FROM) ")
_COLUMNS = re.compile(r" ?\([^)]*\)")
_GONE, _NOT_OWNER = 1094, 1095
_DENIED = {1044, 1142, 1143, 1227}


@dataclass(frozen=True)
class Account:
    """One row of the server's accounts: a name and where it may come from."""

    name: str
    host: str

    def __str__(self) -> str:
        return f"{quoted(self.name)}@{quoted(self.host)}"


def quoted(text: str) -> str:
    """As a string literal, for a person to paste."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclass(frozen=True)
class Grants:
    """What the connected account may do, its active roles included."""

    grantee: Account
    held: frozenset[tuple[str, str]]  #: (privilege, level): ("SELECT", "mysql.user")
    revoked: frozenset[tuple[str, str]] = frozenset()  #: of what `*.*` gives: MySQL's partial_revokes

    def has(self, privilege: str, level: str = "*.*") -> bool:
        database = f"{level.partition('.')[0]}.*"
        above = {level, database} if (privilege, database) in self.revoked else {level, database, "*.*"}
        return any((name, place) in self.held for name in (privilege, "ALL PRIVILEGES") for place in above)

    def statement(self, *privileges: str, level: str = "*.*") -> str:
        """What grants them, for a person to run."""
        return f"GRANT {', '.join(privileges)} ON {level} TO {self.grantee}"


def grants(session: Session) -> Grants:
    """Read by SHOW GRANTS, which needs no privilege for oneself. MySQL puts no space between dynamic privileges.

    https://dev.mysql.com/doc/refman/8.4/en/show-grants.html and https://mariadb.com/kb/en/show-grants/
    """
    held: dict[str, set[tuple[str, str]]] = {"GRANT": set(), "REVOKE": set()}
    for (line,) in session.rows("SHOW GRANTS"):
        found = _GRANT.match(str(line))
        if found:
            level = found["where"].replace("`", "")
            names = _COLUMNS.sub("", found["what"]).split(",")
            held[found["verb"]] |= {(name.strip(), level) for name in names}
    [(me,)] = session.rows("SELECT CURRENT_USER()")
    name, _, host = str(me).rpartition("@")
    return Grants(Account(name, host), frozenset(held["GRANT"]), frozenset(held["REVOKE"]))


def asked(session: Session, sql: str, privilege: str, level: str) -> Sequence[Row]:
    """Run a statement that needs this privilege. Raises NotAuthorised with the GRANT where it is missing.

    Whoever has it and is denied nevertheless is kept from an account with SYSTEM_USER, which MySQL guards so.
    """
    try:
        return session.rows(sql)
    except StatementFailed as error:
        if error.number not in _DENIED:
            raise
        may = grants(session)
        if may.has(privilege, level):
            privilege, level = "SYSTEM_USER", "*.*"
        what = f"{may.grantee} lacks {privilege} ON {level}"
        raise NotAuthorised(what, next=may.statement(privilege, level=level)) from None


# ------------------------------------------------------------------------------------------------------------- sessions


@dataclass(frozen=True)
class Connected:
    """One session of an account. `quiet`: since when it has run nothing; it began no later than that."""

    id: int
    origin: str
    quiet: timedelta


def connected(session: Session, name: str) -> list[Connected]:
    """Every session of this name but our own, as far as PROCESS lets us see; of our own name all of them.

    https://dev.mysql.com/doc/refman/8.4/en/information-schema-processlist-table.html
    """
    rows = session.rows(
        "SELECT ID, HOST, TIME FROM information_schema.PROCESSLIST"  # noqa: S608 - PyMySQL quotes the name
        f" WHERE USER = {session.literal(name)} AND ID <> CONNECTION_ID() AND COMMAND <> 'Killed' ORDER BY ID"
    )
    return [
        Connected(int(number), str(origin).rpartition(":")[0] or str(origin), timedelta(seconds=max(int(time or 0), 0)))
        for number, origin, time in rows
    ]


def began_before(sessions: Sequence[Connected], age: timedelta) -> list[Connected]:
    """Those that are certainly older than `age`: quiet for longer, or with a lower number than one of these.

    The server does not tell when a session began, but it numbers them in their order.
    """
    last = max((one.id for one in sessions if one.quiet > age), default=0)
    return [one for one in sessions if one.id <= last]


def holders(sessions: Sequence[Connected], name: str) -> tuple[str, ...]:
    """For people, by address."""
    found: dict[str, list[int]] = {}
    for one in sessions:
        found.setdefault(one.origin, []).append(one.id)
    return tuple(
        f"{len(ids)} session{'' if len(ids) == 1 else 's'} of {name} from {origin} (id {', '.join(map(str, ids))})"
        for origin, ids in sorted(found.items())
    )


def end_sessions(session: Session, sessions: Sequence[Connected]) -> bool:
    """KILL each. One that is gone already counts. False: not allowed, as for MySQL's sessions with SYSTEM_USER."""
    for one in sessions:
        try:
            session.rows(f"KILL CONNECTION {one.id}")
        except StatementFailed as error:
            if error.number == _NOT_OWNER:
                return False
            if error.number != _GONE:
                raise
    return True
