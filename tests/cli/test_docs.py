"""The how-to for a first policy is true: its policy loads, its commands and options exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.conftest import Vk

PAGE = (Path(__file__).parents[2] / "docs/how-to/first-policy.md").read_text()


def test_the_first_policy_is_valid(vk: Vk, home: Path) -> None:
    policy = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert policy
    (home / "policies").mkdir()
    (home / "policies/shop.yaml").write_text(policy[1])
    ran = vk("check", "--offline", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["secrets"] == ["shop/db"]


def test_every_command_on_the_page_exists_with_its_options(vk: Vk) -> None:
    lines = re.findall(r"^\$ (vaultkeeper .*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)
    assert len(lines) > 6
    for line in lines:
        command, *rest = line.split()[1:]
        ran = vk(command, "--help")
        assert ran.code == 0, line
        for option in (word for word in rest if word.startswith("--")):
            assert option in ran.out, line


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
