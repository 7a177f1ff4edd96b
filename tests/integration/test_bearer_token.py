"""A token that Vault draws, a collector's accept list and a client's copy in Dokploy: the policy of policies/.

Each of the collector's containers is a real OpenTelemetry Collector with the configuration of the how-to; Dokploy and
OpenBao are simulated. The client asks all the time, with what its containers were given. As a control the same client
is refused where the script that people write by hand replaces the token (docs/how-to/bearer-token.md).
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Ran, command
from tests.integration import dokploy_kit
from tests.integration.hunter import Hunter
from tests.integration.shop_kit import installed
from tests.servers import ServerMissing
from tests.servers.collector import Collector, program
from tests.servers.dokploy import SPEED
from tests.servers.vaults import Vaults
from vaultkeeper.testing.dokploy import Service
from vaultkeeper.testing.dokploy.server import Seen

NAME = "telemetry/token"
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "policies/bearer-token.yaml"
HOW_TO = ROOT / "docs/how-to/bearer-token.md"
FIRST = "vk-first-token-0123456789abcdef"
EVERY_S = 0.02
PATIENCE_S = 300
ACCEPTED, REFUSED = 405, 401


class Containers(ThreadingHTTPServer):
    """Every container of the application is a collector with the environment of its start; requests take turns."""

    daemon_threads = True

    def __init__(self, shop: dokploy_kit.Shop, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.shop, self.service, self.turn = shop, service, count()
        self.collectors: dict[tuple[str, str], Collector] = {}
        self.starting = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def lists(self) -> list[set[str]]:
        with self.shop.dokploy.state.lock:
            running = self.shop.dokploy.state.running(self.service)
        return [{env["OTEL_TOKEN"], env["OTEL_TOKEN_BEFORE"]} for env in running]

    def accepts(self, token: str) -> bool:
        with self.shop.dokploy.state.lock:
            running = self.shop.dokploy.state.running(self.service)
        return self.collector(running[next(self.turn) % len(running)]).at.accepts(token)

    def collector(self, env: Mapping[str, str]) -> Collector:
        """Those with equal lists are one process here."""
        tokens = env["OTEL_TOKEN"], env["OTEL_TOKEN_BEFORE"]
        with self.starting:
            if tokens not in self.collectors:
                (auth,) = re.findall(r"`bearertokenauth: (.*?)`", HOW_TO.read_text())
                given = {"OTEL_TOKEN": tokens[0], "OTEL_TOKEN_BEFORE": tokens[1]}
                self.collectors[tokens] = Collector(yaml.safe_load(auth), given)
            return self.collectors[tokens]

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for collector in self.collectors.values():
            collector.stop()


class Asked(BaseHTTPRequestHandler):
    server: Containers
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        good = self.server.accepts(self.headers.get("Authorization", "").removeprefix("Bearer "))
        self.send_response(ACCEPTED if good else REFUSED)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing."""


@dataclass
class Heard:
    """What a client was told: the token it sent, and the answer."""

    answers: list[tuple[str, int]] = field(default_factory=list)

    @property
    def refused(self) -> int:
        return sum(status != ACCEPTED for _, status in self.answers)

    def asked_with(self, token: str) -> int:
        return self.answers.count((token, ACCEPTED))

    def wait_for(self, token: str) -> None:
        """Until it was let in with that one again and again."""
        until = time.monotonic() + PATIENCE_S
        while self.asked_with(token) <= 20:
            assert time.monotonic() < until, "the client asks no more"
            time.sleep(EVERY_S)


class Telemetry:
    """The example's two applications, and the installation whose policy is the example."""

    def __init__(self, folder: Path, vault: Vaults) -> None:
        self.home, self.vault = installed(folder), vault
        self.vk = command(self.home)
        self.shop = dokploy_kit.open_shop(self.home, speed=SPEED)
        self.dokploy, self.web = self.shop.dokploy, self.shop.service
        state = self.dokploy.state
        where = state.environment(state.project("telemetry"))
        text = f"# accepted\nOTEL_TOKEN={FIRST}\nOTEL_TOKEN_BEFORE={FIRST}\nPORT=4318\n"
        self.collector = state.service("application", where, "collector", text, buildArgs="ARG=1")
        self.shop.member.services.add(self.collector.id)
        self.web.row["env"] = f"# the client\r\nOTEL_TOKEN={FIRST}\r\nOTHER='kept # so'\r\n"
        state.roll(self.web)
        state.advance(60)
        self.checker = Containers(self.shop, self.collector)
        self.policy()

    def policy(self) -> None:
        """The example with its addresses and files, enabled as it says, and with a grace that a test can wait for."""
        text = EXAMPLE.read_text()
        for said, here in {
            "https://bao.example.com:8200": self.vault.url,
            "/etc/vaultkeeper/bao-role-id": str(self.vault.role_id),
            "/etc/vaultkeeper/bao-secret-id}": f"{self.vault.secret_id}}}, mount: {self.vault.approle}",
            "https://dokploy.example.com": self.dokploy.url,
            "/etc/vaultkeeper/dokploy-key": str(self.home / "key"),
            "https://otel.example.com": f"http://127.0.0.1:{self.checker.server_port}",
            "enabled: false": "min_interval: 0s",
            "grace_period: 1h": "grace_period: 4s",
        }.items():
            assert text.count(said) == 1, said
            text = text.replace(said, here)
        (self.home / "policies/bearer-token.yaml").write_text(text)

    def ok(self, *arguments: str, stdin: str = "", code: int = 0) -> Ran:
        ran = self.vk(*arguments, stdin=stdin)
        assert ran.code == code, f"{arguments} exited {ran.code}\n{ran.out}{ran.err}"
        return ran

    def sends(self) -> list[str]:
        """What the client's containers were given, each."""
        with self.dokploy.state.lock:
            return [env["OTEL_TOKEN"] for env in self.dokploy.state.running(self.web)]

    def ask(self, token: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.checker.server_port, timeout=60)
        try:
            connection.request("GET", "/v1/traces", headers={"Authorization": f"Bearer {token}"})
            return connection.getresponse().status
        finally:
            connection.close()

    def asks(self, heard: Heard) -> None:
        """Each of the client's containers, once."""
        heard.answers += [(token, self.ask(token)) for token in self.sends()]

    @contextmanager
    def client(self) -> Iterator[Heard]:
        """Asks for as long as the block lasts."""
        heard, over = Heard(), threading.Event()

        def run() -> None:
            while not over.wait(EVERY_S):
                self.asks(heard)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield heard
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        self.checker.stop()
        self.dokploy.stop()


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    try:
        program()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    vault = Vaults()
    opened = Telemetry(tmp_path, vault)
    yield opened
    opened.close()
    vault.stop()


