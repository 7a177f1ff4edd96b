"""PostgreSQL (14 or newer), for several daemons over one state: the same tables, row locks and fencing epochs.

The account needs to own its database's `public` schema, or to have CREATE on it, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from vaultkeeper.errors import ConfigurationInvalid, Locked, NotAuthorised, StoreDamaged, StoreFull, VaultkeeperError
from vaultkeeper.store.engines import contradiction

_CONNECT_TIMEOUT_S = 10
_LOCK_TIMEOUT_MS = 10_000
_MIGRATION_TIMEOUT_MS = 600_000  # another daemon's upgrade may take long, and ends well

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_FULL = frozenset({"53100"})
_BUSY = frozenset({"40001", "40P01", "55P03"})
_REFUSAL_CLASSES = frozenset({"28", "42"})

_MIGRATION_LOCK = "migration"
_TRY = text("SELECT pg_try_advisory_lock(:key)")
_UNLOCK = text("SELECT pg_advisory_unlock(:key)")
# A bigint key stands in pg_locks as two halves (manual, section "pg_locks").
_HOLDER = text(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (classid::bigint << 32) | objid::bigint = :key"
)


class PostgresEngine:
    """The engine of one database."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        self._name = parsed.render_as_string(hide_password=True).replace("+psycopg", "")
        self.engine: Engine = create_engine(
            parsed,
            max_overflow=-1,
            pool_pre_ping=True,  # the server may have been restarted between two rotations
            hide_parameters=True,
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT_S,
                # Whatever the server's default: an acknowledged commit is on its disk.
                "options": f"-c synchronous_commit=on -c lock_timeout={_LOCK_TIMEOUT_MS}",
                "application_name": "vaultkeeper",
            },
        )

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """By an advisory lock of a session that lasts as long: a daemon that dies loses it with its connection."""
        key = {"key": _lock_key(name)}
        with self._session() as connection:
            if not connection.execute(_TRY, key).scalar():
                raise _locked(name, connection.execute(_HOLDER, key).scalar())
            try:
                yield
            finally:
                try:
                    connection.execute(_UNLOCK, key)
                except DBAPIError:
                    connection.invalidate()  # the session has ended, and its locks with it

    def writing(self) -> AbstractContextManager[Connection]:
        """Writers of one secret queue at its row, all others need not wait."""
        return self.engine.begin()

    def reserve(self) -> None:
        """The server's disk is its administrator's."""

    def make_room(self) -> None:
        """As `reserve`."""

    def exclude_migrations(self, connection: Connection) -> None:
        connection.execute(text(f"SET LOCAL lock_timeout = {_MIGRATION_TIMEOUT_MS}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _lock_key(_MIGRATION_LOCK)})
        connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}"))

    def check(self) -> None:
        with self._session() as connection:
            if connection.execute(text("SHOW fsync")).scalar() != "on":
                raise ConfigurationInvalid(
                    f"{self._name} may lose what it has acknowledged",
                    why="its fsync is off",
                    next="set fsync = on in postgresql.conf and reload",
                )

    def translate(self, error: DBAPIError) -> VaultkeeperError:
        if isinstance(error, IntegrityError):
            return contradiction(error)
        state = str(getattr(error.orig, "sqlstate", None) or "")
        reason = (str(error.orig).splitlines() or [""])[0]
        if state in _FULL:
            return StoreFull(
                f"the disk of {self._name} is full",
                why=reason,
                works="no target was changed by this step",
                next="make room on the database server, then vaultkeeper resume --all",
            )
        if state in _BUSY:
            return Locked(f"{self._name} is busy", why=reason, next="run the command again")
        if state[:2] in _REFUSAL_CLASSES:
            return NotAuthorised(f"{self._name} refused this account", why=reason, next="grant it its schema")
        return StoreDamaged(
            f"{self._name} cannot be used",
            why=reason,
            works="every target and consumer, as they are",
            next="look at the database server, then vaultkeeper resume --all",
        )

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        try:
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except DBAPIError as error:
            raise self.translate(error) from None
        with connection:
            yield connection


def _lock_key(name: str) -> int:
    digest = hashlib.sha256(f"vaultkeeper {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # positive, so that pg_locks shows the same number


def _locked(name: str, holder: int | None) -> Locked:
    who = "another daemon" if holder is None else f"another daemon (session {holder} of the database)"
    return Locked(
        f"{name.replace(':', ' ', 1)} is held by {who}",
        why="only one process at a time may work on it",
        works="whatever worked before; nothing was changed",
        next="wait until that daemon is done, then run the command again",
    )
