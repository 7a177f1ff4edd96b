"""A secret id that the server makes, rotated at its role and delivered into its store, whatever happens between."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hunter import Hunter
from tests.servers import ServerMissing
from tests.servers.vault_approle_secret_id import AppRoles
from vaultkeeper import wiring
from vaultkeeper.access import http
from vaultkeeper.access import vault as logins
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.model.rotation import State
from vaultkeeper.model.secret import SecretBytes, StagingLabel
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

NAME = "shop/secret-id"
LONG = timedelta(days=2)
EVERY = int(os.environ.get("VAULTKEEPER_TEST_EVERY", "3"))  # of the calls, in the tests that break each of them


class Hurried:
    """A clock that sleeps at once."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, duration: timedelta) -> None:
        self.ahead += duration


class Bank:
    """One installation, one role at the server, one key in its store."""

    def __init__(self, home: Path, template: Path) -> None:
        shutil.copytree(template, home)
        self.home, self.roles = home, AppRoles()
        self.vault = self.roles.vault
        self.account = self.roles.account()
        self.first = self.account.password
        self.place = {"kind": "vault_kv", "mount": self.vault.mount, "path": "shop/api", **self.vault.connection()}
        self.store = {**self.place, "values": {"secret_id": "{value}"}, "custom_metadata": True, "destroy_old": True}
        self.vault.put("shop/api", {"role": "shop"})
        self.policy(self.store)
        self.installed = wiring.open_installed(self.wishes)
        self.parts: Parts = replace(wiring.parts(self.installed, self.wishes, parallel=1), clock=Hurried())
        adopt(NAME, {"value": SecretBytes(self.first.encode())}, self.parts)
        logins.end()

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.home / "state", self.home / "policies", self.home / "identity.txt")

    def policy(self, *destinations: dict[str, Any]) -> None:
        target = {"kind": "vault_approle_secret_id", **self.account.settings}
        body = {
            "generator": {"kind": "vault", **self.vault.connection()},
            "target": target,
            "destinations": list(destinations),
            "grace_period": "1h",
            "min_interval": "0s",
        }
        (self.home / "policies").mkdir(exist_ok=True)
        (self.home / "policies/one.yaml").write_text(json.dumps({"secrets": {NAME: body}}))

    def reread(self) -> None:
        fresh = wiring.parts(self.installed, self.wishes, parallel=1)
        self.parts = replace(fresh, clock=self.parts.clock)

    def rotate(self) -> Any:
        """As a timer would, until nothing is open or a person is needed."""
        report = rotate([NAME], self.parts, by_name=True, wait=LONG)[0]
        for _ in range(4):
            if not self.parts.store.open_rotations():
                break
            report = resume([NAME], self.parts, wait=LONG)[0]
        return report

    def current(self) -> str:
        book = Book(NAME, self.parts.store, self.parts.envelope, self.parts.redactor)
        version = book.labelled(StagingLabel.CURRENT)
        assert version is not None
        return version.fields["value"].text()

    def held(self) -> dict[str, Any] | None:
        return self.vault.get("shop/api")

    def accepted(self) -> int:
        told = self.vault.api("LIST", f"auth/{self.vault.approle}/role/{self.account.settings['role']}/secret-id")
        return len(told["data"]["keys"])

    def is_whole(self, before: str) -> str:
        """One current value, accepted alone and held by the store; returns it."""
        current = self.current()
        assert current != before
        assert self.roles.login("", current)
        assert not self.roles.login("", before)
        assert self.accepted() == 1
        assert self.held() == {"role": "shop", "secret_id": current}
        return current

    def close(self) -> None:
        logins.end()
        self.installed.store.close()
        self.roles.stop()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    initialise(Wishes(home / "state", None, home / "identity.txt"), Recovery())
    return home


@pytest.fixture
def bank(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bank]:
    monkeypatch.setattr(logins, "FAREWELL_S", 60.0)  # that a login ends is looked at here
    opened = Bank(tmp_path / "home", template)
    yield opened
    opened.close()


