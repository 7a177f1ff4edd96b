"""After the labels have moved: no way back to the old value stays open at consumers, and its objects are collected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine import verdict
from vaultkeeper.model.outcome import No, NotYet, Result
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, Purpose, State, Step, Waiting
from vaultkeeper.model.secret import GroupKey
from vaultkeeper.ports import Change
from vaultkeeper.testing.faults import Fault, Goes
from vaultkeeper.testing.simulators.service import ServiceDestination

Making = Callable[[Bench], RotationPolicy]
MAKINGS: dict[str, Making] = {
    "single": lambda bench: bench.make.single("s", bench.make.service("app", {"": "{password}"})),
    "no target": lambda bench: bench.make.unchecked("s", bench.make.service("app", {"": "{password}"})),
    "previous_keys": lambda bench: bench.make.keys("s", "app"),
}
any_of_them = pytest.mark.parametrize("kind", list(MAKINGS))


def made(kind: str) -> Bench:
    bench = Bench(f"release-{kind}")
    bench.use(MAKINGS[kind](bench))
    bench.done()
    return bench


def left(bench: Bench) -> tuple[set[str], dict[str, object]]:
    """The versions of which objects exist, and the rollback paths that are open."""
    state = bench.world.state["app"]
    return {key.rpartition("|")[2] for key in state["objects"]}, {k: v for k, v in state["previous"].items() if v}


@any_of_them
def test_the_old_object_is_collected_and_the_way_back_to_it_closed_where_nothing_is_retired(kind: str) -> None:
    bench = made(kind)
    bench.done()
    assert left(bench) == ({bench.record("s", 2).id}, {})


@any_of_them
def test_what_was_discarded_is_collected_where_nothing_is_retired(kind: str) -> None:
    bench = made(kind)
    last = bench.calls("app.confirm")
    rounds = 2 if kind == "previous_keys" else 1
    bench.faults.script = [Fault("app.confirm", Goes.REFUSED, call=last + rounds)]
    assert bench.one("s").state is State.ROLLED_BACK
    assert left(bench) == ({bench.record("s", 1).id}, {})


@any_of_them
def test_a_release_that_is_refused_parks_with_the_new_value_in_use_and_resume_ends_it(kind: str) -> None:
    bench = made(kind)
    bench.faults.script = [Fault("app.release", Goes.REFUSED, call=0, no=No.PRIVILEGE)]
    rotation = bench.one("s")
    assert (rotation.state, rotation.cause, rotation.finished) == (State.PARKED, Cause.PRIVILEGE, True)
    told = verdict.told(rotation)
    assert told is not None
    assert told.exit_code == 5
    assert told.works.startswith("v2 (new): every consumer runs on it")
    assert "resume s" in told.next
    bench.faults.script = []
    assert [report.state for report in bench.resume("s")] == ["done"]
    assert left(bench) == ({bench.record("s", 2).id}, {})


@any_of_them
def test_a_release_that_gets_no_answer_is_waited_for_and_nothing_is_undone(kind: str) -> None:
    bench = made(kind)
    bench.faults.script = [Fault("app.release", Goes.UNREACHABLE, call=0)]
    (report,) = bench.rotate("s", wait=timedelta(0))
    assert report.rotation is not None
    assert (report.rotation.state, report.rotation.waiting) == (State.WAITING, Waiting.UNREACHABLE)
    assert (bench.current("s"), report.exit_code) == (2, 5)


def test_what_is_said_of_the_old_value_is_what_its_strategy_left_of_it() -> None:
    said = {}
    for kind in MAKINGS:
        bench = made(kind)
        bench.faults.script = [Fault("app.release", Goes.REFUSED, call=0, no=No.PRIVILEGE)]
        said[kind] = verdict.works_now(bench.one("s")).partition("; ")[2]
    assert said == {
        "single": "v1 (old) is refused",
        "no target": "no target checks it",
        "previous_keys": "v1 (old) stays in its list",
    }


@any_of_them
def test_a_rollback_instead_of_a_stuck_release_collects_what_that_left(kind: str) -> None:
    bench = made(kind)
    bench.faults.script = [Fault("app.release", Goes.REFUSED, call=0, no=No.PRIVILEGE)]
    assert bench.one("s").state is State.PARKED
    bench.faults.script = []
    assert bench.rollback("s").state == "done"
    assert left(bench) == ({bench.record("s", 3).id}, {})


@any_of_them
def test_an_emergency_releases_the_leaked_value(kind: str) -> None:
    bench = made(kind)
    keys = {"keep_old_key": True} if kind == "previous_keys" else {}
    bench.done("s", purpose=Purpose.EMERGENCY, **keys)
    assert left(bench) == ({bench.record("s", 2).id}, {})


@any_of_them
def test_an_open_rotation_keeps_the_phases_that_it_was_journalled_with(kind: str) -> None:
    """Those of an earlier release had no release to go through."""
    bench = made(kind)
    bench.faults.script = [Fault("app.deliver", Goes.UNREACHABLE, call=bench.calls("app.deliver") + 1)]
    bench.rotate("s", wait=timedelta(0))
    rotation = bench.memory.take(bench.newest("s").id)
    earlier = tuple(phase for phase in rotation.phases if phase.step is not Step.RELEASE)
    bench.memory.commit(Change(replace(rotation, phases=earlier)))
    before = bench.calls("app.release")
    assert [report.state for report in bench.resume("s")] == ["done"]
    assert bench.calls("app.release") == before


def test_a_place_that_is_not_ready_keeps_no_other_from_being_released(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("release-groups")
    bench.use(bench.make.single("s", bench.make.service("app", {"": "{password}"}, services=("a", "b", "c"))))
    bench.done()
    asked: list[str] = []
    ready = ServiceDestination.release

    def release(self: ServiceDestination, group: GroupKey, *rest: Any) -> Result:
        asked.append(group.rpartition("/")[2])
        return NotYet("it is being updated", timedelta(seconds=1)) if asked == ["a"] else ready(self, group, *rest)

    monkeypatch.setattr(ServiceDestination, "release", release)
    bench.done()
    assert asked == ["a", "b", "c", "a"]
    assert left(bench) == ({bench.record("s", 2).id}, {})
