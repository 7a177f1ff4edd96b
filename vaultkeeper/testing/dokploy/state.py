"""What the simulated Dokploy holds: rows, users, keys, Docker Swarm's tasks, a queue, and a clock that can be moved."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]
Parse = Callable[[str], Mapping[str, str]]
Resolve = Callable[[str, str, str], Mapping[str, str]]

STARTS_S, BREAKS_S, ENDS_S = 1.0, 2.0, 1.0  # until a task runs, until a broken one has failed, until an old one ended
QUEUE_S, BUILD_S = 1.0, 2.0
KEPT_TASKS, KEPT_DEPLOYMENTS = 6, 10
SERVICES = ("application", "compose", "postgres", "mysql", "mariadb", "mongo", "redis")
LIST_OF = {kind: "applications" if kind == "application" else kind for kind in SERVICES}


def new_id(length: int = 21) -> str:
    """As Dokploy's look."""
    return secrets.token_urlsafe(length)[:length]


@dataclass
class Key:
    """One API key. `spent`: verifications within its limit."""

    id: str
    value: str
    user: str
    name: str
    prefix: str | None = None
    limited: bool = False
    spent: int = 0
    enabled: bool = True
    expires_at: datetime | None = None


@dataclass
class User:
    """`owner` may do everything; a member what is listed, in the services that are listed."""

    id: str
    organization: str
    owner: bool = True
    services: set[str] = field(default_factory=set)
    sees_docker: bool = False
    may_create: bool = False
    may_deploy: bool = True
    not_deployed: set[str] = field(default_factory=set)  #: services that are listed, and not deployed by this user


@dataclass
class Task:
    """One task of Swarm, and its container. Everything that will happen to it is known when it is made."""

    id: str
    container: str
    env: Mapping[str, str]
    runs_from: float
    wanted_until: float | None = None
    ended_at: float | None = None
    ended: str = "Shutdown"


@dataclass
class Service:
    """`breaks_on`: with such an environment its process ends in an error, and Swarm goes back to the one before."""

    kind: str
    row: Row
    tasks: list[Task] = field(default_factory=list)  #: newest first
    breaks_on: Callable[[Mapping[str, str]], bool] = lambda _env: False
    deployments: list[Row] = field(default_factory=list)  #: newest first
    elsewhere: bool = False  #: its containers run on another machine

    @property
    def id(self) -> str:
        return str(self.row[f"{self.kind}Id"])


@dataclass
class Job:
    """A deployment that waits in memory."""

    service: Service
    title: str
    begins_at: float


