"""One of several processes that do the same thing at the same moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.unit.store.samples import AUDIT_KEY, INSTALLATION, SECRET, StillClock, rotation, version
from vaultkeeper.errors import AlreadyOpen
from vaultkeeper.model.rotation import State
from vaultkeeper.ports import Change
from vaultkeeper.store.opening import open_store
from vaultkeeper.store.sqlite import SqliteEngine


def contend(state_dir: Path, url: str | None, rounds: int, barrier: Barrier, results: Queue[int | None]) -> None:
    """Put the version number of each round that was won, and None for each one lost."""
    store = open_store(state_dir, AUDIT_KEY, INSTALLATION, StillClock(), database_url=url)
    for _ in range(rounds):
        barrier.wait()
        try:
            won = store.open_rotation(rotation(), Change())
        except AlreadyOpen:
            won = None
        barrier.wait()
        number = None
        if won is not None:
            number = store.next_number(SECRET)
            store.commit(Change(rotation=replace(won, state=State.DONE), new_version=version(number)))
        results.put(number)
        barrier.wait()
    store.close()


def check(folders: Sequence[Path], barrier: Barrier) -> None:
    """Look at each new database, all at the same moment."""
    try:
        for folder in folders:
            barrier.wait()
            database = SqliteEngine(folder)
            database.check()
            database.close()
    except BaseException:
        barrier.abort()  # or the others wait for ever
        raise


def record(state_dir: Path, by: int, records: int, barrier: Barrier) -> None:
    """Write numbered audit records."""
    store = open_store(state_dir, AUDIT_KEY, INSTALLATION, StillClock())
    barrier.wait()
    for number in range(records):
        store.audit({"by": by, "n": number})
    store.close()
