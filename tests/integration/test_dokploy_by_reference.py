"""Variables that refer to a secret in Vault: applied once it is written there, and never before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dokploy_kit import Shop, open_shop
from tests.integration.test_dokploy_rotations import Hurried
from tests.servers.vaults import Vaults
from vaultkeeper import wiring
from vaultkeeper.access import vault as logins
from vaultkeeper.destinations.vault_kv import VaultKvDestination
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.rotate import rotate
from vaultkeeper.model.outcome import NotYet
from vaultkeeper.model.secret import SecretBytes, StagingLabel
from vaultkeeper.testing.dokploy.server import Seen
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

NAMES = ("shop/one", "shop/two")


class Referring:
    """One application with two variables, each of which refers to a secret of its own; nobody may look into Docker."""

    def __init__(self, home: Path) -> None:
        initialise(Wishes(home / "state", None, home / "identity.txt"), Recovery())
        self.shop: Shop = open_shop(home)
        self.vault = Vaults()
        state = self.shop.dokploy.state
        self.shop.member.sees_docker = False
        self.shop.service.row["env"] = "".join(f"{_key(n)}='${{{{vault.bao.{n}:token}}}}'\n" for n in NAMES)
        for name in NAMES:
            self.vault.put(name, {"token": f"old {name}"})
        self.look()
        state.roll(self.shop.service)
        state.advance(30)
        self.shop.dokploy.before.append(self.look)
        (home / "policies").mkdir()
        bodies = {name: self.body(name, home / "key") for name in NAMES}
        (home / "policies/one.yaml").write_text(json.dumps({"secrets": bodies}))
        wishes = Wishes(home / "state", home / "policies", home / "identity.txt")
        self.installed = wiring.open_installed(wishes)
        self.parts = replace(wiring.parts(self.installed, wishes, parallel=1), clock=Hurried(self.shop.dokploy))
        for name in NAMES:
            adopt(name, {"token": SecretBytes(f"old {name}".encode())}, self.parts)

    def body(self, name: str, key: Path) -> dict[str, Any]:
        stored = {"kind": "vault_kv", "mount": self.vault.mount, "path": name, **self.vault.connection()}
        applied: dict[str, Any] = {"kind": "dokploy", "url": self.shop.dokploy.url, "api_key": {"file": str(key)}}
        applied |= {"application": self.shop.service.id, "by_reference": True, "confirm": {"command": ["/bin/true"]}}
        destinations = [{**stored, "values": {"token": "{token}"}}, {**applied, "values": {_key(name): "{token}"}}]
        return {"generator": {"kind": "token"}, "min_interval": "0s", "destinations": destinations}

    def look(self, _seen: Seen | None = None) -> None:
        """Dokploy reads the provider whenever it applies."""
        for name in NAMES:
            self.shop.dokploy.state.vault["bao", f"{name}:token"] = (self.vault.get(name) or {})["token"]

    def rotate(self, *names: str) -> None:
        reports = rotate(names, self.parts, by_name=True, wait=timedelta(days=1))
        assert [report.exit_code for report in reports] == [0] * len(names)
        for name in names:
            current = Book(name, self.parts.store, self.parts.envelope, self.parts.redactor).labelled(
                StagingLabel.CURRENT
            )
            assert current is not None
            assert self.shop.running[_key(name)] == current.fields["token"].text() != f"old {name}"

    def close(self) -> None:
        logins.end()
        self.installed.store.close()
        self.shop.dokploy.stop()
        self.vault.stop()


def _key(name: str) -> str:
    return name.partition("/")[2].upper()


@pytest.fixture
def referring(tmp_path: Path) -> Iterator[Referring]:
    opened = Referring(tmp_path)
    yield opened
    opened.close()


def test_two_secrets_of_one_application_are_both_written_before_it_is_applied(referring: Referring) -> None:
    referring.rotate(*NAMES)


def test_a_vault_that_is_not_ready_keeps_the_application_waiting(
    referring: Referring, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = VaultKvDestination.deliver, [NotYet("another process writes there", timedelta(seconds=1))]

    def put_off_once(*given: Any) -> Any:
        return answers.pop() if answers else real(*given)

    monkeypatch.setattr(VaultKvDestination, "deliver", put_off_once)
    referring.rotate(NAMES[0])
