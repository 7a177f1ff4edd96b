"""Services of a real swarm, read from inside their containers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tests.servers import docker, docker_service
from vaultkeeper.model.policy import DestinationSpec, Read


class SwarmPlace:
    """Every `spec` is a service of its own with one task."""

    kind = "swarm"

    def __init__(self) -> None:
        self.engine = docker.shared()
        self.names: tuple[str, ...] = (f"{self.engine.run}-db_password", f"{self.engine.run}-api.token")
        self._services: dict[str, docker_service.Service] = {}

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        made = self.engine.service(
            "reader",
            healthcheck=False,
            container={"Command": ["sleep", "inf"], "StopGracePeriod": docker.SECOND // 10},
            update={"Monitor": docker.SECOND // 10},  # start-first: a third of the time
        )
        self._services[made.name] = made
        settings = {"host": self.engine.url, "services": [made.name]}
        return DestinationSpec(self.kind, values, Read.AT_START, settings, healthy_for=timedelta(0))

    def new_name(self) -> str:
        """The kill sweep copies one installation many times: copies that share objects collect each other's."""
        return f"{self.engine.run}-{secrets.token_hex(4)}"

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        service = self._service(spec)
        self.engine.wait_for(f"{service.name} runs on its spec", lambda: _settled(service))
        (found,) = service.read(name)
        return found

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        theirs = docker_service.reference("theirs", self.engine.secret("theirs", "kept"), uid="7", mode=0o440)
        self._service(spec).set(lambda raw: raw["TaskTemplate"]["ContainerSpec"].update(Secrets=[theirs]))
        return self.read_foreign(spec)

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        """Its reference and its content."""
        listed = self._service(spec).spec()["TaskTemplate"]["ContainerSpec"].get("Secrets") or []
        reference = [each for each in listed if each["File"]["Name"] == "theirs"]
        return repr(reference).encode() + (self.read(spec, "theirs") or b"")

    def pass_time(self, duration: timedelta) -> None:
        time.sleep(min(duration.total_seconds(), 1))

    def forget(self, spec: DestinationSpec) -> None:
        """The kill sweep is through with it."""
        self._service(spec).remove()

    def stop(self) -> None:
        self.engine.clear()
        self._services.clear()

    def _service(self, spec: DestinationSpec) -> docker_service.Service:
        listed = spec.settings["services"]
        assert isinstance(listed, list)
        return self._services[listed[0]]


def _settled(service: docker_service.Service) -> bool:
    """Its task is there before its update has ended, which would be somebody else's."""
    if service.update_state() == "updating":
        return False
    wanted = set(service.files().values())
    tasks = [task for task in service.tasks() if task["DesiredState"] == "running"]
    has = [_secrets_of(task) for task in tasks if task["Status"]["State"] == "running"]
    return len(tasks) == 1 and has == [wanted]


def _secrets_of(task: Mapping[str, Any]) -> set[str]:
    return {each["SecretName"] for each in task["Spec"]["ContainerSpec"].get("Secrets") or []}


def start() -> SwarmPlace:
    return SwarmPlace()


AT_ONCE = 6
