"""What tests/unit/store and tests/crash/store show of a store on SQLite, shown of one on PostgreSQL."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from tests.crash.store import test_store_races
from tests.servers.postgres import PostgresServer
from tests.unit.store import test_audit, test_opening, test_store
from tests.unit.store.conftest import Place, here, store

__all__ = ["here", "store"]


@pytest.fixture
def place(postgres: PostgresServer, tmp_path: Path) -> Iterator[Place]:
    name = f"vk_{secrets.token_hex(4)}"
    account = postgres.account(name)
    postgres.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
    url = f"postgresql://{name}:{account.password}@{postgres.host}:{postgres.port}/{name}"
    place = Place(tmp_path / "state", url)
    yield place
    place.close()


for module in (test_audit, test_opening, test_store, test_store_races):
    for name, test in vars(module).items():
        if name.startswith("test_") and {"place", "store"} & inspect.signature(test).parameters.keys():
            assert name not in globals(), f"two tests of this name: {name}"
            globals()[name] = test
