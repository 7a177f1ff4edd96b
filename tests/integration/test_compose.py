"""Compose projects on a real Engine: every value is read from inside the containers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import command
from tests.integration.delivery_kit import Delivery, FileCredentials, version
from tests.integration.shop_kit import installed
from tests.servers.compose import HEALTHCHECK, compose_up, labels, of_project
from tests.servers.docker import Engine, digits
from vaultkeeper.access import compose
from vaultkeeper.destinations.compose import ComposeDestination, Settings
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import (
    Confirmation,
    Confirmed,
    Done,
    Failed,
    Held,
    Holds,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import SecretVersion, Slot
from vaultkeeper.policyfile import load
from vaultkeeper.registry import Registry

OLD, NEW = version(1, "old-canary"), version(2, "new-canary")
ECHOES = 'trap "echo told; cat /run/secrets/db; echo" HUP; echo up; while :; do sleep 0.1; done'
AROUND = FileCredentials(docker="")  # the environment says nothing of Docker
NOTHING_KEPT = {"/tmp": ""}  # no sign of health from before a restart
PROVEN = Proof.DEMONSTRATED
NONE = timedelta(0)


class Project:
    """One project with a folder of secrets; `db` in it carries the old value."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.name = engine.name("shop")
        self.folder = folder
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        self.path = self.secrets / "db"
        self.path.write_bytes(b"old-canary")

    def container(self, service: str, *, alone: bool = False, number: int = 1, **more: object) -> str:
        """`alone`: it mounts the file itself instead of its folder."""
        bind = f"{self.path}:/run/secrets/db" if alone else f"{self.secrets}:/run/secrets"
        told = labels(self.name, service, self.folder, number)
        more.setdefault("Healthcheck", HEALTHCHECK)
        return self.engine.container(service, binds=[bind], labels=told, **more)

    def delivery(
        self, *services: str, read: Read = Read.AT_START, healthy_for: timedelta = NONE, **more: Any
    ) -> Delivery:
        named = {"services": list(services)} if services else {}
        settings = {"host": self.engine.url, "project": self.name, "path": str(self.path), **named, **more}
        spec = DestinationSpec("compose", {"": "{password}"}, read, settings, healthy_for=healthy_for)
        return Delivery.of(ComposeDestination(), spec, credentials=AROUND)

    def inspect(self, container: str) -> Any:
        return self.engine.api("GET", f"/containers/{container}/json")

    def started(self, container: str) -> str:
        return str(self.inspect(container)["State"]["StartedAt"])

    def reads(self, container: str) -> bytes | None:
        return self.engine.read(container, "/run/secrets/db")

    def stop(self, container: str) -> None:
        self.engine.api("POST", f"/containers/{container}/stop")


@pytest.fixture
def project(docker: Engine, tmp_path: Path) -> Project:
    return Project(docker, tmp_path)


def settled(delivery: Delivery, *carried: Any) -> Confirmation:
    """The first answer that is not NotYet."""
    until = time.monotonic() + 180
    while isinstance(answer := delivery.confirm(*carried), NotYet) and time.monotonic() < until:
        time.sleep(0.1)
    return answer


def findings(delivery: Delivery, carried: SecretVersion = NEW) -> list[tuple[str, str]]:
    items = delivery.items(carried)
    return [(f.level, f.text) for f in delivery.destination.check(delivery.group, items, delivery.ctx)]


# ------------------------------------------------------------------------------------------------------- two mounts


def test_a_file_that_is_itself_mounted_stays_old_until_its_container_is_restarted(project: Project) -> None:
    web = project.container("web", alone=True)
    project.path.with_name("other").write_bytes(b"renamed over")
    project.path.with_name("other").rename(project.path)
    assert project.reads(web) == b"old-canary"
    delivery = project.delivery()
    assert delivery.hand_over(NEW) == Done()
    assert settled(delivery, NEW) == Confirmed(Proof.DEMONSTRATED)
    assert project.reads(web) == b"new-canary"
    assert any(level == "ok" and "itself" in text and "restart" in text for level, text in findings(delivery))


