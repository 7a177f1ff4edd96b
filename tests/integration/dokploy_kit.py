"""One service in a simulated Dokploy, and deliveries to it as the engine makes them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.delivery_kit import Delivery, version
from tests.servers.dokploy import simulated
from vaultkeeper.destinations.dokploy import DokployDestination
from vaultkeeper.model.outcome import Confirmation, NotYet
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import SecretVersion
from vaultkeeper.testing.dokploy import Service, SimulatedDokploy, User

OLD_TEXT = "# the shop\r\nDB_PASSWORD=\"old one\"\r\n\r\nexport OTHER='kept # so'\r\n"


def value(prefix: str = "vk-canary-") -> str:
    return prefix + secrets.token_hex(8)


@dataclass
class Shop:
    """An application `shop/production/web`, and a member whose key may see it and look into Docker."""

    dokploy: SimulatedDokploy
    folder: Path
    project: dict[str, Any]
    environment: dict[str, Any]
    member: User
    service: Service
    key: str
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def env(self) -> str:
        return str(self.service.row["env"])

    @property
    def running(self) -> Mapping[str, str]:
        """What the newest container has, once what is under way has come to rest."""
        self.dokploy.state.advance(30)
        return self.dokploy.state.running(self.service)[0]

    def called(self, procedure: str) -> list[dict[str, Any]]:
        return [seen.given for seen in self.dokploy.seen if seen.procedure == procedure]

    def add(self, kind: str, name: str, env: str) -> Service:
        """One more service that the member may see."""
        made = self.dokploy.state.service(kind, self.environment, name, env)
        self.member.services.add(made.id)
        return made

    def spec(self, values: Mapping[str, str] | None = None, **settings: object) -> DestinationSpec:
        place = {} if set(settings) & {"compose", "project", "environment", "postgres"} else {
            "application": self.service.id
        }  # fmt: skip
        told = {"url": self.dokploy.url, "api_key": {"file": str(self.folder / "key")}, **place, **settings}
        healthy_for = timedelta(seconds=10)
        return DestinationSpec(
            "dokploy", values or {"DB_PASSWORD": "{password}"}, Read.AT_START, told, healthy_for=healthy_for
        )

    def delivery(self, values: Mapping[str, str] | None = None, **settings: object) -> Delivery:
        return Delivery.of(DokployDestination.open(), self.spec(values, **settings))

    def confirmed(self, delivery: Delivery, carried: SecretVersion | None, *, polls: int = 60) -> Confirmation:
        """The last answer, after as much of the simulated time as the hook asks for, a minute at most each."""
        answer = delivery.confirm(carried)
        for _ in range(polls):
            if not isinstance(answer, NotYet):
                break
            self.dokploy.state.advance(min(answer.after.total_seconds(), 5))
            answer = delivery.confirm(carried)
        return answer


def open_shop(folder: Path, *, speed: float = 0.0) -> Shop:
    """Its clock stands still unless `speed` says otherwise: a machine that stalls must not let a deployment end."""
    dokploy = simulated(speed=speed)
    state = dokploy.state
    project = state.project("shop", "SHARED='p one'\n")
    environment = state.environment(project, "production", "STAGE=prod\n")
    member = state.user(owner=False)
    member.sees_docker = True
    service = state.service("application", environment, "web", OLD_TEXT, buildArgs="ARG=1", buildSecrets="NPM=2")
    member.services.add(service.id)
    key = state.key(member).value
    (folder / "key").write_text(key)
    return Shop(dokploy, folder, project, environment, member, service, key)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    opened = open_shop(tmp_path)
    yield opened
    opened.dokploy.stop()


def pair() -> Sequence[SecretVersion]:
    """The old value of OLD_TEXT, and a new one."""
    return version(1, "old one"), version(2, value())
