"""Whole rotations through a simulated Dokploy: a collector's accept list in one application, its client in another.

This is the script that people write by hand, done safely (docs/how-to/bearer-token.md). Every request's reply is
lost once.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dokploy_kit import open_shop
from vaultkeeper import wiring
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.model.secret import SecretBytes, StagingLabel
from vaultkeeper.testing.dokploy import Service, SimulatedDokploy
from vaultkeeper.testing.dokploy.server import Seen
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

NAME = "telemetry/token"
EVERY = int(os.environ.get("VAULTKEEPER_TEST_EVERY", "3"))
FIRST = "vk-first-token-0123456789abcdef"


class Collector(BaseHTTPRequestHandler):
    """Answers as a collector does: 405 with a good token, 401 with a wrong one."""

    accepted: Callable[[], set[str]]

    def do_GET(self) -> None:
        good = self.headers.get("Authorization", "").removeprefix("Bearer ") in self.accepted()
        self.send_response(405 if good else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing."""


@dataclass
class Hurried:
    """Sleeping moves this clock and Dokploy's, and takes no time."""

    dokploy: Any
    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, duration: timedelta) -> None:
        self.ahead += duration
        self.dokploy.state.advance(duration.total_seconds())


class Telemetry:
    """A collector that accepts the tokens in its own containers' variables, an application that sends one."""

    def __init__(self, home: Path, template: Path) -> None:
        shutil.copytree(template, home)
        self.home, self.shop = home, open_shop(home)
        self.dokploy = self.shop.dokploy
        self.collector = self.shop.add("application", "collector", f"TOKEN={FIRST}\nBEFORE={FIRST}\nPORT=4318\n")
        self.client = self.shop.service
        self.client.row["env"] = f"# the client\nOTEL_TOKEN={FIRST}\nOTHER='kept'\n"
        self.dokploy.state.roll(self.client)
        self.dokploy.state.advance(30)
        handler = type("Bound", (Collector,), {"accepted": staticmethod(self.accepted)})
        self.checker = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.checker.serve_forever, args=(0.02,), daemon=True).start()
        place = {"kind": "dokploy", "url": self.dokploy.url, "api_key": {"file": str(home / "key")}}
        address = f"http://127.0.0.1:{self.checker.server_port}/v1/traces"
        probe = {"http": address, "accepted": [405], "rejected": [401]}
        tokens = {"TOKEN": "{accepted[0]}", "BEFORE": "{accepted[-1]}"}
        self.policy(
            generator={"kind": "token", "bytes": 32},
            grace_period="1h",
            min_interval="0s",
            target={
                "kind": "token_list",
                "probe": probe,
                "via": {**place, "application": "shop/production/collector", "values": tokens},
            },
            destinations=[{**place, "application": self.client.id, "values": {"OTEL_TOKEN": "{token}"}}],
        )
        self.installed = wiring.open_installed(self.wishes)
        self.parts: Parts = replace(wiring.parts(self.installed, self.wishes, parallel=1), clock=Hurried(self.dokploy))
        adopt(NAME, {"token": SecretBytes(FIRST.encode())}, self.parts)
        self.dokploy.seen.clear()

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.home / "state", self.home / "policies", self.home / "identity.txt")

    def policy(self, **body: Any) -> None:
        (self.home / "policies").mkdir(exist_ok=True)
        (self.home / "policies/one.yaml").write_text(json.dumps({"secrets": {NAME: body}}))

    def rotate(self) -> Any:
        """On and on, as a timer would, until the old token is dead or a person is needed."""
        report = rotate([NAME], self.parts, by_name=True, wait=timedelta(days=2))[0]
        for _ in range(5):
            if not self.parts.store.open_rotations():
                break
            self.dokploy.state.advance(60)
            report = resume([NAME], self.parts, wait=timedelta(days=2))[0]
        return report

    def tokens(self) -> tuple[str, str]:
        """CURRENT, and what the client runs on."""
        book = Book(NAME, self.parts.store, self.parts.envelope, self.parts.redactor)
        current = book.labelled(StagingLabel.CURRENT)
        assert current is not None
        self.dokploy.state.advance(30)
        return current.fields["token"].text(), self.running(self.client)["OTEL_TOKEN"]

    def running(self, service: Service) -> Any:
        return self.dokploy.state.running(service)[0]

    def accepted(self) -> set[str]:
        """By the collector: the tokens in its newest container's variables."""
        with self.dokploy.state.lock:
            running = self.dokploy.state.running(self.collector)[:1]
        return {env[name] for env in running for name in ("TOKEN", "BEFORE") if name in env}

    def close(self) -> None:
        self.installed.store.close()
        self.checker.shutdown()
        self.checker.server_close()
        self.dokploy.stop()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    initialise(Wishes(home / "state", None, home / "identity.txt"), Recovery())
    return home


