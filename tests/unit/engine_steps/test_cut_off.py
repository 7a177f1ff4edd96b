"""While the target accepts one value only, whoever can be handed it is, whatever becomes of the consumers before it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.engine.rotate import Report
from vaultkeeper.errors import RotationFailed
from vaultkeeper.model.rotation import Cause, State, Waiting
from vaultkeeper.testing.faults import Fault, Goes

PATIENCE = timedelta(minutes=10)


def two_consumers(name: str) -> Bench:
    bench = Bench(f"cut-off-{name}")
    bench.use(bench.make.single("s", bench.make.file("first"), bench.make.service("second")))
    bench.done()
    return bench


def fails(bench: Bench, goes: Goes, *, from_delivery: int = 1) -> None:
    """The first consumer, from its n-th delivery on."""
    so_far = bench.calls("first.deliver")
    bench.faults.script = [Fault("first.deliver", goes, so_far + n) for n in range(from_delivery, 1000)]


def holds(bench: Bench, system: str) -> int:
    """The version that a consumer runs on."""
    (content,) = bench.running(system).values()
    return next(n for n in (1, 2) if content.endswith(bench.version("s", n).fields["password"].reveal()))


def stands(report: Report, why: Waiting | Cause) -> None:
    assert report.rotation is not None
    assert why in (report.rotation.waiting, report.rotation.cause)
    assert report.exit_code == 6


def test_behind_one_without_an_answer_the_others_are_handed_what_works() -> None:
    """They stayed with the value that is refused for as long as it gave none."""
    bench = two_consumers("forward")
    fails(bench, Goes.UNREACHABLE)
    stands(bench.rotate("s", wait=PATIENCE)[0], Waiting.UNREACHABLE)
    assert (bench.accepted("s"), holds(bench, "second")) == ({2}, 2)
    bench.faults.script = []
    bench.resume()
    assert bench.newest("s").state is State.DONE
    assert holds(bench, "first") == 2


@pytest.mark.parametrize(
    ("goes", "why"), [(Goes.UNREACHABLE, Waiting.UNREACHABLE), (Goes.REFUSED, Cause.PRIVILEGE)], ids=lambda v: v.value
)
def test_behind_one_that_cannot_be_put_back_the_others_are(goes: Goes, why: Waiting | Cause) -> None:
    bench = two_consumers(f"back-{goes.value}")
    fails(bench, goes, from_delivery=2)
    bench.world.system("second")["broken"] = {"app": bench.running("second")}  # it runs on nothing else
    stands(bench.rotate("s", wait=PATIENCE)[0], why)
    assert (bench.accepted("s"), holds(bench, "second")) == ({1}, 1)
    bench.faults.script = []
    bench.rollback("s")
    assert bench.newest("s").state is State.ROLLED_BACK
    assert holds(bench, "first") == 1


def test_one_without_an_answer_may_have_been_delivered_and_is_put_back_too() -> None:
    bench = two_consumers("may-have")
    bench.faults.script = [
        Fault("first.deliver", Goes.LOST_REPLY, bench.calls("first.deliver") + 1),
        Fault("second.deliver", Goes.REFUSED, bench.calls("second.deliver") + 1),
    ]
    (report,) = bench.rotate("s")
    assert (report.state, report.exit_code) == ("rolled_back", 5)
    assert bench.accepted("s") == {1}
    assert holds(bench, "first") == holds(bench, "second") == 1


@pytest.mark.parametrize("goes", [Goes.UNREACHABLE, Goes.REFUSED])
def test_what_is_reconciled_reaches_the_others_too(goes: Goes) -> None:
    bench = two_consumers(f"reconciled-{goes.value}")
    for system in ("db_s", "first", "second"):
        bench.world.backup(system)
    bench.done()
    for system in ("db_s", "first", "second"):
        bench.world.restore_backup(system)
    assert "set-current" in [proposal.key for proposal in reconcile("s", bench.parts())]
    fails(bench, goes)
    with pytest.raises(RotationFailed, match="first"):
        apply("s", "set-current", bench.parts())
    assert (bench.accepted("s"), holds(bench, "second")) == ({2}, 2)
