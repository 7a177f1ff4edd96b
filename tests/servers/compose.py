"""Containers as Compose makes them, on the tests' own Engine, read from inside.

Their labels are those of docker-compose 1.29.2, so that files and restarts need no Compose program; `compose_up` runs
the real one, for what does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.servers import ServerMissing, docker
from tests.servers.docker import SECOND, Engine
from tests.servers.docker_service import ApiError
from vaultkeeper.model.policy import DestinationSpec, Read

OURS = "DB_PASSWORD"
FOREIGN = "# theirs\nOTHER='kept'\n"
HEALTHCHECK = {"Test": ["CMD", "true"], "Interval": SECOND // 4, "Timeout": 5 * SECOND, "Retries": 3}
LABELS = "com.docker.compose."


def labels(project: str, service: str, folder: Path, number: int = 1) -> dict[str, str]:
    """What Compose writes on a container."""
    told = {
        "project": project,
        "project.working_dir": str(folder),
        "project.config_files": "docker-compose.yml",
        "service": service,
        "container-number": str(number),
        "oneoff": "False",
        "version": "1.29.2",
    }
    return {f"{LABELS}{key}": value for key, value in told.items()}


def compose_up(on: Engine, folder: Path, project: str, services: Mapping[str, Mapping[str, Any]], *more: str) -> None:
    """Write a Compose file (JSON is YAML) and start it with the real program. Raises ServerMissing without it."""
    program = shutil.which("docker-compose")
    if program is None:
        raise ServerMissing("docker-compose is not installed: apt-get install docker-compose")
    common = {"image": on.tag, "network_mode": "host", "init": True, "labels": on.labels, "command": ["sleep", "inf"]}
    whole = {"version": "3.7", "services": {name: {**common, **service} for name, service in services.items()}}
    (folder / "docker-compose.yml").write_text(json.dumps(whole))
    argv = [program, "--project-name", project, "up", "--detach", "--no-build", *more]
    ran = subprocess.run(
        argv, cwd=folder, env={**os.environ, "DOCKER_HOST": on.url}, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise RuntimeError(f"docker-compose up: {ran.stderr}")


def of_project(on: Engine, project: str, service: str = "") -> list[dict[str, Any]]:
    """Its containers, inspected, stopped ones too."""
    wanted = [f"{LABELS}project={project}"] + ([f"{LABELS}service={service}"] if service else [])
    rows = on.api("GET", "/containers/json", all=True, filters={"label": wanted})
    return [on.api("GET", f"/containers/{row['Id']}/json") for row in rows]


class ComposePlace:
    """Each `spec` is a project of one healthy service that mounts the file's folder, and is restarted."""

    kind = "compose"
    names: tuple[str, ...] = ("",)

    def __init__(self) -> None:
        self.engine = docker.shared()
        self.folder = Path(tempfile.mkdtemp(prefix="vk-place-"))
        self._projects: dict[str, str] = {}  # settings' file → project

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        project = self.engine.name("shop")
        folder = self.folder / project
        (folder / "secrets").mkdir(parents=True)
        self.engine.container(
            "web",
            binds=[f"{folder}/secrets:/run/secrets"],
            labels=labels(project, "web", folder),
            Healthcheck=HEALTHCHECK,
        )
        path = str(folder / "secrets/db")
        self._projects[path] = project
        return self._spec(values, project, path=path)

    def _spec(self, values: Mapping[str, str], project: str, **settings: object) -> DestinationSpec:
        whole = {"host": self.engine.url, "project": project, "services": ["web"], **settings}
        return DestinationSpec(self.kind, values, Read.AT_START, whole)

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        return self.inside(spec, lambda container: self.engine.read(container, "/run/secrets/db"))

    def inside(self, spec: DestinationSpec, look: Callable[[str], bytes | None]) -> bytes | None:
        """`look` into the container, once it runs: a restart may be under way."""
        project = str(spec.settings["project"])
        until = time.monotonic() + 60
        while True:
            try:
                running = [c for c in of_project(self.engine, project, "web") if c["State"]["Running"]]
                if running:
                    return look(max(running, key=lambda c: str(c["Created"]))["Id"])
            except ApiError as error:
                if error.status not in {404, 409}:  # stopped or replaced in between
                    raise
            if time.monotonic() > until:
                raise AssertionError(f"no container of {project} runs")
            time.sleep(0.05)

    def pass_time(self, duration: timedelta) -> None:
        time.sleep(min(duration.total_seconds(), 0.1))

    def forget(self, spec: DestinationSpec) -> None:
        """The kill sweep is through with it."""
        for container in of_project(self.engine, str(spec.settings["project"])):
            self.engine.api("DELETE", f"/containers/{container['Id']}", force=True)

    def stop(self) -> None:
        self.engine.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class EnvPlace(ComposePlace):
    """Each `spec` is a project of the real docker-compose, whose service takes its environment from an env file."""

    names = (OURS,)

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        project = self.engine.name("shop")
        folder = self.folder / project
        folder.mkdir()
        (folder / "app.env").write_text(FOREIGN)
        health = {"test": ["CMD", "true"], "interval": "250ms", "timeout": "5s", "retries": 3}
        compose_up(self.engine, folder, project, {"web": {"env_file": "app.env", "healthcheck": health}})
        return self._spec(values, project, env_file=str(folder / "app.env"))

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        def look(container: str) -> bytes | None:
            code, said = self.engine.run_in(container, "sh", "-c", f'printf %s "${{{name}?}}"')
            return said if code == 0 else None

        return self.inside(spec, look)

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        return self.read_foreign(spec)

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        lines = Path(str(spec.settings["env_file"])).read_bytes().splitlines(keepends=True)
        return b"".join(line for line in lines if not line.startswith(OURS.encode()))


def start() -> ComposePlace:
    return ComposePlace()


VARIANTS: Mapping[str, Callable[[], ComposePlace]] = {"folder": ComposePlace, "env": EnvPlace}
"""Each of them keeps the contract."""

AT_ONCE = 3
