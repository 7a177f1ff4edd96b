"""A value that a person revoked can be set again by nobody: what is told then is so, and each named command leads out.

`test_lost_tokens.py` is the same for tokens.
"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import HOUR, LONG, Bench
from vaultkeeper.engine.importing import refuse_machine_made
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.engine.rotate import Report
from vaultkeeper.errors import AlreadyOpen, RotationFailed, UsageError
from vaultkeeper.model.policy import GeneratorSpec
from vaultkeeper.model.rotation import Cause, Purpose, State, Waiting
from vaultkeeper.model.secret import Strategy
from vaultkeeper.testing.faults import Fault, Goes

NOW = timedelta(0)
SOON = 2 * HOUR
NONE_WORKS = "none of the newest stored versions was accepted"


def key(number: int) -> str:
    return f"key-{number}"


def in_use(name: str, *, versions: int = 1) -> Bench:
    """The newest version is CURRENT, and the ones before it are revoked."""
    bench = Bench(f"revoked-{name}")
    bench.use(bench.make.manual("s", bench.make.file("f", {"": "{password}"})))
    for number in range(1, versions + 1):
        bench.imported("s", bench.made_by_hand("s", key(number)))
        if number > 1:
            bench.revoke("s", number - 1)
            bench.resume("s", wait=LONG)
        assert bench.newest("s").state is State.DONE
    return bench


def waiting_with(name: str, *, versions: int = 1) -> Bench:
    """The next version is handed over, and its consumer has not answered yet."""
    bench = in_use(name, versions=versions)
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, bench.calls("f.confirm") + 1)]
    rotation = bench.imported("s", bench.made_by_hand("s", key(versions + 1)), wait=NOW)
    assert rotation.waiting is Waiting.UNREACHABLE
    return bench


def revoke(bench: Bench, *numbers: int) -> None:
    for number in numbers:
        bench.revoke("s", number)


def running(bench: Bench) -> bytes:
    return bench.running("f")[""]


def commands(following: str) -> list[str]:
    return re.findall(r"vaultkeeper ([a-z]+ s(?: --[a-z]+)*)", following)


def none_works(report: Report) -> None:
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == ("ambiguous", Cause.NONE_ACCEPTED, 6)
    assert report.error is not None
    assert report.error.works == NONE_WORKS
    assert commands(report.error.next) == ["import s", "adopt s"]


def works(bench: Bench, value: str) -> None:
    current = bench.current("s")
    assert current in bench.accepted("s")
    assert running(bench) == value.encode()


def imported(bench: Bench, value: str) -> None:
    rotation = bench.imported("s", bench.made_by_hand("s", value))
    assert (rotation.state, rotation.cause) == (State.DONE, None)
    works(bench, value)


def adopted(bench: Bench, value: str) -> None:
    """It tells the store; consumers are told by `reconcile`, as after every adoption."""
    bench.adopt("s", bench.made_by_hand("s", value))
    assert not bench.newest("s").open
    assert [proposal.key for proposal in reconcile("s", bench.parts())] == ["deliver"]
    apply("s", "deliver", bench.parts())
    works(bench, value)


def replaced(bench: Bench, value: str) -> None:
    (report,) = bench.rotate("s", replace=True, wait=SOON)
    assert report.rotation is not None
    assert report.rotation.waiting is Waiting.INPUT
    imported(bench, value)


# ----------------------------------------------------------------------------------------------------- on the way back


@pytest.mark.parametrize("out", [imported, adopted, replaced])
@pytest.mark.parametrize("besides", ["", "resume", "rollback"])
def test_where_both_are_revoked_nobody_is_handed_the_old_one_and_the_way_out_is_told(besides: str, out: object) -> None:
    """Once `rollback` handed it over, and said that it works."""
    bench = waiting_with(f"both-{besides}-{out.__name__}")  # type: ignore[attr-defined]
    revoke(bench, 1, 2)
    none_works(bench.rollback("s"))
    assert running(bench) == b"key-2"
    if besides:  # it is not told, and does no harm
        none_works(bench.resume("s")[0] if besides == "resume" else bench.rollback("s"))
        assert running(bench) == b"key-2"
    out(bench, "key-3")  # type: ignore[operator]


def test_the_same_value_may_come_again_once_the_vendor_accepts_it() -> None:
    bench = waiting_with("again")
    revoke(bench, 1, 2)
    none_works(bench.rollback("s"))
    imported(bench, "key-2")


def test_a_consumer_that_fails_on_it_is_not_put_back_to_a_revoked_one() -> None:
    bench = in_use("fails")
    bench.edit("s", destinations=(bench.make.service("f", {"": "{password}"}),))
    bench.world.system("f")["broken"] = {"app": {"": b"key-1"}}  # it runs on nothing else
    strike = bench.faults.strike

    def revoking(hook: str) -> Fault | None:
        if hook == "f.confirm":
            revoke(bench, 1, 2)
        return strike(hook)

    bench.faults.strike = revoking  # type: ignore[method-assign]
    none_works(bench.import_value("s", bench.made_by_hand("s", key(2))))
    assert running(bench) == b"key-2"
    bench.faults.strike = strike  # type: ignore[method-assign]
    bench.world.system("f").pop("broken")
    imported(bench, "key-3")


def test_where_the_old_one_is_accepted_again_a_second_rollback_says_that_it_works() -> None:
    bench = waiting_with("unrevoked")
    revoke(bench, 1, 2)
    none_works(bench.rollback("s"))
    bench.made_by_hand("s", key(1))
    report = bench.rollback("s")
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == ("rolled_back", Cause.ASKED, 5)
    assert report.error is not None
    assert report.error.works == "v1 (old): target and consumers are on it"
    works(bench, key(1))


def test_where_the_one_before_the_old_one_is_back_it_is_proposed() -> None:
    bench = waiting_with("backup", versions=2)
    revoke(bench, 2, 3)
    bench.made_by_hand("s", key(1))
    report = bench.rollback("s")
    assert report.rotation is not None
    assert (report.state, report.rotation.cause) == ("parked", Cause.TARGET_WENT_BACK)
    assert running(bench) == b"key-3"
    assert report.error is not None
    assert report.error.next == "vaultkeeper reconcile s"
    assert [proposal.key for proposal in reconcile("s", bench.parts())] == ["take-previous"]
    apply("s", "take-previous", bench.parts())
    works(bench, key(1))


# ------------------------------------------------------------------------------------------------ the old one is dead


@pytest.mark.parametrize("out", [imported, adopted])
def test_a_new_value_that_is_refused_too_leaves_nothing_that_is_said_to_work(out: object) -> None:
    """Once it was rolled back, and v1 said to work."""
    bench = in_use(f"typo-{out.__name__}")  # type: ignore[attr-defined]
    revoke(bench, 1)
    none_works(bench.import_value("s", "key-mistyped"))
    assert running(bench) == b"key-1"
    out(bench, "key-2")  # type: ignore[operator]


@pytest.mark.parametrize("out", [imported, adopted, replaced])
def test_a_rollback_that_finds_neither_is_ended_by_what_it_names(out: object) -> None:
    """`import` said that a value was given already, and named itself."""
    bench = in_use(f"rollback-{out.__name__}", versions=2)  # type: ignore[attr-defined]
    revoke(bench, 2)
    none_works(bench.rollback("s"))
    out(bench, "key-3")  # type: ignore[operator]
    assert bench.newest("s").purpose is not Purpose.EMERGENCY


def test_a_leak_stays_a_leak_when_another_value_takes_its_place() -> None:
    bench = in_use("leak")
    revoke(bench, 1)
    bench.emergency("s", wait=SOON)
    none_works(bench.import_value("s", "key-mistyped"))
    rotation = bench.imported("s", bench.made_by_hand("s", key(2)))
    assert (rotation.purpose, rotation.state) == (Purpose.EMERGENCY, State.DONE)
    works(bench, key(2))


def test_a_secret_that_is_manual_no_more_names_what_makes_its_next_value() -> None:
    bench = waiting_with("changed")
    revoke(bench, 1, 2)
    none_works(bench.rollback("s"))
    bench.use(bench.make.overlap("machine", bench.make.file("out")))
    bench.edit("s", strategy=Strategy.OVERLAP, target=bench.policies["machine"].target, generator=GeneratorSpec("x"))
    with pytest.raises(UsageError) as refused:
        refuse_machine_made("s", bench.parts())
    assert commands(refused.value.next) == ["rotate s --replace", "adopt s"]


# --------------------------------------------------------------------------------- only a leaked one is accepted again


def leaked(name: str) -> Bench:
    """v1 leaked and is PREVIOUS, v2 is CURRENT; then v2 is refused, and v1 accepted again."""
    bench = in_use(name)
    bench.emergency("s", wait=SOON)
    bench.imported("s", bench.made_by_hand("s", key(2)))
    revoke(bench, 1)
    bench.resume("s", wait=LONG)
    assert bench.newest("s").state is State.DONE
    assert bench.record("s", 1).compromised
    return bench


def only_the_leaked_one(bench: Bench) -> list[str]:
    with pytest.raises(RotationFailed) as told:
        reconcile("s", bench.parts())
    assert told.value.works == "v1 (PREVIOUS) alone, and it leaked: nobody is handed it again"
    return commands(told.value.next)


def leaked_and_back(name: str) -> Bench:
    bench = leaked(name)
    revoke(bench, 2)
    bench.made_by_hand("s", key(1))
    assert bench.one("s", wait=SOON).cause is Cause.TARGET_WENT_BACK
    assert only_the_leaked_one(bench) == ["import s", "adopt s"]
    return bench


def test_before_a_value_came_an_adoption_leads_out() -> None:
    adopted(leaked_and_back("leaked-before-adopted"), "key-3")


def test_before_a_value_came_another_one_is_imported_and_the_leaked_one_asked_for_until_it_is_revoked() -> None:
    """It was recorded as refused once, and nobody was asked to revoke it again."""
    bench = leaked_and_back("leaked-before-imported")
    rotation = bench.imported("s", bench.made_by_hand("s", key(3)))
    assert (rotation.waiting, bench.accepted("s")) == (Waiting.INPUT, {1, 3})
    works(bench, key(3))
    revoke(bench, 1)
    bench.resume("s", wait=SOON)
    assert (bench.newest("s").state, bench.accepted("s")) == (State.DONE, {3})


def test_after_it_came_only_an_adoption_leads_out() -> None:
    """`reconcile` named `import`, which named `reconcile`."""
    bench = leaked("leaked-after")
    bench.faults.script = [Fault("f.confirm", Goes.UNREACHABLE, bench.calls("f.confirm") + 1)]
    bench.imported("s", bench.made_by_hand("s", key(3)), wait=NOW)
    revoke(bench, 2, 3)
    bench.made_by_hand("s", key(1))
    report = bench.rollback("s")
    assert report.rotation is not None
    assert (report.state, report.rotation.cause) == ("parked", Cause.TARGET_WENT_BACK)
    assert running(bench) == b"key-3"
    assert isinstance(bench.import_value("s", key(4)).error, AlreadyOpen)
    assert only_the_leaked_one(bench) == ["adopt s"]
    adopted(bench, "key-4")


# ------------------------------------------------------------------------------------------------------- the wrong one


def wrongly_revoked(name: str) -> Bench:
    """Version 2 is in use, and a person was asked to revoke version 1."""
    bench = in_use(name)
    rotation = bench.imported("s", bench.made_by_hand("s", key(2)))
    assert rotation.waiting is Waiting.INPUT
    revoke(bench, 2)
    return bench


def test_nobody_is_asked_to_revoke_the_last_value_that_works() -> None:
    """`v1 is still accepted; a person revokes it` was said on."""
    bench = wrongly_revoked("wrong")
    (report,) = bench.resume("s", wait=NOW)
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == ("parked", Cause.TARGET_WENT_BACK, 6)
    assert report.error is not None
    assert report.error.why == "v2 (new) is refused: was it revoked in place of v1 (old)?"
    assert report.error.next == "vaultkeeper reconcile s"
    assert [proposal.key for proposal in reconcile("s", bench.parts())] == ["take-previous"]
    apply("s", "take-previous", bench.parts())
    works(bench, key(1))


@pytest.mark.parametrize("out", [imported, adopted])
def test_where_the_last_one_is_revoked_after_the_wrong_one_nothing_is_called_done(out: object) -> None:
    bench = wrongly_revoked(f"wrong-both-{out.__name__}")  # type: ignore[attr-defined]
    revoke(bench, 1)
    (report,) = bench.resume("s", wait=NOW)
    assert report.rotation is not None
    assert (report.state, report.rotation.cause, report.exit_code) == ("ambiguous", Cause.NONE_ACCEPTED, 6)
    assert report.error is not None
    assert report.error.works == NONE_WORKS
    out(bench, key(3))  # type: ignore[operator]


def test_what_a_person_was_asked_for_is_not_told_of_one_that_is_done() -> None:
    bench = in_use("asked-for", versions=2)
    assert bench.newest("s").detail == ""
