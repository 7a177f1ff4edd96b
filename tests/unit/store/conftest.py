"""A store on SQLite. What asks for `place` or `store`, tests/integration runs on a real PostgreSQL too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

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

    def close(self) -> None:
        for store in self.opened:
            store.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    """SQLite, whatever `place` is."""
    place = Place(tmp_path / "state")
    yield place
    place.close()


@pytest.fixture
def place(here: Place) -> Place:
    return here


@pytest.fixture
def store(place: Place) -> SqlStore:
    return place.create()
