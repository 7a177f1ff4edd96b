"""Every character is equally likely at every position: χ² against the uniform distribution."""

from __future__ import annotations

import math
import secrets
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from vaultkeeper.generators.base64 import Base64Generator
from vaultkeeper.generators.hex import HexGenerator
from vaultkeeper.generators.password import PasswordGenerator
from vaultkeeper.generators.token import TokenGenerator

DRAWS = 4000
Z = 6.0
"""Standard deviations, by Wilson and Hilferty's approximation: a fair generator exceeds it once in 1e9 positions."""


def limit(degrees: int) -> float:
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + Z * math.sqrt(spread)) ** 3


def chi_squared(characters: Sequence[str], alphabet: frozenset[str] | set[str]) -> float:
    seen = Counter(characters)
    assert set(seen) <= alphabet
    expected = len(characters) / len(alphabet)
    return sum((seen[c] - expected) ** 2 / expected for c in alphabet)


@pytest.mark.parametrize(
    ("generator", "asked"),
    [
        (PasswordGenerator(), {"length": 16, "first": "any"}),
        (TokenGenerator(), {"bytes": 12}),
        (Base64Generator(), {"bytes": 12}),
        (HexGenerator(), {"bytes": 8}),
    ],
)
def test_every_character_is_equally_likely_at_every_position(generator: Any, asked: dict[str, object]) -> None:
    alphabet = generator.alphabet(asked)
    nothing: frozenset[str] = frozenset()
    values = [generator.generate(asked, nothing, None)[generator.field].text() for _ in range(DRAWS)]
    pooled: list[str] = []
    for position in zip(*values, strict=True):
        assert chi_squared(position, alphabet) < limit(len(alphabet) - 1)
        pooled.extend(position)
    assert chi_squared(pooled, alphabet) < limit(len(alphabet) - 1)


def test_class_rules_leave_no_trace_in_any_position() -> None:
    """Place-then-shuffle, and putting the required digit last, would show here."""
    asked = {"length": 8, "first": "any", "minimum": {"digits": 2}, "exclude": string.ascii_uppercase}
    values = [PasswordGenerator().generate(asked, frozenset(), None)["password"].text() for _ in range(DRAWS)]
    digit_shares = [sum(v[i].isdigit() for v in values) for i in range(8)]
    # P(digit at a position | at least two among eight), by exact counting: 10/36 · (1 - (26/36)^7) / P(two or more)
    p, rest = 10 / 36, 26 / 36
    at_least_two = 1 - rest**8 - 8 * p * rest**7
    share = p * (1 - rest**7) / at_least_two
    spread = math.sqrt(DRAWS * share * (1 - share))
    assert all(abs(seen - DRAWS * share) < Z * spread for seen in digit_shares)
    for i in range(8):
        assert chi_squared([v[i] for v in values if v[i].isdigit()], set(string.digits)) < limit(9)


def test_the_measure_finds_the_bias_of_a_remainder() -> None:
    """The control: `byte % 62` makes eight characters a quarter likelier."""
    alphabet = string.ascii_letters + string.digits
    biased = [alphabet[byte % 62] for byte in secrets.token_bytes(16 * DRAWS)]
    assert chi_squared(biased, set(alphabet)) > limit(61)
