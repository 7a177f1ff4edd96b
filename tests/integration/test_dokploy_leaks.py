"""No key and no value of a service in Dokploy gets into output, logs or the state directory, whatever fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import command
from tests.integration.dokploy_kit import Shop, open_shop
from tests.integration.hunter import Hunter

NAME = "shop/session"
OLD, OTHER, ARGUMENT = "old-9f3b1c7d5e", "kept-4a8e2d6b0f", "build-7c1d9e3f5a"
LOOKING = (
    ["check"], ["check", "--json"], ["plan"], ["status", "--observe", "--json"], ["history", NAME, "--json"],
    ["reconcile", NAME, "--json"], ["doctor"], ["audit", "verify", "--json"],
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Shop:
    shop = open_shop(tmp_path, speed=200)
    shop.service.row |= {"env": f"SESSION={OLD}\nOTHER='{OTHER}'\n", "buildArgs": f"A={ARGUMENT}"}
    shop.dokploy.state.roll(shop.service)
    return shop


def test_nothing_leaks_while_everything_fails_once(place: Shop, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    run, said = command(home), list[str]()
    env = {"VAULTKEEPER_DEBUG": "1", "VAULTKEEPER_STATE_DIR": str(home / "state")}
    env |= {"VAULTKEEPER_POLICIES": str(home / "policies"), "VAULTKEEPER_IDENTITY": str(home / "identity.txt")}

    def vk(*words: str, stdin: str = "") -> int:
        ran = run(*words, "-vv", env=env, stdin=stdin)
        said.append(ran.out + ran.err)
        return ran.code

    body = {
        "generator": {"kind": "token"},
        "min_interval": "0s",
        "destinations": [
            {
                "kind": "dokploy",
                "url": place.dokploy.url,
                "api_key": {"file": str(tmp_path / "key")},
                "application": "shop/production/web",
                "values": {"SESSION": "{token}"},
            }
        ],
    }
    (home / "policies").mkdir()
    (home / "policies/one.yaml").write_text(json.dumps({"secrets": {NAME: body}}))
    assert vk("init", "--without-recovery") == 0
    values = {"the first": OLD, "another variable": OTHER, "a build argument": ARGUMENT, "the key": place.key}
    values["the webhook's"] = str(place.service.row["refreshToken"])
    try:
        for number, (fault, procedure) in enumerate(
            [("500", "application.reload"), ("lost-reply", "application.save"), ("html", "application.one"), ("", "")]
        ):
            with place.dokploy.fault(fault or "none", procedure or "none", times=1):
                vk("rotate", NAME, "--yes", "--wait", "90s")
            assert vk("resume", "--all", "--wait", "90s") == 0
            values[f"value {number}"] = dict(line.split("=", 1) for line in place.env.splitlines())["SESSION"]
        place.service.breaks_on = lambda _env: True
        assert vk("rotate", NAME, "--yes", "--wait", "90s") == 5  # goes back
        place.dokploy.state.keys.clear()
        assert vk("rotate", NAME, "--yes", "--wait", "0s") != 0
        for words in LOOKING:
            vk(*words)
    finally:
        place.dokploy.stop()
    hunter = Hunter(values)
    hunter.look("output", "\n".join(said))
    hunter.look_into("state", home)
    assert hunter.hits == []
    assert hunter.looked_at["output"] > 5_000
    assert hunter.looked_at["state"] > 50_000
    assert len(set(values.values())) >= 8
