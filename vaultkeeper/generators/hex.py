"""Random bytes as lower-case hexadecimal digits: 32 bytes for 64 characters and 256 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from vaultkeeper.access.settings import Shape
from vaultkeeper.generators import Drawn, Position

DIGITS = "0123456789abcdef"


class Settings(Shape):
    """What a policy may say beside `kind: hex`."""

    bytes: int = Field(default=32, ge=1, le=512, description="random bytes, two characters each")


class HexGenerator(Drawn):
    """A value that decodes to `bytes` bytes."""

    kind: ClassVar[str] = "hex"
    field: ClassVar[str] = "value"
    Settings: ClassVar[type[Settings]] = Settings

    def positions(self, settings: Mapping[str, object]) -> list[Position]:
        return [frozenset(DIGITS)] * (2 * Settings.model_validate(settings).bytes)
