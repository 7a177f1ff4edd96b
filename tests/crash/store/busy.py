"""Works on a store until it is killed or its disk is full: `python -m tests.crash.store.busy HOW DIR`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tests.unit.store.samples import AUDIT_KEY, INSTALLATION, SECRET, StillClock, rotation, version
from vaultkeeper.errors import StoreFull
from vaultkeeper.model.rotation import Rotation, State
from vaultkeeper.model.secret import StagingLabel
from vaultkeeper.ports import Change
from vaultkeeper.store.database import SqlStore
from vaultkeeper.store.opening import open_store


def commit_for_ever(store: SqlStore) -> None:
    """Each commit says its number in four places; the number is printed when it is acknowledged."""
    opened = store.open_rotation(rotation(), Change())
    number = 0
    while True:
        number += 1
        store.audit({"n": number})
        tried = replace(opened, tries=number, detail="x" * 3000)
        store.commit(Change(rotation=tried, new_version=version(number), labels={StagingLabel.PENDING: number}))
        print(number, flush=True)


def count_syncs(store: SqlStore) -> None:
    """`access` calls of a marker name frame ten commits in the system call trace."""
    opened = store.open_rotation(rotation(), Change())
    for number in range(1, 21):
        os.access(f"/marker-{number}", os.F_OK)
        change = Change(rotation=replace(opened, tries=number), new_version=version(number))
        store.commit(replace(change, labels={StagingLabel.PENDING: number}))
    os.access("/marker-audit", os.F_OK)
    store.audit({"event": "set"})
    os.access("/marker-end", os.F_OK)


def fill_then_finish(store: SqlStore, disk: Path) -> None:
    """Fill the disk, see new work refused and begun work ended, also by a restarted process."""
    begun = store.open_rotation(rotation(), Change())
    fill(store, disk)
    assert (disk / "ballast").exists()
    finish(store, begun, 1)
    assert not (disk / "ballast").exists()
    refuse_new(store)
    store.close()
    restarted = open_store(disk, AUDIT_KEY, INSTALLATION, StillClock())
    (found,) = [r for r in restarted.open_rotations() if r.secret == SECRET]
    finish(restarted, restarted.take(found.id), 21)
    refuse_new(restarted)
    restarted.close()


def restart_on_full_disk(store: SqlStore, disk: Path) -> None:
    """Others fill the disk while nobody runs: opening alone takes room that is not there."""
    store.open_rotation(rotation(), Change())
    store.close()
    fill_disk(disk)
    restarted = open_store(disk, AUDIT_KEY, INSTALLATION, StillClock())
    assert not (disk / "ballast").exists()
    (found,) = restarted.open_rotations()
    begun = restarted.take(found.id)
    finish(restarted, begun, 1)
    refuse_new(restarted)
    finish(restarted, begun, 21)
    restarted.close()


def hit_limit_then_finish(store: SqlStore) -> None:
    """A file size limit (RLIMIT_FSIZE) or a quota is not ENOSPC, and means the same."""
    begun = store.open_rotation(rotation(), Change())
    fill(store)
    finish(store, begun, 1)
    finish(store, begun, 21)


def fill(store: SqlStore, disk: Path | None = None) -> None:
    """Rotations of other secrets until there is no room: files beside ours first, then our own."""
    if disk is not None:
        fill_disk(disk)
    number = 0
    try:
        while True:
            number += 1
            store.open_rotation(rotation(f"other/{number}", detail="x" * 3000), Change())
    except StoreFull:
        return


def fill_disk(disk: Path) -> None:
    with (disk.parent / "others").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass


def refuse_new(store: SqlStore) -> None:
    try:
        store.open_rotation(rotation("new"), Change())
    except StoreFull:
        return
    raise AssertionError("a rotation was begun on a full disk")


def finish(store: SqlStore, begun: Rotation, first: int) -> None:
    """Twenty steps, each audited and committed; the last one of the second process ends the rotation."""
    for step in range(first, first + 20):
        store.audit({"step": step})
        store.spend_login("a", "db", (1000, StillClock.WINDOW), StillClock().now())
        store.commit(Change(rotation=replace(begun, at=1, tries=step, state=State.DONE if step == 40 else begun.state)))


def main(how: str, directory: Path) -> None:
    store = open_store(directory, AUDIT_KEY, INSTALLATION, StillClock())
    match how:
        case "commit":
            commit_for_ever(store)
        case "count":
            count_syncs(store)
        case "fill":
            fill_then_finish(store, directory)
        case "restart":
            restart_on_full_disk(store, directory)
        case "limit":
            hit_limit_then_finish(store)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