def test_a_whole_rotation_leaves_one_value_and_no_login(bank: Bank) -> None:
    assert bank.rotate().exit_code == 0
    current = bank.is_whole(bank.first)
    assert bank.rotate().exit_code == 0
    bank.is_whole(current)
    assert bank.vault.get("shop/api", 2) is None  # held the retired value
    server = bank.vault.simulator
    if server is not None:  # what is left are the two logins of this test
        assert [dict(token.meta).get("role_name") for token in server.state.tokens.values()].count("vaultkeeper") == 0
        assert len(server.state.tokens) == 1 + 2


def test_old_and_new_work_side_by_side_until_grace_is_over(bank: Bank) -> None:
    rotate([NAME], bank.parts, by_name=True, wait=timedelta(minutes=5))
    assert bank.current() != bank.first
    assert bank.roles.login("", bank.current())
    assert bank.roles.login("", bank.first)


def test_a_consumer_that_fails_takes_store_and_role_back(bank: Bank) -> None:
    path = str(bank.home / "consumer")
    only = bank.home / "what it can run on"
    only.write_text(bank.first)
    only_old = {"command": ["/usr/bin/cmp", path, str(only)]}
    broken = {"kind": "file", "path": path, "read": "per_use", "confirm": only_old, "healthy_for": "0s"}
    bank.policy(bank.store, {**broken, "timeout": "1s"})
    bank.reread()
    report = bank.rotate()
    assert report.exit_code == 5
    assert report.rotation.state is State.ROLLED_BACK
    assert bank.current() == bank.first
    assert bank.accepted() == 1
    assert bank.roles.login("", bank.first)
    assert bank.held() == {"role": "shop", "secret_id": bank.first}


class Calls:
    """Our requests, counted; one of them is struck."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.struck_at = 0, 0
        self.strike: Callable[[str], object] = lambda _token: None
        self.mend: Callable[[], object] = lambda: None  #: three calls later
        self.loses = False
        send = http.Channel.call

        def call(channel: http.Channel, *args: Any, **given: Any) -> http.Reply:
            self.made += 1
            struck = self.made == self.struck_at
            if struck:
                self.strike(str((given.get("headers") or {}).get("X-Vault-Token", "")))
            if self.made == self.struck_at + 3:
                self.mend()
            reply = send(channel, *args, **given)
            if struck and self.loses:
                raise http.HttpError("its reply was lost")
            return reply

        monkeypatch.setattr(http.Channel, "call", call)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def broken_at_each_call(bank: Bank, calls: Calls, begin: int) -> None:
    """In each of many rotations another call is struck; afterwards all is whole again."""
    before, number, last = bank.first, begin, begin + 1
    while number <= last:
        calls.made, calls.struck_at = 0, number
        report = bank.rotate()
        last = calls.made if number == begin else last
        calls.mend()
        assert (report.exit_code, number, str(report.error)) == (0, number, "None")
        before, number = bank.is_whole(before), number + EVERY
        bank.parts.clock.sleep(timedelta(hours=1))  # failed logins are forgiven
    assert last > 30


def test_a_reply_lost_at_any_call_leaves_one_value_everywhere(bank: Bank, calls: Calls) -> None:
    calls.loses = True
    broken_at_each_call(bank, calls, 1)


def test_a_server_sealed_at_any_call_is_waited_for(bank: Bank, calls: Calls) -> None:
    try:
        bank.vault.seal()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    bank.vault.unseal()
    calls.strike = lambda _token: bank.vault.seal()
    calls.mend = bank.vault.unseal
    broken_at_each_call(bank, calls, 2)


def test_a_login_revoked_at_any_call_is_made_again(bank: Bank, calls: Calls) -> None:
    def revoke(token: str) -> None:
        if token:
            bank.vault.api("POST", "auth/token/revoke-self", token=token)

    calls.strike = revoke
    broken_at_each_call(bank, calls, 3)


def test_no_value_is_left_in_a_log_or_in_the_state(bank: Bank) -> None:
    bank.rotate()
    values = {"old": bank.first, "new": bank.current()}
    hunter = Hunter(values)
    server = bank.vault.simulator
    hunter.look("the server's log", "\n".join(server.log) if server else "a real server's is not ours")
    hunter.look_into("state", bank.home / "state")
    hunter.look_into("policies", bank.home / "policies")
    assert hunter.hits == []
    assert min(hunter.looked_at.values()) > 20
    control = Hunter(values)
    control.look("control", f"x {values['new']}")
    assert control.hits
