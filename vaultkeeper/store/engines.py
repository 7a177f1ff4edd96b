"""What differs between database engines, behind one Protocol. Nothing else in `store` knows which one it is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from vaultkeeper.errors import StoreDamaged, VaultkeeperError


class DatabaseEngine(Protocol):
    """One way to keep the tables."""

    engine: Engine  #: for reading: one statement sees one state, two need not see the same

    def hold(self, name: str) -> AbstractContextManager[None]: ...

    def writing(self) -> AbstractContextManager[Connection]:
        """One transaction, durable when the block is left, undone where it raises."""

    def reserve(self) -> None:
        """Is there room to begin something new *and* to end it? Raises StoreFull."""

    def make_room(self) -> None:
        """The disk is full and something begun must end: give up what was set aside. Idempotent."""

    def exclude_migrations(self, connection: Connection) -> None:
        """Until the transaction of `connection` ends, nobody else migrates."""

    def translate(self, error: DBAPIError) -> VaultkeeperError:
        """Never quotes a statement's parameters."""

    def check(self) -> None:
        """Raises StoreDamaged where the database's own integrity check fails."""

    def close(self) -> None: ...


def contradiction(error: IntegrityError) -> VaultkeeperError:
    """A row that the schema refuses: a program error, or a database that was edited by hand."""
    first_line = str(error.orig).splitlines()[0]
    return StoreDamaged("the state refused a contradictory record", why=first_line, works="nothing was changed")
