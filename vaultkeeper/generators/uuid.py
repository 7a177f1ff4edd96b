"""Random UUIDs, version 4 (RFC 9562 section 5.4).

122 bits are below the floor of 128, so the policy must say `weak_ok` and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vaultkeeper.access.settings import Shape
from vaultkeeper.generators import Drawn, Position, constant

DIGITS = "0123456789abcdef"
VARIANT = "89ab"  #: RFC 9562 section 4.1: the two highest bits are 1 and 0


class Settings(Shape):
    """Nothing can be set."""


class UuidGenerator(Drawn):
    """36 characters, lower case."""

    kind: ClassVar[str] = "uuid"
    field: ClassVar[str] = "value"
    Settings: ClassVar[type[Settings]] = Settings

    def positions(self, settings: Mapping[str, object]) -> list[Position]:
        Settings.model_validate(settings)
        digit, dash = [frozenset(DIGITS)], constant("-")
        version, variant = constant("4"), [frozenset(VARIANT)]
        return [
            *digit * 8, *dash, *digit * 4, *dash, *version, *digit * 3, *dash, *variant, *digit * 3, *dash, *digit * 12
        ]  # fmt: skip
