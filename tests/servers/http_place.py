"""The values of `http_service.py`: a drawer of names for every `spec`."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from urllib.parse import quote

from tests.servers.http import ApplicationServer
from tests.servers.http_service import ROOT
from vaultkeeper.model.policy import DestinationSpec, Read


class Drawers(ApplicationServer):
    names: tuple[str, ...] = ("db_password", "db user/ö")

    def __init__(self) -> None:
        super().__init__()
        self._made = 0

    def spec(self, values: Mapping[str, str], **more: object) -> DestinationSpec:
        self._made += 1
        at = f"{self.url}/values/drawer{self._made}/{{name}}"
        settings = {
            "auth": {"token": {"file": str(self.key)}},
            "write": {"method": "PUT", "http": at, "body": {"value": "{value}"}},
            "show": {"http": at, "value": "/data/value", "changed_at": "/changed_at"},
            "remove": {"http": at},
        }
        return DestinationSpec(self.kind, values, Read.PER_USE, {**settings, **more})

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        return self._shown(self.path(spec, name or "value"))

    def path(self, spec: DestinationSpec, name: str) -> str:
        write = spec.settings["write"]
        assert isinstance(write, dict)
        return str(write["http"]).removeprefix(self.url).replace("{name}", quote(name, safe=""))

    def _shown(self, path: str) -> bytes | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {ROOT[1]}"})
            reply = connection.getresponse()
            found = reply.read()
        finally:
            connection.close()
        return None if reply.status == 404 else str(json.loads(found)["data"]["value"]).encode()

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        self.ask("PUT", self.path(spec, "somebody's"), {"value": "else"})
        return self.read_foreign(spec)

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        return repr(self._shown(self.path(spec, "somebody's"))).encode()

    def pass_time(self, duration: timedelta) -> None:
        time.sleep(min(duration.total_seconds(), 1))


class LoneValue(Drawers):
    names: tuple[str, ...] = ("",)


def start() -> Drawers:
    return Drawers()


VARIANTS: Mapping[str, Callable[[], Drawers]] = {"drawer": Drawers, "lone": LoneValue}
UNSWEPT = ("lone",)
