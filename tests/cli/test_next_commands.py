"""Every command that an error names as the next one exists, with those options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vaultkeeper
from vaultkeeper.cli.app import build

ROOT = Path(vaultkeeper.__file__).parent
NAMED = re.compile(r"(?:^|then +|or +|; |, )vaultkeeper ([a-z]+)((?: +(?:[a-z]+\b|--[a-z-]+|NAME…?|\{\w*\}))*)")
GROUPS = {"audit", "keys"}
ALONE = {"resume", "rotate"}  # refuse to guess what they are about


def texts() -> Iterator[tuple[str, str]]:
    """(place, text) of every `next=` of the product, and of what begins like a command; a placeholder is `{}`."""
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        hints = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "next"]
        named = {id(part) for hint in hints for part in ast.walk(hint)}
        for node in ast.walk(tree):
            text = _text(node)
            begins = text is not None and re.match(r"vaultkeeper \w+ \{\}", text)
            if text is not None and (id(node) in named or begins):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", text


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def test_every_command_that_a_text_names_exists_and_takes_what_is_given_to_it() -> None:
    commands: Any = build().commands
    seen = 0
    for place, text in texts():
        for name, rest in NAMED.findall(text):
            seen += 1
            assert name in commands, f"{place}: vaultkeeper {name}"
            command, words = commands[name], rest.split()
            if name in GROUPS and words:
                assert words[0] in command.commands, f"{place}: {name} {words[0]}"
                command, words = command.commands[words[0]], words[1:]
            options = {option for parameter in command.params for option in parameter.opts}
            given = [word for word in words if word.startswith("--")]
            assert set(given) <= options, f"{place}: {name} {given}"
            takes_names = any(parameter.param_type_name == "argument" for parameter in command.params)
            names = [word for word in words if word.startswith(("NAME", "{"))]
            assert takes_names or not names, f"{place}: vaultkeeper {name} takes no {names}"
    assert seen > 40
