"""Files, folders, defaults and connections."""

from __future__ import annotations

import gc
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.policyfile.conftest import Folder
from tests.unit.policyfile.kinds import Kinds
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.policy import Cron, Place
from vaultkeeper.policyfile import load, show

SHOP = """
defaults: {owner: platform, rotation_schedule: quarterly, grace_period: 24h, rotation_window: 2h}
connections:
  pg: {kind: database, host: db, port: 1, admin: {username: rotator, password: {file: keys/pg}}, ca: ca.pem}
secrets:
  shop/rotator:
    generator: {kind: password}
    target: {kind: database, host: db, user: rotator, admin: self, strategy: single}
  shop/db:
    generator: {kind: password}
    depends_on: [shop/rotator]
    rotation_period: 30d
    target: {use: pg, port: 2, strategy: alternating_users, users: [a, b]}
    destinations:
      - {kind: file, path: out/url, read: at_start, value: "x://{username}:{password|url}@db"}
  shop/name: {static: shop, destinations: [{kind: dotenv, path: .env, values: {DB: "{value}"}}]}
"""


def test_a_connection_is_merged_one_level_deep_and_keys_beside_it_win(folder: Folder) -> None:
    target = folder.load(SHOP)["shop/db"].target
    assert target is not None
    assert target.settings == {
        "host": "db",
        "port": 2,
        "admin": {"username": "rotator", "password": {"file": str(folder.path / "keys/pg")}},
        "ca": str(folder.path / "ca.pem"),
        "users": ["a", "b"],
    }


def test_an_own_period_replaces_an_inherited_schedule_and_the_other_way_round(folder: Folder) -> None:
    shop = folder.load(SHOP)
    assert (shop["shop/db"].rotation_period, shop["shop/db"].rotation_schedule) == (timedelta(days=30), None)
    assert shop["shop/rotator"].rotation_schedule == Cron("0 0 1 1,4,7,10 *")
    folder.write("_defaults.yaml", "defaults: {rotation_period: 7d}\n")
    assert folder.load(SHOP)["shop/rotator"].rotation_period is None


def test_a_default_that_does_not_apply_is_ignored(folder: Folder) -> None:
    shop = folder.load(SHOP)
    assert shop["shop/rotator"].grace_period == timedelta(0)  # single takes none
    assert shop["shop/name"].rotation_schedule is None  # static is due when its text changes
    assert shop["shop/db"].rotation_window is None  # 2h after which scheduled time?
    assert shop["shop/rotator"].rotation_window is not None


def test_a_folders_defaults_hold_below_it_and_inner_ones_win(folder: Folder) -> None:
    folder.write(
        "_defaults.yaml",
        "defaults: {owner: outer, timezone: Europe/Paris}\nconnections: {f: {kind: file, path: x, read: copy}}\n",
    )
    folder.write("team/_defaults.yaml", "defaults: {owner: inner}\n")
    file = folder.write("team/deep/a.yaml", "secrets:\n  s: {static: x, destinations: [{use: f}]}\n")
    for paths in ([folder.path], [file]):
        policy = load(paths, Kinds())["s"]
        assert (policy.owner, policy.timezone) == ("inner", "Europe/Paris")
        assert policy.destinations[0].settings == {"path": str(folder.path / "x")}  # counts from where it stands


def test_a_path_counts_from_the_file_in_which_it_stands(folder: Folder) -> None:
    folder.write(
        "_defaults.yaml", "connections: {db: {kind: database, host: h, user: u, strategy: overlap, ca: ca.pem}}\n"
    )
    folder.write("team/a.yaml", "secrets:\n  s: {generator: {kind: password}, target: {use: db, cert: own.pem}}\n")
    target = folder.load()["s"].target
    assert target is not None
    assert target.settings["ca"] == str(folder.path / "ca.pem")
    assert target.settings["cert"] == str(folder.path / "team/own.pem")


def test_loading_leaves_garbage_collection_as_it_was(folder: Folder) -> None:
    assert gc.isenabled()
    folder.errors("secrets: {s: {}}\n")
    assert gc.isenabled()


def test_defaults_above_a_folder_that_everybody_may_write_to_are_not_ours(folder: Folder) -> None:
    folder.write("_defaults.yaml", "defaults: {owner: somebody}\n")
    (folder.path / "mine").mkdir()
    file = folder.write("mine/a.yaml", "secrets:\n  s: {static: x}\n")
    folder.path.chmod(0o777)
    try:
        assert load([file], Kinds())["s"].owner == ""
    finally:
        folder.path.chmod(0o700)


def test_all_errors_of_all_files_are_told_in_one_run(folder: Folder) -> None:
    folder.write("a.yaml", "secrets:\n  a: {owner: 5}\n  b: {static: x, ownr: me}\n")
    folder.write("b.yaml", "secrets: [a\n")
    folder.write("c.yaml", "secret: {}\n")
    folder.write(
        "d.yaml",
        "secrets:\n  d:\n    generator: {kind: pasword}\n    target: {kind: databse}\n"
        "    destinations: [{kind: file}, {kind: fil}]\n    rotation_period: 3\n  a: {static: x}\n",
    )
    told = folder.errors()
    assert [line.partition(" ")[0].rstrip(":") for line in told] == [
        "a.yaml:2:3", "a.yaml:2:7", "a.yaml:3:18", "b.yaml:2:1", "c.yaml:1:1", "c.yaml:1:1", "d.yaml:3:17",
        "d.yaml:4:14", "d.yaml:5:20", "d.yaml:5:20", "d.yaml:5:35", "d.yaml:6:5", "d.yaml:7:3",
    ]  # fmt: skip
    assert told[-1] == "d.yaml:7:3 a: a duplicate name: it stands at a.yaml:2:3 already"


def test_a_misspelt_dependency_of_another_file_is_told_although_that_file_has_errors(folder: Folder) -> None:
    folder.write("a.yaml", "secrets:\n  shop/db: {static: 5}\n")
    folder.write("b.yaml", "secrets:\n  b: {static: x, depends_on: [shop/db, shop/dbb]}\n")
    assert folder.errors()[1:] == ["b.yaml:2:18 b.depends_on: no secret `shop/dbb`; did you mean `shop/db`?"]


def test_encrypted_and_hidden_files_beside_policies_are_left_alone(folder: Folder) -> None:
    folder.write("shop.sops.yaml", "a: ENC[...]\n")
    folder.write("other.yaml", "a: ENC[...]\nsops: {mac: x}\n")
    folder.write(".hidden.yaml", "a: b\n")
    folder.write(".git/x.yaml", "a: b\n")
    assert folder.load("secrets:\n  s: {static: x}\n").keys() == {"s"}


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match="no such file or folder"):
        load([tmp_path / "nothing.yaml"], Kinds())


def test_a_file_given_twice_is_read_once(folder: Folder) -> None:
    file = folder.write("a.yaml", "secrets:\n  s: {static: x}\n")
    assert load([file, folder.path, file], Kinds()).keys() == {"s"}


def test_what_check_shows_reads_back_as_the_same_policies(folder: Folder) -> None:
    shop = folder.load(SHOP)
    again = folder.load(show(shop.values()))
    nowhere = Place("")
    assert [replace(p, place=nowhere) for p in again.values()] == [replace(p, place=nowhere) for p in shop.values()]
