"""The command line over a real PostgreSQL: from adopting to a refused old account, and what it says when that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Vk
from tests.servers import TestAccount
from tests.servers.postgres import PostgresServer


def policy(home: Path, account: TestAccount, **keys: Any) -> None:
    """Write the policy of shop/db. JSON is YAML."""
    secret = {
        "generator": {"kind": "password", "length": 32},
        "target": {**account.settings, "timeout": "1min"},
        "destinations": [
            {
                "kind": "dotenv",
                "path": "../out/.env",
                "read": "per_use",
                "values": {"DB_USER": "{username}", "DB_PASSWORD": "{password}"},
            }
        ],
        "min_interval": "0s",
    }
    (home / "policies").mkdir(exist_ok=True)
    (home / "out").mkdir(exist_ok=True)
    (home / "policies/shop.yaml").write_text(json.dumps({"secrets": {"shop/db": secret | keys}}))


def delivered(home: Path) -> dict[str, str]:
    lines = (home / "out/.env").read_text().splitlines()
    return {name: value.strip("'\"") for name, _, value in (line.partition("=") for line in lines)}


def adopt(vk: Vk, account: TestAccount) -> None:
    given = json.dumps({"username": account.username, "password": account.password})
    ran = vk("adopt", "shop/db", stdin=given)
    assert ran.code == 0, ran.err


def test_from_adopting_to_a_refused_old_account(installed: Vk, home: Path, postgres: PostgresServer) -> None:
    account = postgres.alternating()
    policy(
        home,
        TestAccount(account.username, account.password, {**account.settings, "create_users": True}),
        grace_period="1h",
    )
    adopt(installed, account)
    ran = installed("rotate", "shop/db", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["changed"] == 1
    assert (ran.json["rotations"][0]["state"], ran.json["rotations"][0]["from_version"]) == ("waiting", 1)
    new = delivered(home)
    assert new["DB_USER"] != account.username
    assert postgres.login(new["DB_USER"], new["DB_PASSWORD"])
    assert postgres.login(account.username, account.password)  # in grace

    assert installed("rotate", "shop/db").code == 7  # still open
    skipped = installed("rotate", "--all", "--json")
    assert (skipped.code, skipped.json["changed"]) == (0, 0)

    leaked = installed("rotate", "shop/db", "--emergency", "--reason", "leaked", "--json")
    assert leaked.code == 0, leaked.err
    assert not postgres.login(account.username, account.password)
    assert not postgres.login(new["DB_USER"], new["DB_PASSWORD"])
    newest = delivered(home)
    assert postgres.login(newest["DB_USER"], newest["DB_PASSWORD"])


def test_a_wrong_value_is_not_adopted_and_exits_5_without_repeating_it(
    installed: Vk, home: Path, postgres: PostgresServer
) -> None:
    account = postgres.account()
    policy(home, account)
    ran = installed("adopt", "shop/db", stdin=f'{{"username": "{account.username}", "password": "wrong-horse"}}')
    assert ran.code == 5
    assert "wrong-horse" not in ran.out + ran.err
    assert "  works  " in ran.err
    assert installed("get", "shop/db").code == 2


def test_an_unreachable_target_is_a_warning_in_check_and_5_in_rotate_with_the_old_value_working(
    installed: Vk, home: Path, postgres: PostgresServer
) -> None:
    account = postgres.account(through_proxy=True)
    policy(home, account)
    adopt(installed, account)
    with postgres.fault("unreachable"):
        checked = installed("check", "--json")
        assert checked.code == 0, checked.err
        assert {finding["level"] for finding in checked.json["findings"]} & {"warn", "unchecked"}
        ran = installed("rotate", "shop/db", "--wait", "1s", "--json")
    assert ran.code == 5, ran.err
    assert ran.json["rotations"][0]["state"] == "waiting"
    assert len([line for line in ran.err.splitlines() if line.startswith("shop/db: waiting (unreachable) until ")]) == 1
    assert "v1" in ran.json["rotations"][0]["error"]["works"]
    assert postgres.login(account.username, account.password)
    resumed = installed("resume", "--all", "--json")
    assert resumed.code == 0, resumed.err
    assert postgres.login(account.username, delivered(home)["DB_PASSWORD"])
    assert not postgres.login(account.username, account.password)


def test_a_rehearsal_touches_no_consumer_and_leaves_the_old_account_alone(
    installed: Vk, home: Path, postgres: PostgresServer
) -> None:
    account = postgres.alternating()
    policy(home, TestAccount(account.username, account.password, {**account.settings, "create_users": True}))
    adopt(installed, account)
    ran = installed("rotate", "shop/db", "--rehearse", "--json")
    assert ran.code == 0, ran.err
    assert not (home / "out/.env").exists()
    assert postgres.login(account.username, account.password)
    assert installed("get", "shop/db", "--field", "password").out == account.password


def test_an_account_in_use_that_was_never_adopted_is_not_overwritten_without_replace(
    installed: Vk, home: Path, postgres: PostgresServer
) -> None:
    account = postgres.account()
    policy(home, account)
    ran = installed("rotate", "shop/db")
    assert ran.code in {5, 6}
    assert "--replace" in ran.err or "adopt" in ran.err
    assert postgres.login(account.username, account.password)


def test_doctor_sql_prints_statements_and_no_password(installed: Vk, home: Path, postgres: PostgresServer) -> None:
    policy(home, postgres.account())
    ran = installed("doctor", "--sql")
    assert ran.code == 0, ran.err
    assert "CREATE ROLE" in ran.out
    assert postgres.superuser_password not in ran.out


@pytest.mark.parametrize("flag", ["", "-vv"])
def test_no_value_is_in_anything_the_commands_say(
    installed: Vk, home: Path, postgres: PostgresServer, flag: str
) -> None:
    account = postgres.account()
    policy(home, account)
    adopt(installed, account)
    said = ""
    for command in (["rotate", "shop/db"], ["status"], ["plan"], ["check"], ["rollback", "shop/db"]):
        ran = installed(*command, *filter(None, [flag]))
        said += ran.out + ran.err
    for value in (account.password, postgres.superuser_password, delivered(home)["DB_PASSWORD"]):
        assert value not in said