def test_the_example_hands_a_token_of_vault_to_collector_and_client_and_refuses_the_old_one_after_grace(
    telemetry: Telemetry,
) -> None:
    overlap: list[Mapping[str, Any]] = []

    def watch(seen: Seen) -> None:
        """Whom the collector accepts in the moment that the client is told."""
        if seen.procedure == "application.saveEnvironment" and seen.given["applicationId"] == telemetry.web.id:
            overlap.append({"told": seen.given["env"], "lists": telemetry.checker.lists()})

    telemetry.dokploy.before.append(watch)
    telemetry.ok("adopt", NAME, stdin=FIRST)
    with telemetry.client() as heard:
        heard.wait_for(FIRST)
        telemetry.ok("rotate", NAME, "--yes", "--wait", "120s")
        new = telemetry.ok("get", NAME, "--field", "value").out
        heard.wait_for(new)
        telemetry.dokploy.state.advance(30)
    assert re.fullmatch(r"[0-9a-f]{64}", new)
    assert telemetry.web.row["env"] == f"# the client\r\nOTEL_TOKEN={new}\r\nOTHER='kept # so'\r\n"
    assert telemetry.collector.row["env"] == f"# accepted\nOTEL_TOKEN={new}\nOTEL_TOKEN_BEFORE={new}\nPORT=4318\n"
    assert [telemetry.ask(token) for token in (new, FIRST, "never-made")] == [ACCEPTED, REFUSED, REFUSED]
    assert [told["lists"] for told in overlap] == [[{new, FIRST}]]
    assert (heard.refused, telemetry.sends()) == (0, [new])
    lists = telemetry.checker.collectors
    assert [collector.at.accepts_over_grpc("") for collector in lists.values()] == [False] * 3
    hunter = Hunter({"first": FIRST, "new": new, "wrong": "never-made"})
    for collector in lists.values():
        hunter.look("a collector's debug log", collector.log.read_text())
    assert hunter.hits == []
    if telemetry.vault.simulator is not None:
        log = telemetry.vault.simulator.log
        assert len([line for line in log if line.startswith("POST sys/tools/random/32 ")]) == 1
        assert not [line for line in log if new in line]


def test_a_client_that_cannot_run_on_the_new_token_keeps_the_old_one_which_was_never_refused(
    telemetry: Telemetry,
) -> None:
    telemetry.ok("adopt", NAME, stdin=FIRST)
    telemetry.web.breaks_on = lambda env: env["OTEL_TOKEN"] != FIRST
    before = telemetry.collector.row["env"], telemetry.web.row["env"]
    with telemetry.client() as heard:
        heard.wait_for(FIRST)
        ran = telemetry.ok("rotate", NAME, "--yes", "--wait", "120s", code=5)
        telemetry.dokploy.state.advance(30)
    assert "rolled back (delivery)" in ran.err
    assert "application web: a task failed on the new value, and Docker Swarm went back to the old one" in ran.err
    assert "v1 (old): target and consumers are on it" in ran.err
    assert (telemetry.collector.row["env"], telemetry.web.row["env"]) == before
    assert telemetry.checker.lists() == [{FIRST}]
    assert (heard.refused, telemetry.sends()) == (0, [FIRST])


def test_the_same_client_is_refused_where_a_script_replaces_the_token(telemetry: Telemetry) -> None:
    """The control: what the script means to do, its verb and header put right."""
    new, heard = "vk-by-hand-0123456789abcdef", Heard()
    for service, text in (
        (telemetry.collector, f"OTEL_TOKEN={new}\nOTEL_TOKEN_BEFORE={new}\n"),
        (telemetry.web, f"OTEL_TOKEN={new}\n"),
    ):
        service.row["env"] = text
        telemetry.dokploy.state.roll(service)
        telemetry.dokploy.state.advance(30)
        telemetry.asks(heard)
    assert heard.answers == [(FIRST, REFUSED), (new, ACCEPTED)]
