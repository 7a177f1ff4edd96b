"""The tests' own Docker Engine does what tests of swarm and Compose rely on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.servers.docker import Engine, digits
from tests.servers.docker_service import ApiError
from tests.servers.postgres import PostgresServer


def where(postgres: PostgresServer) -> dict[str, object]:
    return {"PGHOST": postgres.host, "PGPORT": postgres.port, "PGDATABASE": "postgres"}


def test_a_consumer_in_a_service_logs_in_with_its_secret(docker: Engine, postgres: PostgresServer) -> None:
    account = postgres.account()
    value = f"{account.username} {account.password}"
    service = docker.service("app", {"db": docker.secret("db", value)}, environment=where(postgres))
    docker.wait_for("it logs in", lambda: f"ok {digits(value)}" in service.logs())
    assert service.read() == {value.encode()}
    assert len(service.tasks()) == 1


def test_a_consumer_that_is_refused_says_so(docker: Engine, postgres: PostgresServer) -> None:
    value = "nobody wrong-on-purpose"
    service = docker.service("app", {"db": docker.secret("db", value)}, environment=where(postgres))
    lines = docker.wait_for("it is refused", lambda: [line for line in service.logs() if line.startswith("refused")])
    assert "password authentication failed" in lines[0]


@pytest.mark.parametrize("breaks", ["exit", "unhealthy"])
def test_a_broken_consumer_works_on_the_old_value_and_fails_on_a_new_one(docker: Engine, breaks: str) -> None:
    old, new = docker.secret("db", "u old"), docker.secret("db", "u new")
    service = docker.service("app", {"db": old}, breaks=breaks, works_on=[digits("u old")])

    def swap(spec: dict[str, object]) -> None:
        (entry,) = spec["TaskTemplate"]["ContainerSpec"]["Secrets"]  # type: ignore[index]
        entry.update(SecretID=new["ID"], SecretName=new["Name"])

    service.set(swap)
    docker.wait_for("it is rolled back", lambda: service.update_state() == "rollback_completed")
    docker.wait_for("it runs on the old value", lambda: len(service.running(old["Name"])) == 1)
    assert any(line.startswith(f"broken {digits('u new')}") for line in service.logs())


def test_a_killed_dockerd_comes_back_with_its_services(new_docker: Callable[[], Engine]) -> None:
    engine = new_docker()
    service = engine.service("app", {"db": engine.secret("db", "u v")})
    (before,) = service.containers()
    engine.kill()
    with pytest.raises(Exception, match=r"refused|No such file"):
        engine.api("GET", "/info")
    engine.start_again()
    engine.wait_for("a new task runs", lambda: service.containers() not in ([], [before]))
    assert service.read() == {b"u v"}


def test_clearing_leaves_nothing_of_this_run(docker: Engine) -> None:
    service = docker.service("app", {"db": docker.secret("db", "u v")})
    plain = docker.container("plain")
    docker.clear()
    assert docker.services() == docker.secrets() == []
    for path in (f"/services/{service.id}", f"/containers/{plain}/json"):
        with pytest.raises(ApiError, match="404"):
            docker.api("GET", path)
