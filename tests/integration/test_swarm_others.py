"""Somebody else's hands in the swarm, before, during and after a rotation: it ends where this page says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.integration.shop_kit import PATIENCE_S
from tests.integration.swarm_kit import FILE, Member, Stack, one, stack
from tests.servers.docker import Engine
from tests.servers.docker_service import Service
from tests.servers.postgres import PostgresServer

# ------------------------------------------------------------------------------------------------------ in the middle


def scaled(_place: Stack, service: Service) -> None:
    service.set(lambda spec: spec["Mode"]["Replicated"].update(Replicas=3))


def updated(_place: Stack, service: Service) -> None:
    service.set(lambda spec: spec["TaskTemplate"]["ContainerSpec"]["Env"].append("THEIRS=kept"))


def old_object_deleted(place: Stack, service: Service) -> None:
    (member,) = place.members.values()
    place.docker.api("DELETE", f"/secrets/{member.by_hand['ID']}")


def rolled_back(_place: Stack, service: Service) -> None:
    service.roll_back()


def service_deleted(_place: Stack, service: Service) -> None:
    service.remove()


ENDS: Mapping[str, tuple[Callable[[Stack, Service], None], int, str]] = {
    "scaled": (scaled, 0, "done"),
    "updated": (updated, 0, "done"),
    "old object deleted": (old_object_deleted, 0, "done"),
    "old object deleted, and needed": (old_object_deleted, 5, "rolled_back"),
    "rolled back": (rolled_back, 5, "rolled_back"),
    "service deleted": (service_deleted, 5, "rolled_back"),
}


def test_whatever_is_done_to_a_service_in_the_middle_of_a_rotation_has_a_defined_end(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    places: dict[str, tuple[Stack, Member]] = {}
    for name in ENDS:
        folder = tmp_path / name
        folder.mkdir()
        place = stack(folder, docker, postgres)
        places[name] = place, one(place, breaks="late" if name.endswith("needed") else "")
    running = {name: place.start("rotate", member.name, "--json") for name, (place, member) in places.items()}
    untouched = dict(places)

    def all_touched() -> bool:
        """Each as soon as it is switched: none of them waits for another."""
        for name, (place, member) in list(untouched.items()):
            (service,) = member.services
            if service.files()[FILE] != member.object:
                ENDS[name][0](place, service)
                del untouched[name]
        return not untouched

    docker.wait_for("all are switched", all_touched)
    ends = {}
    for name, (place, member) in places.items():
        code = running[name].wait(PATIENCE_S)
        print(name, code, place.answered, place.said)
        (entry,) = json.loads(place.answered)["rotations"]
        ends[name] = (code, entry["state"])
        if name == "service deleted":
            assert member.services[0].name in str(entry)
            assert place.accepts(member.first_value)
        else:
            assert place.agrees(member) == "", name
    assert ends == {name: (code, state) for name, (_, code, state) in ENDS.items()}
    _kept_what_others_wrote(places)


def _kept_what_others_wrote(places: Mapping[str, tuple[Stack, Member]]) -> None:
    (service,) = places["scaled"][1].services
    assert len(service.running()) == 3
    (service,) = places["updated"][1].services
    assert "THEIRS=kept" in service.spec()["TaskTemplate"]["ContainerSpec"]["Env"]


# ------------------------------------------------------------------------------------------------------- before, after


def test_a_rollback_by_hand_after_a_rotation_leaves_a_working_service_and_the_next_rotation_goes_through(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    place = stack(tmp_path, docker, postgres)
    member = one(place)
    (service,) = member.services
    assert place.rotated(member.name)[member.name]["state"] == "done"
    service.roll_back()
    docker.wait_for("it has settled", lambda: service.update_state() != "rollback_started")
    docker.wait_for("it runs", service.all_running)
    assert place.agrees(member) == ""
    assert place.rotated(member.name)[member.name]["state"] == "done"
    assert place.agrees(member) == ""


def test_a_rollback_by_hand_within_grace_works_is_seen_and_repaired(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    place = stack(tmp_path, docker, postgres)
    member = one(place)
    place.policy(member, grace_period="1h")
    (service,) = member.services
    assert place.rotated(member.name)[member.name]["state"] == "waiting"
    service.roll_back()
    docker.wait_for("it runs on the old value", lambda: len(service.running(member.object)) == 1)
    assert place.accepts(member.first_value)
    told = place.vk("status", "--observe", "--json")
    print(told.out)
    assert service.name in told.out
    proposals = place.ok("reconcile", member.name, "--json").json["proposals"]
    print(proposals)
    assert proposals
    assert place.ok("rotate", "--due", "--json").json["rotations"] == []  # by default it is told only
    place.policy(member, grace_period="1h", on_drift="repair")
    (entry,) = place.ok("rotate", "--due", "--json").json["rotations"]
    assert (entry["secret"], entry["state"]) == (member.name, "repaired")
    docker.wait_for("it runs on the new value", lambda: service.all_running() and not service.running(member.object))
    assert place.agrees(member) == ""


def test_a_service_that_does_not_exist_is_named_before_anything_is_changed(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    place = stack(tmp_path, docker, postgres)
    member = one(place)
    (service,) = member.services
    service.remove()
    ran = place.vk("rotate", member.name)
    print(ran.code, ran.err)
    assert ran.code == 5
    assert service.name in ran.err
    assert place.stored(member) == member.first_value
    assert place.accepts(member.first_value)
    assert place.objects(member) == [member.object]
