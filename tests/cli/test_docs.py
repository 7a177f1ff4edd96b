"""The how-tos are true: their policies load, their commands and options exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Vk
from vaultkeeper.cli.app import build

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
PAGES = {path.stem: path.read_text() for path in sorted(HOW_TO.glob("*.md"))}
PAGE = PAGES["first-policy"]
COMMAND = re.compile(r"(?:^\$ |`)vaultkeeper ([a-z]+)([^`\n#]*)", re.MULTILINE)


def whole_policies(page: str) -> list[str]:
    """Blocks that are files. One that takes in a connection of an earlier block is given that block's."""
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    found: list[str] = []
    for block in blocks:
        if not re.match(r"(#.*\n)*(defaults|connections|secrets):", block) or "secrets:" not in block:
            continue
        shared = next((re.match(r"connections:\n(?:  .*\n)+", earlier) for earlier in found), None)
        found.append(block if "connections:" in block or "use: " not in block or not shared else shared[0] + block)
    return found


def test_every_whole_policy_of_every_how_to_is_valid(vk: Vk, home: Path) -> None:
    (home / "policies").mkdir()
    seen: list[str] = []
    for name, page in PAGES.items():
        for number, policy in enumerate(whole_policies(page)):
            seen.append(name)
            (home / "policies/one.yaml").write_text(policy)
            ran = vk("check", "--offline")
            assert ran.code == 0, f"{name}, policy {number}: {ran.err}"
    assert {"swarm", "compose", "dokploy", "vault", "bearer-token"} <= set(seen)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_every_how_to_exists_with_its_options(name: str) -> None:
    commands: Any = build().commands
    for command, rest in COMMAND.findall(PAGES[name]):
        assert command in commands, f"vaultkeeper {command}"
        found, words = commands[command], rest.split()
        if words and words[0] in getattr(found, "commands", {}):
            found = found.commands[words[0]]
        options = {option for parameter in found.params for option in parameter.opts}
        said = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert said <= options, f"vaultkeeper {command}: {said - options}"


def test_the_first_policy_is_valid(vk: Vk, home: Path) -> None:
    policy = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert policy
    (home / "policies").mkdir()
    (home / "policies/shop.yaml").write_text(policy[1])
    ran = vk("check", "--offline", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["secrets"] == ["shop/db"]


def test_the_service_on_the_page_may_use_its_state_and_finds_its_identity(vk: Vk, home: Path) -> None:
    unit = dict(re.findall(r"^(\w+)=(.+)$", PAGE, re.MULTILINE))
    state, credentials, value = home / "state", home / "credentials", home / "value"
    options = ("--state-dir", "--identity")
    assert all(f"`{option} /" in PAGE for option in options)
    made = vk("init", options[0], state, options[1], home / "identity.txt", "--without-recovery")
    assert made.code == 0, made.err
    state.chmod(int(unit.get("StateDirectoryMode", "0755"), 8))  # systemd.exec(5): at every start
    credentials.mkdir()
    name = unit["LoadCredential"].partition(":")[0]
    (home / "identity.txt").rename(credentials / name)
    to = f"[{{kind: file, path: {value}, read: per_use}}]"
    policy = f"{{owner: me, rotation_period: 90d, generator: {{kind: hex}}, destinations: {to}}}"
    (home / "policies").mkdir()
    (home / "policies/one.yaml").write_text(f"secrets: {{one: {policy}}}\n")
    given = {"STATE_DIRECTORY": str(state), "CREDENTIALS_DIRECTORY": str(credentials)}
    ran = vk(*unit["ExecStart"].split()[1:], env=given)
    assert ran.code == 0, ran.err
    assert len(value.read_text()) == 64
