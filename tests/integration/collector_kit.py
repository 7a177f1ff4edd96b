"""One installation with one token of a real OpenTelemetry Collector, and a client that exports with it all the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from tests.integration.shop_kit import identity_of, installed, state_of
from tests.servers.collector import Receivers
from vaultkeeper import wiring
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.rotate import Report, resume, rotate
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.ports import Clock
from vaultkeeper.wiring.places import Wishes

NAME = "telemetry/agent-token"
FIELD = "token"
WAYS = ("http", "grpc")


class Turned:
    """Wall time, turned on at every sleep after what has to happen in it has happened."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self.before_turning: Callable[[timedelta], object] = lambda _duration: None

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, duration: timedelta) -> None:
        self.before_turning(duration)
        self._ahead += duration


class Client:
    """`exporting.py`, which reads its token file at each export."""

    def __init__(self, at: Receivers, token: Path) -> None:
        ca = token.with_name("ca.pem")
        ca.write_text(at.certificates.ca)
        self.seen: Counter[str] = Counter()
        self._errors = token.with_name("client-log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("exporting.py"), token, at.url, at.grpc, ca],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env={**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "300"},  # it sends again for so long, where nobody listens
        )  # fmt: skip

    def _heard(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        self.seen[line] += bool(line)
        return line

    def exports_again(self) -> None:
        """Until exports that began after now have ended, both ways: what was under way then is over, too."""
        asked = {way: self._ended(way) for way in WAYS}
        while any(self._ended(way) < asked[way] + 2 for way in WAYS):
            assert self._heard(), f"the client ended:\n{self.log()}"

    def _ended(self, way: str) -> int:
        return self.seen[f"{way} taken"] + self.seen[f"{way} lost"]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        while self._heard():
            pass
        self._process.wait(600)

    def log(self) -> str:
        self._errors.seek(0)
        return self._errors.read()


class Telemetry:
    """`home` with a policy for a collector's list, whose place `target` names; the client reads `token`."""

    def __init__(self, folder: Path, at: Receivers, adopted: str, target: Mapping[str, object], grace: str) -> None:
        self.home, self.at, self.adopted = installed(folder), at, adopted
        self.token = self.home / "out/token"
        self.token.write_text(adopted)
        self.clock: Clock | None = None
        probe = {"http": at.url, "accepted": [405], "rejected": [401]}
        body = {
            "generator": {"kind": "token", "bytes": 32},
            "grace_period": grace,
            "min_interval": "0s",
            "target": {"kind": "token_list", "probe": probe, **target},
            "destinations": [{"kind": "file", "path": str(self.token), "read": "per_use"}],
        }
        (self.home / "policies/telemetry.yaml").write_text(json.dumps({"secrets": {NAME: body}}))  # JSON is YAML

    @cached_property
    def parts(self) -> Parts:
        wishes = Wishes(state_of(self.home), self.home / "policies", identity_of(self.home))
        self._installed = wiring.open_installed(wishes)
        parts = wiring.parts(self._installed, wishes, parallel=1)
        return replace(parts, clock=self.clock or parts.clock)

    def adopt(self) -> None:
        adopt(NAME, {FIELD: SecretBytes(self.adopted.encode())}, self.parts)

    def rotated(self, wait: timedelta = timedelta(days=1)) -> Report:
        (report,) = rotate([NAME], self.parts, by_name=True, wait=wait)
        return report

    def resumed(self) -> Report:
        (report,) = resume([NAME], self.parts, wait=timedelta(days=1))
        return report

    def values(self) -> dict[str, str]:
        """Every value that was ever in use, by version."""
        book = Book(NAME, self.parts.store, self.parts.envelope, self.parts.redactor)
        return {f"v{number}": book.version(number).fields[FIELD].text() for number in book.records()}

    @contextmanager
    def client(self) -> Iterator[Client]:
        client = Client(self.at, self.token)
        try:
            client.exports_again()
            yield client
        finally:
            client.end()

    def close(self) -> None:
        if "parts" in vars(self):
            self._installed.store.close()
