"""The containers that read one file of a Compose project: who must be told, who runs on it, and what stands in the way.

What a container runs on is told by time, not by memory: one that was started (for its environment: made) after the file
came to stand there has read it. So a repeat after a crash between the write and the restart still restarts, and nobody
is restarted twice. Containers that do not run are left alone, unless they ran before the rotation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from vaultkeeper.access import compose
from vaultkeeper.access.compose import Container
from vaultkeeper.access.slots import receipt_of
from vaultkeeper.model.duration import show
from vaultkeeper.model.outcome import Failed, Finding, NotYet, Proof
from vaultkeeper.model.policy import Read
from vaultkeeper.ports import Deadline, Item

How = Literal["restart", "recreate", "signal", "none"]
AGAIN = timedelta(seconds=1)
_TELLING = {"restart": "restarted", "recreate": "replaced", "signal": "sent a signal"}


@dataclass(frozen=True)
class Readers:
    """Those of one destination."""

    path: str
    environment: bool  #: the file is an env file, read by Compose and never by a container
    placed_at: float  #: since when the file stands there as it is; seconds since the epoch
    how: How
    signal: str | None  #: where `how` says so
    read: Read
    healthy_for: timedelta
    services: tuple[str, ...]  #: as the policy names them; empty: whoever mounts the file
    project: Sequence[Container]  #: all containers of the project
    ran: frozenset[str]  #: keys of those that ran before the rotation

    @property
    def known(self) -> list[Container]:
        """One container per key, the newest; in the written order of their services."""
        newest: dict[str, Container] = {}
        for container in sorted(self.project, key=lambda c: c.created_at):
            if container.service in self.services if self.services else container.mounts(self.path):
                newest[container.key] = container
        order = {service: number for number, service in enumerate(self.services)}
        return sorted(newest.values(), key=lambda c: (order.get(c.service, 0), c.service, len(c.key), c.key))

    @property
    def running(self) -> list[str]:
        """Keys of those that run now or are about to, for the receipt."""
        alive = {c.key for c in self.project if c.running or c.crashing}
        return [container.key for container in self.known if container.key in alive]

    @property
    def wanted(self) -> list[Container]:
        """Those that shall run on the file."""
        keys = {*self.running, *self.ran}
        return [container for container in self.known if container.key in keys]

    def due(self) -> list[Container]:
        """Those that must be told now; for a signal whoever runs, because a second one does no harm."""
        if self.how == "none":
            return []
        if self.how == "signal":
            return [container for container in self.wanted if container.running]
        return [container for container in self.wanted if not self.fresh(container)]

    def doubtful(self) -> list[Container]:
        """Those that crashed after the file came to stand there: maybe on the one that they had read before it."""
        crashed = [c for c in self.wanted if self.fresh(c) and c.running and self._crashed(c)]
        return crashed if self.how == "restart" else []

    def given(self, name: str, value: bytes) -> bool:
        """Does a container run that was made with this? One that was stopped may have been started again since."""
        text = value.decode(errors="surrogateescape")
        return any(container.running and container.environment.get(name) == text for container in self.known)

    def fresh(self, container: Container) -> bool:
        """Was it started with the file as it is?"""
        started = container.started_since(self.placed_at)
        return started and (not self.environment or container.made_since(self.placed_at))

    # ------------------------------------------------------------------------------------------------------- confirm

    def judged(self, container: Container, now: float) -> Failed | NotYet | None:
        """None: it runs on the file, healthily. `why` of a Failed is to be completed with its last words."""
        told = self.how in {"restart", "recreate"}
        fresh = self.fresh(container)
        if container.crashing or (told and fresh and container.running and self._crashed(container)):
            code = f" (exit code {container.exit_code})" if container.crashing else ""  # 0 while it runs again
            return Failed(container.name, f"keeps crashing{code}")
        if not container.running and container.started_since(self.placed_at):
            return Failed(container.name, f"exited {container.exit_code}")
        if not container.running:
            return NotYet(f"{container.name} does not run", AGAIN)
        if not fresh and (told or self._hidden(container)):
            return NotYet(f"{container.name} was not started since {self.path} changed", AGAIN)
        if container.health == "unhealthy":
            return Failed(container.name, "is unhealthy")
        if container.health == "starting":
            return NotYet(f"{container.name} is not healthy yet", AGAIN)
        left = max(container.started_at, self.placed_at) + self.healthy_for.total_seconds() - now
        if not container.health and left > 0:
            wait = min(timedelta(seconds=left), self.healthy_for)
            return NotYet(f"{container.name} has no health check and shall run for {show(self.healthy_for)}", wait)
        return None

    def proof(self) -> Proof:
        """Demonstrated only where a container was seen that cannot have another value."""
        seen = [c for c in self.wanted if self.environment or c.mounts(self.path)]
        at_once = self.read is Read.PER_USE and not any(self._hidden(c) for c in seen)
        shown = seen and len(seen) == len(self.wanted) and (self.how in {"restart", "recreate"} or at_once)
        return Proof.DEMONSTRATED if shown else Proof.WRITTEN

    def _crashed(self, container: Container) -> bool:
        """Since the file came to stand there, and since somebody else than its restart policy started it."""
        return container.crashes > 0 and container.ended_at > self.placed_at

    def _hidden(self, container: Container) -> bool:
        """Does it see the old file until it is started again, while it is said to need no start?"""
        waits = self.how == "signal" or self.read is Read.PER_USE
        return waits and not self.environment and container.mounts(self.path) == "file"

    # --------------------------------------------------------------------------------------------------------- check

    def findings(self, deadline: Deadline) -> Iterator[Finding]:
        """What `check` and `plan` say; a `refuse` among them forbids a delivery."""
        if not self.project:
            yield Finding("warn", f"the project has no containers on this Engine: nobody is told of {self.path}")
            return
        there = {container.service for container in self.known}
        for service in self.services:
            if service not in there:
                yield Finding(
                    "refuse",
                    f"the project has no container of a service {service!r}",
                    "put the name right, start the service, or leave it out",
                )
        if not self.known and not self.services:
            yield Finding("warn", f"no container of the project mounts {self.path}")
        for container in self.known:
            yield from self._of(container)
        if self.wanted and self.how != "none":
            yield Finding("ok", f"{_TELLING[self.how]}: {', '.join(container.name for container in self.wanted)}")
        if self.wanted and self.how == "recreate":
            yield from self._recreation(deadline)

    def _of(self, container: Container) -> Iterator[Finding]:
        name, mount = container.name, None if self.environment else container.mounts(self.path)
        if not container.running and not container.crashing and self.environment:
            text = f"{name} does not run; it is not started, and keeps the old environment if it is only started again"
            yield Finding("warn", text, f"docker compose up --force-recreate {container.service}")
            return
        if not container.running and not container.crashing:
            yield Finding("ok", f"{name} does not run; it is not started, and reads the file when it is")
            return
        if not self.environment and mount is None:
            yield Finding("warn", f"{name} does not mount {self.path}")
        if mount == "file":
            yield self._single(container)
        if container.crashing or container.health == "unhealthy":
            yield Finding("warn", f"{name} is {container.health or 'crashing'} already; going back cannot mend that")
        if not container.health and self.how != "none":
            text = f"{name} has no health check: that it still runs after {show(self.healthy_for)} is all that shows"
            yield Finding("warn", text)

    def _single(self, container: Container) -> Finding:
        mounts = f"{container.name} mounts {self.path} itself, so that it sees the old file until it is started again"
        if self.how in {"restart", "recreate"}:
            return Finding("ok", f"{mounts}, which `reload: {self.how}` does")
        level = "refuse" if self._hidden(container) else "warn"
        return Finding(level, mounts, "mount its folder, or write `reload: restart`")

    def _recreation(self, deadline: Deadline) -> Iterator[Finding]:
        services = {c.service for c in self.wanted}
        for project in {c.project: None for c in self.wanted}:
            trouble, unset = compose.unreadable(project, deadline)
            if trouble:
                own = [c for c in self.wanted if c.project == project]
                words = " ".join(["docker", "compose", *compose.recreate_command(own)])
                then = f"put that right, or write `reload: none` and after each rotation run  {words}"
                yield Finding("refuse", f"the project {project.name} cannot be recreated from here: {trouble}", then)
            if unset:
                yield Finding("warn", f"recreating {project.name} leaves empty what no file sets: {unset}")
        for container in self.known:
            if container.service in services and container.key not in {c.key for c in self.wanted}:
                yield Finding(
                    "warn", f"{container.name} does not run, and recreating {container.service} starts or removes it"
                )
            if container.running and container.detached:
                yield Finding("warn", f"{container.name} was disconnected from its network; recreating attaches it")


def ran_before(item: Item) -> frozenset[str]:
    """Keys of those that ran when its receipt was made."""
    receipt = receipt_of(item)
    ran = receipt.public.get("ran") if receipt else None
    return frozenset(map(str, ran)) if isinstance(ran, list | tuple) else frozenset()


def recreate(
    told: Sequence[Readers], environment: Mapping[str, str], deadline: Deadline, secrets: Sequence[bytes]
) -> None:
    """One call per project: whole services, because the program knows no less. Raises Answered."""
    again = [readers for readers in told if readers.how == "recreate"]
    services = {(c.project, c.service) for readers in again for c in readers.due()}
    for project in {project: None for project, _ in services}:
        whole = {c.id: c for r in again for c in r.wanted if (c.project, c.service) in services}
        own = [container for container in whole.values() if container.project == project]
        compose.recreate(own, environment, deadline, secrets)
