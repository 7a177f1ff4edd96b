"""Bearer tokens: random bytes in URL-safe base64 without padding (RFC 4648 section 5), 32 bytes for 256 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vaultkeeper.generators import Drawn, InSixBits, Position


class Settings(InSixBits):
    """What a policy may say beside `kind: token`."""


class TokenGenerator(Drawn):
    """A value that decodes to `bytes` bytes."""

    kind: ClassVar[str] = "token"
    field: ClassVar[str] = "token"
    Settings: ClassVar[type[Settings]] = Settings

    def positions(self, settings: Mapping[str, object]) -> list[Position]:
        return Settings.model_validate(settings).positions("-_")
