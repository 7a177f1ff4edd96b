"""The `Store` port on SQLAlchemy Core. Every write is one transaction, durable when the call returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from vaultkeeper.errors import AlreadyOpen, EpochLost, NotFound, StoreFull
from vaultkeeper.model.rotation import Rotation
from vaultkeeper.model.secret import StagingLabel, VersionRecord
from vaultkeeper.ports import Change, Pause, VersionChange
from vaultkeeper.store import logins
from vaultkeeper.store import statements as sql
from vaultkeeper.store.audit import AuditLog, BadRecord, Head
from vaultkeeper.store.codec import decode_rotation, encode_rotation
from vaultkeeper.store.engines import DatabaseEngine
from vaultkeeper.store.tables import labels, pauses, rotations, secrets, versions

_T = TypeVar("_T")


class SqlStore:
    """One installation's state. Made by `opening.open_store`; safe for threads; `close` when done.

    A full disk refuses what would begin something new (`StoreFull`). What is begun may use the room set aside.
    """

    def __init__(self, database: DatabaseEngine, installation: str, audit_log: AuditLog, log: str = "main") -> None:
        self.installation = installation
        self._database = database
        self._audit = audit_log
        self._log = log  #: which audit log of this database's is ours
        self._head_kept = audit_log.head

    def close(self) -> None:
        self._audit.close()
        self._database.close()

    def hold(self, name: str) -> AbstractContextManager[None]:
        return self._database.hold(name)

    # ------------------------------------------------------------------------------------------------------ journal

    def open_rotation(self, rotation: Rotation, change: Change) -> Rotation:
        """Returns it with its epoch. `change` comes first: it may close the rotation that this one supersedes."""
        self._database.reserve()

        def work(connection: Connection) -> Rotation:
            _apply(connection, rotation.secret, change)
            opened = replace(rotation, epoch=_next_epoch(connection, rotation.secret))
            row = {"id": opened.id, "secret": opened.secret, "open": opened.open, "epoch": opened.epoch}
            try:
                connection.execute(sql.INSERT_ROTATION, row | {"document": encode_rotation(opened)})
            except IntegrityError:
                raise _already_open(rotation.secret) from None
            return opened

        return self._write(work)

    def take(self, rotation_id: str) -> Rotation:
        def work(connection: Connection) -> Rotation:
            secret = connection.execute(sql.OPEN_SECRET, {"id_": rotation_id}).scalar()
            if secret is None:
                raise _no_rotation(rotation_id)
            epoch = _next_epoch(connection, secret)
            connection.execute(sql.FENCE_ROTATION, {"id_": rotation_id, "epoch": epoch})
            return _rotation(connection.execute(sql.ROTATION, {"id_": rotation_id}).one())

        return self._write(work, finishing=True)

    def commit(self, change: Change) -> None:
        """Idempotent, but for a new version. Uses the room set aside where the disk is full."""
        if change.rotation is None:
            raise ValueError("commit needs a rotation; amend works without one")
        secret = change.rotation.secret
        self._write(lambda connection: _apply(connection, secret, change), finishing=True)

    def amend(self, secret: str, change: Change) -> None:
        self._database.reserve()

        def work(connection: Connection) -> None:
            _refuse_open(connection, secret)
            _apply(connection, secret, change)

        self._write(work)

    def rotation(self, rotation_id: str) -> Rotation:
        found = self._rows(sql.ROTATION, {"id_": rotation_id})
        if not found:
            raise _no_rotation(rotation_id)
        return _rotation(found[0])

    def open_rotations(self) -> Sequence[Rotation]:
        return [_rotation(row) for row in self._rows(sql.OPEN_ROTATIONS, {})]

    def rotations(self, secret: str, limit: int = 50) -> Sequence[Rotation]:
        return [_rotation(row) for row in self._rows(sql.ROTATIONS, {"secret_": secret, "limit_": limit})]

    # ----------------------------------------------------------------------------------------------------- versions

    def next_number(self, secret: str, at_least: int = 1) -> int:
        """A version takes it when it is written; the answer is `at_least` or more."""
        found = self._rows(sql.LAST_NUMBER, {"name_": secret})
        return max(found[0].last_number + 1 if found else 1, at_least)

    def versions(self, secret: str) -> Sequence[VersionRecord]:
        return [sql.version_record(row) for row in self._rows(sql.VERSIONS, {"secret_": secret})]

    def labels(self, secret: str) -> Mapping[StagingLabel, int]:
        return {StagingLabel(row.label): row.number for row in self._rows(sql.LABELS, {"secret_": secret})}

    def secrets(self) -> Sequence[str]:
        """Every name with a rotation or a version, and not forgotten; sorted."""
        rows = self._rows(sql.KNOWN_SECRETS, {})
        return [row.name for row in rows]

    def discard_sealed(self, secret: str, numbers: Sequence[int]) -> None:
        """Idempotent. Values of labelled versions stay, whatever `numbers` says: somebody still runs on them."""
        labelled = select(labels.c.number).where(labels.c.secret == secret)
        statement = update(versions).values(sealed=None).where(versions.c.secret == secret)
        old = versions.c.number.in_(numbers) & versions.c.number.not_in(labelled)
        self._write(lambda connection: connection.execute(statement.where(old)))

    def forget(self, secret: str) -> None:
        """Versions, labels, ended rotations and the pause go. Idempotent. Raises AlreadyOpen."""

        def work(connection: Connection) -> None:
            _refuse_open(connection, secret)
            for table in (labels, versions, rotations, pauses):
                connection.execute(delete(table).where(table.c.secret == secret))
            connection.execute(update(secrets).where(secrets.c.name == secret).values(known=False))

        self._write(work)

    # ------------------------------------------------------------------------------------- logins, pauses, audit log

    def spend_login(self, account: str, address: str, budget: tuple[int, timedelta], now: datetime) -> timedelta | None:
        keys = _login_keys(account, address)
        return self._write(lambda connection: logins.spend(connection, keys, budget, now), finishing=True)

    def refund_login(self, account: str, address: str) -> None:
        self._write(lambda connection: logins.refund(connection, _login_keys(account, address)), finishing=True)

    def failed_logins(self, account: str, address: str, window: timedelta, now: datetime) -> int:
        """Of the account or of the address, whichever is more."""
        with self._reader() as connection:
            return max(len(logins.times(connection, key, window, now)) for key in _login_keys(account, address))

    def pause(self, secret: str, pause: Pause | None) -> None:
        def work(connection: Connection) -> None:
            connection.execute(delete(pauses).where(pauses.c.secret == secret))
            if pause is not None:
                row = {"secret": secret, "until": pause.until, "reason": pause.reason, "since": pause.since}
                connection.execute(insert(pauses), row)

        self._write(work)

    def pauses(self) -> Mapping[str, Pause]:
        rows = self._rows(sql.PAUSES, {})
        return {row.secret: Pause(until=row.until, reason=row.reason, since=row.since) for row in rows}

    def audit(self, record: Mapping[str, object]) -> None:
        self._audit.append(record, self._database.make_room)

    def audit_head(self) -> Head:
        """The newest record that the database knows of."""
        with self._reader() as connection:
            return audit_head(connection, self._log)

    def verify_audit(self) -> BadRecord | None:
        """The first bad record of the audit log, or None. Raises AuditUnwritable where it cannot be read."""
        return self._audit.verify(self.audit_head())

    # ------------------------------------------------------------------------------------------------------- inside

    def _write(self, work: Callable[[Connection], _T], *, finishing: bool = False) -> _T:
        try:
            return self._transaction(work)
        except StoreFull:
            if not finishing:
                raise
        self._database.make_room()
        return self._transaction(work)

    def _transaction(self, work: Callable[[Connection], _T]) -> _T:
        head = self._audit.head
        try:
            with self._database.writing() as connection:
                result = work(connection)
                if head != self._head_kept:
                    connection.execute(sql.MOVE_AUDIT_HEAD, {"log": self._log, "seq": head.seq, "mac": head.mac})
        except DBAPIError as error:
            raise self._database.translate(error) from None
        self._head_kept = head
        return result

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        try:
            with self._database.engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise self._database.translate(error) from None

    def _rows(self, statement: Any, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        with self._reader() as connection:
            return connection.execute(statement, parameters).all()


def audit_head(connection: Connection, log: str = "main") -> Head:
    """What the database knows of `log`'s newest record."""
    row = connection.execute(sql.AUDIT_HEAD, {"log_": log}).first()
    return Head() if row is None else Head(row.seq, row.mac)


