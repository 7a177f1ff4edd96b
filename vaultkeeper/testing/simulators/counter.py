"""A generator whose values replay: the n-th value of a world is always the same, and no two are equal."""

from __future__ import annotations

import hashlib
import math
import string
from collections.abc import Mapping
from typing import Any, ClassVar

from vaultkeeper.model.secret import Fields, SecretBytes
from vaultkeeper.testing.simulators.base import Settings
from vaultkeeper.testing.world import World

LENGTH = 24
ALPHABET = frozenset(string.ascii_letters + string.digits)


class CounterGenerator:
    kind: ClassVar[str] = "sim_counter"
    field: ClassVar[str] = "password"
    Settings: ClassVar[type[Any]] = Settings

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        state = World.named(str(settings["world"])).system(str(settings["system"]))
        number = state["generated"] = state.get("generated", 0) + 1
        allowed = sorted(ALPHABET - forbidden)
        stream = hashlib.shake_256(f"{settings['system']} {number}".encode()).digest(min(LENGTH, max_bytes or LENGTH))
        return {self.field: SecretBytes("".join(allowed[byte % len(allowed)] for byte in stream).encode())}

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        """As if it were random, which it is not: it never leaves a simulation."""
        return LENGTH * math.log2(max(len(ALPHABET - forbidden), 1))

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return ALPHABET
