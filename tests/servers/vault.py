"""Random values of Vault's own source."""

from __future__ import annotations

from collections.abc import Mapping

from tests.servers.vaults import Vaults


def start() -> Vaults:
    return Vaults()


def settings_to_try(server: Vaults) -> tuple[Mapping[str, object], ...]:
    """What the generator contract tries, hundreds of times."""
    return (server.connection(), {**server.by_token(), "bytes": 16, "format": "base64"})
