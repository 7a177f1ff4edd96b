"""A service that came to read a secret while its rotation was open, by a name that was current until then."""

from __future__ import annotations

from pathlib import Path

from tests.integration.shop_kit import PATIENCE_S
from tests.integration.swarm_kit import FILE, one, stack
from tests.servers.docker import Engine
from tests.servers.postgres import PostgresServer


def test_the_old_value_is_not_retired_while_a_service_that_came_later_runs_on_it(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    place = stack(tmp_path, docker, postgres)
    member = one(place)
    place.policy(member, destination={"discover": True, "services": []}, grace_period="5s")
    running = place.start("rotate", member.name, "--wait", "1s")  # less than the grace: it ends before that does
    docker.wait_for("it is delivered", lambda: member.services[0].files()[FILE] != member.object)
    assert running.wait(PATIENCE_S) in {0, 5}
    late = place.service(member, "late")
    assert set(late.files().values()) == {member.object}
    ran = place.vk("resume", member.name)
    print(ran.code, ran.out, ran.err)
    assert place.accepts(member.first_value)
    assert late.name in ran.err
    assert ran.code == 6
    assert late.name in place.ok("reconcile", member.name, "--json").out
    place.ok("reconcile", member.name, "--apply", "deliver")
    docker.wait_for("it runs on the new value", lambda: late.all_running() and late.files()[FILE] != member.object)
    place.ok("resume", member.name)
    assert not place.accepts(member.first_value)
    assert place.agrees(member) == ""
