"""Services of every mode, and several secrets of one service: side by side in one command."""

from __future__ import annotations

from pathlib import Path

from tests.integration.swarm_kit import FILE, Member, Stack, stack
from tests.servers.docker import SECOND, Engine
from tests.servers.postgres import PostgresServer

JOB = {"Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}, "update_config": False}


def made(place: Stack, name: str, **options: object) -> Member:
    member = place.member(name)
    place.service(member, name.replace("/", "-"), started=False, **options)
    place.policy(member)
    place.adopt(member)
    return member


def test_every_mode_of_a_service_has_a_defined_answer(docker: Engine, postgres: PostgresServer, tmp_path: Path) -> None:
    place = stack(tmp_path, docker, postgres)
    everywhere = made(place, "shop/global", replicas=None)
    nobody = made(place, "shop/nobody", replicas=0)
    job = made(place, "shop/job", **JOB)
    paused = made(place, "shop/paused", update={"FailureAction": "pause"})
    with_override = place.member("shop/override")
    place.service(with_override, "override", update={"Delay": SECOND})
    place.policy(with_override, destination={"update_config": {"parallelism": 0, "monitor": "2s"}})
    place.adopt(with_override)
    _pause(docker, paused)

    before = with_override.services[0].spec()["UpdateConfig"]
    entries = place.rotated(code=5)
    for name, entry in entries.items():
        print(name, entry)
    ends = {name: entry["state"] for name, entry in entries.items()}
    assert ends == {
        "shop/global": "done", "shop/nobody": "done", "shop/override": "done",
        "shop/job": "rolled_back", "shop/paused": "rolled_back",
    }  # fmt: skip
    for member in (everywhere, with_override):
        assert place.agrees(member) == ""
    assert with_override.services[0].spec()["UpdateConfig"] == before
    for member in (job, paused):
        assert member.services[0].name in str(entries[member.name])
        assert member.services[0].files() == {FILE: member.object}
        assert place.accepts(member.first_value)
    nobody.services[0].set(lambda spec: spec["Mode"]["Replicated"].update(Replicas=1))
    docker.wait_for("it runs", nobody.services[0].all_running)
    assert place.agrees(nobody) == ""


def _pause(docker: Engine, member: Member) -> None:
    """Somebody's own update of it has failed, and stands still."""
    (service,) = member.services
    docker.wait_for("it runs", service.all_running)
    service.set(lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Command=["false"]))
    docker.wait_for("its update is paused", lambda: service.update_state() == "paused")


def test_all_that_a_command_has_for_one_service_restarts_it_once(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    place = stack(tmp_path, docker, postgres)
    first, second = place.member("shop/one"), place.member("shop/two")
    service = place.docker.service("app", {"one": first.by_hand, "two": second.by_hand}, environment={"SECRET": "one"})
    for member, file in ((first, "one"), (second, "two")):
        destination = {"mount": {"target": file}, "services": [service.name]}
        place.policy(member, destination=destination)
        place.adopt(member)
    assert {entry["state"] for entry in place.rotated().values()} == {"done"}
    assert len(service.tasks()) == 2
    assert {file: service.read(file) for file in ("one", "two")} == {
        "one": {place.stored(first).encode()}, "two": {place.stored(second).encode()},
    }  # fmt: skip
