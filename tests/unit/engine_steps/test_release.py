"""After the labels have moved: no way back to the old value stays open at consumers, and its objects are collected."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine import verdict
from vaultkeeper.model.outcome import Login, No, NotYet, Refused, Result, Unknown
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


# ------------------------------------------------------------------------------------------------------------- a leak

STUCK: dict[str, Result] = {
    "refused": Refused(No.PRIVILEGE, "a proxy forbids it"),
    "no answer": Unknown(Login.UNREACHABLE, "the Engine is away"),
    "not ready": NotYet("a task on a lost node", timedelta(minutes=1)),
}
stuck = pytest.mark.parametrize("answer", STUCK.values(), ids=list(STUCK))


def leaking(name: str, answer: Result, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(name)
    bench.use(bench.make.overlap("s", bench.make.service("app", {"": "{password}"}, services=("a", "b"))))
    bench.done()
    real = ServiceDestination.release

    def release(self: ServiceDestination, group: GroupKey, *rest: Any) -> Result:
        return answer if group.endswith("/a") else real(self, group, *rest)

    monkeypatch.setattr(ServiceDestination, "release", release)
    return bench


@stuck
def test_a_leak_that_a_stuck_release_keeps_alive_is_no_success_and_cut_ends_it(
    answer: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = leaking("leak-stuck", answer, monkeypatch)
    for wait in (timedelta(minutes=5), timedelta(hours=1)):
        reports = bench.emergency("s", wait=wait) if wait < timedelta(hours=1) else bench.resume("s", wait=wait)
        (report,) = reports
        assert report.exit_code == 5
        assert report.error is not None
        assert "rotate s --emergency --cut" in report.error.next
        assert bench.accepted("s") == {1, 2}
    (report,) = bench.emergency("s", cut=True)
    assert report.state == "done"
    assert report.rotation is not None
    assert report.rotation.to_version == 2  # it speaks of what stands there
    assert "a way back to v1" in report.rotation.unverified
    assert bench.accepted("s") == {2}


def test_a_leak_waits_for_a_way_back_no_longer_than_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = leaking("leak-late", STUCK["not ready"], monkeypatch)
    rotation = bench.one("s", purpose=Purpose.EMERGENCY, deadline=timedelta(minutes=3))
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.LAGGARDS)
    assert "a task on a lost node" in rotation.detail


@stuck
def test_cut_from_the_beginning_releases_what_it_can_and_goes_on(
    answer: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = leaking("leak-cut", answer, monkeypatch)
    bench.done("s", purpose=Purpose.EMERGENCY, cut=True)
    assert bench.accepted("s") == {2}
    open_ways = [service for service, before in bench.world.state["app"]["previous"].items() if before]
    assert open_ways == ["a"]


@pytest.mark.parametrize("strategy", ["overlap", "alternating"])
def test_the_next_rotation_collects_what_a_cut_left_of_the_leaked_value(strategy: str) -> None:
    bench = Bench(f"leak-left-{strategy}")
    bench.use(getattr(bench.make, strategy)("s", bench.make.service("app", {"": "{password}"})))
    bench.done()
    bench.faults.script = [Fault("app.release", Goes.REFUSED)]
    bench.done("s", purpose=Purpose.EMERGENCY, cut=True)
    assert left(bench)[0] == {bench.record("s", 1).id, bench.record("s", 2).id}
    bench.done("s")
    assert left(bench) == ({bench.record("s", 3).id}, {})


def test_a_consumer_put_back_to_a_leaked_value_is_named_with_what_puts_it_right() -> None:
    bench = Bench("leak-drift")
    bench.use(bench.make.overlap("s", bench.make.service("app", {"": "{password}"})))
    bench.done()
    before = deepcopy(bench.world.state["app"]["running"])
    bench.faults.script = [Fault("app.release", Goes.REFUSED, call=0)]
    assert bench.one("s", purpose=Purpose.EMERGENCY).state is State.PARKED
    bench.faults.script = []
    bench.world.state["app"]["running"] = before
    (report,) = bench.resume("s")
    assert report.rotation is not None
    assert report.rotation.cause is Cause.DRIFT
    assert report.error is not None
    assert report.error.next == "vaultkeeper reconcile s"


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
