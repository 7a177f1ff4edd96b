from __future__ import annotations

import os
import pwd
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from tests.unit.store.conftest import Place
from tests.unit.store.samples import AUDIT_KEY, SECRET, StillClock, rotation, version
from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised, StoreDamaged
from vaultkeeper.ports import Change
from vaultkeeper.store import schema
from vaultkeeper.store.opening import create_store, open_store
from vaultkeeper.store.tables import REVISION, metadata

PAGE_BYTES = 4096


def test_migrations_make_exactly_the_tables_that_the_code_uses(place: Place) -> None:
    store = place.create()
    with store._reader() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [
            d for d in compare_metadata(context, metadata) if not (isinstance(d, list) and d[0][0] == "modify_type")
        ]
    assert differences == []


def test_the_newest_migration_is_the_one_that_the_code_expects() -> None:
    scripts = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert scripts.get_heads() == [REVISION]


def test_create_completes_what_an_interrupted_create_left_and_open_finds_it(place: Place) -> None:
    place.create().open_rotation(rotation(), Change())
    place.create()
    assert len(place.open().open_rotations()) == 1


def test_the_state_of_another_installation_is_refused_by_name(place: Place) -> None:
    place.create()
    for how in (create_store, open_store):
        with pytest.raises(ConfigurationInvalid, match=r"it is inst-1, this one is inst-2"):
            how(place.state_dir, AUDIT_KEY, "inst-2", place.clock, database_url=place.database_url)


def test_a_newer_schema_is_refused_by_both_numbers_and_left_alone(place: Place) -> None:
    store = place.create()
    with store._database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    for how in (place.open, place.create):
        with pytest.raises(ConfigurationInvalid, match=r"schema 0099: .* up to 0001"):
            how()


def test_a_place_without_state_is_named(tmp_path: Path) -> None:
    for directory in (tmp_path / "missing", tmp_path):
        tmp_path.chmod(0o700)
        with pytest.raises(ConfigurationInvalid, match="no state"):
            open_store(directory, AUDIT_KEY, "inst-1", StillClock())
    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_file_is_no_state(here: Place) -> None:
    here.state_dir.mkdir(mode=0o700)
    (here.state_dir / "state.db").touch(mode=0o600)
    with pytest.raises(ConfigurationInvalid, match="no state"):
        here.open()


# --------------------------------------------------------------------------------------------------- whose it is


def test_every_file_of_a_store_is_closed_to_others_whatever_the_umask(here: Place) -> None:
    before = os.umask(0)
    try:
        store = here.create()
        store.audit({})
        with store.hold("secret:a"):
            store.open_rotation(rotation(), Change())
    finally:
        os.umask(before)
    files = sorted(p for p in here.state_dir.rglob("*") if p.is_file())
    assert [f.name for f in files if f.parent == here.state_dir] == [
        "audit.log", "ballast", "state.db", "state.db-shm", "state.db-wal",
    ]  # fmt: skip
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert {d.stat().st_mode & 0o777 for d in (here.state_dir, here.state_dir / "locks")} == {0o700}


@pytest.mark.parametrize("name", [".", "state.db"])
def test_state_that_others_may_read_is_refused_with_the_command_that_closes_it(here: Place, name: str) -> None:
    here.create()
    path = here.state_dir / name
    path.chmod(0o755 if path.is_dir() else 0o640)
    with pytest.raises(NotAuthorised) as caught:
        here.open()
    assert caught.value.next.startswith("chmod ")


def test_state_of_another_user_is_refused_by_name(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here.create()
    owner = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(NotAuthorised, match=f"belongs to {owner}"):
        here.open()


# ------------------------------------------------------------------------------------------------------- damage


def _filled(here: Place) -> bytes:
    store = here.create()
    for number in range(1, 40):
        store.amend(SECRET, Change(new_version=version(number, sealed=os.urandom(900))))
    store.close()
    here.opened.clear()
    return (here.state_dir / "state.db").read_bytes()


def test_every_overwritten_page_is_found_at_open(here: Place) -> None:
    whole = _filled(here)
    file = here.state_dir / "state.db"
    pages = len(whole) // PAGE_BYTES
    assert pages > 10
    for page in range(pages):
        start = page * PAGE_BYTES
        file.write_bytes(whole[:start] + b"\xa5" * PAGE_BYTES + whole[start + PAGE_BYTES :])
        with pytest.raises(StoreDamaged) as caught:
            here.open()
        assert "backup" in caught.value.next
    file.write_bytes(whole)
    assert len(here.open().versions(SECRET)) == 39


def test_a_cut_database_is_found_at_open(here: Place) -> None:
    whole = _filled(here)
    (here.state_dir / "state.db").write_bytes(whole[: len(whole) - 3 * PAGE_BYTES])
    with pytest.raises(StoreDamaged):
        here.open()


def test_a_journal_document_that_was_edited_is_damage_not_a_guess(here: Place) -> None:
    store = here.create()
    store.open_rotation(rotation(), Change())
    with sqlite3.connect(here.state_dir / "state.db") as connection:
        connection.execute('UPDATE rotations SET document = replace(document, \'"at":0\', \'"at":"x"\')')
    with pytest.raises(StoreDamaged, match=r"rotation\.at"):
        store.open_rotations()
