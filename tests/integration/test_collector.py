"""token_list before a real OpenTelemetry Collector: nobody is refused, it stays attentive, and a deaf one is named."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.collector_kit import NAME, WAYS, Telemetry
from tests.integration.hunter import Hunter
from tests.servers import ServerMissing
from tests.servers.collector import DEAF, Collector
from vaultkeeper.engine.book import Book
from vaultkeeper.model.rotation import Cause, State

TIMES = 20
RELOAD = timedelta(seconds=1.1)


@pytest.fixture
def collector() -> Iterator[Collector]:
    try:
        made = Collector()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield made
    made.stop()


@pytest.fixture
def telemetry(tmp_path: Path, collector: Collector) -> Iterator[Telemetry]:
    made = Telemetry(tmp_path, collector)
    made.adopt()
    yield made
    made.close()


def every_value(telemetry: Telemetry) -> dict[str, str]:
    parts = telemetry.parts
    book = Book(NAME, parts.store, parts.envelope, parts.redactor)
    stored = {f"v{number}": book.version(number).fields["token"].text() for number in book.records()}
    return {"adopted": telemetry.adopted, **stored}


def test_no_export_is_refused_over_twenty_rotations_and_the_collector_hears_every_one(telemetry: Telemetry) -> None:
    collector, inodes = telemetry.collector, set()
    before = collector.tokens.stat()
    with telemetry.client() as client:
        telemetry.clock.before_turning = lambda _duration: client.exports_again()
        for _ in range(TIMES):
            report = telemetry.rotated()
            assert (report.exit_code, report.state) == (0, "done"), report.error
            inodes.add(collector.tokens.stat().st_ino)
        client.exports_again()
    taken = {way: client.seen[f"{way} taken"] for way in WAYS}
    assert [client.seen[f"{way} lost"] for way in WAYS] == [0, 0], client.log()
    assert min(taken.values()) > 2 * TIMES
    assert collector.spans() == sum(taken.values())

    values = every_value(telemetry)
    new, old = values[f"v{TIMES + 1}"], values[f"v{TIMES}"]
    assert collector.tokens.read_text() == telemetry.token.read_text() == new
    for ask in (collector.accepts, collector.accepts_over_grpc):
        assert [ask(token) for token in (new, old, telemetry.adopted, "")] == [True, False, False, False]
    after = collector.tokens.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert after.st_ino != before.st_ino
    log = collector.log.read_text()
    assert DEAF not in log
    assert log.count("refresh token") > 2 * TIMES

    hunter = Hunter(values)
    hunter.look("the collector's debug log", log)
    hunter.look("the client's log", client.log())
    assert len(values) == TIMES + 2
    assert hunter.hits == []


# ------------------------------------------------------------------------------------------------------ deaf collectors


def moved_away(collector: Collector) -> None:
    """`mv -b`, `sed -i.bak`. It leaves no trace in the log."""
    kept = collector.tokens.rename(collector.tokens.with_name("tokens~"))
    put_back(collector, kept)


def unlinked(collector: Collector) -> None:
    """`install`, `cp --remove-destination`."""
    kept = collector.tokens.with_name("kept")
    kept.write_bytes(collector.tokens.read_bytes())
    collector.tokens.unlink()
    collector.wait_for("it lost its file", lambda: DEAF in collector.log.read_text())
    put_back(collector, kept)


def unreadable(collector: Collector) -> None:
    """`chmod 000`, and back."""
    collector.tokens.chmod(0)
    collector.wait_for("it may not read its file", lambda: DEAF in collector.log.read_text())
    collector.tokens.chmod(0o400)


def put_back(collector: Collector, kept: Path) -> None:
    """Readable as before, and complete."""
    collector.tokens.write_bytes(kept.read_bytes())
    collector.tokens.chmod(0o400)
    if collector.user is not None:
        os.chown(collector.tokens, collector.user, collector.user)


@pytest.mark.parametrize("happened", [moved_away, unlinked, unreadable])
def test_a_deaf_collector_is_named_and_nobody_is_handed_what_it_refuses(
    telemetry: Telemetry, happened: Callable[[Collector], None]
) -> None:
    happened(telemetry.collector)
    telemetry.clock.before_turning = waits_for_a_reload
    report = telemetry.rotated()
    assert telemetry.collector.healthy()
    assert report.rotation is not None
    assert (report.exit_code, report.rotation.cause) == (5, Cause.REJECTED)
    error = report.error
    assert error is not None
    assert error.what == f"{NAME}: rolled back (rejected)"
    assert error.why.startswith(
        f"{telemetry.collector.tokens} lists this token and the checker refuses it: it no longer"
    )
    assert "restart it" in error.why
    assert error.works == "v1 (old): target and consumers are on it"
    assert error.next == f"put right what is named above, then   vaultkeeper rotate {NAME}"
    assert telemetry.token.read_text() == telemetry.collector.tokens.read_text() == telemetry.adopted

    telemetry.collector.restart()
    assert telemetry.rotated().exit_code == 0
    assert not telemetry.collector.accepts(telemetry.adopted)


def test_a_collector_that_went_deaf_in_grace_keeps_the_old_token_alive_and_that_is_said(telemetry: Telemetry) -> None:
    assert telemetry.rotated(wait=timedelta()).state == "waiting"
    moved_away(telemetry.collector)
    telemetry.clock.before_turning = waits_for_a_reload
    report = telemetry.resumed()
    assert telemetry.collector.accepts(telemetry.adopted)
    assert report.rotation is not None
    assert (report.rotation.state, report.rotation.cause) == (State.PARKED, Cause.STILL_ACCEPTED)
    error = report.error
    assert error is not None
    assert error.why.startswith(
        f"{telemetry.collector.tokens} no longer lists this token and the checker still accepts"
    )
    assert "restart it" in error.why
    assert error.works == "v2 (new): every consumer runs on it; v1 (old) may still be accepted"
    assert error.next.startswith(f"vaultkeeper resume {NAME}")

    telemetry.collector.restart()
    assert telemetry.resumed().state == "done"
    assert not telemetry.collector.accepts(telemetry.adopted)


def waits_for_a_reload(duration: timedelta) -> None:
    """The file is old enough then for its checker to have read it, if ever."""
    time.sleep(min(duration, RELOAD).total_seconds())
