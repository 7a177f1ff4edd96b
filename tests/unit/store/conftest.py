"""A store on each engine. `engine` tests run on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from psycopg import sql

from tests.servers.postgres import PostgresServer
from tests.unit.store.samples import AUDIT_KEY, INSTALLATION, StillClock
from vaultkeeper.store.database import SqlStore
from vaultkeeper.store.opening import create_store, open_store


@dataclass
class Place:
    """Where a test's state is, and the stores that it opened there."""

    state_dir: Path
    database_url: str | None = None
    clock: StillClock = field(default_factory=StillClock)
    opened: list[SqlStore] = field(default_factory=list)

    def create(self) -> SqlStore:
        return self._keep(create_store)

    def open(self) -> SqlStore:
        return self._keep(open_store)

    def _keep(self, how: Callable[..., SqlStore]) -> SqlStore:
        store = how(self.state_dir, AUDIT_KEY, INSTALLATION, self.clock, database_url=self.database_url)
        self.opened.append(store)
        return store


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = None if request.param == "sqlite" else _new_database(request.getfixturevalue("postgres"))
    place = Place(tmp_path / "state", url)
    yield place
    for store in place.opened:
        store.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    """SQLite alone."""
    place = Place(tmp_path / "state")
    yield place
    for store in place.opened:
        store.close()


@pytest.fixture
def store(place: Place) -> SqlStore:
    return place.create()


def _new_database(server: PostgresServer) -> str:
    name = f"vk_{secrets.token_hex(4)}"
    account = server.account(name)
    server.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
    return f"postgresql://{name}:{account.password}@{server.host}:{server.port}/{name}"
