"""What a person is told when systems fail, and that the command it names leads out. The real command, real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.postgres_kit import comment_on, stored
from tests.integration.shop_kit import KINDS, NAME, Shop, shop, single, taking_turns, told
from tests.servers import ServerMissing
from tests.servers import postgres as postgres_module
from tests.servers.postgres import PostgresServer

kinds = pytest.mark.parametrize("kind", KINDS)
SHORT: dict[str, dict[str, Any]] = {
    "single": {},
    "alternating": {"grace_period": "1s"},
}  # grace is over within a command's patience
RESUME = f"vaultkeeper resume {NAME}"
RECONCILE = f"vaultkeeper reconcile {NAME}"
CUT = "the connection to PostgreSQL ended before it answered"


@pytest.fixture(scope="module")
def backed_up() -> Iterator[PostgresServer]:
    """A server whose data may be put back by the tests of this file."""
    try:
        server = postgres_module.start()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield server
    server.stop()


def rests(place: Shop, version: int) -> None:
    """Everything agrees on this version, nothing is open, and another rotation would be welcome."""
    assert place.agrees() == ""
    status = place.status()
    assert (status["version"], status["state"], status["next"]) == (version, "ok", "")


# ------------------------------------------------------------------------------------------------- a reply gets lost


@kinds
@pytest.mark.parametrize("lost", ["lost-reply", "lost-request"])
def test_a_lost_reply_to_set_is_told_as_unknown_and_resume_finds_out(
    postgres: PostgresServer, tmp_path: Path, kind: str, lost: str
) -> None:
    place = shop(tmp_path, postgres, KINDS[kind](postgres), **SHORT[kind])
    with postgres.fault(lost, statement=r"\bCOMMIT\b") as loss:
        ran = place.vk("rotate", NAME, "--wait", "0s")
    assert loss.hits == 1  # type: ignore[attr-defined]
    assert ran.code == {"single": 6, "alternating": 5}[kind]
    assert told(ran) == {
        "code": {"single": "VK-HALF", "alternating": "VK-ROTATION"}[kind],
        "what": f"{NAME}: waiting (unreachable)",
        "why": CUT,
        "works": {
            "single": "v1 (old) or v2 (new): the target may accept only one of them",
            "alternating": "v1 (old): the target accepts it, v2 (new) may be refused",
        }[kind],
        "next": RESUME,
    }
    status = place.status()
    assert (status["state"], status["version"], status["next"]) == ("waiting", 1, RESUME)
    assert place.logs_in(place.stored(1)) == (kind == "alternating" or lost == "lost-request")
    assert not place.delivered_file.exists()
    assert place.resumed("--wait", "90s")["state"] == "done"
    rests(place, 2)
    assert not place.logs_in(place.stored(1))


@pytest.mark.parametrize("lost", ["lost-reply", "lost-request"])
def test_a_lost_reply_to_retire_leaves_every_consumer_served_and_resume_retires(
    postgres: PostgresServer, tmp_path: Path, lost: str
) -> None:
    place = shop(tmp_path, postgres, taking_turns(postgres), grace_period="1s")
    assert place.rotated("--wait", "0s")["state"] == "waiting"
    with postgres.fault(lost, statement=r"\bCOMMIT\b") as loss:
        ran = place.vk("resume", NAME, "--wait", "3s")
    assert loss.hits == 1  # type: ignore[attr-defined]
    assert ran.code == 5
    assert told(ran) == {
        "code": "VK-ROTATION",
        "what": f"{NAME}: waiting (unreachable)",
        "why": CUT,
        "works": "v2 (new): every consumer runs on it; v1 (old) may still be accepted",
        "next": RESUME,
    }
    assert place.logs_in(place.delivered())
    assert place.resumed("--wait", "90s")["state"] == "done"
    rests(place, 2)
    assert not place.logs_in(place.stored(1))


# ---------------------------------------------------------------------------------------------------- nobody answers


@pytest.mark.parametrize(
    ("kind", "fault", "why"),
    [
        ("single", "unreachable", "PostgreSQL at ADDRESS cannot be reached"),
        ("single", "silent", "PostgreSQL at ADDRESS did not answer in time"),
        ("alternating", "unreachable", "PostgreSQL at ADDRESS cannot be reached"),
    ],
)
def test_an_unreachable_target_changes_nothing_and_the_old_value_is_named_as_working(
    postgres: PostgresServer, tmp_path: Path, kind: str, fault: str, why: str
) -> None:
    place = shop(tmp_path, postgres, KINDS[kind](postgres), **SHORT[kind])
    place.policy(target={**place.account.settings, "timeout": "3s"})
    with postgres.fault(fault):
        ran = place.vk("rotate", NAME, "--wait", "0s")
    assert ran.code == 5
    assert told(ran) == {
        "code": "VK-ROTATION",
        "what": f"{NAME}: waiting (unreachable)",
        "why": why,
        "works": "v1 (old): target and consumers are on it",
        "next": f"{RESUME}   when it answers, or   vaultkeeper rollback {NAME}   where the policy was wrong",
    }
    assert place.logs_in(place.stored())
    assert place.resumed("--wait", "90s")["state"] == "done"
    rests(place, 2)


@kinds
def test_a_target_that_is_lost_between_set_and_test_is_asked_again_by_resume(
    postgres: PostgresServer, tmp_path: Path, kind: str
) -> None:
    place = shop(tmp_path, postgres, KINDS[kind](postgres), **SHORT[kind])
    accounts = place.account.username.removesuffix("_a")
    with postgres.fault("lost-request", statement=rf"user\x00{accounts}", times=1000):  # a login as the account
        ran = place.vk("rotate", NAME, "--wait", "0s")
    assert ran.code == {"single": 6, "alternating": 5}[kind]
    assert told(ran) == {
        "code": {"single": "VK-HALF", "alternating": "VK-ROTATION"}[kind],
        "what": f"{NAME}: waiting (unreachable)",
        "why": "postgres gave no answer to a login as the account",
        "works": {
            "single": "v1 (old) or v2 (new): the target may accept only one of them",
            "alternating": "v1 (old): the target accepts it, v2 (new) may be refused",
        }[kind],
        "next": RESUME,
    }
    assert place.resumed("--wait", "90s")["state"] == "done"
    rests(place, 2)


# ------------------------------------------------------------------------------------------------ a restored target


def put_back(place: Shop, rotations: int) -> None:
    """The target is backed up, the secret rotated on, and the backup restored."""
    name = f"snapshot-{place.account.username}"
    place.server.cluster.snapshot(name)
    for _ in range(rotations):
        place.rotated("--wait", "90s")
    place.server.cluster.restore(name)


@pytest.mark.parametrize(
    ("kind", "direction", "version"), [("single", "set-current", 3), ("alternating", "take-previous", 2)]
)
def test_a_restored_target_is_told_before_anything_is_changed_and_reconcile_leads_out_either_way(
    backed_up: PostgresServer, tmp_path: Path, kind: str, direction: str, version: int
) -> None:
    place = shop(tmp_path, backed_up, KINDS[kind](backed_up), **SHORT[kind])
    place.rotated("--wait", "90s")
    put_back(place, 1)
    ran = place.vk("rotate", NAME, "--wait", "0s")
    assert ran.code == 6  # consumers hold v3, which is refused
    expected = {
        "code": "VK-HALF",
        "what": f"{NAME}: parked (target went back)",
        "why": "the target refuses the newest version and accepts an older one: was a backup put back?",
        "works": "an older version than v3 (old): the target was put back",
        "next": RECONCILE,
    }
    assert told(ran) == expected
    assert place.logs_in(place.stored(2))
    again = place.vk("rotate", NAME)
    assert again.code == 7
    assert told(again)["next"] == RECONCILE
    status = place.status()
    assert (status["state"], status["next"]) == ("parked", RECONCILE)
    proposed = place.ok("reconcile", NAME, "--json").json["proposals"]
    assert [p["key"] for p in proposed] == ["set-current", "take-previous"]
    place.ok("reconcile", NAME, "--apply", direction)
    rests(place, version)
    assert place.rotated("--wait", "90s")["state"] == "done"
    rests(place, 4)


@pytest.mark.parametrize("way", ["adopt", "replace", "reconcile"])
def test_a_target_put_back_further_than_previous_is_ambiguous_and_each_named_way_leads_out(
    backed_up: PostgresServer, tmp_path: Path, way: str
) -> None:
    place = shop(tmp_path, backed_up, single(backed_up))
    put_back(place, 2)
    ran = place.vk("rotate", NAME, "--wait", "0s")
    assert ran.code == 6
    assert told(ran) == {
        "code": "VK-HALF",
        "what": f"{NAME}: ambiguous (none accepted)",
        "why": "the target refuses the newest versions of this store: was it changed by hand, or put back?",
        "works": "none of the newest stored versions was accepted",
        "next": f"vaultkeeper adopt {NAME}   with the value that works, or   vaultkeeper rotate {NAME} --replace",
    }
    if way == "adopt":
        place.adopt()
        assert place.stored() == (place.account.username, place.account.password)
        assert place.status()["state"] == "ok"
        assert place.rotated()["state"] == "done"
    elif way == "replace":
        assert place.rotated("--replace")["state"] == "done"
    else:
        place.ok("reconcile", NAME, "--apply", "set-current")
    rests(place, place.status()["version"])
    assert place.rotated()["state"] == "done"


# ------------------------------------------------------------------------------------------------- a restored store


def at_the_target(place: Shop) -> list[Any]:
    settings = place.account.settings
    names = [settings["user"]] if "user" in settings else settings["users"]
    assert isinstance(names, list)
    return [(stored(place.server, name), comment_on(place.server, name)) for name in map(str, names)]


@pytest.mark.parametrize(
    ("kind", "way"), [("single", "trust-store"), ("alternating", "trust-store"), ("alternating", "newer backup")]
)
def test_invariant_12_a_restored_store_writes_nothing_and_both_proposed_directions_lead_out(
    postgres: PostgresServer, tmp_path: Path, kind: str, way: str
) -> None:
    place = shop(tmp_path, postgres, KINDS[kind](postgres), **SHORT[kind])
    old = place.backup()
    for _ in range(2):
        place.rotated("--wait", "90s")
    new, target, delivered = place.backup(), at_the_target(place), place.delivered_file.read_bytes()
    place.restore(old)
    for command in ("rotate", "resume"):
        ran = place.vk(command, NAME, "--wait", "0s")
        assert ran.code == 6
        assert told(ran) == {
            "code": "VK-HALF",
            "what": f"{NAME}: parked (stale)",
            "why": "the target was last written as generation 3, which this store does not know",
            "works": "what a newer state of this installation set last; this store does not hold it",
            "next": RECONCILE,
        }
    place.ok("reconcile", NAME)
    (proposal,) = place.ok("reconcile", NAME, "--json").json["proposals"]
    assert proposal["key"] == "trust-store"
    assert "restore a newer backup" in proposal["text"]
    assert (at_the_target(place), place.delivered_file.read_bytes()) == (target, delivered)
    if way == "newer backup":
        place.restore(new)
        rests(place, 3)
    else:
        place.ok("reconcile", NAME, "--apply", "trust-store")
        assert place.stored() == (place.account.username, place.account.password)
        rests(place, 4)  # the value of v1, under a number above the tag
    place.rotated("--wait", "90s")
    assert place.agrees() == ""


def test_invariant_12_a_target_that_can_hold_no_tag_is_told_in_the_plan(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    account = postgres.account(through_proxy=True)
    place = shop(tmp_path, postgres, account)
    target = {**account.settings, "admin": "self"}
    place.policy(target=target)
    assert "restored from an old backup is noticed only when its value is refused" in place.ok("plan", NAME).out


def test_a_restored_store_of_an_untagged_account_is_ambiguous_and_adopting_what_consumers_hold_leads_out(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    account = postgres.account(through_proxy=True)
    place = shop(tmp_path, postgres, account, target={**account.settings, "admin": "self"})
    old = place.backup()
    place.rotated()
    place.restore(old)
    ran = place.vk("rotate", NAME, "--wait", "0s")
    assert ran.code == 6
    assert told(ran)["what"] == f"{NAME}: ambiguous (none accepted)"
    username, password = place.delivered()
    place.ok("adopt", NAME, stdin=json.dumps({"username": username, "password": password}))
    assert place.rotated()["state"] == "done"
    assert place.agrees() == ""
