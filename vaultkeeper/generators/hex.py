"""Random bytes as lower-case hexadecimal digits: 32 bytes for 64 characters and 256 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from vaultkeeper.generators import Position, draw, entropy_bits
from vaultkeeper.model.secret import Fields

DIGITS = "0123456789abcdef"


class Settings(BaseModel):
    """What a policy may say beside `kind: hex`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: int = Field(default=32, ge=1, le=512, description="random bytes, two characters each")


class HexGenerator:
    """A value that decodes to `bytes` bytes."""

    kind: ClassVar[str] = "hex"
    field: ClassVar[str] = "value"
    Settings: ClassVar[type[Settings]] = Settings

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        """Raises BackendError where `forbidden` or `max_bytes` leaves no value."""
        return {self.field: draw(self.kind, _positions(settings), forbidden, max_bytes)}

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        return entropy_bits(_positions(settings), forbidden)

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return frozenset(DIGITS)


def _positions(settings: Mapping[str, object]) -> list[Position]:
    return [frozenset(DIGITS)] * (2 * Settings.model_validate(settings).bytes)
