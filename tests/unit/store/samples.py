"""Rotations and versions to put into a store."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from vaultkeeper.model.policy import Place, RotationPolicy
from vaultkeeper.model.rotation import Phase, Rotation, Step
from vaultkeeper.model.secret import Binding, Strategy, VersionRecord

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
SECRET = "shop/db"
AUDIT_KEY = b"k" * 32
INSTALLATION = "inst-1"


class StillClock:
    """Time stands still unless moved."""

    WINDOW = timedelta(minutes=5)

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return 0.0

    def sleep(self, duration: timedelta) -> None:
        self.at += duration


def rotation(secret: str = SECRET, **changes: Any) -> Rotation:
    values: dict[str, Any] = {
        "id": secrets.token_hex(8),
        "secret": secret,
        "policy": RotationPolicy(name=secret, place=Place("policies/shop.yaml", 3, 5)),
        "phases": (Phase(Step.OBSERVE), Phase(Step.CREATE), Phase(Step.FINISH)),
        "opened_at": NOW,
        "entered_at": NOW,
    }
    return Rotation(**(values | changes))


def version(number: int, secret: str = SECRET, **changes: Any) -> VersionRecord:
    values: dict[str, Any] = {
        "secret": secret,
        "number": number,
        "id": f"id-{number}",
        "binding": Binding(Strategy.SINGLE, "postgres", {"host": "db", "port": 5432}, 1),
        "created_at": NOW,
        "sealed": b"\x00sealed\xff",
    }
    return VersionRecord(**(values | changes))
