"""A token that its system lost cannot be made again: what is told then is so, and each command that is named leads out.

By hand or by a restored backup, before the way back, on it, and when the old one is retired.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import GRACE, HOUR, LONG, Bench
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.engine.rotate import Report
from vaultkeeper.errors import RotationFailed
from vaultkeeper.model.rotation import Cause, Direction, State, Step
from vaultkeeper.model.secret import Acceptance, SecretBytes
from vaultkeeper.ports import Change
from vaultkeeper.testing.faults import Fault, Goes

NOW = timedelta(0)
COMMAND = r"vaultkeeper ([a-z]+ s(?: --[a-z]+)*)"
NONE_WORKS = "none of the newest stored versions was accepted"


def waiting_with(name: str, *, versions: int = 1) -> Bench:
    """The newest version is CURRENT; the next one is handed over, and its consumer has not answered yet."""
    bench = Bench(f"lost-{name}")
    bench.use(bench.make.minted("s", bench.make.file("f", {"": "{token}"})))
    for _ in range(versions):
        bench.done("s")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, bench.calls("f.confirm") + 1)]
    bench.rotate("s", wait=NOW)
    return bench


def token(bench: Bench, number: int) -> bytes:
    return bench.version("s", number).fields["token"].reveal()


def lose(bench: Bench, *numbers: int) -> None:
    state, gone = bench.world.state["db_s"], {token(bench, number) for number in numbers}
    state["tokens"] = {handle: t for handle, t in state["tokens"].items() if t["value"] not in gone}


def lose_at_set(bench: Bench, *numbers: int) -> None:
    strike = bench.faults.strike

    def losing(hook: str) -> Fault | None:
        if hook == "db_s.set":
            lose(bench, *numbers)
        return strike(hook)

    bench.faults.strike = losing  # type: ignore[method-assign]


def commands(report: Report) -> list[str]:
    assert report.error is not None
    return re.findall(COMMAND, report.error.next)


def obeyed(bench: Bench, command: str) -> Report:
    if command == "rotate s --replace":
        return bench.rotate("s", replace=True)[0]
    return bench.rollback("s") if command == "rollback s" else bench.resume("s")[0]


def none_works(report: Report) -> None:
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == ("ambiguous", Cause.NONE_ACCEPTED, 6)
    assert report.error is not None
    assert report.error.works == NONE_WORKS
    assert commands(report) == ["adopt s", "rotate s --replace"]


def replaced(bench: Bench) -> None:
    assert obeyed(bench, "rotate s --replace").state == "done"
    current = bench.current("s")
    assert current is not None
    assert bench.accepted("s") == {current}
    assert bench.running("f")[""] == token(bench, current)


@pytest.mark.parametrize("besides", ["", "resume s", "rollback s"])
def test_where_both_are_lost_nobody_is_handed_the_old_one_and_the_way_out_is_told(besides: str) -> None:
    """Once `rollback` handed it over, said that it works, and led to `resume`, which led to `rollback`."""
    bench = waiting_with(f"both-{besides}")
    lose(bench, 1, 2)
    none_works(bench.rollback("s"))
    assert bench.running("f")[""] == token(bench, 2)
    if besides:  # it is not told, and does no harm
        none_works(obeyed(bench, besides))
        assert bench.running("f")[""] == token(bench, 2)
    replaced(bench)


def test_where_both_are_lost_while_consumers_are_put_back_it_is_seen_before_anything_is_told() -> None:
    bench = waiting_with("meanwhile")
    lose_at_set(bench, 1, 2)
    none_works(bench.rollback("s"))
    assert bench.newest("s").direction is Direction.BACK
    replaced(bench)


def test_where_the_old_one_is_lost_while_consumers_are_put_back_the_new_one_is_said_to_work() -> None:
    bench = waiting_with("old-meanwhile")
    lose_at_set(bench, 1)
    report = bench.rollback("s")
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == ("parked", Cause.OLD_REFUSED, 6)
    assert report.error is not None
    assert report.error.works == "v2 (new): the target accepts it, and refuses v1 (old)"
    assert commands(report)[0] == "resume s"
    assert obeyed(bench, "resume s").state == "done"
    assert bench.running("f")[""] == token(bench, 2)


@pytest.mark.parametrize("command", ["resume s", "rollback s"])
def test_what_an_earlier_release_parked_there_comes_out_by_either_command(command: str) -> None:
    bench = waiting_with(f"earlier-{command}")
    lose_at_set(bench, 1, 2)
    bench.rollback("s")
    taken = bench.store.take(bench.newest("s").id)
    assert taken.phase is not None
    assert taken.phase.step is Step.SET
    bench.store.commit(Change(replace(taken, state=State.PARKED, cause=Cause.UNSUPPORTED)))
    none_works(obeyed(bench, command))
    replaced(bench)


def test_where_the_one_before_the_old_one_is_back_it_is_proposed() -> None:
    bench = waiting_with("backup", versions=2)
    lose(bench, 2, 3)
    come_back(bench, 1)
    report = bench.rollback("s")
    assert report.rotation is not None
    assert (report.state, report.rotation.cause) == ("parked", Cause.TARGET_WENT_BACK)
    assert bench.running("f")[""] == token(bench, 3)
    assert report.error is not None
    assert report.error.next == "vaultkeeper reconcile s"
    assert [proposal.key for proposal in reconcile("s", bench.parts())] == ["take-previous"]
    apply("s", "take-previous", bench.parts())
    assert bench.running("f")[""] == token(bench, 1)
    bench.done("s")


@pytest.mark.parametrize("out", ["adopt s", "rollback s"])
def test_where_only_a_leaked_one_is_back_both_ways_out_are_told(out: str) -> None:
    """Once only `adopt` was, of a token that somebody has to make by hand."""
    bench = leaked_and_back(f"leaked-{out}")
    assert bench.one("s").cause is Cause.TARGET_WENT_BACK
    with pytest.raises(RotationFailed) as told:
        reconcile("s", bench.parts())
    assert re.findall(COMMAND, told.value.next) == ["adopt s", "rollback s", "rotate s --replace"]
    assert told.value.works == "v1 (PREVIOUS) alone, and it leaked: nobody is handed it again"
    if out == "adopt s":
        adopted(bench)
        return
    report = obeyed(bench, out)
    assert report.state == "rolled_back"
    assert commands(report) == ["reconcile s"]
    with pytest.raises(RotationFailed) as again:
        reconcile("s", bench.parts())
    assert re.findall(COMMAND, again.value.next) == ["rotate s --replace"]
    assert obeyed(bench, "rotate s --replace").state == "done"
    current = bench.current("s")
    assert current in bench.accepted("s")
    assert bench.running("f")[""] == token(bench, current or 0)


def test_a_leaked_one_that_is_back_dies_with_the_next_retirement() -> None:
    """It was recorded as refused once, so no retirement ever collected it."""
    bench = leaked_and_back("leaked-replaced")
    assert bench.rotate("s", replace=True)[0].state == "done"
    assert bench.accepted("s") == {bench.current("s")}


def test_a_leaked_one_that_is_back_dies_after_an_adoption_too() -> None:
    bench = leaked_and_back("leaked-adopted")
    assert bench.one("s").cause is Cause.TARGET_WENT_BACK
    adopted(bench)
    bench.done("s")
    assert bench.accepted("s") == {bench.current("s")}
    assert bench.record("s", 1).acceptance is Acceptance.REFUSED


def test_on_the_way_back_only_the_way_out_that_is_open_is_told() -> None:
    """There a rollback would find the same again."""
    bench = leaked_and_back("leaked-way-back", lost=())
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, bench.calls("f.confirm") + 1)]
    bench.rotate("s", wait=NOW)
    come_back(bench, 1)
    lose(bench, 2, 3)
    bench.rollback("s")
    assert bench.newest("s").cause is Cause.TARGET_WENT_BACK
    with pytest.raises(RotationFailed) as told:
        reconcile("s", bench.parts())
    assert re.findall(COMMAND, told.value.next) == ["adopt s"]
    adopted(bench)


def adopted(bench: Bench) -> None:
    """Somebody makes one by hand."""
    bench.world.state["db_s"]["tokens"]["by-hand"] = {"name": "by-hand", "value": b"made", "expires_at": None}
    adopt("s", {"token": SecretBytes(b"made")}, bench.parts())
    assert not bench.newest("s").open
    apply("s", "deliver", bench.parts())
    assert bench.running("f")[""] == b"made"


def leaked_and_back(name: str, *, lost: tuple[int, ...] = (2,)) -> Bench:
    """v1 leaked and is PREVIOUS, v2 is CURRENT; then a backup brings v1 back, and v2 is `lost`."""
    bench = Bench(f"lost-{name}")
    bench.use(bench.make.minted("s", bench.make.file("f", {"": "{token}"})))
    bench.done("s")
    assert bench.emergency("s")[0].state == "done"
    assert bench.record("s", 1).compromised
    if lost:
        come_back(bench, 1)
    lose(bench, *lost)
    return bench


def come_back(bench: Bench, number: int) -> None:
    made = {"name": bench.record("s", number).id, "value": token(bench, number), "expires_at": None}
    bench.world.state["db_s"]["tokens"][bench.record("s", number).handle] = made


def test_what_was_lost_in_grace_is_seen_at_the_retirement_and_not_said_to_work() -> None:
    bench = waiting_with("grace")
    bench.resume("s", wait=NOW)
    lose_at_set(bench, 1, 2)
    bench.clock.advance(GRACE + HOUR)
    none_works(bench.resume("s", wait=LONG)[0])
    replaced(bench)


def test_a_target_that_lost_only_the_new_one_in_grace_is_told_as_put_back() -> None:
    bench = waiting_with("new-in-grace")
    bench.resume("s", wait=NOW)
    lose_at_set(bench, 2)
    bench.clock.advance(GRACE + HOUR)
    (report,) = bench.resume("s", wait=LONG)
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == ("parked", Cause.TARGET_WENT_BACK, 6)
    assert [proposal.key for proposal in reconcile("s", bench.parts())] == ["take-previous"]
    apply("s", "take-previous", bench.parts())
    assert bench.running("f")[""] == token(bench, 1)


def test_replacing_one_that_was_lost_while_its_replacement_is_lost_too_ends_in_words_that_help() -> None:
    bench = waiting_with("again")
    lose(bench, 1, 2)
    bench.rollback("s")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, bench.calls("f.confirm") + 1)]
    bench.rotate("s", replace=True, wait=NOW)
    lose(bench, 3)
    none_works(bench.rollback("s"))
    replaced(bench)
