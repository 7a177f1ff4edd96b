"""The exported JSON Schema, and the examples that it is written for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.policyfile.kinds import Kinds
from vaultkeeper.policyfile import load, schema
from vaultkeeper.policyfile.keys import SECRET
from vaultkeeper.registry import Registry

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "policies").glob("*.yaml"))


def test_the_committed_schema_is_what_the_code_reads() -> None:
    committed = (ROOT / "docs/schema/policy.schema.json").read_text()
    now = json.dumps(schema(Registry()), indent=2, ensure_ascii=False) + "\n"
    assert committed == now, "run: vaultkeeper schema > docs/schema/policy.schema.json"


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from _references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _references(inner)


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    whole = schema(Registry())
    references = set(_references(whole))
    assert references
    for reference in references:
        assert reference.removeprefix("#/$defs/") in whole["$defs"], reference


def test_a_new_kind_is_in_the_schema_without_a_list_to_edit() -> None:
    whole = schema(Kinds())
    assert set(whole["$defs"]["target"]["properties"]["kind"]["enum"]) == {"database", "manual", "token_list"}
    database: dict[str, Any] = whole["$defs"]["target.database"]
    assert {"host", "users", "via", "strategy"} <= set(database["properties"])
    assert database["then"] == {"required": ["host"]}
    assert whole["$defs"]["destination.file"]["then"] == {"required": ["path", "read"]}
    assert set(whole["$defs"]["secret"]["properties"]) == set(SECRET)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_disabled_and_loads_once_enabled(example: Path, tmp_path: Path) -> None:
    assert not any(policy.enabled for policy in load([example], Registry()).values())
    text = example.read_text()
    assert text.startswith("# yaml-language-server: $schema=../docs/schema/policy.schema.json\n")
    copy = tmp_path / example.name
    copy.write_text(text.replace("  enabled: false", "  enabled: true"))
    policies = load([copy], Registry())
    assert policies
    assert all(policy.enabled for policy in policies.values())


def test_all_examples_load_together() -> None:
    assert len(load([ROOT / "policies"], Registry())) >= 8