@pytest.mark.parametrize("how", [{"reload": {"signal": "HUP"}}, {"reload": "none", "read": Read.PER_USE}])
def test_a_file_that_is_itself_mounted_needs_a_restart_and_is_refused_without(
    project: Project, how: dict[str, Any]
) -> None:
    project.container("web", alone=True)
    delivery = project.delivery(**how)
    answer = delivery.prepare(NEW)
    assert isinstance(answer, Refused)
    assert "mounts" in answer.detail
    assert "reload: restart" in answer.detail
    assert project.path.read_bytes() == b"old-canary"


def test_a_mounted_folder_shows_the_new_file_without_a_restart(project: Project) -> None:
    web = project.container("web")
    before = project.started(web)
    delivery = project.delivery(read=Read.PER_USE, reload="none")
    assert delivery.hand_over(NEW) == Done()
    assert project.reads(web) == b"new-canary"
    assert settled(delivery, NEW) == Confirmed(Proof.DEMONSTRATED)
    assert project.started(web) == before


def test_a_signal_reaches_the_process_and_proves_nothing(project: Project) -> None:
    web = project.container("web", Cmd=["sh", "-c", ECHOES], HostConfig=host(project, init=False))
    project.engine.wait_for("it is up", lambda: b"up" in log(project, web))
    delivery = project.delivery(reload={"signal": "HUP"})
    assert delivery.hand_over(NEW) == Done()
    project.engine.wait_for("it is told", lambda: b"new-canary" in log(project, web))
    assert settled(delivery, NEW) == Confirmed(Proof.WRITTEN)


def host(project: Project, *, init: bool = True, **more: object) -> dict[str, object]:
    return {"Binds": [f"{project.secrets}:/run/secrets"], "NetworkMode": "host", "Init": init, **more}


def log(project: Project, container: str) -> bytes:
    return bytes(project.engine.api("GET", f"/containers/{container}/logs", stdout=True, stderr=True) or b"")


# ------------------------------------------------------------------------------------------------- who is restarted


def test_stopped_containers_stay_stopped_and_others_are_left_alone(project: Project) -> None:
    web, idle, other = project.container("web"), project.container("idle"), project.container("other")
    project.stop(idle)
    before = project.started(other), project.started(idle)
    delivery = project.delivery("web", "idle")
    assert delivery.hand_over(NEW) == Done()
    assert settled(delivery, NEW) == Confirmed(Proof.DEMONSTRATED)
    assert project.reads(web) == b"new-canary"
    assert (project.started(other), project.started(idle)) == before
    assert not project.inspect(idle)["State"]["Running"]
    assert any("does not run" in text for _, text in findings(delivery))


def test_a_crash_between_the_write_and_the_restart_is_made_good_by_the_repeat(project: Project) -> None:
    web = project.container("web")
    delivery = project.delivery()
    delivery.prepare(NEW)
    delivery.specs = [replace(delivery.specs[0], settings={**delivery.specs[0].settings, "reload": "none"})]
    delivery.deliver(NEW)  # what a killed one had done: the file is written, and nobody was told
    delivery.specs = [replace(delivery.specs[0], settings={**delivery.specs[0].settings, "reload": "restart"})]
    before = project.started(web)
    waits = delivery.confirm(NEW)
    assert isinstance(waits, NotYet)
    assert "was not started since" in waits.reason
    assert delivery.deliver(NEW) == Done()
    after = project.started(web)
    assert after > before
    assert delivery.deliver(NEW) == Done()
    assert project.started(web) == after


def test_two_files_of_one_project_cost_one_restart(project: Project) -> None:
    web = project.container("web", Cmd=["sh", "-c", "echo began; exec sleep inf"])
    one = project.delivery().specs[0]
    two = replace(one, settings={**one.settings, "path": str(project.secrets / "token")})
    delivery = Delivery.of(ComposeDestination(), one, two, credentials=AROUND)
    assert delivery.hand_over(NEW) == Done()
    assert settled(delivery, NEW) == Confirmed(Proof.DEMONSTRATED)
    assert project.engine.read(web, "/run/secrets/token") == project.reads(web) == b"new-canary"
    project.engine.wait_for("it began again", lambda: log(project, web).count(b"began") >= 2)  # a log lags behind
    assert log(project, web).count(b"began") == 2


def test_an_engine_that_cannot_be_found_is_unknown_once_the_file_is_written(project: Project) -> None:
    delivery = project.delivery(host=None, context="nowhere")
    assert isinstance(delivery.deliver(NEW), Unknown)
    assert project.path.read_bytes() == b"new-canary"