def _apply(connection: Connection, secret: str, change: Change) -> None:
    if change.rotation is not None:
        _write_rotation(connection, change.rotation)
    if change.new_version is not None:
        _insert_version(connection, secret, change.new_version)
    for number, facts in (change.facts or {}).items():
        _change_version(connection, secret, number, facts)
    labelled = {label.value: number for label, number in (change.labels or {}).items()}
    put = [{"secret": secret, "label": label, "number": n} for label, n in labelled.items() if n is not None]
    dropped = [{"secret_": secret, "label_": label} for label, n in labelled.items() if n is None]
    if put:
        connection.execute(sql.PUT_LABEL, put)
    if dropped:
        connection.execute(sql.DROP_LABEL, dropped)


def _write_rotation(connection: Connection, rotation: Rotation) -> None:
    row = {"id_": rotation.id, "epoch_": rotation.epoch, "open": rotation.open}
    if connection.execute(sql.WRITE_ROTATION, row | {"document": encode_rotation(rotation)}).rowcount == 1:
        return
    if connection.execute(sql.ROTATION, {"id_": rotation.id}).first() is None:
        raise _no_rotation(rotation.id)
    raise _epoch_lost(rotation)


def _insert_version(connection: Connection, secret: str, record: VersionRecord) -> None:
    if record.secret != secret:
        raise ValueError(f"a version of {record.secret} in a change of {secret}")
    connection.execute(sql.INSERT_VERSION, sql.version_row(record))
    connection.execute(sql.RAISE_NUMBER, {"name_": secret, "number_": record.number})


