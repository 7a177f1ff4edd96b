"""The tables, for SQLAlchemy Core. `migrations/` makes them; a test holds the two equal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)

REVISION = "0001"  #: the newest migration; a test holds it to the folder, so that opening need not load Alembic

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """An aware datetime as whole microseconds since 1970: exact, ordered, and the same in every engine."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


metadata = MetaData()

# SQLite numbers rows by itself only in a column whose type is INTEGER.
_SERIAL = BigInteger().with_variant(Integer(), "sqlite")

meta = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last_number", BigInteger, nullable=False),  # survives `forget`, so that no number is used twice
    Column("epoch", BigInteger, nullable=False),  # one fencing counter per secret, over all its rotations
    Column("known", Boolean, nullable=False),  # False: only its numbers and epochs are left
)

versions = Table(
    "versions",
    metadata,
    Column("secret", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("id", Text, nullable=False),
    Column("binding", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("sealed", LargeBinary),
    Column("handle", Text),
    Column("expires_at", Moment),
    Column("acceptance", Text, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("compromised", Boolean, nullable=False),
)

labels = Table(
    "labels",
    metadata,
    Column("secret", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    ForeignKeyConstraint(["secret", "number"], ["versions.secret", "versions.number"], name="labels_versions"),
)

rotations = Table(
    "rotations",
    metadata,
    Column("seq", _SERIAL, primary_key=True, autoincrement=True),  # their order; clocks may step
    Column("id", Text, nullable=False, unique=True),
    Column("secret", Text, nullable=False, index=True),
    Column("open", Boolean, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    sqlite_autoincrement=True,
)

# Invariant 4: whatever the code does, a secret has one open rotation. In PostgreSQL too: the migration says
# `postgresql_where`, which here would load that dialect, with asyncpg's and psycopg's, into every command.
one_open_rotation = Index("one_open_rotation", rotations.c.secret, unique=True, sqlite_where=text("open"))

charges = Table(
    "charges",
    metadata,
    Column("seq", _SERIAL, primary_key=True, autoincrement=True),
    Column("scope", Text, nullable=False),  # account | address
    Column("name", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Index("charges_name", "scope", "name"),
    sqlite_autoincrement=True,
)

pauses = Table(
    "pauses",
    metadata,
    Column("secret", Text, primary_key=True),
    Column("until", Moment),
    Column("reason", Text, nullable=False),
    Column("since", Moment, nullable=False),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("log", Text, primary_key=True),  # one audit log per daemon
    Column("seq", BigInteger, nullable=False),
    Column("mac", Text, nullable=False),
)
