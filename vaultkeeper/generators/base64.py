"""Random bytes in standard base64 with padding (RFC 4648 section 4), as Laravel's `APP_KEY` wants: `prefix: "base64:"`.

Source: https://laravel.com/docs/encryption (`key:generate` writes `base64:` and 32 bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vaultkeeper.generators import Drawn, InSixBits, Position, constant


class Settings(InSixBits):
    """What a policy may say beside `kind: base64`."""


class Base64Generator(Drawn):
    """A value that decodes to `bytes` bytes."""

    kind: ClassVar[str] = "base64"
    field: ClassVar[str] = "value"
    Settings: ClassVar[type[Settings]] = Settings

    def positions(self, settings: Mapping[str, object]) -> list[Position]:
        asked = Settings.model_validate(settings)
        return asked.positions("+/") + constant("=" * (-asked.bytes % 3))
