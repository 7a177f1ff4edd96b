"""Consumers that cannot run on the new value end running on the old one, which their target accepts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.shop_kit import single, taking_turns
from tests.integration.swarm_kit import FILE, Member, Stack, stack
from tests.servers.docker import SECOND, Engine
from tests.servers.postgres import PostgresServer

NEVER = {"Test": ["CMD", "test", "-e", "/tmp/healthy"], "Interval": SECOND // 2, "StartPeriod": 600 * SECOND}
HOST_PORT = {"Ports": [{"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 28080, "PublishMode": "host"}]}

CASES: Mapping[str, dict[str, Any]] = {
    "exits": {"breaks": "exit"},
    "exits-stop-first": {"breaks": "exit", "update": {"Order": "stop-first"}, "replicas": 2},
    "never-healthy": {"breaks": "unhealthy", "container": {"Healthcheck": NEVER}},
    "late": {"breaks": "late"},
    "continue": {"breaks": "exit", "update": {"FailureAction": "continue"}},
    "no-update-config": {"breaks": "exit", "update_config": False},
    "host-port": {"EndpointSpec": HOST_PORT},
}
SAYS_WHY = {"exits", "exits-stop-first", "late", "continue", "no-update-config"}
WITH_DEADLINE = {"never-healthy", "host-port"}
DEADLINE = {"timeout": "20s", "healthy_for": "1s"}  # for the way back too, slow where there is load


def test_broken_consumers_run_on_the_old_value_again_and_it_is_accepted(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    place = stack(tmp_path, docker, postgres)
    members = {case: _member(place, case) for case in CASES}
    entries = place.rotated(code=5)
    for case, member in members.items():
        entry = entries[member.name]
        print(case, entry)
        assert entry["state"] == "rolled_back", case
        _runs_on_the_old_value(place, member)
        _nobody_was_refused(place, member)
        (service,) = member.services
        told = str(entry)
        assert service.name in told
        assert member.first_value.split()[1] not in told
        assert "Error grabbing" not in told  # the Engine's own words about a task without a log
        assert place.objects(member) == [member.object]
        if case in SAYS_WHY:
            assert "broken" in told, case


def _member(place: Stack, case: str) -> Member:
    kind = single if case in {"late", "continue"} else taking_turns
    member = place.member(f"shop/{case}", kind(place.server))
    place.service(member, case, started=False, **CASES[case])
    place.policy(member, destination=DEADLINE if case in WITH_DEADLINE else {})
    place.adopt(member)
    return member


def _runs_on_the_old_value(place: Stack, member: Member) -> None:
    (service,) = member.services
    place.docker.wait_for(f"{service.name} runs", service.all_running)
    assert service.read(FILE) == {member.first_value.encode()}
    assert place.accepts(member.first_value)
    (name,) = service.files().values()
    assert name == member.object


def _nobody_was_refused(place: Stack, member: Member) -> None:
    """With a single account the old value is refused for a while: the stated gap."""
    if member.account.settings["strategy"] == "single":
        assert place.stored(member) == member.first_value
    else:
        assert [line for line in member.services[0].logs() if line.startswith("refused")] == []
