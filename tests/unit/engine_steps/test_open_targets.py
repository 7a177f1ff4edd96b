"""A target is opened once while its rotation is awake, and lets go of what it keeps before anybody sleeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import pytest

from tests.unit.engine_steps.bench import Bench, SimBackends
from vaultkeeper.model.secret import Strategy
from vaultkeeper.ports import Destination, Target
from vaultkeeper.testing.faults import Fault, Goes
from vaultkeeper.testing.simulators import TARGETS

T = TypeVar("T")


class Opened:
    """What was opened and not closed yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ever = 0
        self.now: list[object] = []
        monkeypatch.setattr(SimBackends, "target", self._open)

    def _open(self, kind: str, settings: Mapping[str, object], codec: int) -> Target:
        target = _closing(TARGETS[kind].open(settings, codec), lambda: self.now.remove(target))
        self.ever += 1
        self.now.append(target)
        return target


def _closing(opened: T, close: Callable[[], None]) -> T:
    """Powers are those of a class, so it gets one of its own."""
    opened.__class__ = type(type(opened).__name__, (type(opened),), {"close": lambda _self: close()})
    return opened


def _bench(name: str) -> Bench:
    bench = Bench(name)
    bench.use(bench.make.overlap("one", bench.make.file("f")))
    return bench


def test_a_target_is_opened_once_and_closed_when_its_rotation_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = _bench("closed")
    bench.edit("one", grace_period=timedelta(0))
    bench.done("one")
    opened = Opened(monkeypatch)
    bench.done("one")
    assert (opened.ever, opened.now) == (1, [])


def test_nothing_is_open_while_a_rotation_sleeps_and_a_later_hook_opens_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = _bench("asleep")
    bench.done("one")
    opened, asleep, sleep = Opened(monkeypatch), list[int](), bench.clock.sleep

    def watched(duration: timedelta) -> None:
        asleep.append(len(opened.now))
        sleep(duration)

    monkeypatch.setattr(bench.clock, "sleep", watched)
    bench.done("one")
    assert set(asleep) == {0}, "it slept, and nothing was open"
    assert opened.ever == 1 + len(asleep)


def test_nothing_stays_open_where_the_journal_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = _bench("stopped")
    bench.done("one")
    opened = Opened(monkeypatch)
    bench.faults.script = [Fault("store.commit", Goes.REFUSED, call=bench.calls("store.commit") + 1)]
    (report,) = bench.rotate("one")
    assert report.error is not None
    assert opened.ever == 1
    assert opened.now == []


def test_every_kind_of_destination_lets_go_the_checkers_own_and_the_persisting_one_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench("kinds")
    via = bench.make.via("one", Strategy.OVERLAP, "sim_service", bench.make.file("f"))
    assert via.target is not None
    persisting = bench.make.to("sim_clients", "c", {"": "{password}"})
    bench.use(replace(via, target=replace(via.target, persisted_by=persisting), grace_period=timedelta(0)))
    closed, destination = set[str](), SimBackends.destination

    def closing(self: SimBackends, kind: str) -> Destination:
        return _closing(destination(self, kind), lambda: closed.add(kind))

    monkeypatch.setattr(SimBackends, "destination", closing)
    bench.rotate("one", wait=timedelta(0))
    assert closed == {"sim_file", "sim_service", "sim_clients"}


def test_a_target_that_fails_to_close_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = _bench("stuck")
    opened = Opened(monkeypatch)
    opened.now = Stubborn()
    bench.done("one")


class Stubborn(list[object]):
    """Forgets nothing."""

    def remove(self, one: object) -> None:
        raise OSError("the line is dead")
