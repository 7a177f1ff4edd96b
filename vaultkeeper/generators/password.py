"""Passwords for people's systems: 32 ASCII letters and digits, a letter first, about 190 bits.

That default needs no quoting in URLs, connection strings, compose files, dotenv files, YAML and shells. Rules are kept
by drawing the whole string again, never by placing characters and shuffling: all allowed passwords are equally likely.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaultkeeper.access.settings import Shape
from vaultkeeper.errors import BackendError
from vaultkeeper.generators import refuse_too_long
from vaultkeeper.model.password import PasswordPolicy
from vaultkeeper.model.secret import Fields, SecretBytes

LEAST_ACCEPTANCE = 0.001
"""Below this share of allowed draws the rules are wrong, and drawing again would take noticeable time."""


class Minimum(Shape):
    """How many characters of each class a password holds at least."""

    lower: int = Field(default=0, ge=0, description="a to z, in characters")
    upper: int = Field(default=0, ge=0, description="A to Z, in characters")
    digits: int = Field(default=0, ge=0, description="0 to 9, in characters")
    symbols: int = Field(default=0, ge=0, description="characters of `symbols`, in characters")


class Settings(Shape):
    """What a policy may say beside `kind: password`."""

    length: int = Field(default=32, ge=1, le=256, description="characters, each one byte")
    symbols: str = Field(
        default="", pattern=r"^[!-/:-@\[-`{-~]*$", description="printable ASCII symbols used beside letters and digits"
    )
    minimum: Minimum = Field(default=Minimum(), description="at least so many of a class: {upper: 1, digits: 1}")
    exclude: str = Field(default="", pattern=r"^[!-~]*$", description="characters not to use, such as look-alikes")
    first: Literal["letter", "any"] = Field(default="letter", description="what may stand first")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not _policy(self, frozenset()).count:
            raise ValueError(
                "no password keeps these rules: the minimums exceed the length, ask for a class that is not in use "
                "(`symbols` names the symbols), or nothing may stand first"
            )
        return self


class PasswordGenerator:
    """Draws with `secrets` until the whole string keeps the rules."""

    kind: ClassVar[str] = "password"
    field: ClassVar[str] = "password"
    Settings: ClassVar[type[Settings]] = Settings

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        """Raises BackendError where `forbidden` or `max_bytes` leaves no password within the rules."""
        policy = _policy(Settings.model_validate(settings), forbidden)
        refuse_too_long(self.kind, policy.length, max_bytes)
        if policy.acceptance < LEAST_ACCEPTANCE:
            raise BackendError(
                "generator password: the rules leave too few passwords",
                why=f"fewer than 1 in {1 / LEAST_ACCEPTANCE:.0f} draws keeps them, within the characters that the "
                "target and the destinations take",
                next="lower `minimum`, exclude less, or say `first: any`",
            )
        first, alphabet = sorted(policy.first), sorted(policy.alphabet)
        while True:
            characters = [secrets.choice(first), *(secrets.choice(alphabet) for _ in range(policy.length - 1))]
            password = "".join(characters)
            if policy.admits(password):
                return {self.field: SecretBytes(password.encode())}

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        return _policy(Settings.model_validate(settings), forbidden).entropy_bits

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return _policy(Settings.model_validate(settings), frozenset()).alphabet


def _policy(settings: Settings, forbidden: frozenset[str]) -> PasswordPolicy:
    """The rules, within what the target and the destinations take."""
    return PasswordPolicy(
        length=settings.length,
        alphabet=frozenset(string.ascii_letters + string.digits + settings.symbols)
        - frozenset(settings.exclude)
        - forbidden,
        lower=settings.minimum.lower,
        upper=settings.minimum.upper,
        digits=settings.minimum.digits,
        symbols=settings.minimum.symbols,
        letter_first=settings.first == "letter",
    )
