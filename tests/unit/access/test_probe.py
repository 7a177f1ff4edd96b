"""Whom a probe may show a credential to: told by `check`, before anything is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaultkeeper.registry import Registry
from vaultkeeper.testing.contract.trial import Watch

KINDS: dict[str, dict[str, Any]] = {
    "manual": {"link": "https://vendor.example/keys"},
    "token_list": {},
    "htpasswd": {"format": "nginx", "user": "app"},
}


def refused(kind: str, tmp_path: Path, probe: dict[str, Any]) -> list[str]:
    listed = tmp_path / "list"
    listed.write_text("app:x\n")
    place = {} if kind == "manual" else {"path": str(listed)}
    target = Registry().target(kind, {**KINDS[kind], **place, "probe": probe}, 1)
    return [finding.text for finding in target.check(Watch().context()) if finding.level == "refuse"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_others_may_change_or_that_is_not_there_is_shown_nothing(kind: str, tmp_path: Path) -> None:
    asks = tmp_path / "asks"
    asks.write_text("#!/bin/sh\nexit 0\n")
    asks.chmod(0o757)
    assert refused(kind, tmp_path, {"command": [str(asks)]}) == [
        f"everybody may write to {asks}, and it is given values"
    ]
    asks.unlink()
    assert refused(kind, tmp_path, {"command": [str(asks)]}) == [f"{asks} cannot be run: No such file or directory"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("address", "why"), [("https://169.254.169.254/", "metadata"), ("http://192.0.2.1/", "to this machine only")]
)
def test_an_address_that_no_credential_may_go_to_is_told(kind: str, tmp_path: Path, address: str, why: str) -> None:
    (told,) = refused(kind, tmp_path, {"http": address})
    assert why in told