def _change_version(connection: Connection, secret: str, number: int, facts: VersionChange) -> None:
    row = {**vars(facts), "acceptance": facts.acceptance.value if facts.acceptance else None}
    if connection.execute(sql.CHANGE_VERSION, row | {"secret_": secret, "number_": number}).rowcount != 1:
        raise NotFound(f"{secret} has no version {number}")


def _next_epoch(connection: Connection, secret: str) -> int:
    connection.execute(sql.KNOW_SECRET, {"name": secret})
    return int(connection.execute(sql.EPOCH, {"name_": secret}).scalar_one())


def _refuse_open(connection: Connection, secret: str) -> None:
    connection.execute(sql.KNOW_SECRET, {"name": secret})
    if connection.execute(sql.OPEN_OF, {"secret_": secret}).first() is not None:
        raise _already_open(secret)


def _rotation(row: Any) -> Rotation:
    """The column's epoch counts: `take` moves it without writing the document anew."""
    rotation = decode_rotation(row.document)
    return rotation if rotation.epoch == row.epoch else replace(rotation, epoch=row.epoch)


def _login_keys(account: str, address: str) -> tuple[tuple[str, str], ...]:
    return ("account", f"{account}@{address}"), ("address", address)


def _already_open(secret: str) -> AlreadyOpen:
    return AlreadyOpen(
        f"a rotation of {secret} is open already",
        why="a secret has one open rotation at a time",
        works="nothing was changed by this command",
        next="vaultkeeper status",
    )


def _epoch_lost(rotation: Rotation) -> EpochLost:
    return EpochLost(
        f"another process took the rotation of {rotation.secret} over",
        why=f"epoch {rotation.epoch} of rotation {rotation.id} is no longer the newest",
        works="this process changed nothing more; the other one goes on",
        next="vaultkeeper status",
    )


def _no_rotation(rotation_id: str) -> NotFound:
    return NotFound(f"there is no such rotation: {rotation_id}", next="vaultkeeper status")
