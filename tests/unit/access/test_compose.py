"""What labels and inspections of containers mean; both Compose generations write them a little differently."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vaultkeeper.access import compose, process
from vaultkeeper.access.compose import Container
from vaultkeeper.access.readers import How, Readers
from vaultkeeper.model.outcome import Failed
from vaultkeeper.model.policy import Read
from vaultkeeper.ports import Deadline

NEVER = "0001-01-01T00:00:00Z"


def seen(**changes: Any) -> dict[str, Any]:
    """`GET /containers/{id}/json`, with only what is read of it."""
    told = {
        "project": "shop",
        "project.working_dir": "/srv/shop",
        "project.config_files": "docker-compose.yml",
        "service": "web",
        "container-number": "2",
        **changes.pop("told", {}),
    }
    whole = {
        "Id": "f00",
        "Name": "/shop_web_2",
        "Created": "2026-11-21T03:00:00.123456789Z",
        "RestartCount": 0,
        "State": {"Running": True, "Restarting": False, "ExitCode": 0, "StartedAt": "2026-11-21T03:00:01.5Z"},
        "Config": {"Labels": {f"com.docker.compose.{key}": value for key, value in told.items()}},
        "HostConfig": {"NetworkMode": "shop_default"},
        "NetworkSettings": {"Networks": {"shop_default": {}}},
        "Mounts": [],
    }
    return {**whole, **changes}


def mounting(*sources: Path) -> Container:
    return Container.read(seen(Mounts=[{"Type": "bind", "Source": str(source)} for source in sources]))


def test_a_container_is_known_by_its_service_and_number() -> None:
    web = Container.read(seen())
    assert (web.name, web.service, web.key) == ("shop_web_2", "web", "web/2")
    assert web.project == compose.Project("shop", "/srv/shop", ("/srv/shop/docker-compose.yml",), ())


def test_the_second_generation_writes_absolute_paths_and_its_env_files() -> None:
    told = {
        "project.config_files": "/srv/shop/compose.yaml,/srv/shop/more.yaml",
        "project.environment_file": "/srv/shop/prod.env",
    }
    command = compose.recreate_command([Container.read(seen(told=told))])
    assert command[:10] == [
        "--project-name", "shop", "--project-directory", "/srv/shop", "--file", "/srv/shop/compose.yaml",
        "--file", "/srv/shop/more.yaml", "--env-file", "/srv/shop/prod.env",
    ]  # fmt: skip
    assert command[-1] == "web"


def test_a_container_that_awaits_its_next_start_does_not_run() -> None:
    state = {"Running": True, "Restarting": True, "ExitCode": 3, "StartedAt": "2026-11-21T03:00:01Z"}
    crashed = Container.read(seen(State=state, RestartCount=4))
    assert (crashed.running, crashed.crashing, crashed.crashes, crashed.exit_code) == (False, True, 4, 3)


@pytest.mark.parametrize(("ended", "counts"), [("02:59:59", False), ("03:00:01", True)])
def test_a_crash_counts_against_the_file_that_stood_there_already(ended: str, counts: bool) -> None:
    state = {"Running": True, "StartedAt": "2026-11-21T03:00:02Z", "FinishedAt": f"2026-11-21T{ended}Z"}
    web = Container.read(seen(State=state, RestartCount=1))
    placed = datetime.fromisoformat("2026-11-21T03:00:00Z").timestamp()
    readers = Readers(
        "/srv/shop/x", False, placed, "restart", None, Read.AT_START, timedelta(0), ("web",), [web], frozenset()
    )  # fmt: skip
    assert readers.due() == []
    assert readers.doubtful() == ([web] if counts else [])
    assert readers.judged(web, placed + 60) == (Failed("shop_web_2", "keeps crashing") if counts else None)


@pytest.mark.parametrize(
    ("environment", "level", "word"), [(True, "warn", "keeps the old environment"), (False, "ok", "reads the file")]
)
def test_a_stopped_container_reads_a_file_when_it_is_started_but_keeps_its_environment(
    environment: bool, level: str, word: str
) -> None:
    stopped = Container.read(seen(State={"Running": False, "StartedAt": NEVER}))
    how: How = "recreate" if environment else "restart"
    readers = Readers(
        "/srv/shop/x", environment, 0.0, how, None, Read.AT_START, timedelta(0), ("web",), [stopped], frozenset()
    )  # fmt: skip
    (found,) = readers.findings(Deadline(0.0))
    assert found.level == level
    assert word in found.text


def test_what_never_started_has_started_since_no_moment() -> None:
    created = Container.read(seen(State={"Running": False, "StartedAt": NEVER}))
    assert not created.started_since(0.0)


def test_a_start_in_the_tick_of_the_write_does_not_count() -> None:
    web = Container.read(seen())
    assert not web.started_since(web.started_at)
    assert web.started_since(web.started_at - 0.02)
    assert not web.made_since(web.created_at)


def test_a_mount_is_the_file_itself_or_a_folder_above_it_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/db").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    path = str(tmp_path / "link/db")
    assert mounting(tmp_path / "real/db").mounts(path) == "file"
    assert mounting(tmp_path / "elsewhere", tmp_path / "real").mounts(path) == "folder"
    assert mounting(tmp_path / "rea", tmp_path / "real/db2").mounts(path) is None


@pytest.mark.parametrize(
    ("mode", "networks", "detached"),
    [
        ("shop_default", {"shop_default": {}}, False),
        ("shop_default", {"other": {}}, True),
        ("shop_default", {}, True),
        ("host", {"host": {}}, False),
        ("container:f00", {}, False),
        ("default", {"bridge": {}}, False),
    ],
)
def test_a_container_without_the_network_it_was_made_for_is_detached(
    mode: str, networks: dict[str, Any], *, detached: bool
) -> None:
    found = Container.read(seen(HostConfig={"NetworkMode": mode}, NetworkSettings={"Networks": networks}))
    assert found.detached is detached


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ([], None),
        (["bin/docker"], None),
        (["bin/docker-compose"], ["bin/docker-compose"]),
        (["bin/docker", "bin/docker-compose"], ["bin/docker-compose"]),
        (["bin/docker", "bin/docker-compose", "lib/docker/cli-plugins/docker-compose"], ["bin/docker", "compose"]),
    ],
)
def test_the_plugin_is_preferred_and_either_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: list[str], found: list[str] | None
) -> None:
    for name in installed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr(process, "ENVIRONMENT", {"PATH": str(tmp_path / "bin")})
    monkeypatch.setattr(compose, "_PLUGIN_FOLDERS", [str(tmp_path / "lib")])
    program = compose.program()
    assert found == (program and [word.removeprefix(f"{tmp_path}/") for word in program])


@pytest.mark.parametrize(
    "said",
    [
        "WARNING: The TAG variable is not set. Defaulting to a blank string.",
        r'time="…" level=warning msg="The \"TAG\" variable is not set. Defaulting to a blank string."',
    ],
)
def test_what_is_not_set_is_found_in_either_generations_words(said: str) -> None:
    assert compose._UNSET.findall(said) == ["TAG"]
