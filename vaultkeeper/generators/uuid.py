"""Random UUIDs, version 4 (RFC 9562 section 5.4).

122 bits are below the floor of 128, so the policy must say `weak_ok` and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from vaultkeeper.generators import Position, constant, draw, entropy_bits
from vaultkeeper.model.secret import Fields

DIGITS = "0123456789abcdef"
VARIANT = "89ab"  #: RFC 9562 section 4.1: the two highest bits are 1 and 0


class Settings(BaseModel):
    """Nothing can be set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class UuidGenerator:
    """36 characters, lower case."""

    kind: ClassVar[str] = "uuid"
    field: ClassVar[str] = "value"
    Settings: ClassVar[type[Settings]] = Settings

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        """Raises BackendError where `forbidden` or `max_bytes` leaves no value."""
        return {self.field: draw(self.kind, _positions(settings), forbidden, max_bytes)}

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        return entropy_bits(_positions(settings), forbidden)

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return frozenset(DIGITS + "-")


def _positions(settings: Mapping[str, object]) -> list[Position]:
    Settings.model_validate(settings)
    digit = [frozenset(DIGITS)]
    dash = constant("-")
    version, variant = constant("4"), [frozenset(VARIANT)]
    return [*digit * 8, *dash, *digit * 4, *dash, *version, *digit * 3, *dash, *variant, *digit * 3, *dash, *digit * 12]
