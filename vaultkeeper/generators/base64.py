"""Random bytes in standard base64 with padding (RFC 4648 section 4), as Laravel's `APP_KEY` wants: `prefix: "base64:"`.

Source: https://laravel.com/docs/encryption (`key:generate` writes `base64:` and 32 bytes).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from vaultkeeper.generators import Position, constant, draw, entropy_bits
from vaultkeeper.model.secret import Fields

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"


class Settings(BaseModel):
    """What a policy may say beside `kind: base64`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: int = Field(default=32, ge=1, le=512, description="random bytes; the text is a third longer")
    prefix: str = Field(default="", max_length=64, pattern=r"^[!-~]*$", description="ASCII text before it, not random")


class Base64Generator:
    """A value that decodes to `bytes` bytes."""

    kind: ClassVar[str] = "base64"
    field: ClassVar[str] = "value"
    Settings: ClassVar[type[Settings]] = Settings

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        """Raises BackendError where `forbidden` or `max_bytes` leaves no value."""
        return {self.field: draw(self.kind, _positions(settings), forbidden, max_bytes)}

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        return entropy_bits(_positions(settings), forbidden)

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return frozenset().union(*_positions(settings))


def _positions(settings: Mapping[str, object]) -> list[Position]:
    asked = Settings.model_validate(settings)
    whole, rest = divmod(asked.bytes * 8, 6)
    positions = constant(asked.prefix) + [frozenset(ALPHABET)] * whole
    if rest:  # the last character carries only 2 or 4 bits, or it would not decode
        positions.append(frozenset(ALPHABET[:: 1 << (6 - rest)]))
    return positions + constant("=" * (-asked.bytes % 3))
