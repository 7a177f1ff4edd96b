"""Brings a database to this release's schema, or refuses it."""

from __future__ import annotations

from importlib.resources import files

from sqlalchemy import Connection, inspect, text

from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.store.tables import REVISION


def is_current(connection: Connection) -> bool:
    """Nothing is left to migrate."""
    return _revision(connection) == REVISION


def load_migrations() -> None:
    """Before anybody is kept waiting: what `migrate` works with takes a while to load."""
    import alembic.command
    import alembic.config  # noqa: F401


def migrate(connection: Connection) -> None:
    """Run what is missing, inside the caller's transaction: all of it or nothing. Idempotent.

    Raises ConfigurationInvalid, naming both schemas, where a newer vaultkeeper has migrated this database.
    """
    found = _revision(connection)
    if found == REVISION:
        return
    if found is not None and found > REVISION:
        raise ConfigurationInvalid(
            f"the state database has schema {found}",
            why=f"this vaultkeeper knows schemas up to {REVISION}: a newer one has migrated it",
            works="nothing was changed; the newer vaultkeeper still works with it",
            next="install the newer vaultkeeper again, or restore a backup made with this one",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("vaultkeeper.store") / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found
