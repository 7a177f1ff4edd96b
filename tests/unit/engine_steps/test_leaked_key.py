"""A leaked key of `previous_keys` still opens old data: what becomes of that is declared, never silent."""

from __future__ import annotations

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.errors import UsageError


@pytest.fixture
def bench() -> Bench:
    made = Bench("leaked")
    made.use(made.make.keys("app/key", "app"))
    made.done("app/key")
    made.done("app/key")
    return made


def previous(bench: Bench) -> bytes:
    return bench.world.consumers("app")["app"].get("previous", b"")


def test_without_a_declaration_nothing_is_rotated(bench: Bench) -> None:
    before = bench.world.consumers("app")
    (report,) = bench.emergency("app/key")
    assert isinstance(report.error, UsageError)
    assert "--data-loss" in report.error.next
    assert bench.world.consumers("app") == before


def test_keeping_the_old_key_keeps_its_data_readable(bench: Bench) -> None:
    leaked = bench.world.consumers("app")["app"]["key"]
    (report,) = bench.emergency("app/key", keep_old_key=True)
    assert report.state == "done"
    assert leaked in previous(bench).split(b",")
    assert not bench.world.unreadable("app")


def test_with_data_loss_the_leaked_key_leaves_every_list_and_never_comes_back(bench: Bench) -> None:
    leaked = bench.world.consumers("app")["app"]["key"]
    (report,) = bench.emergency("app/key", data_loss=True)
    assert report.state == "done"
    assert leaked not in previous(bench).split(b",")
    bench.done("app/key")
    assert leaked not in previous(bench).split(b",")


def test_the_other_keys_stay_when_one_is_dropped(bench: Bench) -> None:
    kept = previous(bench)
    assert kept
    bench.emergency("app/key", data_loss=True)
    assert kept in previous(bench).split(b",")
