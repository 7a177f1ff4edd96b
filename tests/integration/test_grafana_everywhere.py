"""One PostgreSQL credential in a data source of Grafana and in a Swarm service: both change, or both go back.

PostgreSQL, dockerd and the consumers are real, and the data source's health check logs in at that PostgreSQL; Grafana
itself is the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.swarm_kit import Member, Stack, stack
from tests.servers.docker import Engine
from tests.servers.grafana import log_in_at_postgres
from tests.servers.postgres import PostgresServer
from vaultkeeper.testing.grafana import SimulatedGrafana, Source

pytestmark = pytest.mark.xdist_group("docker")

NAME = "shop/db"


class Shop:
    """A data source and a service that have the first of two users, in a database that both may enter."""

    def __init__(self, place: Stack, grafana: SimulatedGrafana) -> None:
        self.place, self.grafana = place, grafana
        self.member: Member = place.member(NAME)
        self.database = f"reports_{self.member.account.username}"
        place.server.execute(f'CREATE DATABASE "{self.database}"')
        place.service(self.member, started=False, environment={"EVERY": "0.2"})
        user, password = self.member.account.username, self.member.account.password
        self.source: Source = grafana.state.source(
            "shop",
            "grafana-postgresql-datasource",
            {"password": password},
            url=f"{place.server.host}:{place.server.port}",
            user=user,
            database=self.database,
        )
        self._policy()
        place.docker.wait_for("the service runs", self.member.services[0].all_running)
        place.adopt(self.member)

    def _policy(self) -> None:
        file = self.place.home / "ops"
        file.write_text(self.grafana.state.admin.password)
        file.chmod(0o600)
        source = {
            "kind": "grafana_datasource",
            "url": self.grafana.url,
            "uid": self.source.row["uid"],
            "auth": {"username": "admin", "password": {"file": str(file)}},
            "values": {"user": "{username}", "password": "{password}"},
            "timeout": "2s",
        }
        self.place.policy(self.member, destination={"healthy_for": "2s"})
        swarm = self.place.policies[NAME]["destinations"]
        self.place.policy(self.member, destinations=[source, *swarm])

    @property
    def users(self) -> list[str]:
        return [f"{self.member.account.settings['owner_role']}_{turn}" for turn in "ab"]

    def rotated(self, *, code: int = 0) -> dict[str, Any]:
        entries = self.place.ok("rotate", NAME, "--json", code=code).json["rotations"]
        return dict(entries[0])

    def in_grafana(self) -> str:
        return f"{self.source.row['user']} {self.source.secure['password']}"

    def all_on_it(self) -> str:
        """CURRENT, which store, target, service and data source agree about, and with which the last one logs in."""
        current = self.place.stored(self.member)
        assert self.place.agrees(self.member) == ""
        assert self.in_grafana() == current
        assert log_in_at_postgres(self.source.row, self.source.secure) is None
        return current


@pytest.fixture
def shop(docker: Engine, postgres: PostgresServer, tmp_path: Path) -> Iterator[Shop]:
    grafana = SimulatedGrafana(log_in=log_in_at_postgres)
    made = Shop(stack(tmp_path, docker, postgres), grafana)
    yield made
    grafana.stop()
    postgres.execute(f'DROP DATABASE "{made.database}" WITH (FORCE)')


def test_data_source_and_service_follow_the_database_and_both_go_back_where_the_data_source_fails(shop: Shop) -> None:
    assert shop.rotated()["state"] == "done"
    current = shop.all_on_it()
    assert current.startswith(f"{shop.users[1]} ")
    assert not shop.place.accepts(shop.member.first_value)

    server = shop.place.server
    server.execute(f'REVOKE CONNECT ON DATABASE "{shop.database}" FROM PUBLIC')
    server.execute(f'GRANT CONNECT ON DATABASE "{shop.database}" TO "{shop.users[1]}"')
    entry = shop.rotated(code=5)
    assert (entry["state"], entry["to_version"]) == ("rolled_back", 3)
    assert "permission denied for database" in entry["error"]["why"]
    assert entry["error"]["works"] == "v2 (old): target and consumers are on it"
    assert shop.all_on_it() == current
    written = [seen.given for seen in shop.grafana.seen if seen.method == "PUT"]
    assert [body["user"] for body in written] == [shop.users[1], shop.users[0], shop.users[1]]
    assert not shop.place.accepts(f"{shop.users[0]} {written[1]['secureJsonData']['password']}")
    (service,) = shop.member.services
    assert [line for line in service.logs() if line.startswith("refused")] == []
