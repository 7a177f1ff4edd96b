"""token_list before a real OpenTelemetry Collector: nobody is refused, it stays attentive, and a deaf one is named."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.collector_kit import NAME, WAYS, Telemetry, Turned
from tests.integration.hunter import Hunter
from tests.servers import ServerMissing
from tests.servers.collector import DEAF, Collector, Receivers, image, spans_in
from tests.servers.docker import Engine
from vaultkeeper.engine.preview import preview
from vaultkeeper.model.rotation import Cause, State, Waiting

TIMES = 20
RELOAD = timedelta(seconds=1.1)
WRONG = "vk-never-made-0123456789abcdef"


@dataclass
class Listed:
    """A collector that goes by a file, an installation with a policy for it, and that one's clock."""

    collector: Collector
    telemetry: Telemetry
    clock: Turned

    @property
    def file(self) -> Path:
        return self.collector.tokens


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[Listed]:
    try:
        collector = Collector()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    place = {"path": str(collector.tokens)}
    telemetry = Telemetry(tmp_path, collector.at, collector.tokens.read_text(), place, "1h")
    telemetry.clock = clock = Turned()
    telemetry.adopt()
    yield Listed(collector, telemetry, clock)
    telemetry.close()
    collector.stop()


def test_no_export_is_refused_over_twenty_rotations_and_the_collector_hears_every_one(listed: Listed) -> None:
    collector, telemetry, before = listed.collector, listed.telemetry, listed.file.stat()
    with listed.file.open(), telemetry.client() as client:  # open, so that no later file gets its inode
        listed.clock.before_turning = lambda _duration: client.exports_again()
        for _ in range(TIMES):
            report = telemetry.rotated()
            assert (report.exit_code, report.state) == (0, "done"), report.error
        client.exports_again()
        after = listed.file.stat()
    taken = {way: client.seen[f"{way} taken"] for way in WAYS}
    assert [client.seen[f"{way} lost"] for way in WAYS] == [0, 0], client.log()
    assert min(taken.values()) > 2 * TIMES
    assert collector.spans() == sum(taken.values())

    values = telemetry.values()
    new, old, first = (values[f"v{number}"] for number in (TIMES + 1, TIMES, 1))
    assert listed.file.read_text() == telemetry.token.read_text() == new
    for accepts in (collector.at.accepts, collector.at.accepts_over_grpc):
        assert [accepts(token) for token in (new, old, first, WRONG, "")] == [True, False, False, False, False]
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert after.st_ino != before.st_ino
    log = collector.log.read_text()
    assert DEAF not in log
    assert log.count("refresh token") > 2 * TIMES

    hunter = Hunter({**values, "wrong": WRONG})
    hunter.look("the collector's debug log", log)
    hunter.look("the client's log", client.log())
    assert hunter.hits == []


# ------------------------------------------------------------------------------------------------------ deaf collectors


def moved_away(collector: Collector) -> None:
    """`mv -b`, `sed -i.bak`. It leaves no trace in the log."""
    kept = collector.tokens.rename(collector.tokens.with_name("tokens~"))
    _written_as_before(collector, kept.read_bytes())


def unlinked(collector: Collector) -> None:
    """`install`, `cp --remove-destination`."""
    content = collector.tokens.read_bytes()
    collector.tokens.unlink()
    collector.wait_for("it lost its file", lambda: DEAF in collector.log.read_text())
    _written_as_before(collector, content)


def unreadable(collector: Collector) -> None:
    """`chmod 000`, and back."""
    collector.tokens.chmod(0)
    collector.wait_for("it may not read its file", lambda: DEAF in collector.log.read_text())
    collector.tokens.chmod(0o400)


def _written_as_before(collector: Collector, content: bytes) -> None:
    collector.tokens.write_bytes(content)
    collector.tokens.chmod(0o400)
    if collector.user is not None:
        os.chown(collector.tokens, collector.user, collector.user)


def waits_for_a_reload(duration: timedelta) -> None:
    """The file is old enough then for its checker to have read it, if ever."""
    time.sleep(min(duration, RELOAD).total_seconds())


