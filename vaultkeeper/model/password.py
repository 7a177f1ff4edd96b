"""PasswordPolicy: which strings are allowed as a password, how many there are, and whether one of them is.

Pure counting; `generators/password.py` draws. The count is exact, because class rules cost entropy: four classes in
20 characters of 63 take 119.5 bits down to 117.6.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

LOWER = frozenset(string.ascii_lowercase)
UPPER = frozenset(string.ascii_uppercase)
DIGITS = frozenset(string.digits)
LETTERS = LOWER | UPPER


@dataclass(frozen=True)
class PasswordPolicy:
    """Strings of `length` characters of `alphabet`; at least so many of each class; a letter first where asked.

    A symbol is whatever is neither an ASCII letter nor an ASCII digit.
    """

    length: int
    alphabet: frozenset[str]
    lower: int = 0
    upper: int = 0
    digits: int = 0
    symbols: int = 0
    letter_first: bool = True

    @property
    def first(self) -> frozenset[str]:
        """What may stand first."""
        return self.alphabet & LETTERS if self.letter_first else self.alphabet

    @property
    def count(self) -> int:
        """How many different passwords there are; 0 where the rules contradict each other."""
        classes = self._classes()
        if not self.letter_first:
            return _count(self.length, classes)
        total = 0
        for letters in (0, 1):  # lower, upper: the first character already counts towards its class
            size, minimum = classes[letters]
            rest = (*classes[:letters], (size, minimum - 1), *classes[letters + 1 :])
            total += size * _count(self.length - 1, rest)
        return total

    @property
    def entropy_bits(self) -> float:
        """Of one drawn uniformly among all allowed ones."""
        count = self.count
        return math.log2(count) if count else 0.0

    @property
    def acceptance(self) -> float:
        """The share of draws, made without regard to classes, that is allowed: 0 to 1."""
        draws: int = len(self.first) * len(self.alphabet) ** (self.length - 1)
        return self.count / draws if draws else 0.0

    def admits(self, password: str) -> bool:
        """Whether it keeps every rule."""
        found = [sum(c in members for c in password) for members in (LOWER, UPPER, DIGITS)]
        found.append(len(password) - sum(found))
        wanted = (self.lower, self.upper, self.digits, self.symbols)
        return (
            len(password) == self.length
            and password[0] in self.first
            and self.alphabet.issuperset(password)
            and all(have >= want for have, want in zip(found, wanted, strict=True))
        )

    def _classes(self) -> tuple[tuple[int, int], ...]:
        """(characters in the alphabet, minimum) of lower, upper, digits, symbols."""
        members: Iterable[frozenset[str]] = (LOWER, UPPER, DIGITS, self.alphabet - LETTERS - DIGITS)
        wanted = (self.lower, self.upper, self.digits, self.symbols)
        return tuple((len(self.alphabet & m), w) for m, w in zip(members, wanted, strict=True))


@lru_cache(maxsize=256)
def _count(length: int, classes: tuple[tuple[int, int], ...]) -> int:
    """Strings of `length` over disjoint classes given as (size, minimum), each minimum kept."""
    free = sum(size for size, minimum in classes if minimum <= 0)
    # ways[n]: strings of n characters of the classes seen so far
    ways: list[int] = [free**n for n in range(length + 1)]
    for size, minimum in classes:
        if minimum > 0:
            ways = [
                sum(math.comb(n, k) * size**k * ways[n - k] for k in range(minimum, n + 1)) for n in range(length + 1)
            ]
    return ways[length]
