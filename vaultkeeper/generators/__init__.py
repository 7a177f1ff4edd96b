"""One file per kind of generator, found by existing.

What the encoded kinds share stands here, since no generator imports another: an encoded random value is a row of
positions, each with its own set of characters. A target that cannot take some characters narrows each set, and every
position still draws uniformly from what is left, so entropy is a plain sum.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence

from vaultkeeper.errors import BackendError
from vaultkeeper.model.secret import SecretBytes

Position = frozenset[str]
"""The characters that one place of a value may hold. One character: a constant, such as a prefix's."""


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
