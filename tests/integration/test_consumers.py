"""A consumer that logs in all the time while its password is rotated. The engine runs in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from tests.integration.shop_kit import NAME, Shop, identity_of, shop, taking_turns
from tests.servers import TestAccount
from tests.servers.postgres import PostgresServer
from vaultkeeper import wiring
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.rotate import rotate
from vaultkeeper.wiring.places import Wishes

EVERY_S = 0.02
ROTATIONS = 50
GRACE = timedelta(milliseconds=250)


@dataclass
class Consumer:
    """Reads what was delivered and logs in with it, every 20 ms."""

    place: Shop
    logins: int = 0
    refused: list[float] = field(default_factory=list)  #: when
    held_too_long: int = 0  #: refused with a value that it had kept for longer than the grace period
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._stop.wait(EVERY_S):
            read_at = time.monotonic()
            credential = self.place.delivered()
            if self.place.logs_in(credential):
                self.logins += 1
            elif time.monotonic() - read_at < GRACE.total_seconds():
                self.refused.append(read_at)
            else:
                self.held_too_long += 1

    @contextmanager
    def working(self) -> Iterator[None]:
        failures: list[BaseException] = []

        def body() -> None:
            try:
                self.run()
            except BaseException as error:  # noqa: BLE001 - shown by the test's thread
                failures.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
        assert failures == []


@contextmanager
def engine(place: Shop, **keys: object) -> Iterator[Parts]:
    wishes = Wishes(place.state, place.home / "policies", identity_of(place.home))
    installed = wiring.open_installed(wishes)
    parts = wiring.parts(installed, wishes)
    changed = {name: replace(policy, **keys) for name, policy in parts.policies.items()}  # type: ignore[arg-type]
    yield replace(parts, policies=changed)
    installed.store.close()


def rotated(parts: Parts) -> None:
    # A consumer that is slow may be in with the old user when it is asked about: it is asked again after a minute.
    (report,) = rotate([NAME], parts, by_name=True, wait=timedelta(minutes=10))
    assert (report.state, report.exit_code) == ("done", 0), report


def test_invariant_02_a_consumer_that_logs_in_every_20_ms_is_never_refused_over_50_rotations(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    place = shop(tmp_path, postgres, taking_turns(postgres), grace_period="1s")
    with engine(place, grace_period=GRACE) as parts:
        rotated(parts)
        consumer = Consumer(place)
        with consumer.working():
            for _ in range(ROTATIONS):
                rotated(parts)
    print(f"{consumer.logins} logins over {ROTATIONS} rotations, {len(consumer.refused)} refused")
    assert consumer.refused == []
    assert consumer.logins > ROTATIONS
    assert (
        consumer.held_too_long <= ROTATIONS // 5
    )  # excused, as it could be at each of them: so few that much is shown
    assert place.agrees() == ""


def test_the_gap_of_a_single_account_is_measured(postgres: PostgresServer, tmp_path: Path) -> None:
    """It cannot be avoided: one account holds one password, and the file follows it. The number is for people."""
    account = postgres.account()
    place = shop(tmp_path, postgres, TestAccount(account.username, account.password, account.settings))
    gaps = []
    with engine(place) as parts:
        rotated(parts)
        for _ in range(20):
            set_at, delivered_at = _moments(parts)
            gaps.append(delivered_at - set_at)
    assert place.agrees() == ""
    gaps.sort()
    print(f"gap of single, from set to delivered: median {gaps[10] * 1000:.0f} ms, longest {gaps[-1] * 1000:.0f} ms")


def _moments(parts: Parts) -> tuple[float, float]:
    """When the old value began to be refused at the latest, and when the consumer could read the new one."""
    at: dict[str, float] = {}

    def watch(event: object) -> None:
        at[getattr(event, "step", "")] = time.monotonic()

    rotated(replace(parts, watch=watch))
    return at["barrier"], at["deliver"]
