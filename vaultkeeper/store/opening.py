"""The two ways to a store: make one, or open the one that is there."""

from __future__ import annotations

import os
import pwd
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import DBAPIError

from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised, StoreFull
from vaultkeeper.ports import Clock
from vaultkeeper.store.audit import AuditLog, Head
from vaultkeeper.store.database import SqlStore, audit_head
from vaultkeeper.store.engines import DatabaseEngine
from vaultkeeper.store.schema import is_current, load_migrations, migrate
from vaultkeeper.store.sqlite import FILE, LOCKS, SqliteEngine
from vaultkeeper.store.tables import meta

AUDIT_FILE = "audit.log"


def create_store(
    state_dir: Path,
    audit_key: bytes,
    installation: str,
    clock: Clock,
    *,
    database_url: str | None = None,
    daemon: str = "main",
) -> SqlStore:
    """Make the state directory (0700) and an empty database. Idempotent: an interrupted `init` is completed.

    Raises ConfigurationInvalid where another installation's state is there, and what `open_store` raises.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_directory(state_dir)
    if database_url is None:
        # Made here with its mode; SQLite gives its log and index files the mode of the database.
        os.close(os.open(state_dir / FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(directory)
        os.close(directory)
    database = _engine(state_dir, database_url)
    return _open(database, AuditPlace(state_dir / AUDIT_FILE, audit_key, daemon), installation, clock, create=True)


def open_store(
    state_dir: Path,
    audit_key: bytes,
    installation: str,
    clock: Clock,
    *,
    database_url: str | None = None,
    daemon: str = "main",
) -> SqlStore:
    """Check the state directory and the database, migrate it where an older release made it, and open it.

    `database_url`: `postgresql://…` instead of SQLite in `state_dir`; each daemon over it has a `state_dir` (for its
    audit log) and a name of its own.

    Raises ConfigurationInvalid (none there, another installation's, or a newer schema), NotAuthorised (owner, mode),
    StoreDamaged or AuditUnwritable. Sets the ballast up again where there is room.
    """
    _check_directory(state_dir)
    if database_url is None:
        if not (state_dir / FILE).exists():
            raise _no_state(state_dir)
        _check_mode(state_dir / FILE, 0o600)
    database = _engine(state_dir, database_url)
    return _open(database, AuditPlace(state_dir / AUDIT_FILE, audit_key, daemon), installation, clock, create=False)


@dataclass(frozen=True)
class AuditPlace:
    """Where this daemon's audit log is, and the name by which the database knows it."""

    path: Path
    key: bytes = field(repr=False)
    daemon: str


def _engine(state_dir: Path, database_url: str | None) -> DatabaseEngine:
    if database_url is None:
        (state_dir / LOCKS).mkdir(mode=0o700, exist_ok=True)
        return SqliteEngine(state_dir)
    from vaultkeeper.store.postgres import PostgresEngine

    return PostgresEngine(database_url)


def _open(database: DatabaseEngine, audit: AuditPlace, installation: str, clock: Clock, *, create: bool) -> SqlStore:
    try:
        try:
            head = _checked(database, audit, installation, create=create)
        except StoreFull:  # even opening takes room; what is open may be ended with what was set aside
            database.make_room()
            head = _checked(database, audit, installation, create=create)
        with suppress(StoreFull):  # what is begun may still end; `open_rotation` refuses the rest
            database.reserve()
        log = AuditLog(audit.path, audit.key, head, clock.now)
    except BaseException:
        database.close()
        raise
    return SqlStore(database, installation, log, audit.daemon)


def _checked(database: DatabaseEngine, audit: AuditPlace, installation: str, *, create: bool) -> Head:
    database.check()
    return _prepare(database, audit, installation, create=create)


def _prepare(database: DatabaseEngine, audit: AuditPlace, installation: str, *, create: bool) -> Head:
    try:
        with database.engine.connect() as connection:
            ready = not create and is_current(connection)
            if ready:
                _check_installation(connection, audit.path.parent, installation)
                return audit_head(connection, audit.daemon)
        load_migrations()
        with database.writing() as connection:
            database.exclude_migrations(connection)
            migrate(connection)
            if create and connection.execute(_INSTALLATION).first() is None:
                connection.execute(insert(meta), {"key": "installation", "value": installation})
            _check_installation(connection, audit.path.parent, installation)
            return audit_head(connection, audit.daemon)
    except DBAPIError as error:
        raise database.translate(error) from None


_INSTALLATION = select(meta.c.value).where(meta.c.key == "installation")


def _check_installation(connection: Connection, state_dir: Path, installation: str) -> None:
    found = connection.execute(_INSTALLATION).scalar()
    if found is None:
        raise _no_state(state_dir)
    if found != installation:
        raise ConfigurationInvalid(
            f"the state in {state_dir} belongs to another installation",
            why=f"it is {found}, this one is {installation}",
            works="nothing was changed",
            next="point this installation at its own state directory, or put a backup of it there",
        )


def _check_directory(path: Path) -> None:
    try:
        found = path.stat()  # a link is followed: systemd's StateDirectory= is one
    except FileNotFoundError:
        raise _no_state(path) from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationInvalid(f"{path} is no directory", next="remove it, or choose another state directory")
    _check_mode(path, 0o700)


def _check_mode(path: Path, mode: int) -> None:
    """Ours, and nobody else may look in."""
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise NotAuthorised(
            f"{path} belongs to {_user(found.st_uid)}",
            why=f"you are {_user(os.geteuid())}; files of two owners would lock the service out of its own state",
            works="nothing was changed",
            next=f"run the command as {_user(found.st_uid)}",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise NotAuthorised(
            f"{path} is open to other users",
            why=f"its mode is {stat.S_IMODE(found.st_mode):04o}",
            works="nothing was changed",
            next=f"chmod {mode:o} {path}",
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _no_state(path: Path) -> ConfigurationInvalid:
    return ConfigurationInvalid(
        f"there is no state in {path}",
        why=f"{FILE} is missing, or was never finished",
        next="vaultkeeper init   makes one; or put a backup of it there",
    )
