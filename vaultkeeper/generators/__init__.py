"""One file per kind of generator, found by existing.

What the encoded kinds share stands here, since no generator imports another: an encoded random value is a row of
positions, each with its own set of characters. A target that cannot take some characters narrows each set, and every
position still draws uniformly from what is left, so entropy is a plain sum.
"""

from __future__ import annotations

import math
import secrets
import string
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from vaultkeeper.access.settings import Shape
from vaultkeeper.errors import BackendError
from vaultkeeper.model.secret import Fields, SecretBytes

Position = frozenset[str]
"""The characters that one place of a value may hold. One character: a constant, such as a prefix's."""


class Drawn(ABC):
    """The hooks of a generator whose values are rows of positions."""

    kind: ClassVar[str]
    field: ClassVar[str]

    @abstractmethod
    def positions(self, settings: Mapping[str, object]) -> list[Position]:
        """Of every value. Raises ValidationError for settings that are not its own."""

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        """Raises BackendError where `forbidden` or `max_bytes` leaves no value."""
        return {self.field: draw(self.kind, self.positions(settings), forbidden, max_bytes)}

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        return entropy_bits(self.positions(settings), forbidden)

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return frozenset().union(*self.positions(settings))


class InSixBits(Shape):
    """What a policy says of random bytes that are spelt in base64."""

    bytes: int = Field(default=32, ge=1, le=512, description="random bytes; the text is a third longer")
    prefix: str = Field(default="", max_length=64, pattern=r"^[!-~]*$", description="ASCII text before it, not random")

    def positions(self, last_two: str) -> list[Position]:
        """RFC 4648 without padding. `last_two`: the characters for 62 and 63."""
        alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + last_two
        whole, rest = divmod(self.bytes * 8, 6)
        found = constant(self.prefix) + [frozenset(alphabet)] * whole
        if rest:  # the last character carries only 2 or 4 bits, or it would not decode
            found.append(frozenset(alphabet[:: 1 << (6 - rest)]))
        return found


def constant(text: str) -> list[Position]:
    """Positions that always read `text`."""
    return [frozenset(character) for character in text]


def entropy_bits(positions: Sequence[Position], forbidden: frozenset[str]) -> float:
    """Of a value drawn by `draw`; 0.0 where there is none."""
    sizes = [len(position - forbidden) for position in positions]
    return sum(map(math.log2, sizes)) if all(sizes) else 0.0


def draw(kind: str, positions: Sequence[Position], forbidden: frozenset[str], max_bytes: int | None) -> SecretBytes:
    """One value, uniform among those without a forbidden character.

    Raises BackendError where `forbidden` leaves a position without a character, or where `max_bytes` is too few.
    """
    stuck = frozenset().union(*(p for p in positions if p <= forbidden))
    if stuck:
        raise BackendError(
            f"generator {kind}: no value can be made",
            why=f"every value holds one of {''.join(sorted(stuck))!r}, which the target or a destination cannot take",
            next="choose another kind of generator, or another prefix",
        )
    refuse_too_long(kind, len(positions), max_bytes)
    return SecretBytes("".join(secrets.choice(sorted(position - forbidden)) for position in positions).encode())


def refuse_too_long(kind: str, length_bytes: int, max_bytes: int | None) -> None:
    """Raises BackendError. Cutting a value short would cost entropy that the policy promised."""
    if max_bytes is not None and length_bytes > max_bytes:
        raise BackendError(
            f"generator {kind}: the value would be too long",
            why=f"{length_bytes} bytes, and the target or a destination takes at most {max_bytes}",
            next="make the value shorter in the policy",
        )
