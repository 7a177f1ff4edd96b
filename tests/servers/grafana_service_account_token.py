"""Tokens of service accounts of a Grafana, used as clients use them.

The simulator's clock runs fast: whether a token is still in use can be told after minutes only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta

from tests.servers import TestAccount
from tests.servers.grafana import FAULTS, Grafanas

__all__ = ["FAULTS", "VARIANTS", "start"]

SPEED = 20_000.0  # a second is more than five hours


class GrafanaTokens:
    """Every account is a service account of its own, with one token that a person made."""

    kind = "grafana_service_account_token"

    def __init__(self) -> None:
        self.grafana = Grafanas(speed=SPEED)
        self._accounts: dict[str, int] = {}

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        id_, called = self.grafana.service_account("Viewer")
        return self._by_hand(id_, called, admin=self.grafana.by_password, **options)

    def itself(self) -> TestAccount:
        """With the role None, and Edit on itself."""
        id_, called = self.grafana.service_account(edits_itself=True)
        return self._by_hand(id_, called, admin="self")

    def _by_hand(self, id_: int, called: str, **options: object) -> TestAccount:
        self._accounts[called] = id_
        settings = {"url": self.grafana.url, "service_account": called, "first_token": f"{called} by hand", **options}
        return TestAccount("", self.grafana.token(id_, f"{called} by hand"), settings)

    def foreign(self, account: object) -> tuple[str, str]:
        """Another token of the same account."""
        assert isinstance(account, TestAccount)
        called = str(account.settings["service_account"])
        return "", self.grafana.token(self._accounts[called], f"{called} somebody else's")

    def login(self, username: str, password: str) -> bool:
        return self.grafana.is_let_in({"Authorization": f"Bearer {password}"})

    def pass_time(self, duration: timedelta) -> None:
        """Of the simulator alone: it waits for nothing."""
        if self.grafana.simulator is not None:
            self.grafana.state.advance(duration.total_seconds())

    def fault(self, name: str, **options: object) -> AbstractContextManager[object]:
        return self.grafana.fault(name, losing=r"(GET|POST|DELETE) \S*/api/")

    def stop(self) -> None:
        self.grafana.stop()


def start() -> GrafanaTokens:
    return GrafanaTokens()


VARIANTS = {"by_admin": GrafanaTokens.account, "itself": GrafanaTokens.itself}
"""Each of them keeps the contract."""