class State:
    """All of it, under one lock. Times are seconds of a clock that runs `speed` times as fast as ours."""

    def __init__(self, parse: Parse, resolve: Resolve, *, speed: float = 1.0) -> None:
        self.parse, self.resolve = parse, resolve
        self.lock = threading.RLock()
        self._speed, self._began, self._ahead = speed, time.monotonic(), 0.0
        self.organization = new_id()
        self.users: dict[str, User] = {}
        self.keys: dict[str, Key] = {}
        self.projects: dict[str, Row] = {}
        self.environments: dict[str, Row] = {}
        self.services: dict[str, Service] = {}
        self.vault: dict[tuple[str, str], str] = {}  #: (provider, reference) → value
        self.jobs: list[Job] = []

    # ---------------------------------------------------------------------------------------------------------- time

    def now(self) -> float:
        return (time.monotonic() - self._began) * self._speed + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass, and what would happen in it."""
        with self.lock:
            self._ahead += seconds / 2  # in two steps: what is due in between begins what follows
            self.settle()
            self._ahead += seconds / 2

    def stamp(self, at: float | None = None) -> str:
        moment = datetime.now(UTC) + timedelta(seconds=(at or self.now()) - self.now())
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    # ------------------------------------------------------------------------------------------------- making things

    def user(self, *, owner: bool = True) -> User:
        made = User(new_id(32), self.organization, owner=owner)
        self.users[made.id] = made
        return made

    def key(self, user: User, name: str = "by hand", *, limited: bool = False, prefix: str | None = None) -> Key:
        made = Key(new_id(32), (prefix or "") + secrets.token_hex(32), user.id, name, prefix, limited)
        self.keys[made.id] = made
        return made

    def project(self, name: str, env: str = "") -> Row:
        row: Row = {"projectId": new_id(), "name": name, "description": None, "createdAt": self.stamp(), "env": env}
        row["organizationId"] = self.organization
        self.projects[row["projectId"]] = row
        return row

    def environment(self, project: Row, name: str = "production", env: str = "") -> Row:
        row: Row = {"environmentId": new_id(), "name": name, "description": None, "createdAt": self.stamp(), "env": env}
        row |= {"projectId": project["projectId"], "isDefault": True}
        self.environments[row["environmentId"]] = row
        return row

    def service(self, kind: str, environment: Row, name: str, env: str | None = None, **more: object) -> Service:
        """A running service; its first task has run for a minute."""
        row: Row = {f"{kind}Id": new_id(), "name": name, "appName": f"{name}-{secrets.token_hex(3)}", "env": env}
        row |= {"environmentId": environment["environmentId"], "createdAt": self.stamp(), "serverId": None}
        if kind == "application":
            row |= {"buildArgs": None, "buildSecrets": None, "createEnvFile": True, "applicationStatus": "done"}
            row |= {"refreshToken": new_id(), "replicas": 1, "updateConfigSwarm": None, "healthCheckSwarm": None}
        elif kind == "compose":
            row |= {"createEnvFile": True, "composeStatus": "done", "composeType": "stack", "refreshToken": new_id()}
        else:
            row |= {"databasePassword": new_id(), "applicationStatus": "done", "replicas": 1}
        made = Service(kind, row | more)
        self.services[made.id] = made
        made.tasks = [self._task(self.effective(made), self.now() - 60)]
        return made

    # ------------------------------------------------------------------------------------------------- what really runs

    def effective(self, service: Service) -> Mapping[str, str]:
        """The environment that a deployment would give. Raises ValueError for a reference to nothing."""
        environment = self.environments[service.row["environmentId"]]
        project = self.projects[environment["projectId"]]
        texts = [self._from_vault(row["env"] or "") for row in (service.row, project, environment)]
        try:
            return dict(self.resolve(*texts))
        except Exception:  # noqa: BLE001 - whatever resolves them may raise what it likes
            raise ValueError("a reference names nothing") from None

    def _from_vault(self, text: str) -> str:
        """Spliced into the text before it is parsed, as Dokploy does."""
        for (provider, reference), value in self.vault.items():
            text = text.replace(f"${{{{vault.{provider}.{reference}}}}}", value)
        if "${{vault." in text:
            raise ValueError("a secret is not in its vault")
        return text

    def roll(self, service: Service) -> None:
        """What Swarm does with a new environment: start first, then end the old; a broken one goes back by itself."""
        env, now = self.effective(service), self.now()
        if any("{{" in value for value in env.values()):
            raise ValueError("Swarm takes it for a template")
        before = next((task for task in service.tasks if task.wanted_until is None), None)
        service.tasks = [task for task in service.tasks if task.runs_from <= now or task is before]
        fresh = self._task(env, now + STARTS_S)
        service.tasks.insert(0, fresh)
        if before is not None:
            before.wanted_until, before.ended_at = fresh.runs_from, fresh.runs_from + ENDS_S
        if service.breaks_on(env) and before is not None:
            fresh.wanted_until = fresh.ended_at = fresh.runs_from + BREAKS_S
            fresh.ended = "Failed"
            service.tasks.insert(0, self._task(before.env, fresh.ended_at + STARTS_S))
        del service.tasks[KEPT_TASKS:]

    def _task(self, env: Mapping[str, str], runs_from: float) -> Task:
        return Task(new_id(25).lower(), secrets.token_hex(6), dict(env), runs_from)

    def running(self, service: Service) -> list[Mapping[str, str]]:
        """Environments of the tasks that run now, newest first."""
        now = self.now()
        return [t.env for t in service.tasks if t.runs_from <= now and (t.ended_at is None or t.ended_at > now)]

    # ------------------------------------------------------------------------------------------------------------ queue

    def enqueue(self, service: Service, title: str) -> None:
        self.jobs.append(Job(service, title, self.now() + QUEUE_S))

    def settle(self) -> None:
        """Begin and end what is due."""
        now = self.now()
        for job in [job for job in self.jobs if job.begins_at <= now]:
            self.jobs.remove(job)
            record = self._record(job)
            job.service.deployments.insert(0, record)
            del job.service.deployments[KEPT_DEPLOYMENTS:]
        for service in self.services.values():
            for record in service.deployments:
                if record["status"] == "running" and record["_ends"] <= now:
                    self._finish(service, record)

    def _record(self, job: Job) -> Row:
        row: Row = {"deploymentId": new_id(), "title": job.title, "description": "", "status": "running"}
        row |= {"createdAt": self.stamp(), "startedAt": self.stamp(), "finishedAt": None, "errorMessage": None}
        return row | {"logPath": "/etc/dokploy/logs/x.log", "_ends": job.begins_at + BUILD_S}

    def _finish(self, service: Service, record: Row) -> None:
        record["finishedAt"] = self.stamp()
        try:
            self.roll(service)
            record["status"] = "done"
        except ValueError:
            record["status"] = "error"
        service.row["composeStatus" if service.kind == "compose" else "applicationStatus"] = record["status"]

    def restart(self) -> None:
        """Dokploy's own restart: what waited is forgotten, what ran is cancelled."""
        self.jobs.clear()
        for service in self.services.values():
            for record in service.deployments:
                if record["status"] == "running":
                    record["status"] = "cancelled"
