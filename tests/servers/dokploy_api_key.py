"""Keys of a simulated Dokploy (`vaultkeeper.testing.dokploy`), used by a client that knows nothing of vaultkeeper."""

from __future__ import annotations

import http.client
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import TestAccount
from tests.servers.dokploy import simulated

FAULTS = ("unreachable", "silent", "lost-reply")


class DokployKeys:
    """Every account is a member of its own, with one key that a person made."""

    kind = "dokploy_api_key"

    def __init__(self) -> None:
        self.dokploy = simulated()

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        state = self.dokploy.state
        name = name or f"by hand {secrets.token_hex(3)}"
        key = state.key(state.user(owner=False), name)
        return TestAccount("", key.value, {"url": self.dokploy.url, "first_key": name, **options})

    def foreign(self, account: TestAccount) -> tuple[str, str]:
        """Another key of the same user."""
        state = self.dokploy.state
        owner = next(key.user for key in state.keys.values() if key.name == account.settings["first_key"])
        return "", state.key(state.users[owner], "somebody else's").value

    def login(self, username: str, password: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.dokploy.port, timeout=60)
        try:
            connection.request("GET", "/api/settings.getDokployVersion", headers={"x-api-key": password})
            status = connection.getresponse().status
        finally:
            connection.close()
        if status not in (200, 401):
            raise OSError(f"Dokploy answered {status}")
        return status == 200

    @contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        with self.dokploy.fault(name):
            yield

    def stop(self) -> None:
        self.dokploy.stop()


def start() -> DokployKeys:
    return DokployKeys()
