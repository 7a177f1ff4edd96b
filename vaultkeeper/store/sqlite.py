"""SQLite, the default engine: one file, write-ahead log, every commit on the disk before it returns.

`synchronous=FULL` is not negotiable: NORMAL lost acknowledged commits in 543 of 604 crash images, FULL in none of 768.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import QueuePool

from vaultkeeper.errors import Locked, NotAuthorised, StoreDamaged, StoreFull, VaultkeeperError
from vaultkeeper.store.ballast import FULL, SIZE_BYTES, Ballast
from vaultkeeper.store.engines import contradiction
from vaultkeeper.store.locks import FileLocks

FILE = "state.db"
LOCKS = "locks"
BALLAST = "ballast"

_BUSY_TIMEOUT_MS = 10_000
# 16 MiB of write-ahead log between checkpoints: one commit in about a thousand pays for copying it back.
_CHECKPOINT_PAGES = 4096

_PRAGMAS = (
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}",
    f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}",
    "PRAGMA temp_store=MEMORY",  # no file outside the state directory
    "PRAGMA secure_delete=ON",  # a value that is kept no longer does not stay in free pages
)

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_IOERR})
_REFUSAL = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class SqliteEngine:
    """The engine of one state directory, which exists and is ours."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks = FileLocks(directory / LOCKS)
        self._ballast = Ballast(directory / BALLAST)
        self._turn = Lock()
        self._writer: Connection | None = None  #: kept for the next turn; after a failure it is gone
        self.engine = _engine(directory / FILE)

    def hold(self, name: str) -> AbstractContextManager[None]:
        return self._locks.hold(name)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """SQLite has one writer at a time, and whoever finds it busy there sleeps for up to 100 ms before asking again.

        So threads of this process queue up before it. IMMEDIATE: a writer that had only read before would fail,
        instead of waiting, when another one wrote.
        """
        with self._turn:
            connection, self._writer = self._writer or self.engine.connect(), None
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.commit()
            except BaseException:
                connection.close()
                raise
            self._writer = connection

    def reserve(self) -> None:
        if not self._ballast.ensure():
            raise self._full()

    def make_room(self) -> None:
        self._ballast.release()
        # Pages that were copied back leave the log: it can be written over without growing.
        with suppress(DBAPIError), self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def exclude_migrations(self, connection: Connection) -> None:
        """Every writing transaction excludes every other."""

    def check(self) -> None:
        try:
            with self._alone(), self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            with self.engine.connect() as connection:
                findings = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
        except DBAPIError as error:
            raise self.translate(error) from None
        if findings != ["ok"]:
            raise self._damaged("; ".join(findings))

    def translate(self, error: DBAPIError) -> VaultkeeperError:
        if isinstance(error, IntegrityError):
            return contradiction(error)
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the low byte; the rest tells where in SQLite
        reason = str(error.orig)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._no_room()):
            return self._full()
        if code in _BUSY:
            return Locked(
                "the state database is busy",
                why=f"another process has been writing to it for {_BUSY_TIMEOUT_MS // 1000} seconds",
                works="nothing was changed",
                next="run the command again",
            )
        if code in _REFUSAL:
            return NotAuthorised(
                f"{self._directory / FILE} cannot be written",
                why=reason,
                works="nothing was changed",
                next="check who owns the state directory and that its file system is not read-only",
            )
        if code in _DAMAGE:
            return self._damaged(reason)
        return VaultkeeperError("the state database refused a statement", why=reason, works="nothing was changed")

    def close(self) -> None:
        with self._turn:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            self.engine.dispose()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of two that give a new file its log SQLite refuses one at once, whatever its busy timeout: take turns."""
        directory = os.open(self._directory / LOCKS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _no_room(self) -> bool:
        """SQLite calls a quota or a file size limit an input/output error; writing tells what it really is."""
        probe = self._directory / f"{BALLAST}.{os.getpid()}"
        try:
            probe.write_bytes(os.urandom(SIZE_BYTES))
        except OSError as error:
            return error.errno in FULL
        finally:
            probe.unlink(missing_ok=True)
        # One file may have reached its size limit though another has room.
        return _at_size_limit(self._directory / FILE) or _at_size_limit(self._directory / f"{FILE}-wal")

    def _full(self) -> StoreFull:
        return StoreFull(
            f"the disk that holds {self._directory} is full",
            why="the next step could not be journalled",
            works="no target was changed by this step",
            next=f"make room below {self._directory}, then vaultkeeper resume --all",
        )

    def _damaged(self, reason: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self._directory / FILE} is damaged",
            why=reason,
            works="every target and consumer, as they are: nothing was changed",
            next=f"put the newest backup of {self._directory} in its place, then   vaultkeeper doctor",
        )


def _at_size_limit(path: Path) -> bool:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return limit != resource.RLIM_INFINITY and path.exists() and path.stat().st_size + SIZE_BYTES > limit


def _engine(file: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(file)),
        poolclass=QueuePool,  # a thread's connection comes back to the next one that asks
        max_overflow=-1,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `writing` says, not where the driver guesses
    for pragma in _PRAGMAS:
        connection.execute(pragma)
