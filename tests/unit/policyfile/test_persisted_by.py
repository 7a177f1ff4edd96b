"""`persisted_by`: where a checker reads when it starts again, written last and without a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vaultkeeper.engine.groups import specs
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.policy import Read, RotationPolicy
from vaultkeeper.model.rotation import Audience
from vaultkeeper.policyfile import load
from vaultkeeper.policyfile.schema import schema
from vaultkeeper.policyfile.show import show
from vaultkeeper.registry import Registry


def loaded(folder: Path, persisted_by: dict[str, Any]) -> RotationPolicy:
    target = {
        "kind": "redis",
        "host": "cache",
        "user": "default",
        "admin": {"username": "vk", "password": {"env": "X"}},
    }
    secret = {
        "generator": {"kind": "password"},
        "target": {**target, "persisted_by": persisted_by},
        "destinations": [{"kind": "file", "path": "app", "read": "per_use"}],
    }
    (folder / "cache.yaml").write_text(json.dumps({"secrets": {"shop/cache": secret}}))
    return load([folder], Registry())["shop/cache"]


def test_it_is_the_last_place_that_is_written_and_nobody_is_restarted_for_it(tmp_path: Path) -> None:
    policy = loaded(tmp_path, {"kind": "dotenv", "path": ".env", "values": {"REDIS_PASSWORD": "{password}"}})
    assert policy.target is not None
    assert policy.target.settings["persisted_by"] is True
    (_, app, _), (index, kept, audience) = specs(policy)
    assert (app.kind, kept.kind, index, audience) == ("file", "dotenv", 1, Audience.CONSUMERS)
    assert kept.read is Read.FIRST_START
    assert kept.settings["path"] == str(tmp_path / ".env")


def test_without_a_value_it_carries_the_main_field(tmp_path: Path) -> None:
    policy = loaded(tmp_path, {"kind": "file", "path": "kept", "read": "at_start"})
    assert specs(policy)[-1][1].values == {"": "{accepted[0]}"}


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({"kind": "swarm", "secret": "pw", "services": ["cache"]}, "a swarm restarts whoever reads there"),
        (
            {"kind": "file", "path": "p", "read": "at_start", "reload": {"command": ["/bin/true"]}},
            "expected no `reload`: the checker is not restarted",
        ),
        ({"kind": "file", "path": "p"}, "read: is missing; a file must say"),
    ],
)
def test_what_would_restart_the_checker_is_refused(tmp_path: Path, place: dict[str, Any], told: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        loaded(tmp_path, place)
    assert f"shop/cache.target.persisted_by{'.' if told.startswith('read') else ': '}{told}" in caught.value.why


def test_the_schema_offers_a_destination_and_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    offered = schema(Registry())["$defs"]["target.redis"]["properties"]["persisted_by"]
    assert offered["$ref"] == "#/$defs/destination"
    policy = loaded(tmp_path, {"kind": "file", "path": "kept", "read": "at_start"})
    said = show([policy])
    (tmp_path / "cache.yaml").write_text(said)
    assert load([tmp_path], Registry())["shop/cache"].target == policy.target
