"""Secrets in a key-value store, read as any application reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar

from tests.servers.vaults import Vaults
from vaultkeeper.model.policy import DestinationSpec, Read


class VaultKvPlace:
    """A mount of its own, in which every `spec` is a new path. The secret is ours alone."""

    kind = "vault_kv"
    names: tuple[str, ...] = ("password", "db url")

    def __init__(self) -> None:
        self.vault = Vaults()
        self._made = 0
        self._connection = self.connection()

    def connection(self) -> dict[str, Any]:
        return self.vault.by_token()

    def settings(self) -> dict[str, object]:
        return {"merge": False, "destroy_old": True}

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        self._made += 1
        where = {"mount": self.vault.mount, "path": f"shop/app {self._made}", **self._connection}
        return DestinationSpec(self.kind, values, Read.PER_USE, {**where, **self.settings()})

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        found = (self.vault.get(str(spec.settings["path"])) or {}).get(name or "value")
        return None if found is None else str(found).encode()

    def pass_time(self, duration: timedelta) -> None:
        time.sleep(min(duration.total_seconds(), 1))

    def stop(self) -> None:
        self.vault.stop()


class SharedVaultKvPlace(VaultKvPlace):
    """A secret with other people's keys, reached by AppRole, with a note of who wrote what."""

    foreign: ClassVar[Mapping[str, object]] = {"username": "shop", "port": 5432, "tls": True}

    def connection(self) -> dict[str, Any]:
        return self.vault.connection()

    def settings(self) -> dict[str, object]:
        return {"custom_metadata": True}

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        self.vault.put(str(spec.settings["path"]), self.foreign)
        return self.read_foreign(spec)

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        found = self.vault.get(str(spec.settings["path"])) or {}
        return repr({key: found.get(key) for key in self.foreign}).encode()


class LoneVaultKvPlace(VaultKvPlace):
    names: tuple[str, ...] = ("",)


def start() -> VaultKvPlace:
    return SharedVaultKvPlace()


VARIANTS: Mapping[str, Callable[[], VaultKvPlace]] = {
    "shared": SharedVaultKvPlace,
    "alone": VaultKvPlace,
    "lone": LoneVaultKvPlace,
}
"""Each of them keeps the contract."""
