"""`rotate --replace` overwrites what is refused: until it has, nobody is told that the old value works."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import HOUR, Bench
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.engine.rotate import Report
from vaultkeeper.model.outcome import Finding
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, State, Waiting
from vaultkeeper.testing.faults import Fault, Goes
from vaultkeeper.testing.simulators import TARGETS
from vaultkeeper.testing.world import secret_value

NONE_WORKS = "none of the newest stored versions was accepted"
BY_MACHINE = ["adopt s", "rotate s --replace"]
BY_HAND = ["import s", "adopt s"]


def in_use(kind: str, name: str, *, versions: int = 1) -> Bench:
    bench = Bench(f"replace-{name}-{kind}")
    consumer = bench.make.file("f", {"": "{token}" if kind == "minted" else "{password}"})
    policy: RotationPolicy = getattr(bench.make, kind)("s", consumer)
    bench.use(policy)
    for number in range(1, versions + 1):
        if kind == "manual":
            bench.imported("s", bench.made_by_hand("s", f"key-{number}"))
        else:
            bench.done("s")
    return bench


def dead(kind: str, name: str) -> Bench:
    """CURRENT is refused, and a rotation saw it."""
    bench = in_use(kind, name)
    change(bench, kind)
    report = bench.rotate("s", wait=2 * HOUR)[0]
    assert (report.state, report.exit_code) == ("ambiguous", 6)
    return bench


def change(bench: Bench, kind: str) -> None:
    """Somebody changes it by hand."""
    if kind == "manual":
        bench.revoke("s", 1)
        return
    state = bench.world.state["db_s"]
    for part in ("accounts", "tokens"):
        if part in state:
            state[part] = {}
    assert bench.accepted("s") == set()


def commands(report: Report) -> list[str]:
    assert report.error is not None
    return re.findall(r"vaultkeeper ([a-z]+ s(?: --[a-z]+)*)", report.error.next)


def none_works(report: Report, state: str, cause: Cause | None, follow: list[str]) -> None:
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == (state, cause, 6)
    assert report.error is not None
    assert report.error.works == NONE_WORKS
    assert commands(report) == follow


def works(bench: Bench) -> None:
    current = bench.current("s")
    assert current in bench.accepted("s")
    assert secret_value(bench.version("s", current or 0)) in bench.running("f")[""]


def not_allowed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    target = bench.policies["s"].target
    assert target is not None
    refused = [Finding("refuse", "the account may not change it")]
    monkeypatch.setattr(TARGETS[target.kind], "check", lambda *_: refused)


@pytest.mark.parametrize("kind", ["single", "overlap", "alternating"])
def test_where_the_destinations_refuse_it_nothing_is_said_to_work(kind: str) -> None:
    """Once the old value was: target and consumers are on it."""
    bench = dead(kind, "prepare")
    bench.faults.script = [Fault("f.prepare", Goes.REFUSED, bench.calls("f.prepare") + 1)]
    none_works(bench.rotate("s", replace=True)[0], "rolled_back", Cause.PRIVILEGE, BY_MACHINE)
    assert bench.rotate("s", replace=True)[0].state == "done"
    works(bench)


@pytest.mark.parametrize("kind", ["single", "overlap", "alternating", "minted"])
def test_where_no_value_is_made_nothing_is_said_to_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = dead(kind, "create")
    with monkeypatch.context() as here:
        not_allowed(bench, here)
        none_works(bench.rotate("s", replace=True)[0], "rolled_back", Cause.PRIVILEGE, BY_MACHINE)
    assert bench.rotate("s", replace=True)[0].state == "done"
    works(bench)


def test_where_a_persons_value_is_not_taken_nothing_is_said_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = dead("manual", "create")
    value = bench.made_by_hand("s", "key-2")
    with monkeypatch.context() as here:
        not_allowed(bench, here)
        none_works(bench.import_value("s", value), "rolled_back", Cause.PRIVILEGE, BY_HAND)
    bench.imported("s", value)
    works(bench)


@pytest.mark.parametrize("kind", ["single", "manual"])
def test_what_takes_the_place_of_one_that_saw_it_knows_it_before_it_has_looked(kind: str) -> None:
    bench = dead(kind, "unseen")
    bench.faults.script = [Fault("db_s.observe", Goes.UNREACHABLE, 0)]
    (report,) = bench.rotate("s", replace=True, wait=timedelta(0))
    none_works(report, "waiting", None, ["resume s", "rollback s"])
    none_works(bench.rollback("s"), "rolled_back", Cause.ASKED, BY_HAND if kind == "manual" else BY_MACHINE)


def test_where_it_is_accepted_again_by_then_it_is_said_to_work() -> None:
    bench = dead("manual", "back")
    bench.rotate("s", replace=True, wait=HOUR)
    bench.rollback("s")
    bench.made_by_hand("s", "key-1")
    (report,) = bench.rotate("s", replace=True, wait=HOUR)
    assert (report.state, report.exit_code, report.error) == ("waiting", 0, None)


def test_what_has_set_the_old_value_again_says_that_it_works() -> None:
    bench = dead("single", "set-again")
    bench.faults.script = [Fault("f.deliver", Goes.REFUSED, bench.calls("f.deliver") + 1)]
    (report,) = bench.rotate("s", replace=True)
    assert (report.state, report.exit_code) == ("rolled_back", 5)
    assert report.error is not None
    assert report.error.works == "v1 (old): target and consumers are on it"
    works(bench)


def test_between_set_and_the_way_back_no_old_value_is_said_to_work() -> None:
    bench = dead("single", "stuck")
    bench.faults.script = [Fault("db_s.set", Goes.REFUSED, 0)]
    (report,) = bench.rotate("s", replace=True)
    assert bench.accepted("s") == set()
    none_works(report, "rolled_back", Cause.PRIVILEGE, BY_MACHINE)
    bench.faults.script = [Fault("f.deliver", Goes.UNREACHABLE, 0)]
    (report,) = bench.rotate("s", replace=True, wait=timedelta(0))
    assert (report.exit_code, report.error and report.error.works) == (6, "v3 (new): it was proven")


def test_waiting_for_a_persons_value_and_giving_that_up_both_say_that_nothing_works() -> None:
    bench = dead("manual", "input")
    (report,) = bench.rotate("s", replace=True, wait=HOUR)
    assert report.rotation is not None
    assert report.rotation.waiting is Waiting.INPUT
    none_works(report, "waiting", None, ["import s"])
    none_works(bench.rollback("s"), "rolled_back", Cause.ASKED, BY_HAND)
    rotation = bench.imported("s", bench.made_by_hand("s", "key-2"))
    assert rotation.finished
    works(bench)


def test_where_the_one_before_it_works_that_one_is_told_and_proposed() -> None:
    bench = in_use("single", "backup", versions=2)
    bench.world.state["db_s"]["accounts"] = {
        name: [secret_value(bench.version("s", 1))] for name in bench.world.state["db_s"]["accounts"]
    }
    bench.faults.script = [Fault("f.prepare", Goes.REFUSED, bench.calls("f.prepare") + 1)]
    (report,) = bench.rotate("s", replace=True)
    assert report.rotation is not None
    assert (report.rotation.state, report.rotation.cause, report.exit_code) == (State.ROLLED_BACK, Cause.PRIVILEGE, 6)
    assert report.error is not None
    assert report.error.works == "an older version than v2 (old): the target was put back"
    assert commands(report) == ["reconcile s"]
    assert "take-previous" in [proposal.key for proposal in reconcile("s", bench.parts())]
    apply("s", "take-previous", bench.parts())
    works(bench)