def test_where_one_file_is_refused_none_is_written(project: Project) -> None:
    web = project.container("web")
    one = project.delivery().specs[0]
    two = replace(one, settings={**one.settings, "path": str(project.secrets / "token")})
    delivery = Delivery.of(ComposeDestination(), one, two, credentials=AROUND)
    delivery.prepare(NEW)
    (project.secrets / "token").symlink_to("db")
    before = project.started(web)
    assert isinstance(delivery.deliver(NEW), Refused)
    assert project.path.read_bytes() == b"old-canary"
    assert project.started(web) == before


def test_neighbours_that_are_not_handed_over_are_neither_told_nor_waited_for(project: Project) -> None:
    web, sick = (
        project.container("web"),
        project.container("sick", Healthcheck={**HEALTHCHECK, "Test": ["CMD", "false"]}),
    )
    (project.secrets / "theirs").write_bytes(b"old-canary")  # after their reader was started
    one = project.delivery("web").specs[0]
    two = replace(one, settings={**one.settings, "path": str(project.secrets / "theirs"), "services": ["sick"]})
    delivery = Delivery.of(ComposeDestination(), one, two, credentials=AROUND)
    delivery.prepare(NEW, OLD)
    before = project.started(sick)
    ctx = replace(delivery.ctx, epochs={"shop/db": 1})
    ours, theirs = delivery.items(NEW, OLD)
    items = [ours, replace(theirs, secret="shop/theirs", receipt=None)]
    assert delivery.destination.deliver(delivery.group, items, ctx) == Done()
    project.engine.wait_for("it is sick", lambda: project.inspect(sick)["State"]["Health"]["Status"] == "unhealthy")
    project.engine.wait_for(
        "ours is confirmed", lambda: delivery.destination.confirm(delivery.group, items, ctx) == Confirmed(PROVEN)
    )
    assert project.reads(web) == b"new-canary"
    assert project.started(sick) == before
    (project.secrets / "theirs").write_bytes(b"somebody's")
    assert delivery.destination.deliver(delivery.group, items, ctx) == Done()
    assert project.engine.read(sick, "/run/secrets/theirs") == b"old-canary"
    assert project.started(sick) > before


def test_a_restart_attaches_no_network_that_was_taken_away(project: Project) -> None:
    network = project.engine.name("net")
    asked = {"Name": network, "Internal": True, "Labels": project.engine.labels}
    project.engine.api("POST", "/networks/create", asked)
    try:
        web = project.container("web", HostConfig=host(project, NetworkMode=network))
        project.engine.api("POST", f"/networks/{network}/disconnect", {"Container": web, "Force": True})
        delivery = project.delivery()
        assert delivery.hand_over(NEW) == Done()
        assert settled(delivery, NEW) == Confirmed(Proof.DEMONSTRATED)
        assert network not in project.inspect(web)["NetworkSettings"]["Networks"]
    finally:
        project.engine.api("DELETE", f"/containers/{web}", force=True)
        project.engine.api("DELETE", f"/networks/{network}")


def test_a_service_that_does_not_exist_is_refused(project: Project) -> None:
    project.container("web")
    delivery = project.delivery("wbe")
    assert any(level == "refuse" and "'wbe'" in text for level, text in findings(delivery))
    assert isinstance(delivery.prepare(NEW), Refused)


def test_first_start_readers_need_no_engine(project: Project) -> None:
    delivery = project.delivery(read=Read.FIRST_START, host="unix:///nonexistent/docker.sock")
    assert delivery.hand_over(NEW) == Done()
    assert project.path.read_bytes() == b"new-canary"


def test_an_engine_that_is_away_is_unknown_once_the_file_is_written(project: Project) -> None:
    delivery = project.delivery(host="unix:///nonexistent/docker.sock")
    assert isinstance(delivery.prepare(NEW), Unknown)
    assert [level for level, _ in findings(delivery)] == ["warn", "unchecked"]
    assert isinstance(delivery.deliver(NEW), Unknown)
    assert project.path.read_bytes() == b"new-canary"


# ------------------------------------------------------------------------------------------------- healthy or not


