"""Accounts at MariaDB and MySQL through the real command, and by use: a client that logs in all the time."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tests.contract.found import servers, started
from tests.integration.hunter import Hunter
from tests.integration.shop_kit import NAME, Shop, installed, shop, told
from tests.servers import TestAccount
from tests.servers.mariadb import MariadbServer
from tests.servers.mariadb import start as start_mariadb
from vaultkeeper import wiring
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.rotate import rotate
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.wiring.places import Wishes
from vaultkeeper.wiring.process import SystemClock

EVERY_S = 0.02
SECRETS, ROUNDS = 4, 5
KINDS = ("mariadb", "mysql")


@pytest.fixture(params=KINDS, scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = started(request.param, servers(request.param).start)
    yield made
    made.stop()


def at(tmp_path: Path, server: Any, **keys: Any) -> Shop:
    return shop(tmp_path, server, server.account(through_proxy=True), grace_period="1s", **keys)


def test_a_life_of_one_account(tmp_path: Path, server: Any) -> None:
    """Adopted, rotated, an answer lost, nobody there, taken back: each time consumers hold what works."""
    place = at(tmp_path, server)
    place.ok("check")
    assert place.rotated("--wait", "10min")["state"] == "done"
    assert server.login(*place.delivered())
    assert not server.login(place.account.username, place.account.password)
    with server.fault("lost-reply") as loss:
        assert place.rotated("--wait", "10min")["state"] == "done"
    assert loss.hits == 1
    with server.fault("unreachable"):
        assert place.rotated("--wait", "0s", code=5)["state"] == "waiting"
    place.policy(grace_period="1h")
    before = place.delivered()
    assert place.resumed("--wait", "0s")["state"] == "waiting"
    assert [server.login(*one) for one in (before, place.delivered())] == [True, True]
    place.ok("rollback", NAME, "--wait", "10min")
    assert place.delivered() == before
    assert place.agrees() == ""


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_a_first_password_comes_beside_what_was_there_and_a_wrong_one_of_the_admin_stops_everything(
    tmp_path: Path, server: Any
) -> None:
    account = server.account(through_proxy=True)
    place = shop(tmp_path, server, account, adopted=False, grace_period="1s")
    assert "--replace" in place.vk("rotate", NAME).err  # somebody may be using it
    place.ok("rotate", NAME, "--replace", "--wait", "10min")
    assert server.login(*place.delivered())
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    admin = {**account.settings["admin"], "password": {"file": str(wrong)}}
    place.account = TestAccount(account.username, account.password, {**account.settings, "admin": admin})
    place.policy()
    ran = place.vk("rotate", NAME)
    assert ran.code == 5
    assert "rejected the password of" in told(ran)["why"]
    assert server.login(*place.delivered())


# ----------------------------------------------------------------------------------------------------------- by use


@dataclass
class Client:
    """Logs in every 20 ms with what it was given; a login that is refused is one too many."""

    server: Any
    file: Path
    over: threading.Event
    turned: threading.Condition
    logins: int = 0
    refused: list[str] = field(default_factory=list)

    def run(self) -> None:
        while not self.over.wait(EVERY_S):
            username, _, password = self.file.read_text().partition(" ")
            try:
                if not self.server.login(username, password):
                    self.refused.append(f"login {self.logins}")
            except OSError as error:
                self.refused.append(str(error))
            with self.turned:
                self.logins += 1
                self.turned.notify_all()


@dataclass
class TheirClock(SystemClock):
    """Who sleeps by it sleeps until each client has logged in eleven times more: grace is longer than a turn."""

    clients: list[Client] = field(default_factory=list)

    def sleep(self, duration: timedelta) -> None:
        super().sleep(duration)
        for client in self.clients:
            with client.turned:
                enough = client.logins + 11
                assert client.turned.wait_for(lambda: client.logins >= enough, 300)  # noqa: B023 - called at once


@contextmanager
def clients(server: Any, files: list[Path]) -> Iterator[list[Client]]:
    over = threading.Event()
    made = [Client(server, file, over, threading.Condition()) for file in files]
    threads = [threading.Thread(target=client.run) for client in made]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def test_invariant_02_nobody_is_refused_over_twenty_rotations_of_four_policies_on_one_server(
    tmp_path: Path, server: Any
) -> None:
    """Two accounts with both passwords for a while, two pairs that take turns."""
    home = installed(tmp_path)
    makers = [server.account, server.alternating] * (SECRETS // 2)
    accounts = {f"shop/{number}": make() for number, make in enumerate(makers)}
    files = {name: home / "out" / name.replace("/", "-") for name in accounts}
    policies = {
        name: {
            "generator": {"kind": "password"}, "target": dict(account.settings), "min_interval": "0s",
            "grace_period": "1s",
            "destinations": [{"kind": "file", "path": str(files[name]), "read": "per_use",
                              "value": "{username} {password}"}],
        }
        for name, account in accounts.items()
    }  # fmt: skip
    (home / "policies/all.yaml").write_text(json.dumps({"secrets": policies}))
    wishes = Wishes(home / ".local/state/vaultkeeper", home / "policies", home / ".config/vaultkeeper/identity.txt")
    opened = wiring.open_installed(wishes)
    try:
        clock = TheirClock()
        parts = replace(wiring.parts(opened, wishes, parallel=SECRETS), clock=clock)
        for name, account in accounts.items():
            known = {"username": account.username, "password": account.password}
            adopt(name, {key: SecretBytes(value.encode()) for key, value in known.items()}, parts)
            files[name].write_text(f"{account.username} {account.password}")
        strangers = [server.account() for _ in range(2)]
        with clients(server, list(files.values())) as made:
            clock.clients = made
            for _ in range(ROUNDS):
                assert [report.state for report in rotate(list(accounts), parts, by_name=True)] == ["done"] * SECRETS
                clock.sleep(timedelta(0))
    finally:
        opened.store.close()
    assert [client.refused for client in made] == [[]] * SECRETS
    assert min(client.logins for client in made) > ROUNDS * 10
    assert all(server.login(one.username, one.password) for one in strangers)
    assert not any(server.login(one.username, one.password) for one in accounts.values())


# ---------------------------------------------------------------------------------------------------------------- leaks


@pytest.fixture
def talkative() -> Iterator[MariadbServer]:
    """A server that writes down everything: general, slow and error log, and the binary log."""
    settings = {
        "general_log": "ON", "general_log_file": "general", "slow_query_log": "ON", "slow_query_log_file": "slow",
        "long_query_time": "0", "log_slow_admin_statements": "ON", "log_warnings": "9", "log_bin": "binary",
        "binlog_format": "STATEMENT",
    }  # fmt: skip
    made = started("mariadb", lambda: start_mariadb(settings=settings))
    yield made
    made.stop()


def test_invariant_09_no_password_is_in_any_log_of_mariadb(tmp_path: Path, talkative: MariadbServer) -> None:
    account = talkative.account(through_proxy=True)
    place = shop(tmp_path, cast("Any", talkative), account, grace_period="1s")
    values = {"adopted": account.password, "admin": talkative.rotator_password}
    for name in ("first", "second"):
        place.rotated("--wait", "10min")
        values[name] = place.delivered()[1]
    single = {**account.settings, "admin": "self", "strategy": "single"}
    place.account = TestAccount(account.username, account.password, single)
    (place.home / "policies/shop.yaml").unlink()
    place.keys = {}
    place.policy()
    place.rotated("--wait", "10min")
    values["by itself"] = place.delivered()[1]
    hunter = look_at(talkative, values)
    assert hunter.hits == []
    assert set(hunter.looked_at) == {"general", "slow", "binary.000001", "error.log"}
    assert min(hunter.looked_at.values()) > 500
    planted = secrets.token_urlsafe(24)
    with talkative.root() as connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER USER '{account.username}'@'%' IDENTIFIED BY '{planted}'")
        cursor.execute("SELECT 1")  # the slow log is written behind a reply, and before the next statement is read
    control = look_at(talkative, {"planted": planted})
    assert {hit.partition(":")[0] for hit in control.hits} >= {"general", "slow", "binary.000001"}


def look_at(server: MariadbServer, values: dict[str, str]) -> Hunter:
    hunter = Hunter(values)
    for name in ("general", "slow", "binary.000001"):
        hunter.look(name, (server.base / "data" / name).read_bytes())
    hunter.look("error.log", server.log_text())
    return hunter
