"""A Vault and deliveries to it, for tests that look closer than the contract."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.delivery_kit import Delivery, FileCredentials, spec
from tests.servers.vaults import Vaults
from vaultkeeper.destinations.vault_kv import VaultKvDestination
from vaultkeeper.model.secret import Fields, SecretBytes


class Lines(FileCredentials):
    """A file's only line."""

    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        return {"value": SecretBytes(Path(reference["file"]).read_bytes().strip())}


def delivery(vault: Vaults, **settings: object) -> Delivery:
    """One key of one secret, `password` of `shop/db`."""
    where = {**vault.connection(), "mount": vault.mount, **settings}
    one = spec("vault_kv", Path("shop/db"), {"password": "{password}"}, **where)
    return Delivery.of(VaultKvDestination(), one, credentials=Lines())
