"""Secrets that a Grafana checks or reads, and the requests that a rotation of each cannot do without.

The server is the simulator: what is counted are requests. Its clock runs fast, because whether an old token is still
used can be told after minutes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from vaultkeeper.model.policy import DestinationSpec, GeneratorSpec, Place, Read, RotationPolicy, TargetSpec
from vaultkeeper.model.secret import Fields, SecretBytes, Strategy
from vaultkeeper.testing.grafana import SimulatedGrafana

SPEED = 1e6  # a second is more than eleven days
AT_ONCE = timedelta(0)


@dataclass(frozen=True)
class Case:
    """One secret, what works today, and what a rotation of it must ask."""

    policy: RotationPolicy
    works_today: Fields
    needed: tuple[str, ...]


class Grafana:
    """A server with one user, one service account and one data source. `folder` is its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._server = folder, SimulatedGrafana(speed=SPEED)
        self._admin = folder / "admin"
        self._admin.write_text(self._server.state.admin.password)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def _by_password(self) -> Mapping[str, Any]:
        return {"username": "admin", "password": {"file": str(self._admin)}}

    def cases(self) -> Iterator[Case]:
        yield self._user()
        yield self._token()
        yield self._source()

    def _user(self) -> Case:
        user = self._server.state.user("bench", "bench@example.test")
        settings = {"url": self._server.url, "user": user.login, "admin": self._by_password}
        target = TargetSpec("grafana_admin", Strategy.SINGLE, settings)
        needed = (
            "log in with the old password",
            "look the user up",
            "set the new password",
            "log in with it",
            "be refused with the old one",
        )
        return Case(self._policy("grafana_admin", target), {"password": SecretBytes(user.password.encode())}, needed)

    def _token(self) -> Case:
        account = self._server.state.account("bench")
        token = self._server.state.token(account, "by hand")
        settings = {"url": self._server.url, "service_account": "bench", "admin": self._by_password}
        settings["unused_for"] = "0s"
        target = TargetSpec("grafana_service_account_token", Strategy.MINTED, settings)
        needed = (
            "find the account",
            "list its tokens",
            "see what may be done",
            "make a token",
            "use it",
            "be refused with a wrong one",
            "list the tokens for the last use",
            "delete the old one",
            "be refused with it, which gives no reason",
            "see that Grafana is well",
            "list the tokens: it is gone",
        )
        policy = self._policy("grafana_service_account_token", target)
        return Case(policy, {"token": SecretBytes(token.value.encode())}, needed)

    def _source(self) -> Case:
        source = self._server.state.source("bench", "x", {"password": "by hand"}, url="u")
        settings = {"url": self._server.url, "uid": source.row["uid"], "auth": self._by_password}
        place = DestinationSpec("grafana_datasource", {"password": "{password}"}, Read.PER_USE, settings)
        policy = self._policy("grafana_datasource", None, place)
        needed = ("read it", "see what may be done", "write it", "read it again", "ask for its health")
        return Case(policy, {"password": SecretBytes(b"by hand")}, needed)

    def _policy(self, name: str, target: TargetSpec | None, *destinations: DestinationSpec) -> RotationPolicy:
        minted = target is not None and target.strategy is Strategy.MINTED
        return RotationPolicy(
            name,
            Place("bench"),
            generator=None if minted else GeneratorSpec("password"),
            target=target,
            strategy=target.strategy if target else None,
            destinations=destinations,
            min_interval=AT_ONCE,
            grace_period=AT_ONCE,
        )
