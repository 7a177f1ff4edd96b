"""Places in a simulated Dokploy (`vaultkeeper.testing.dokploy`): no real server is started by these tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from vaultkeeper.access.dokploy.env import parse, resolve
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.testing.dokploy import Service, SimulatedDokploy

SPEED = 20.0  # ten seconds of a rolling update pass in half a second
FOREIGN = "# theirs: caf\xe9\r\nOTHER='kept # so'\r\n\r\nexport LAST=\"x y\"\r\nURL=https://example.test/#top\r\n"
OURS = ("DB_PASSWORD=", "API_TOKEN=")


def simulated(*, speed: float = SPEED) -> SimulatedDokploy:
    return SimulatedDokploy(parse, resolve, speed=speed)


class DokployPlace:
    """Every `spec` is a new service of one environment. Its key's user is a member that sees Docker."""

    kind = "dokploy"
    names: tuple[str, ...] = ("DB_PASSWORD", "API_TOKEN")
    service = "application"

    def __init__(self) -> None:
        self.dokploy = simulated()
        state = self.dokploy.state
        self.environment = state.environment(state.project("shop"))
        self.member = state.user(owner=False)
        self.member.sees_docker = True
        self._folder = tempfile.TemporaryDirectory(prefix="vk-dokploy-")
        self.key_file = Path(self._folder.name) / "key"
        self.key_file.write_text(state.key(self.member).value)
        self.key_file.chmod(0o600)
        self._made = 0

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        self._made += 1
        made = self.dokploy.state.service(self.service, self.environment, f"web{self._made}")
        self.member.services.add(made.id)
        settings = {"url": self.dokploy.url, "api_key": {"file": str(self.key_file)}, self.service: made.id}
        return DestinationSpec(self.kind, values, Read.AT_START, {**settings, **self.settings()})

    def settings(self) -> dict[str, object]:
        """What `spec` says beside the place."""
        return {}

    def of(self, spec: DestinationSpec) -> Service:
        return self.dokploy.state.services[str(spec.settings[self.service])]

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        """What a program in the newest container finds, once the update is through."""
        self.dokploy.state.advance(15)
        value = self.dokploy.state.running(self.of(spec))[0].get(name)
        return None if value is None else value.encode()

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        self.of(spec).row["env"] = FOREIGN
        return FOREIGN.encode()

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        lines = str(self.of(spec).row["env"]).splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(OURS)).encode()

    def pass_time(self, duration: timedelta) -> None:
        self.dokploy.state.advance(duration.total_seconds())

    def stop(self) -> None:
        self.dokploy.stop()
        self._folder.cleanup()


class ComposePlace(DokployPlace):
    """Redeployed through the queue, and confirmed by a probe."""

    service = "compose"

    def settings(self) -> dict[str, object]:
        return {"confirm": {"command": ["/bin/true"]}}


def start() -> DokployPlace:
    return DokployPlace()


VARIANTS: Mapping[str, Callable[[], DokployPlace]] = {"application": DokployPlace, "compose": ComposePlace}
"""Each of them keeps the contract."""
