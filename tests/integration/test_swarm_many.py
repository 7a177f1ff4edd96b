"""Twenty services share one secret. `scripts/bench shared --services 200` does it with two hundred."""

from __future__ import annotations

from pathlib import Path

from tests.integration.swarm_kit import stack
from tests.servers.docker import Engine
from tests.servers.postgres import PostgresServer
from vaultkeeper.destinations.swarm import MOST_MOVING

SERVICES = 20


def test_twenty_services_that_share_a_secret_are_updated_side_by_side_and_not_all_at_once(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    place = stack(tmp_path, docker, postgres)
    member = place.member("shop/db")
    for number in range(SERVICES):
        place.service(member, f"app{number}", started=False, healthcheck=False, environment={"EVERY": "3"})
    for service in member.services:
        docker.wait_for(f"{service.name} runs", service.all_running)
    place.policy(member)
    place.adopt(member)
    running = place.start("rotate", member.name, "-v")
    most = 0
    while running.poll() is None:
        states = [(service.get("UpdateStatus") or {}).get("State") for service in docker.services()]
        most = max(most, states.count("updating"))
    assert running.returncode == 0, place.said
    assert 1 < most <= MOST_MOVING
    assert place.agrees(member) == ""
    assert all(f"{number} of {SERVICES}: " in place.said for number in range(1, SERVICES + 1))
