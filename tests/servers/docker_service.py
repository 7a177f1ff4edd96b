"""A swarm service of the tests, and how to look at it; `tests/servers/docker.py` makes them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.servers.docker import Engine


class ApiError(Exception):
    """The Engine refused: `status` and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True)
class Service:
    """One service of consumers."""

    engine: Engine
    id: str
    name: str

    def raw(self) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.api("GET", f"/services/{self.id}")
        return found

    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.raw()["Spec"]
        return spec

    def files(self) -> dict[str, str]:
        """Return the secret's name by file name, as the spec has them."""
        found = self.spec()["TaskTemplate"]["ContainerSpec"].get("Secrets") or []
        return {each["File"]["Name"]: each["SecretName"] for each in found}

    def update_state(self) -> str:
        return str((self.raw().get("UpdateStatus") or {}).get("State", ""))

    def tasks(self) -> list[dict[str, Any]]:
        """Every task that the Engine still knows, oldest first."""
        found = self.engine.api("GET", "/tasks", filters={"service": [self.id]})
        return sorted(found, key=lambda task: (task["CreatedAt"], task["ID"]))

    def running(self, secret: str | None = None) -> list[dict[str, Any]]:
        """Tasks that should run and do; `secret`: only those that have the object of that name in their own spec."""
        return [
            task
            for task in self.tasks()
            if task["DesiredState"] == task["Status"]["State"] == "running"
            and (secret is None or secret in _secrets_of(task))
        ]

    def all_running(self) -> bool:
        mode = self.spec()["Mode"]
        wanted = mode["Replicated"].get("Replicas", 1) if "Replicated" in mode else 1
        return len(self.running()) == wanted

    def containers(self) -> list[str]:
        """Ids of the containers of tasks that run."""
        return [task["Status"]["ContainerStatus"]["ContainerID"] for task in self.running()]

    def read(self, file: str = "db") -> set[bytes | None]:
        """What every running task reads at /run/secrets/<file>."""
        return {self.engine.read(container, f"/run/secrets/{file}") for container in self.containers()}

    def logs(self) -> list[str]:
        """Lines of all its containers that are still there, in no order between them.

        Asked of the containers: `/services/ID/logs` may hang while a task is on its way out.
        """
        mine = {"label": [f"com.docker.swarm.service.id={self.id}"]}
        lines: list[str] = []
        for container in self.engine.api("GET", "/containers/json", filters=mine, all=True):
            try:
                said = self.engine.api("GET", f"/containers/{container['Id']}/logs", stdout=True, stderr=True)
            except ApiError as error:
                if error.status not in {404, 409}:  # it is being removed
                    raise
            else:
                lines += frames(said or b"").decode(errors="replace").splitlines()
        return lines

    def set(self, change: Callable[[dict[str, Any]], object], **query: str) -> None:
        """Update it as somebody else would: raw spec, changed by `change`, posted with its version."""
        for _ in range(10):
            found = self.raw()
            change(found["Spec"])
            try:
                version = str(found["Version"]["Index"])
                self.engine.api("POST", f"/services/{self.id}/update", found["Spec"], version=version, **query)
            except ApiError as error:
                if "out of sequence" not in str(error):
                    raise
            else:
                return
        raise AssertionError(f"{self.name} is updated all the time")

    def roll_back(self) -> None:
        """`docker service rollback`."""
        self.set(lambda _spec: None, rollback="previous")

    def remove(self) -> None:
        self.engine.api("DELETE", f"/services/{self.id}")


def reference(
    file: str, secret: Mapping[str, str], *, uid: str = "0", gid: str = "0", mode: int = 0o444
) -> dict[str, Any]:
    """Return an entry of ContainerSpec.Secrets."""
    return {
        "SecretID": secret["ID"],
        "SecretName": secret["Name"],
        "File": {"Name": file, "UID": uid, "GID": gid, "Mode": mode},
    }


def _secrets_of(task: Mapping[str, Any]) -> set[str]:
    return {each["SecretName"] for each in task["Spec"]["ContainerSpec"].get("Secrets") or []}


def frames(stream: bytes) -> bytes:
    """Take a stream of output apart: eight bytes before each frame, the last four of them its length."""
    source, out = io.BytesIO(stream), b""
    while len(head := source.read(8)) == 8:
        out += source.read(int.from_bytes(head[4:], "big"))
    return out
