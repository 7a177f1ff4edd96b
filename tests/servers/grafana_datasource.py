"""Data sources of a Grafana. What they hold is read where they log in: at a stub that plays their Prometheus."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from datetime import timedelta

from tests.servers.grafana import MAIN_ORG, Grafanas, Prometheus
from vaultkeeper.model.policy import DestinationSpec, Read

OURS = {"X-Ours": "httpHeaderValue1", "X-Theirs": "httpHeaderValue2"}


class GrafanaDatasourcePlace:
    """Every `spec` is a new data source, with nothing secret in it yet."""

    kind = "grafana_datasource"
    names: tuple[str, ...] = ("basicAuthPassword", "httpHeaderValue1")

    def __init__(self) -> None:
        self.grafana, self.prometheus = Grafanas(), Prometheus()

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        headers = {"httpHeaderName1": "X-Ours", "httpHeaderName2": "X-Theirs"}
        uid = self.grafana.source(
            type="prometheus",
            url=self.prometheus.url,
            basicAuth=True,
            basicAuthUser="scraper",
            jsonData={"httpMethod": "POST", **headers},
        )
        settings = {"url": self.grafana.url, "org": MAIN_ORG, "uid": uid, "auth": self.grafana.by_password}
        return DestinationSpec(self.kind, values, Read.PER_USE, settings)

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        uid = spec.settings["uid"]
        if not self.grafana.api("GET", f"/api/datasources/uid/{uid}")["secureJsonFields"].get(name):
            return None
        headers = self._used(spec)
        if name in OURS.values():
            return next((headers.get(shown, "").encode("latin-1") for shown, key in OURS.items() if key == name), None)
        pair = base64.b64decode(headers["Authorization"].removeprefix("Basic "))
        return pair.partition(b":")[2]

    def _used(self, spec: DestinationSpec) -> Mapping[str, str]:
        """The headers of one use, which is made now."""
        self.prometheus.asked.clear()
        path = f"/api/datasources/uid/{spec.settings['uid']}/health"
        self.grafana.api("GET", path, fresh=True)
        return self.prometheus.asked[-1]

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        path = f"/api/datasources/uid/{spec.settings['uid']}"
        row = self.grafana.api("GET", path)
        row["jsonData"] |= {"timeInterval": "15s", "prometheusType": "Mimir"}
        self.grafana.api("PUT", path, {**row, "secureJsonData": {"httpHeaderValue2": "theirs"}})
        self.pass_time(timedelta(seconds=3))
        return self.read_foreign(spec)

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        row = self.grafana.api("GET", f"/api/datasources/uid/{spec.settings['uid']}")
        theirs = {key: value for key, value in row["jsonData"].items() if key != "vaultkeeper"}
        kept = [row[key] for key in ("name", "type", "url", "basicAuth", "basicAuthUser", "isDefault")]
        return json.dumps([theirs, kept, self._used(spec).get("X-Theirs")]).encode()

    def pass_time(self, duration: timedelta) -> None:
        if self.grafana.simulator is not None:
            self.grafana.state.advance(duration.total_seconds())
        else:
            time.sleep(duration.total_seconds())

    def stop(self) -> None:
        self.grafana.stop()
        self.prometheus.stop()


def start() -> GrafanaDatasourcePlace:
    return GrafanaDatasourcePlace()
