"""Processes that work on one store at the same moment."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

from tests.crash.store import race
from tests.unit.store.conftest import Place
from tests.unit.store.samples import AUDIT_KEY, SECRET, StillClock
from vaultkeeper.store.audit import Head, verify
from vaultkeeper.store.opening import create_store
from vaultkeeper.store.sqlite import LOCKS


def test_invariant_04_eight_processes_never_open_two_rotations_and_numbers_have_no_gap(place: Place) -> None:
    place.create().close()
    processes, rounds = 8, 25
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    arguments = (place.state_dir, place.database_url, rounds, barrier, results)
    children = [context.Process(target=race.contend, args=arguments) for _ in range(processes)]
    for child in children:
        child.start()
    outcomes = [results.get(timeout=600) for _ in range(processes * rounds)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * processes
    assert sorted(n for n in outcomes if n is not None) == list(range(1, rounds + 1))
    assert outcomes.count(None) == (processes - 1) * rounds
    assert [v.number for v in place.open().versions(SECRET)] == list(range(1, rounds + 1))


def test_processes_that_create_the_same_store_at_once_make_one(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (place.state_dir, AUDIT_KEY, "inst-1", StillClock())
    children = [
        context.Process(target=create_store, args=arguments, kwargs={"database_url": place.database_url})
        for _ in range(4)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert list(place.open().secrets()) == []


def test_processes_that_find_a_new_database_at_once_all_get_in(tmp_path: Path) -> None:
    """SQLite refuses one of two that turn on its log, and does not wait; seen once in some hundred times."""
    processes, folders = 6, [tmp_path / str(number) for number in range(60)]
    for folder in folders:
        (folder / LOCKS).mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    arguments = (folders, context.Barrier(processes))
    children = [context.Process(target=race.check, args=arguments) for _ in range(processes)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * processes


def test_many_processes_write_one_chain(here: Place) -> None:
    here.create()
    processes, records = 4, 100
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    children = [
        context.Process(target=race.record, args=(here.state_dir, by, records, barrier)) for by in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    log = here.state_dir / "audit.log"
    written = [json.loads(line)["record"] for line in log.read_text().splitlines()]
    assert len(written) == processes * records
    for by in range(processes):
        assert [r["n"] for r in written if r["by"] == by] == list(range(records))
    assert verify(log, AUDIT_KEY, Head()) is None
