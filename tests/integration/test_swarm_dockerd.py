"""dockerd dies in the middle of a rotation, and comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.shop_kit import PATIENCE_S
from tests.integration.swarm_kit import FILE, one, stack
from tests.servers.docker import Engine
from tests.servers.postgres import PostgresServer


@pytest.mark.parametrize("back_at_once", [True, False], ids=["the command sees it come back", "resume goes on"])
def test_invariant_07_a_killed_dockerd_comes_back_and_the_rotation_converges(
    new_docker: Callable[[], Engine], postgres: PostgresServer, tmp_path: Path, *, back_at_once: bool
) -> None:
    engine = new_docker()
    place = stack(tmp_path, engine, postgres)
    member = one(place, replicas=2)
    (service,) = member.services
    running = place.start("rotate", member.name, *([] if back_at_once else ["--wait", "5s"]))
    engine.wait_for("it is switched", lambda: service.files()[FILE] != member.object)
    engine.kill()
    if back_at_once:
        engine.start_again()
        running.wait(PATIENCE_S)
        print(place.said)
    else:
        assert running.wait(PATIENCE_S) in {5, 6}, place.said
        assert place.accepts(member.first_value)
        engine.start_again()
    ran = place.vk("resume", member.name)
    assert ran.code in {0, 5}, ran.err  # back, where dockerd took tasks with it that ran on the new value already
    (entry,) = place.ok("history", member.name, "--limit", "1", "--json").json["rotations"]
    assert entry["state"] in {"done", "rolled_back"}
    engine.wait_for("it runs", service.all_running)
    assert place.agrees(member) == ""


def test_a_rotation_that_can_go_neither_way_is_parked_and_says_which_value_works(
    new_docker: Callable[[], Engine], postgres: PostgresServer, tmp_path: Path
) -> None:
    """In the middle of it no node takes tasks any more; the consumers that there were are gone."""
    engine = new_docker()
    place = stack(tmp_path, engine, postgres)
    member = one(place)
    place.policy(member, destination={"timeout": "20s"})  # longer than healthy_for, or no way back could be confirmed
    (service,) = member.services
    running = place.start("rotate", member.name)
    engine.wait_for("it is switched", lambda: service.files()[FILE] != member.object)
    set_node(engine, "drain")
    code = running.wait(PATIENCE_S)
    print(code, place.said)
    assert code == 6
    assert service.name in place.said
    assert "works" in place.said
    assert place.accepts(member.first_value)
    set_node(engine, "active")
    engine.wait_for("it runs", service.all_running)
    place.ok("rollback", member.name, code=5)
    assert place.agrees(member) == ""
    assert place.stored(member) == member.first_value


def set_node(engine: Engine, availability: str) -> None:
    (node,) = engine.api("GET", "/nodes")
    spec = {**node["Spec"], "Availability": availability}
    engine.api("POST", f"/nodes/{node['ID']}/update", spec, version=str(node["Version"]["Index"]))
