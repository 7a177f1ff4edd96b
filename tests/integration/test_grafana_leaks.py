"""No password or token of Grafana gets into output, logs or the state directory, whatever fails and whoever quotes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cli.conftest import command
from tests.integration.grafana_kit import Home
from tests.integration.hunter import Hunter
from tests.servers.grafana_service_account_token import SPEED

USER, TOKEN, SOURCE = "grafana/rosa", "grafana/reader", "grafana/source"
LOOKING = (
    ["check", "--json"], ["plan"], ["status", "--observe", "--json"], ["history", USER, "--json"],
    ["reconcile", SOURCE, "--json"], ["doctor"], ["audit", "verify", "--json"],
)  # fmt: skip


def quoting(row: Mapping[str, Any], secure: Mapping[str, str]) -> str | None:
    """A plugin that cannot keep a secret: what it refuses, it quotes."""
    return f"login failed for {row['user']} with {secure['password']!r}" if row["url"] == "broken:1" else None


def test_nothing_leaks_while_everything_fails_once(tmp_path: Path) -> None:
    home = Home(tmp_path, log_in=quoting, speed=SPEED)
    state, said, values = home.state, list[str](), dict[str, str]()
    rosa, account = state.user("rosa", "rosa@example.test"), state.account("reader")
    token = state.token(account, "by hand")
    source = state.source("db", "x", {"password": "stored-1f7c9a3e5b"}, url="fine:1", user="reader")
    home.user(USER, rosa)
    target = {"kind": "grafana_service_account_token", "url": home.grafana.url, "service_account": "reader"}
    home.policy(TOKEN, target={**target, "admin": home.by_ops, "first_token": "by hand"}, grace_period="1s")
    place = {"kind": "grafana_datasource", "url": home.grafana.url, "uid": source.row["uid"], "auth": home.by_ops}
    home.policy(SOURCE, generator={"kind": "password"}, destinations=[place])
    home.adopt(TOKEN, value=token.value)
    home.adopt(SOURCE, password="stored-1f7c9a3e5b")
    home.installed.store.close()
    run = command(home.folder)
    env = {"VAULTKEEPER_DEBUG": "1", "VAULTKEEPER_STATE_DIR": str(home.folder / "state")}
    env |= {"VAULTKEEPER_POLICIES": str(home.folder / "policies")}
    env |= {"VAULTKEEPER_IDENTITY": str(home.folder / "identity.txt")}

    def vk(*words: str) -> int:
        remember()
        ran = run(*words, "-vv", env=env)
        said.append(ran.out + ran.err)
        remember()
        return ran.code

    def remember() -> None:
        """Every value that was ever set anywhere."""
        found = [rosa.password, home.ops.password, source.secure["password"]]
        found += [each.value for each in state.tokens.values()]
        values.update({value: value for value in found})

    for asked in ("PUT /api/admin/users", "POST /api/serviceaccounts", "PUT /api/datasources"):
        home.grafana.faults.append(once(home, asked, "500" if "users" in asked else "lost-reply"))
    vk("rotate", "--all", "--yes", "--wait", "90s")
    assert vk("resume", "--all", "--wait", "90s") == 0
    source.row["url"] = "broken:1"
    assert vk("rotate", "--all", "--yes", "--wait", "90s") != 0
    source.row["url"] = "fine:1"
    home.ops.password = "changed-7d3e1f9b5a"
    vk("rotate", "--all", "--yes", "--wait", "0s")
    for words in LOOKING:
        vk(*words)
    home.grafana.stop()
    assert any("login failed for reader with" in text for text in said)
    hunter = Hunter(values)
    hunter.look("output", "\n".join(said))
    hunter.look("Grafana's log", "\n".join(home.grafana.log))
    hunter.look_into("state", home.folder / "state")
    hunter.look_into("policies", home.folder / "policies")
    assert hunter.hits == []
    assert min(hunter.looked_at.values()) > 1000
    assert len(values) >= 8


def once(home: Home, asked: str, what: str) -> Any:
    """A fault that strikes the first request of its kind."""

    def strike(seen: Any) -> str | None:
        if not str(seen).startswith(asked):
            return None
        home.grafana.faults.remove(strike)
        return what

    return strike
