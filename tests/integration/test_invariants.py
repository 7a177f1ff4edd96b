"""Invariants at the level of the real command and a real PostgreSQL, where no other test of their name has them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartPostgres
from tests.integration.shop_kit import NAME, Shop, shop, single, taking_turns, told
from tests.servers import TestAccount
from tests.servers.postgres import PostgresServer


def at_the_target(place: Shop) -> list[tuple[object, ...]]:
    """Name, stored verifier and comment of every account that the policy names and that there is."""
    settings = place.account.settings
    names = settings.get("users", [settings.get("user")])
    return place.server.execute(
        "SELECT rolname, rolpassword, rolcanlogin, coalesce(shobj_description(oid, 'pg_authid'), '')"
        " FROM pg_authid WHERE rolname = ANY(%s) ORDER BY 1",
        [names],
    )


def everything(place: Shop) -> list[object]:
    """What target and consumers hold, and which versions there are."""
    return [at_the_target(place), place.delivered_file.read_bytes(), place.status()["version"], place.stored()]


# ------------------------------------------------------------------------------------------------------- 5: verified


@pytest.fixture
def trusting(new_postgres: StartPostgres) -> PostgresServer:
    return new_postgres(hba="trust")


def test_invariant_05_a_server_that_trusts_everybody_is_refused_at_adopt_and_nothing_is_stored(
    trusting: PostgresServer, tmp_path: Path
) -> None:
    account = trusting.account()
    place = shop(tmp_path, trusting, account, adopted=False)
    given = json.dumps({"username": account.username, "password": account.password})
    ran = place.vk("adopt", NAME, stdin=given)
    assert ran.code in {3, 5}
    error = told(ran)
    assert "trust" in error["why"]
    assert error["next"]
    assert place.vk("get", NAME).code == 2


def test_invariant_05_a_server_that_begins_to_trust_everybody_is_told_and_consumers_keep_what_works(
    new_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = new_postgres()
    account = server.account()
    place = shop(tmp_path, server, account)
    server.cluster.set_hba("trust")
    server.cluster.reload()
    ran = place.vk("rotate", NAME, "--wait", "0s")
    assert ran.code in {5, 6}
    error = told(ran)
    assert "trust" in error["why"]
    assert error["works"]
    assert not place.delivered_file.exists()
    server.cluster.set_hba("scram")
    server.cluster.reload()
    assert place.logs_in((account.username, account.password))
    if place.status()["state"] in {"parked", "waiting"}:
        assert place.resumed("--wait", "90s")["state"] == "done"
    else:
        place.rotated("--wait", "90s")
    assert place.agrees() == ""


# ----------------------------------------------------------------------------------------------------- 6: retire last


def test_invariant_06_nobody_is_cut_off_in_grace_or_while_a_session_uses_the_old_account(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    place = shop(tmp_path, postgres, taking_turns(postgres), grace_period="1s")
    old = place.stored()
    with postgres.connect(*old) as session:
        pid = session.info.backend_pid
        first = place.rotated("--wait", "0s")
        assert (first["state"], first["detail"].partition(" until")[0]) == ("waiting", "waiting (grace)")
        assert place.logs_in(old)
        held = place.resumed("--wait", "3s")
        assert (held["state"], held["detail"].partition(" until")[0]) == ("waiting", "waiting (evidence)")
        assert place.account.username in held["detail"]  # who holds it up
        assert place.logs_in(old)
        assert session.execute("SELECT 1").fetchone() == (1,)
    postgres.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])  # it ends after its client
    ended = place.resumed("--wait", "90s")
    assert ended["state"] == "done"
    assert not place.logs_in(old)
    assert place.agrees() == ""


# ------------------------------------------------------------------------------------------------------ 8: idempotent


@pytest.mark.parametrize("kind", [single, taking_turns], ids=["single", "alternating"])
def test_invariant_08_what_was_done_already_is_done_again_without_any_difference(
    postgres: PostgresServer, tmp_path: Path, kind: Callable[[PostgresServer], TestAccount]
) -> None:
    """The journal is put back to where a set was begun, as if its outcome had been lost; and once more."""
    grace = {} if kind is single else {"grace_period": "1s"}
    place = shop(tmp_path, postgres, kind(postgres), adopted=True, **grace)
    with postgres.fault("lost-reply", statement=r"\bCOMMIT\b"):
        assert place.vk("rotate", NAME, "--wait", "0s").code in {5, 6}
    begun = place.backup()
    ends = []
    for _ in range(2):
        assert place.resumed("--wait", "90s")["state"] == "done"
        assert place.agrees() == ""
        accounts = [(*account, str(comment).partition(" epoch")[0]) for *account, comment in at_the_target(place)]
        ends.append([accounts, place.delivered(), place.stored()])
        place.restore(begun)
    assert ends[0] == ends[1]
    assert place.resumed("--wait", "90s")["state"] == "done"
    for command in (["resume", "--all"], ["rotate", "--due"]):
        before = everything(place)
        place.ok(*command)
        assert everything(place) == before


# ----------------------------------------------------------------------------------------------------- 11: recoverable


def test_invariant_11_a_backup_and_the_offline_key_alone_bring_back_an_installation_that_rotates(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    offline = tmp_path / "offline.txt"
    place = shop(tmp_path, postgres, single(postgres), adopted=False)
    shutil.rmtree(place.state)
    (place.home / ".config/vaultkeeper/identity.txt").unlink()
    place.ok("init", "--new-recovery-key", str(offline))
    place.adopt()
    place.rotated()
    backup = place.backup()

    elsewhere = tmp_path / "elsewhere"  # nothing but the backup, the key, and the policies of the repository
    found = Shop(elsewhere / "home", postgres, place.account, place.keys)
    for name in ("policies", "out"):
        (found.home / name).mkdir(parents=True)
    shutil.copytree(backup, found.state)
    shutil.copy(place.home / "policies/shop.yaml", found.home / "policies/shop.yaml")
    value = place.stored()
    shutil.rmtree(place.home)
    assert found.vk("status").code == 4
    found.ok("keys", "recover", str(offline))
    offline.unlink()
    assert found.stored() == value
    assert found.logs_in(value)
    assert found.rotated()["state"] == "done"
    assert found.agrees() == ""
    assert not found.logs_in(value)
    found.ok("audit", "verify")
    found.ok("keys", "check")


# -------------------------------------------------------------------------------------------------------- 13: time-safe


def test_invariant_13_many_missed_runs_make_one_and_none_comes_sooner_than_min_interval(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    place = shop(tmp_path, postgres, single(postgres), rotation_period="1s", min_interval="1s")
    while place.status()["age_seconds"] < 3:  # three runs are missed
        place.ok("plan")
    assert place.ok("rotate", "--due", "--json").json["changed"] == 1
    place.policy(min_interval="1h", rotation_period="2h")
    assert place.ok("rotate", "--due", "--json").json["changed"] == 0
    by_name = place.vk("rotate", NAME)
    assert by_name.code == 7
    assert "min_interval" in told(by_name)["what"]
    everybody = place.ok("rotate", "--all", "--json").json
    assert (everybody["changed"], everybody["rotations"][0]["state"]) == (0, "skipped")
    assert len(place.history()) == 1
    assert place.rotated("--emergency")["state"] == "done"
    assert place.agrees() == ""


# ------------------------------------------------------------------------------------------------------------- 14: loud


def a_folder(log: Path) -> None:
    log.unlink()
    log.mkdir()


def a_link(log: Path) -> None:
    log.unlink()
    log.symlink_to("/dev/full")


def a_full_device(log: Path) -> None:
    """Opened as before, and every write fails."""
    log.unlink()
    os.mknod(log, 0o600 | 0o020000, os.makedev(1, 7))


SPOILT = [a_folder, a_link, *([a_full_device] if os.geteuid() == 0 else [])]


@pytest.mark.parametrize("spoil", SPOILT)
def test_invariant_14_without_its_audit_log_nothing_is_begun_and_nothing_is_retired(
    postgres: PostgresServer, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    place = shop(tmp_path, postgres, taking_turns(postgres), grace_period="1s")
    log = place.state / "audit.log"
    kept = place.home / "audit.log"
    shutil.copy(log, kept)
    before = at_the_target(place)
    spoil(log)
    _loud(place, "rotate", NAME, "--wait", "0s")
    assert at_the_target(place) == before
    assert not place.delivered_file.exists()
    _put_back(log, kept)
    begin = "resume" if place.status()["state"] not in {"ok", "rolled_back"} else "rotate"
    place.ok(begin, NAME, "--wait", "0s")

    shutil.copy(log, kept)
    before = at_the_target(place)
    digest = hashlib.sha256(place.delivered_file.read_bytes()).digest()
    spoil(log)
    _loud(place, "resume", NAME, "--wait", "3s")
    assert at_the_target(place) == before
    assert hashlib.sha256(place.delivered_file.read_bytes()).digest() == digest
    assert place.logs_in((place.account.username, place.account.password))
    _put_back(log, kept)
    assert place.resumed("--wait", "90s")["state"] == "done"
    assert place.agrees() == ""
    place.ok("audit", "verify")


def _loud(place: Shop, *arguments: str) -> None:
    ran = place.vk(*arguments)
    assert ran.code == 5, ran.out + ran.err
    error = told(ran)
    assert error["code"] == "VK-AUDIT"
    assert "audit.log" in error["what"]
    assert error["why"]
    assert error["works"]
    assert "vaultkeeper resume --all" in error["next"]


def _put_back(log: Path, kept: Path) -> None:
    if log.is_dir() and not log.is_symlink():
        log.rmdir()
    else:
        log.unlink()
    shutil.copy(kept, log)
    log.chmod(0o600)
