"""What tests/unit/store and tests/crash/store show of a store on SQLite, shown of one on PostgreSQL."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from psycopg import sql
from sqlalchemy import text

from tests.crash.store import test_store_races
from tests.servers.postgres import PostgresServer
from tests.unit.store import test_audit, test_opening, test_store
from tests.unit.store.conftest import Place, here, store
from vaultkeeper.store import postgres as store_on_postgres

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


def test_who_finds_another_one_migrating_waits_longer_than_for_any_other_lock(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_on_postgres, "_LOCK_TIMEOUT_MS", 100)
    engine = store_on_postgres.PostgresEngine(str(place.database_url))
    with ThreadPoolExecutor() as threads:
        with engine.writing() as migrating:
            engine.exclude_migrations(migrating)
            made = threads.submit(place.create)
            waits = text(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
                " AND query_start < clock_timestamp() - interval '0.5 s'"
            )
            while not migrating.execute(waits).first():
                assert not made.done()
                migrating.execute(text("SELECT pg_stat_clear_snapshot()"))
        assert list(made.result().secrets()) == []
    engine.close()


for module in (test_audit, test_opening, test_store, test_store_races):
    for name, test in vars(module).items():
        if name.startswith("test_") and {"place", "store"} & inspect.signature(test).parameters.keys():
            assert name not in globals(), f"two tests of this name: {name}"
            globals()[name] = test
