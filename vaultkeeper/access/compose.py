"""Containers of a Compose project as the Engine shows them, and the Compose program, for what only it can do.

Compose keeps no state of its own: labels on containers say which project, service and files they came from
(https://docs.docker.com/reference/compose-file/services/#labels, the same in 1.29 and in all of 2). A restart keeps a
container with its environment and looks its mounts up again; a new environment needs a new container, and only the
program knows how to make one from the project's files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from vaultkeeper.access import process
from vaultkeeper.access.answer import refused, unknown
from vaultkeeper.access.docker import Engine
from vaultkeeper.model.outcome import No
from vaultkeeper.ports import Deadline

_LABEL = "com.docker.compose."
_STOP_S = 10  # the Engine's own, where a container says nothing
_COARSE_S = 0.01  # a file's times are those of the last tick of the kernel's clock (time(7)), at most so much too early
_LINE_CHARACTERS = 300
_NEVER = "0001-01-01T00:00:00Z"
_UNSET = re.compile(r"The \W*(\w+)\W* variable is not set")

Mount = Literal["file", "folder"]


@dataclass(frozen=True)
class Project:
    """Where a project comes from, as its containers' labels tell."""

    name: str
    folder: str
    files: tuple[str, ...]
    env_files: tuple[str, ...]

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Project:
        folder = labels.get(f"{_LABEL}project.working_dir", "")
        return cls(
            labels.get(f"{_LABEL}project", ""),
            folder,
            _paths(folder, labels.get(f"{_LABEL}project.config_files", "")),
            _paths(folder, labels.get(f"{_LABEL}project.environment_file", "")),
        )


@dataclass(frozen=True)
class Container:
    """One container of a service. Times are seconds since the epoch, by the Engine's clock."""

    id: str
    name: str
    service: str
    key: str  #: "service/number": the same for the container that takes its place
    project: Project
    running: bool
    crashing: bool  #: ended, and to be started again by its restart policy
    exit_code: int
    crashes: int  #: how often its restart policy started it since somebody else did
    created_at: float
    started_at: float
    ended_at: float  #: of its last run that ended; 0: none has
    health: str  #: "starting", "healthy", "unhealthy"; empty: it has no health check
    stop_s: float
    sources: tuple[str, ...]  #: of its mounts, on the Engine's machine
    detached: bool  #: it was disconnected from the network that it was made for
    environment: Mapping[str, str] = field(repr=False)  #: that it was made with, and keeps

    def mounts(self, path: str) -> Mount | None:
        """How it sees a file of this machine: as a mount of its own, or inside a mounted folder."""
        real = os.path.realpath(path)
        if path in self.sources or real in self.sources:
            return "file"
        return "folder" if any(_below(source, path) or _below(source, real) for source in self.sources) else None

    def started_since(self, moment: float) -> bool:
        """By whomever."""
        return self.started_at > moment + _COARSE_S

    def made_since(self, moment: float) -> bool:
        """A container is given its environment when it is made, and keeps it."""
        return self.created_at > moment + _COARSE_S

    @classmethod
    def read(cls, seen: Mapping[str, Any]) -> Container:
        """From `GET /containers/{id}/json`."""
        config, state = seen["Config"], seen["State"]
        labels = config.get("Labels") or {}
        service, number = labels.get(f"{_LABEL}service", ""), labels.get(f"{_LABEL}container-number", "1")
        mode = str((seen.get("HostConfig") or {}).get("NetworkMode") or "")
        networks = (seen.get("NetworkSettings") or {}).get("Networks") or {}
        return cls(
            id=str(seen["Id"]),
            name=str(seen["Name"]).removeprefix("/"),
            service=service,
            key=f"{service}/{number}",
            project=Project.of(labels),
            running=bool(state.get("Running")) and not state.get("Restarting"),
            crashing=bool(state.get("Restarting")),
            exit_code=int(state.get("ExitCode") or 0),
            crashes=int(seen.get("RestartCount") or 0),
            created_at=_moment(seen["Created"]),
            started_at=_moment(state["StartedAt"]),
            ended_at=_moment(state.get("FinishedAt") or _NEVER),
            health=_health(state),
            stop_s=float(_STOP_S if config.get("StopTimeout") is None else config["StopTimeout"]),
            sources=tuple(str(mount.get("Source") or "").rstrip("/") for mount in seen.get("Mounts") or ()),
            environment=dict(str(entry).partition("=")[::2] for entry in config.get("Env") or ()),
            detached=bool(mode) and ":" not in mode and mode not in {"default", "bridge", *networks},
        )