@pytest.fixture
def telemetry(tmp_path: Path, template: Path) -> Iterator[Telemetry]:
    opened = Telemetry(tmp_path / "home", template)
    yield opened
    opened.close()


def test_old_and_new_are_accepted_until_grace_is_over_and_then_only_the_new_one(telemetry: Telemetry) -> None:
    assert rotate([NAME], telemetry.parts, by_name=True, wait=timedelta(minutes=10))[0].exit_code == 0
    current, held = telemetry.tokens()
    assert current == held != FIRST
    assert telemetry.accepted() == {current, FIRST}
    report = telemetry.rotate()
    assert report.exit_code == 0
    assert telemetry.accepted() == {current}
    assert telemetry.collector.row["env"] == f"TOKEN={current}\nBEFORE={current}\nPORT=4318\n"
    assert telemetry.client.row["env"] == f"# the client\nOTEL_TOKEN={current}\nOTHER='kept'\n"


def test_a_client_that_cannot_run_on_it_takes_the_collector_back_too(telemetry: Telemetry) -> None:
    telemetry.client.breaks_on = lambda env: env.get("OTEL_TOKEN") != FIRST
    report = telemetry.rotate()
    assert report.exit_code == 5
    assert telemetry.tokens() == (FIRST, FIRST)
    assert telemetry.accepted() == {FIRST}
    assert telemetry.collector.row["env"] == f"TOKEN={FIRST}\nBEFORE={FIRST}\nPORT=4318\n"
    assert telemetry.client.row["env"] == f"# the client\nOTEL_TOKEN={FIRST}\nOTHER='kept'\n"


def test_a_collector_that_cannot_run_on_it_is_put_back_before_any_client_heard_of_it(telemetry: Telemetry) -> None:
    telemetry.collector.breaks_on = lambda env: env.get("TOKEN") != FIRST
    report = telemetry.rotate()
    assert report.exit_code == 5
    assert telemetry.accepted() == {FIRST}
    assert not [s for s in telemetry.dokploy.seen if s.given.get("env", "").startswith("# the client")]


def test_a_reply_lost_at_any_call_leaves_one_current_token_everywhere(telemetry: Telemetry) -> None:
    """In each of many rotations another reply is lost; nobody is ever without an accepted token.

    Every third call here; with VAULTKEEPER_TEST_EVERY=1 every one.
    """
    locked_out: list[str] = []

    def watch(seen: Seen) -> None:
        if telemetry.running(telemetry.client)["OTEL_TOKEN"] not in telemetry.accepted():
            locked_out.append(seen.procedure)

    telemetry.dokploy.before.append(watch)
    before, number, calls = FIRST, 0, 1
    while number < calls:
        telemetry.dokploy.seen.clear()
        with _losing(telemetry.dokploy, number):
            report = telemetry.rotate()
        calls = calls if number else len(telemetry.dokploy.seen)
        current, held = telemetry.tokens()
        assert (report.exit_code, number) == (0, number)
        assert telemetry.parts.store.open_rotations() == []
        assert current == held != before
        assert telemetry.accepted() == {current}
        assert locked_out == []
        before, number = current, number + EVERY
    assert calls > 30


@contextmanager
def _losing(dokploy: SimulatedDokploy, number: int) -> Iterator[None]:
    """The reply to the request of that number is lost."""
    met = [0]

    def strike(_seen: Seen) -> str | None:
        met[0] += 1
        return "lost-reply" if met[0] == number + 1 else None

    dokploy.faults.insert(0, strike)
    yield
    dokploy.faults.remove(strike)