@pytest.mark.parametrize("happened", [moved_away, unlinked, unreadable])
def test_a_deaf_collector_is_named_and_nobody_is_handed_what_it_refuses(
    listed: Listed, happened: Callable[[Collector], None]
) -> None:
    happened(listed.collector)
    listed.clock.before_turning = waits_for_a_reload
    report = listed.telemetry.rotated()
    assert listed.collector.healthy()
    rotation, error = report.rotation, report.error
    assert rotation is not None
    assert error is not None
    assert (report.exit_code, rotation.cause) == (5, Cause.REJECTED)
    assert error.what == f"{NAME}: rolled back (rejected)"
    assert error.why.startswith(f"{listed.file} lists this token and the checker refuses it: it no longer reads")
    assert "restart it" in error.why
    assert error.works == "v1 (old): target and consumers are on it"
    assert error.next == f"put right what is named above, then   vaultkeeper rotate {NAME}"
    assert listed.telemetry.token.read_text() == listed.file.read_text() == listed.telemetry.adopted

    listed.collector.restart()
    assert listed.telemetry.rotated().exit_code == 0
    assert not listed.collector.at.accepts(listed.telemetry.adopted)


def test_a_collector_that_went_deaf_in_grace_keeps_the_old_token_alive_and_that_is_said(listed: Listed) -> None:
    listed.clock.before_turning = waits_for_a_reload
    begun = listed.telemetry.rotated(wait=timedelta(minutes=30)).rotation
    assert begun is not None
    assert begun.waiting is Waiting.GRACE
    moved_away(listed.collector)
    report = listed.telemetry.resumed()
    rotation, error = report.rotation, report.error
    assert listed.collector.at.accepts(listed.telemetry.adopted)
    assert rotation is not None
    assert error is not None
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.STILL_ACCEPTED)
    assert error.why.startswith(
        f"{listed.file} no longer lists this token and the checker still accepts it: it no longer"
    )
    assert "restart it" in error.why
    assert error.works == "v2 (new): every consumer runs on it; v1 (old) may still be accepted"
    assert error.next.startswith(f"vaultkeeper resume {NAME}")

    listed.collector.restart()
    assert listed.telemetry.resumed().state == "done"
    assert not listed.collector.at.accepts(listed.telemetry.adopted)


# --------------------------------------------------------------------------------------------- a list in a swarm secret


def test_a_list_in_a_swarm_secret_reaches_a_collector_that_is_replaced_and_no_export_is_refused(
    tmp_path: Path, docker: Engine
) -> None:
    """One task and a port of the machine's: the old one stops before the new one starts, and exports are sent again."""
    try:
        at = Receivers()
        tag = docker.imported("otelcol", image(at.certificates))
    except ServerMissing as missing:
        pytest.skip(str(missing))
    adopted = "vk-adopted-0123456789abcdef"
    secret = docker.secret("otel-tokens", adopted)
    service = docker.service(
        "collector",
        {"tokens": secret},
        environment={f"{name.upper()}_PORT": port for name, port in at.ports.items()},
        healthcheck=False,
        update={"Order": "stop-first"},
        container={"Image": tag, "Command": ["/otelcol", "--config", "/config.json"], "User": "65534:65534"},
    )
    docker.wait_for("the collector is healthy", at.healthy)
    swarm = {"kind": "swarm", "host": docker.url, "secret": secret["Name"], "services": [service.name]}
    via = {**swarm, "mount": {"target": "tokens"}, "healthy_for": "1s"}
    telemetry = Telemetry(tmp_path, at, adopted, {"via": via}, "1s")
    telemetry.adopt()
    (plan,) = preview([NAME], telemetry.parts, ask_servers=True)
    assert "swarm does not show what it holds: entries of this token_list that are not ours are not kept" in [
        found.text for found in plan.findings if found.level == "warn"
    ]
    with telemetry.client() as client:
        report = telemetry.rotated()
        assert (report.exit_code, report.state) == (0, "done"), report.error
        client.exports_again()
    new = telemetry.values()["v2"]
    assert telemetry.token.read_text() == new
    assert [at.accepts(token) for token in (new, adopted, WRONG)] == [True, False, False]
    assert [client.seen[f"{way} lost"] for way in WAYS] == [0, 0], client.log()
    sent = sum(client.seen.values())
    docker.wait_for("the Engine shows all that they logged", lambda: spans_in("\n".join(service.logs())) >= sent)
    logs = "\n".join(service.logs())
    assert spans_in(logs) == sent
    hunter = Hunter({**telemetry.values(), "wrong": WRONG})
    hunter.look("the collector's debug log", logs)
    hunter.look("the client's log", client.log())
    assert hunter.hits == []
    telemetry.close()