def find(engine: Engine, deadline: Deadline, *, name: str | None = None, folder: str | None = None) -> list[Container]:
    """Every container of the project with this name, or from this folder; none of `compose run`. Raises Answered."""
    wanted = [f"{_LABEL}service", f"{_LABEL}oneoff=False", f"{_LABEL}project" + (f"={name}" if name else "")]
    query = {"all": "1", "filters": json.dumps({"label": wanted})}
    found = []
    for row in engine.get("/containers/json", deadline, query=query):
        labels = row.get("Labels") or {}
        if folder and os.path.realpath(labels.get(f"{_LABEL}project.working_dir", "")) != os.path.realpath(folder):
            continue
        seen = engine.get(f"/containers/{row['Id']}/json", deadline, absent_ok=True)
        if seen is not None:  # removed since
            found.append(Container.read(seen))
    return sorted(found, key=lambda container: (container.service, len(container.key), container.key))


def restart(engine: Engine, container: Container, deadline: Deadline) -> None:
    """Stop it within its own grace period and start it again. Raises Answered; it may then still happen."""
    engine.post(f"/containers/{container.id}/restart", deadline, query={"t": f"{container.stop_s:.0f}"})


def signal(engine: Engine, container: Container, name: str, deadline: Deadline) -> None:
    """Raises Answered."""
    engine.post(f"/containers/{container.id}/kill", deadline, query={"signal": f"SIG{name}"})


def last_words(engine: Engine, container: Container, deadline: Deadline, secrets: Iterable[bytes]) -> str:
    """The last line of its log, without the values; empty where there is none or its log driver keeps none."""
    line = engine.last_line(f"/containers/{container.id}/logs", deadline)
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        line = line.replace(secret.decode(errors="replace"), "…")
    return line[:_LINE_CHARACTERS]


# ------------------------------------------------------------------------------------------------------------ recreate


def program() -> list[str] | None:
    """`docker compose` where the plugin is installed, else `docker-compose`. None: neither."""
    path = process.ENVIRONMENT["PATH"]
    docker = shutil.which("docker", path=path)
    plugins = (f"{folder}/docker/cli-plugins/docker-compose" for folder in _PLUGIN_FOLDERS)
    if docker and any(os.access(plugin, os.X_OK) for plugin in plugins):
        return [docker, "compose"]
    alone = shutil.which("docker-compose", path=path)
    return [alone] if alone else None


_PLUGIN_FOLDERS = ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")


def recreate_command(containers: Sequence[Container]) -> list[str]:
    """The arguments behind the program that replace all containers of these services. All are of one project."""
    command = [
        *_project_arguments(containers[0].project),
        "up",
        "--detach",
        "--no-deps",
        "--force-recreate",
        "--no-build",
    ]
    services = list(dict.fromkeys(container.service for container in containers))
    for service in services:
        many = sum(container.service == service for container in containers)
        command += ["--scale", f"{service}={many}"] if many > 1 else []
    return [*command, *services]


def _project_arguments(project: Project) -> list[str]:
    command = ["--project-name", project.name, "--project-directory", project.folder]
    command += [word for file in project.files for word in ("--file", file)]
    return command + [word for file in project.env_files for word in ("--env-file", file)]


def unreadable(project: Project, deadline: Deadline) -> tuple[str, str]:
    """Why the program cannot read the project's files without its user's shell, and what it misses there.

    Both empty where all is well. Values that were only exported for the last `up` are missing here.
    """
    found = program()
    if found is None:
        return "neither `docker compose` nor `docker-compose` is installed here", ""
    try:
        ran = process.run([*found, *_project_arguments(project), "config", "--quiet"], deadline)
    except process.ProcessError as error:
        return str(error), ""
    if ran.code != 0:
        return ran.said or f"{found[-1]} config exited {ran.code}", ""
    return "", ", ".join(dict.fromkeys(_UNSET.findall(ran.said)))


def recreate(
    containers: Sequence[Container], environment: Mapping[str, str], deadline: Deadline, secrets: Sequence[bytes]
) -> None:
    """New containers from the project's files as they are now. `environment` leads to the Engine. Raises Answered."""
    found = program()
    if found is None:
        raise refused(No.UNSUPPORTED, "neither `docker compose` nor `docker-compose` is installed here")
    try:
        ran = process.run([*found, *recreate_command(containers)], deadline, secrets=secrets, environment=environment)
    except process.ProcessError as error:
        raise unknown(str(error)) from None
    if ran.code != 0:
        raise unknown(f"{' '.join(found)} up exited {ran.code}{f': {ran.said}' if ran.said else ''}")


# --------------------------------------------------------------------------------------------------------- small parts


def _paths(folder: str, listed: str) -> tuple[str, ...]:
    return tuple(os.path.join(folder, path) for path in listed.split(",") if path)


def _below(folder: str, path: str) -> bool:
    return path.startswith(f"{folder}/") and folder != ""


def _health(state: Mapping[str, Any]) -> str:
    status = str((state.get("Health") or {}).get("Status") or "")
    return "" if status == "none" else status


def _moment(text: str) -> float:
    """RFC 3339 with nanoseconds; `_NEVER` is 0."""
    moment = datetime.fromisoformat(text)
    return 0.0 if moment.year == 1 else moment.astimezone(UTC).timestamp()
