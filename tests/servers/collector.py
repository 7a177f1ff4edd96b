"""A real OpenTelemetry Collector with bearer tokens on OTLP over HTTP and gRPC: `otelcol/`, built by make-collector.

It logs at debug level, unsampled, and counts what it received there. As root it runs as another user, as the images of
the project do, so that the owner and mode of its list matter.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers import ServerMissing
from tests.servers.tls import Certificates, issue

ROOT = Path(__file__).parents[2]
NOBODY = 65534
START_S = 120
DEAF = "failed to re-add watcher"
"""Stands in the log from the moment at which it lost its file."""


@cache
def program() -> Path:
    """Raises ServerMissing where it was not built."""
    said = subprocess.run([ROOT / "scripts/lib/make-collector", "--where"], capture_output=True, text=True, check=False)
    if said.returncode:
        raise ServerMissing("no OpenTelemetry Collector was built: ./scripts/test does it, given Go 1.26")
    return Path(said.stdout.strip())


def configuration(ports: Mapping[str, object], auth: Mapping[str, object], tls: Mapping[str, str]) -> dict[str, Any]:
    """Bearer tokens in front of both receivers; `tls` for gRPC, whose clients send no token without."""
    checked = {"auth": {"authenticator": "bearertokenauth"}}
    return {
        "extensions": {
            "health_check": {"endpoint": f"127.0.0.1:{ports['health']}"},
            "bearertokenauth": dict(auth),
        },
        "receivers": {
            "otlp": {
                "protocols": {
                    "http": {"endpoint": f"127.0.0.1:{ports['http']}", **checked},
                    "grpc": {"endpoint": f"127.0.0.1:{ports['grpc']}", **checked, "tls": dict(tls)},
                }
            }
        },
        "exporters": {"debug": {}},
        "service": {
            "extensions": ["health_check", "bearertokenauth"],
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "debug", "sampling": {"enabled": False}}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
        },
    }


def _free_ports() -> dict[str, int]:
    """Below 32768: the kernel gives those above away while a collector restarts."""
    found: dict[str, socket.socket] = {}
    while len(found) < 3:
        with contextlib.suppress(OSError):
            name = ("http", "grpc", "health")[len(found)]
            found[name] = socket.create_server(("127.0.0.1", 20000 + secrets.randbelow(12000)))
    ports = {name: int(listener.getsockname()[1]) for name, listener in found.items()}
    for listener in found.values():
        listener.close()
    return ports


@dataclass(frozen=True)
class Receivers:
    """Where one listens, and what an independent client hears there. Raises OSError where nobody answers."""

    ports: Mapping[str, int] = field(default_factory=_free_ports)
    certificates: Certificates = field(default_factory=issue)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}/v1/traces"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports['grpc']}"

    def healthy(self) -> bool:
        """What its health check says: nothing about tokens."""
        try:
            return _status(self.ports["health"], "/", {}) == 200
        except OSError:
            return False

    def accepts(self, token: str) -> bool:
        status = _status(self.ports["http"], "/v1/traces", {"Authorization": f"Bearer {token}"})
        if status not in (405, 401):
            raise OSError(f"the collector answered {status}")
        return status == 405

    def accepts_over_grpc(self, token: str) -> bool:
        """With an export of nothing."""
        import grpc

        trusted = grpc.ssl_channel_credentials(self.certificates.ca.encode())
        with grpc.secure_channel(self.grpc, trusted) as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
            try:
                export(b"", metadata=[("authorization", f"Bearer {token}")], timeout=START_S)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    return False
                raise OSError(str(error.code())) from None
        return True


class Collector:
    """One process. `folder` holds `tokens`, its list, unless `auth` says otherwise; ports stay over a restart."""

    def __init__(self, auth: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None) -> None:
        built = program()
        self.folder = Path(tempfile.mkdtemp(prefix="vk-otelcol-", dir="/tmp"))
        self.user = NOBODY if os.geteuid() == 0 else None
        self.program = self.folder / "otelcol"
        shutil.copy(built, self.program)  # the user's cache is nobody else's to read
        self.folder.chmod(0o755)
        self.log = self.folder / "log"
        self.tokens = self.folder / "tokens"
        self.tokens.write_text(secrets.token_hex(16))  # a list that is missing or empty at the start stays unread
        self.tokens.chmod(0o400)
        if self.user is not None:
            os.chown(self.tokens, self.user, self.user)
        self.at = Receivers()
        self.environment = dict(environment or {})
        self._auth = auth or {"filename": str(self.tokens)}
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        tls = {"cert_pem": self.at.certificates.certificate, "key_pem": self.at.certificates.key}
        config = self.folder / "config.json"
        config.write_text(json.dumps(configuration(self.at.ports, self._auth, tls)))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.program, "--config", config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self.user, group=self.user,
                extra_groups=None if self.user is None else [], env={"PATH": "/bin", **self.environment},
            )  # fmt: skip
        self.wait_for("it is healthy", self.healthy)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.end()
        self.start()

    def stop(self) -> None:
        """End it and remove its folder. Idempotent."""
        if self._process is not None:
            self.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------- looking

    def healthy(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the collector ended:\n{self.log.read_text()[-2000:]}")
        return self.at.healthy()

    def spans(self) -> int:
        """How many it has received, by its own log."""
        return spans_in(self.log.read_text())

    def wait_for(self, what: str, look: Callable[[], bool]) -> None:
        until = time.monotonic() + START_S
        while not look():
            assert time.monotonic() < until, f"waited in vain: {what}\n{self.log.read_text()[-2000:]}"
            time.sleep(0.005)


def spans_in(log: str) -> int:
    """How many its debug exporter counted."""
    return sum(int(number) for number in re.findall(r'"spans": (\d+)', log))


def image(certificates: Certificates) -> bytes:
    """A root file system for `docker import`: the program alone. It wants HTTP_PORT, GRPC_PORT and HEALTH_PORT."""
    ports = {name: f"${{env:{name.upper()}_PORT}}" for name in ("http", "grpc", "health")}
    tls = {"cert_file": "/certificate.pem", "key_file": "/key.pem"}
    config = configuration(ports, {"filename": "/run/secrets/tokens"}, tls)
    files = {
        "otelcol": program().read_bytes(),
        "config.json": json.dumps(config).encode(),
        "certificate.pem": certificates.certificate.encode(),
        "key.pem": certificates.key.encode(),
    }
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o555
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _status(port: int, path: str, headers: Mapping[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()