def test_without_a_health_check_it_must_run_for_a_while_and_says_so(project: Project) -> None:
    project.container("web", Healthcheck={"Test": ["NONE"]})
    delivery = project.delivery(healthy_for=timedelta(hours=3))
    assert delivery.hand_over(NEW) == Done()
    waits = delivery.confirm(NEW)
    assert isinstance(waits, NotYet)
    assert "no health check and shall run for 3h" in waits.reason
    delivery.specs = [replace(delivery.specs[0], healthy_for=timedelta(seconds=2))]
    assert settled(delivery, NEW) == Confirmed(Proof.DEMONSTRATED)
    assert any("no health check" in text for _, text in findings(delivery))


BROKEN = {
    "exit": "exited 3; its log ends: broken",
    "unhealthy": "is unhealthy; its log ends: broken",
    "loop": "keeps crashing",  # its exit code is not told where it runs again as it is looked at
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_consumer_that_cannot_run_on_it_fails_and_runs_again_on_the_old_value(project: Project, how: str) -> None:
    breaks = "unhealthy" if how == "unhealthy" else "exit"
    policy = {"Name": "always" if how == "loop" else "no"}
    health = {**HEALTHCHECK, "Test": ["CMD", "test", "-e", "/tmp/healthy"]}
    web = project.container(
        "web",
        Cmd=["consume"],
        Env=[f"BREAKS={breaks}", f"WORKS_ON={digits('old-canary')}"],
        Healthcheck=health,
        HostConfig=host(project, RestartPolicy=policy, Tmpfs=NOTHING_KEPT),
    )
    project.engine.wait_for("it is healthy", lambda: project.inspect(web)["State"]["Health"]["Status"] == "healthy")
    delivery = project.delivery("web")
    delivery.hand_over(NEW)
    answer = settled(delivery, NEW)
    assert isinstance(answer, Failed)
    assert answer.why.startswith(BROKEN[how])
    assert "canary" not in answer.why
    delivery.deliver(OLD)
    assert settled(delivery, OLD) == Confirmed(Proof.DEMONSTRATED)
    assert project.reads(web) == b"old-canary"


def test_crashes_of_the_value_before_are_not_held_against_the_one_that_is_put_back(project: Project) -> None:
    web = project.container(
        "web",
        Cmd=["consume"],
        Env=["BREAKS=late", "LATE=1", f"WORKS_ON={digits('old-canary')}"],
        HostConfig=host(project, RestartPolicy={"Name": "always"}),
    )
    delivery = project.delivery("web")
    assert delivery.hand_over(NEW) == Done()
    project.engine.wait_for("it crashes, and runs again", lambda: runs(project, web) > 0)
    delivery.specs = [replace(delivery.specs[0], settings={**delivery.specs[0].settings, "reload": "none"})]
    crashes = project.inspect(web)["RestartCount"]
    delivery.deliver(OLD)  # what a killed one had done; the container comes to it by itself
    project.engine.wait_for("it runs on the old value", lambda: runs(project, web) > crashes)
    delivery.specs = [replace(delivery.specs[0], settings={**delivery.specs[0].settings, "reload": "restart"})]
    assert delivery.deliver(OLD) == Done()
    assert settled(delivery, OLD) == Confirmed(Proof.DEMONSTRATED)
    assert project.reads(web) == b"old-canary"


def runs(project: Project, container: str) -> int:
    """How often its restart policy started it; -1: it does not run now."""
    seen = project.inspect(container)
    up = seen["State"]["Running"] and not seen["State"]["Restarting"]
    return int(seen["RestartCount"]) if up else -1


# ------------------------------------------------------------------------------------------------------- env files


@pytest.fixture
def recreated(docker: Engine, tmp_path: Path) -> tuple[str, Delivery, Callable[..., list[bytes]]]:
    """A project of the real docker-compose: two of `web`, one `db`, both made from app.env."""
    name = docker.name("shop")
    (tmp_path / "app.env").write_text("PASSWORD=old-canary\nUSERNAME=old\n")
    health = {"test": ["CMD", "true"], "interval": "250ms", "timeout": "5s", "retries": 3}
    one = {"env_file": "app.env", "healthcheck": health}
    compose_up(docker, tmp_path, name, {"web": one, "db": one}, "--scale", "web=2")
    settings = {
        "host": docker.url,
        "project_dir": str(tmp_path),
        "env_file": str(tmp_path / "app.env"),
        "services": ["web"],
    }
    values = {"PASSWORD": "{password}", "USERNAME": "{username}"}
    spec = DestinationSpec("compose", values, Read.AT_START, settings, healthy_for=NONE)

    def environment(service: str) -> list[bytes]:
        found = [container for container in of_project(docker, name, service) if container["State"]["Running"]]
        asked = 'printf \'%s %s\' "$USERNAME" "$PASSWORD"'
        return [docker.run_in(container["Id"], "sh", "-c", asked)[1] for container in found]

    return name, Delivery.of(ComposeDestination(), spec, credentials=AROUND), environment


def test_an_env_file_means_new_containers_as_many_as_before(
    docker: Engine, recreated: tuple[str, Delivery, Callable[..., list[bytes]]]
) -> None:
    name, delivery, environment = recreated
    old, new = version(1, "old-canary", username="old"), version(2, "new'canary", username="new")
    others = [container["Id"] for container in of_project(docker, name, "db")]
    assert delivery.hand_over(new) == Done()
    assert settled(delivery, new) == Confirmed(Proof.DEMONSTRATED)
    assert environment("web") == [b"new new'canary"] * 2
    made = {container["Id"] for container in of_project(docker, name, "web")}
    assert delivery.deliver(new) == Done()
    assert {container["Id"] for container in of_project(docker, name, "web")} == made
    assert delivery.deliver(old) == Done()
    assert settled(delivery, old) == Confirmed(Proof.DEMONSTRATED)
    assert environment("web") == [b"old old-canary"] * 2
    assert [container["Id"] for container in of_project(docker, name, "db")] == others


def test_a_restart_by_hand_is_not_taken_for_a_new_environment(
    docker: Engine, recreated: tuple[str, Delivery, Callable[..., list[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, delivery, environment = recreated
    new = version(2, "new-canary", username="new")
    assert isinstance(delivery.prepare(new), Prepared)
    with monkeypatch.context() as away:
        away.setattr(compose, "program", lambda: None)
        assert isinstance(delivery.deliver(new), Unknown)
    for container in of_project(docker, name, "web"):
        docker.api("POST", f"/containers/{container['Id']}/restart")
    waits = delivery.confirm(new)
    assert isinstance(waits, NotYet)
    assert "was not started since" in waits.reason
    assert environment("web") == [b"old old-canary"] * 2


def test_a_stopped_service_that_is_started_again_keeps_the_old_value_from_being_retired(
    docker: Engine, recreated: tuple[str, Delivery, Callable[..., list[bytes]]]
) -> None:
    name, delivery, environment = recreated
    delivery.specs = [replace(one, settings={**one.settings, "services": ["web", "db"]}) for one in delivery.specs]
    old, new = version(1, "old-canary", username="old"), version(2, "new-canary", username="new")
    (stopped,) = of_project(docker, name, "db")
    docker.api("POST", f"/containers/{stopped['Id']}/stop")
    assert delivery.hand_over(new) == Done()
    assert settled(delivery, new) == Confirmed(Proof.DEMONSTRATED)

    def held() -> tuple[set[Holds | Unknown], dict[Slot, Held]]:
        hooks, items = delivery.destination, delivery.items(new)
        return {hooks.holds(delivery.group, old, item, delivery.ctx) for item in items}, delivery.observe(new, old)

    slots = [item.slot for item in delivery.items(new)]
    assert held() == ({Holds.NOTHING}, dict.fromkeys(slots, Held(2)))
    docker.api("POST", f"/containers/{stopped['Id']}/start")
    assert environment("db") == [b"old old-canary"]
    assert held() == ({Holds.RUNNING}, dict.fromkeys(slots, Held(1)))
    assert delivery.deliver(new) == Done()
    assert settled(delivery, new) == Confirmed(Proof.DEMONSTRATED)
    assert environment("db") == [b"new new-canary"]
    assert held() == ({Holds.NOTHING}, dict.fromkeys(slots, Held(2)))


def test_without_a_compose_program_it_is_refused_with_the_command(
    recreated: tuple[str, Delivery, Callable[..., list[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, delivery, environment = recreated
    monkeypatch.setattr(compose, "program", lambda: None)
    new = version(2, "new-canary", username="new")
    answer = delivery.prepare(new)
    assert isinstance(answer, Refused)
    assert f"docker compose --project-name {name}" in answer.detail
    assert "up --detach --no-deps --force-recreate --no-build --scale web=2 web" in answer.detail
    assert environment("web") == [b"old old-canary"] * 2


def test_a_project_that_cannot_be_read_from_here_is_refused_before_anything_is_set(
    tmp_path: Path, recreated: tuple[str, Delivery, Callable[..., list[bytes]]]
) -> None:
    _, delivery, environment = recreated
    new = version(2, "new-canary", username="new")
    file = tmp_path / "docker-compose.yml"
    text = file.read_text()
    file.write_text(text.replace('"init": true', '"init": true, "hostname": "${EXPORTED_ONCE}"'))
    assert any(level == "warn" and "EXPORTED_ONCE" in told for level, told in findings(delivery, new))
    file.write_text(text.replace('"init": true', '"init": true, "hostname": "${EXPORTED_ONCE:?is missing}"'))
    answer = delivery.prepare(new)
    assert isinstance(answer, Refused)
    assert "is missing" in answer.detail
    assert environment("web") == [b"old old-canary"] * 2


# -------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"path": "/a"}, "`project` or `project_dir`"),
        ({"project": "a", "project_dir": "/a", "path": "/a"}, "`project` or `project_dir`"),
        ({"project": "a"}, "`path` with a `value`"),
        ({"project": "a", "path": "/a", "env_file": "/b"}, "`path` with a `value`"),
        ({"project": "a", "env_file": "/b"}, "`services`"),
        ({"project": "a", "env_file": "/b", "services": ["a"], "reload": "restart"}, "reload: recreate"),
        ({"project": "a", "env_file": "/b", "services": ["a"], "reload": {"signal": "HUP"}}, "reload: recreate"),
        ({"project": "a", "env_file": "/b", "services": ["--help"]}, "pattern"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_load(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="validation error") as refused:
        Settings.model_validate(settings)
    assert told in str(refused.value)


def test_an_env_file_belongs_to_one_kind_only(tmp_path: Path) -> None:
    ours = "{kind: compose, project: shop, env_file: .env, services: [api], values: {B: '{value}'}}"
    theirs = "{kind: dotenv, path: .env, values: {A: '{value}'}}"
    text = f"secrets:\n  a: {{static: x, destinations: [{theirs}]}}\n  b: {{static: x, destinations: [{ours}]}}\n"
    (tmp_path / "shop.yaml").write_text(text)
    with pytest.raises(PolicyInvalid) as refused:
        load([tmp_path], Registry())
    assert ".env belongs to dotenv of a already" in refused.value.why


# ------------------------------------------------------------------------------------------------ a whole rotation


def test_invariant_02_a_rotation_whose_consumer_breaks_ends_on_the_old_value_and_says_why(
    project: Project, tmp_path: Path
) -> None:
    home = installed(tmp_path / "home")
    policy = {
        "generator": {"kind": "token"},
        "min_interval": "0s",
        "destinations": [
            {"kind": "compose", "host": project.engine.url, "project": project.name, "path": str(project.path)}
        ],
    }
    (home / "policies/shop.yaml").write_text(json.dumps({"secrets": {"shop/db": policy}}))
    vk = command(home)
    assert vk("adopt", "shop/db", stdin='{"token": "old-canary"}').code == 0
    health = {**HEALTHCHECK, "Test": ["CMD", "test", "-e", "/tmp/healthy"]}
    web = project.container(
        "web",
        Cmd=["consume"],
        Env=["BREAKS=unhealthy", f"WORKS_ON={digits('old-canary')}"],
        Healthcheck=health,
        HostConfig=host(project, Tmpfs=NOTHING_KEPT),
    )
    name = str(project.inspect(web)["Name"]).removeprefix("/")
    planned = vk("plan", "shop/db")
    assert f"restarted: {name}" in planned.out
    ran = vk("rotate", "shop/db")
    assert ran.code == 5
    assert f"{name}: is unhealthy; its log ends: broken" in ran.err
    assert project.reads(web) == b"old-canary"
    state = project.inspect(web)["State"]
    assert (state["Running"], state["Health"]["Status"]) == (True, "healthy")
