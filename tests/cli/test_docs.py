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
