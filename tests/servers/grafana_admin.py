"""Users of a Grafana, and logins as clients make them."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager

from tests.servers import TestAccount
from tests.servers.grafana import FAULTS, Grafanas, basic

__all__ = ["FAULTS", "VARIANTS", "start"]

ODD = 'o\'brien "50%" \\ äß日 @x'
"""What a login name may hold."""


class GrafanaUsers:
    """Every account is a user of its own, with an e-mail address and an odd name."""

    kind = "grafana_admin"

    def __init__(self) -> None:
        self.grafana = Grafanas()

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        """Its password is set by the admin."""
        login, password = name or f"{ODD} {secrets.token_hex(4)}", secrets.token_urlsafe(18)
        self.grafana.user(login, password)
        return TestAccount(
            login, password, {"url": self.grafana.url, "user": login, "admin": self.grafana.by_password, **options}
        )

    def itself(self) -> TestAccount:
        """It changes its own."""
        login, email, password = f"vk-self-{secrets.token_hex(4)}", f"{secrets.token_hex(6)}@example.test", "first one"
        self.grafana.user(login, password, email)
        return TestAccount(login, password, {"url": self.grafana.url, "user": login, "email": email, "admin": "self"})

    def login(self, username: str, password: str) -> bool:
        return self.grafana.is_let_in(basic(username, password))

    def fault(self, name: str, **options: object) -> AbstractContextManager[object]:
        return self.grafana.fault(name)

    def stop(self) -> None:
        self.grafana.stop()


def start() -> GrafanaUsers:
    return GrafanaUsers()


VARIANTS = {"by_admin": GrafanaUsers.account, "itself": GrafanaUsers.itself}
"""Each of them keeps the contract."""
