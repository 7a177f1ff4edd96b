"""Roles of an AppRole method, whose secret ids applications log in with."""

from __future__ import annotations

from contextlib import AbstractContextManager

from tests.servers import TestAccount
from tests.servers.vaults import FAULTS, Refusal, Vaults

__all__ = ["FAULTS", "start"]


class AppRoles:
    """Every account is a role of its own with one secret id."""

    kind = "vault_approle_secret_id"

    def __init__(self) -> None:
        self.vault = Vaults()
        self._roles: list[str] = []

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        role = name or self.vault.new_role()
        self._roles.append(role)
        settings = {"role": role, "mount": self.vault.approle, **self.vault.connection(), **options}
        return TestAccount("", self.vault.new_secret_id(role), settings)

    def foreign(self, account: object) -> tuple[str, str]:
        assert isinstance(account, TestAccount)
        return "", self.vault.new_secret_id(str(account.settings["role"]))

    def login(self, username: str, password: str) -> bool:
        """With the role that has this secret id. A role is locked by few failures, so that no other is tried."""
        at = f"auth/{self.vault.approle}"
        for role in reversed(self._roles):
            if self.vault.api("POST", f"{at}/role/{role}/secret-id/lookup", {"secret_id": password}).get("data"):
                role_id = self.vault.api("GET", f"{at}/role/{role}/role-id")["data"]["role_id"]
                try:
                    self.vault.api("POST", f"{at}/login", {"role_id": role_id, "secret_id": password}, token="")
                except Refusal as refused:
                    if refused.status == 400:
                        return False
                    raise
                return True
        return False

    def fault(self, name: str, **options: object) -> AbstractContextManager[object]:
        return self.vault.fault(name)

    def stop(self) -> None:
        self.vault.stop()


def start() -> AppRoles:
    return AppRoles()
