"""vaultkeeper rotates its own key of a simulated Dokploy, and delivers with it. What the how-to shows is valid."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.found import REGISTRY
from tests.integration.dokploy_kit import OLD_TEXT, Shop, open_shop
from tests.integration.test_dokploy_rotations import Hurried
from vaultkeeper import wiring
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.model.outcome import Login, Observation, Refused, Unknown
from vaultkeeper.model.secret import Handle, SecretBytes, StagingLabel
from vaultkeeper.policyfile.load import load
from vaultkeeper.targets.dokploy_api_key import DokployApiKeyTarget
from vaultkeeper.testing.contract.trial import Watch, version
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

KEY, DB = "shop/dokploy-key", "shop/session"
PAGE = Path(__file__).parents[2] / "docs/how-to/dokploy.md"


class OwnKey:
    """A key that a person made is adopted; one more secret is delivered with it."""

    def __init__(self, home: Path, template: Path) -> None:
        shutil.copytree(template, home)
        self.shop: Shop = open_shop(home)
        state = self.shop.dokploy.state
        self.first = state.key(self.shop.member, "vaultkeeper")
        self.theirs = state.key(self.shop.member, "somebody else's")
        url = self.shop.dokploy.url
        bodies: dict[str, Any] = {
            KEY: {
                "rotation_period": "60d",
                "grace_period": "1h",
                "min_interval": "0s",
                "target": {"kind": "dokploy_api_key", "url": url, "first_key": "vaultkeeper"},
                "destinations": [],
            },
            DB: {
                "generator": {"kind": "token"},
                "min_interval": "0s",
                "destinations": [
                    {
                        "kind": "dokploy",
                        "url": url,
                        "api_key": {"secret": KEY},
                        "application": self.shop.service.id,
                        "values": {"DB_PASSWORD": "{token}"},
                    }
                ],
            },
        }
        (home / "policies").mkdir()
        (home / "policies/one.yaml").write_text(json.dumps({"secrets": bodies}))
        wishes = Wishes(home / "state", home / "policies", home / "identity.txt")
        self.installed = wiring.open_installed(wishes)
        self.parts = replace(wiring.parts(self.installed, wishes, parallel=1), clock=Hurried(self.shop.dokploy))
        adopt(KEY, {"token": SecretBytes(self.first.value.encode())}, self.parts)

    def rotate(self, name: str = KEY) -> int:
        report = rotate([name], self.parts, by_name=True, wait=timedelta(hours=3))[0]
        if self.parts.store.open_rotations():
            report = resume([name], self.parts, wait=timedelta(hours=3))[0]
        return report.exit_code

    @property
    def current(self) -> str:
        found = Book(KEY, self.parts.store, self.parts.envelope, self.parts.redactor).labelled(StagingLabel.CURRENT)
        assert found is not None
        return found.fields["token"].text()

    @property
    def names(self) -> set[str]:
        return {key.name for key in self.shop.dokploy.state.keys.values() if key.user == self.shop.member.id}

    def close(self) -> None:
        self.installed.store.close()
        self.shop.dokploy.stop()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    initialise(Wishes(home / "state", None, home / "identity.txt"), Recovery())
    return home


@pytest.fixture
def own(tmp_path: Path, template: Path) -> Iterator[OwnKey]:
    opened = OwnKey(tmp_path / "home", template)
    yield opened
    opened.close()


def test_a_new_key_takes_over_the_old_one_is_deleted_and_others_stay(own: OwnKey) -> None:
    for _ in range(2):
        before = own.current
        assert own.rotate() == 0
        values = {key.value for key in own.shop.dokploy.state.keys.values()}
        assert own.current in values
        assert before not in values
    assert "vaultkeeper" not in own.names
    assert "somebody else's" in own.names
    (made,) = [key for key in own.shop.dokploy.state.keys.values() if key.value == own.current]
    assert made.limited is False
    assert made.expires_at is not None
    assert timedelta(days=120) < made.expires_at - datetime.now(UTC) <= timedelta(days=121, hours=1)


def test_what_is_delivered_next_goes_with_the_new_key(own: OwnKey) -> None:
    assert own.rotate() == 0
    assert own.rotate(DB) == 0
    assert own.shop.env != OLD_TEXT


@pytest.mark.parametrize("procedure", ["user.get", "user.createApiKey", "user.deleteApiKey", "settings."])
def test_a_reply_that_is_lost_leaves_no_orphan(own: OwnKey, procedure: str) -> None:
    with own.shop.dokploy.fault("lost-reply", procedure, times=1):
        assert own.rotate() == 0
    kept = {key.value for key in own.shop.dokploy.state.keys.values() if key.name.startswith("vk-")}
    assert kept == {own.current}


def target(shop: Shop, **settings: object) -> DokployApiKeyTarget:
    return DokployApiKeyTarget.open({"url": shop.dokploy.url, **settings}, 1)


def test_which_key_is_the_adopted_one_must_be_said(own: OwnKey) -> None:
    adopted = version(1, {"token": SecretBytes(own.first.value.encode())}, "dokploy_api_key", {})
    (finding,) = target(own.shop).check(Watch().context(adopted))
    assert finding.level == "refuse"
    assert "first_key" in finding.next
    refused = target(own.shop).set([], [adopted], Watch().context(adopted))
    assert isinstance(refused, Refused)
    assert own.first.id in own.shop.dokploy.state.keys


def test_of_two_keys_with_the_adopted_ones_name_none_is_deleted(own: OwnKey) -> None:
    theirs = own.shop.dokploy.state.key(own.shop.member, "by hand")
    mine = own.shop.dokploy.state.key(own.shop.member, "by hand")
    adopted = version(1, {"token": SecretBytes(mine.value.encode())}, "dokploy_api_key", {})
    asked = target(own.shop, first_key="by hand")
    (finding,) = asked.check(Watch().context(adopted))
    assert finding.level == "refuse"
    assert "no other key" in finding.next
    assert isinstance(asked.set([], [adopted], Watch().context(adopted)), Refused)
    assert {theirs.id, mine.id} <= set(own.shop.dokploy.state.keys)


def test_where_keys_cannot_be_deleted_none_is_taken_for_deleted(own: OwnKey, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaultkeeper.testing.dokploy.calls import POSTS

    monkeypatch.delitem(POSTS, "user.deleteApiKey")
    adopted = version(1, {"token": SecretBytes(own.first.value.encode())}, "dokploy_api_key", {})
    answer = target(own.shop).drop(Handle(json.dumps({"id": own.theirs.id})), Watch().context(adopted))
    assert isinstance(answer, Refused)


def test_a_period_that_dokploy_does_not_let_a_key_live_through_is_refused(own: OwnKey) -> None:
    adopted = version(1, {"token": SecretBytes(own.first.value.encode())}, "dokploy_api_key", {})
    answer = target(own.shop).mint("id", datetime.now(UTC) + timedelta(days=400), Watch().context(adopted))
    assert isinstance(answer, Refused)
    assert "365 days" in answer.detail


def test_a_spent_key_is_not_taken_for_a_dead_one(own: OwnKey) -> None:
    limited = own.shop.dokploy.state.key(own.shop.member, "by hand", limited=True)
    limited.spent = 10
    adopted = version(1, {"token": SecretBytes(limited.value.encode())}, "dokploy_api_key", {})
    answer = target(own.shop, first_key="by hand").observe([adopted], Watch().context(adopted))
    assert isinstance(answer, Unknown)
    assert answer.reason is Login.THROTTLED
    assert "sixth call" in answer.detail


def test_a_minted_key_that_is_gone_is_dead(own: OwnKey) -> None:
    assert own.rotate() == 0
    book = Book(KEY, own.parts.store, own.parts.envelope, own.parts.redactor)
    current = book.labelled(StagingLabel.CURRENT)
    assert current is not None
    state = own.shop.dokploy.state
    state.keys = {id_: key for id_, key in state.keys.items() if key.value != own.current}
    seen = target(own.shop).observe([current], Watch().context(current))
    assert isinstance(seen, Observation)
    assert seen.answers == {current.number: Login.REJECTED}


def test_the_policies_of_the_how_to_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (whole,) = [block for block in blocks if block.startswith("secrets:")]
    (tmp_path / "policies.yaml").write_text(whole)
    assert set(load([tmp_path / "policies.yaml"], REGISTRY)) == {"shop/dokploy-key", "shop/db"}
