"""After a stop: what one cluster suffers stops no other, and a resume takes nothing for granted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import HOUR, Bench
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.engine.status import status
from vaultkeeper.errors import NotFound
from vaultkeeper.model.rotation import Cause, Rotation, State, Waiting
from vaultkeeper.ports import Change
from vaultkeeper.testing.faults import Fault, Goes
from vaultkeeper.testing.memory import MemoryStore
from vaultkeeper.testing.simulators.service import ServiceDestination


def test_what_stops_one_cluster_stops_no_other() -> None:
    bench = Bench("stopped")
    bench.use(bench.make.overlap("one", bench.make.file("f")), bench.make.overlap("two", bench.make.file("g")))
    bench.faults.script = [Fault("store.commit", Goes.REFUSED, call=1)]
    one, two = bench.rotate("one", "two")
    assert one.error is not None
    assert one.error.code == "VK-FULL"
    assert one.exit_code != 0
    assert two.state == "done"
    bench.resume()
    assert bench.newest("one").state is State.DONE


def test_a_report_tells_what_is_in_the_journal_and_not_what_could_not_be_written() -> None:
    bench = Bench("journalled")
    bench.use(bench.make.overlap("one", bench.make.file("f")))
    bench.faults.script = [Fault("store.commit", Goes.REFUSED, call=0)]
    (report,) = bench.rotate("one")
    assert report.rotation == bench.newest("one")


def test_a_lost_epoch_ends_only_its_own_cluster() -> None:
    """Another process took one rotation over while we drove it."""

    class Overtaken(MemoryStore):
        def commit(self, change: Change) -> None:
            rotation = change.rotation
            if rotation is not None and rotation.secret == "one" and not self.overtaken:
                self.overtaken = True
                self.take(rotation.id)
            super().commit(change)

        overtaken = False

    bench = Bench("overtaken", store=Overtaken())
    bench.use(bench.make.overlap("one"), bench.make.overlap("two"))
    one, two = bench.rotate("one", "two")
    assert one.error is not None
    assert one.error.code == "VK-EPOCH"
    assert two.state == "done"


def test_a_resume_hands_over_again_where_somebody_put_the_consumer_back_meanwhile() -> None:
    bench = Bench("again")
    bench.use(bench.make.overlap("s", bench.make.service("v")))
    bench.done()
    bench.world.backup("v")
    bench.faults.script = [Fault("v.confirm", Goes.UNREACHABLE, call=2)]
    bench.emergency("s", wait=timedelta(0))
    bench.world.restore_backup("v")
    bench.resume(wait=HOUR)
    assert bench.newest("s").cause is Cause.LAGGARDS
    bench.resume()
    assert bench.newest("s").state is State.DONE
    assert bench.running("v")[""].endswith(bench.version("s", 2).fields["password"].reveal())


def test_a_consumer_that_was_put_back_after_its_confirm_is_told_before_the_old_value_dies() -> None:
    """It was waited for in silence once, for ever."""
    bench = Bench("put-back")
    bench.use(bench.make.overlap("s", bench.make.service("v")))
    bench.done()
    bench.world.backup("v")
    bench.rotate("s", wait=timedelta(0))
    bench.world.restore_backup("v")
    bench.resume()
    rotation = bench.newest("s")
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.DRIFT)
    assert bench.accepted("s") == {1, 2}
    assert [proposal.key for proposal in reconcile("s", bench.parts())] == ["deliver"]
    apply("s", "deliver", bench.parts())
    bench.resume()
    assert bench.newest("s").state is State.DONE
    assert bench.accepted("s") == {2}


def test_a_place_that_cannot_be_looked_at_is_waited_for_and_nobody_is_taken_for_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Going back would give the target the old value, and the place could not be given it: `single` locks out then."""
    bench = Bench("not-looked-at")
    bench.use(bench.make.single("s", bench.make.service("v")))
    bench.done()
    with monkeypatch.context() as gone:
        gone.setattr(ServiceDestination, "confirm", _raising(NotFound("the key's file is gone")))
        (report,) = bench.rotate("s", wait=timedelta(hours=1))
    assert report.rotation is not None
    assert (report.state, report.rotation.waiting) == ("waiting", Waiting.UNREACHABLE)
    assert "the key's file is gone" in report.rotation.detail
    assert report.exit_code == 6
    assert bench.accepted("s") == {2}
    bench.resume()
    assert bench.newest("s").state is State.DONE


def _raising(error: Exception) -> Callable[..., Any]:
    def hook(*_: object) -> None:
        raise error

    return hook


def test_laggards_that_were_cut_do_not_keep_the_leaked_value_alive() -> None:
    bench = Bench("cut-off")
    bench.use(bench.make.overlap("s", bench.make.service("v")))
    bench.done()
    bench.world.backup("v")
    bench.faults.script = [Fault("v.confirm", Goes.UNREACHABLE, call=2)]
    bench.emergency("s", cut=True, wait=timedelta(0))
    bench.world.restore_backup("v")
    bench.resume()
    assert bench.newest("s").state is State.DONE
    assert bench.accepted("s") == {2}


def test_a_last_rotation_far_ahead_of_now_does_not_forbid_the_next_for_years() -> None:
    bench = Bench("future")
    bench.use(bench.make.overlap("s", min_interval=HOUR))
    bench.clock.step(timedelta(days=3650))
    bench.done()
    assert [report.exit_code for report in bench.rotate("s")] == [7]
    bench.clock.step(timedelta(days=-3650))
    bench.done()


def test_a_stale_store_refuses_before_the_target_has_to() -> None:
    """The first thing that the engine asks is the tag; the fence at the target is the second lock on that door."""
    bench = Bench("first-lock")
    bench.use(bench.make.overlap("s", bench.make.file("f")))
    bench.done()
    backup = bench.memory.snapshot()
    bench.done()
    bench.memory.restore(backup)
    before: Mapping[str, int] = dict(bench.faults.calls)
    rotation: Rotation = bench.one("s")
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.STALE)
    changed = {hook for hook, count in bench.faults.calls.items() if count != before.get(hook, 0)}
    assert changed.isdisjoint({"set", "mint", "prepare", "deliver", "release"})


def test_all_passes_over_what_is_open_and_says_how_it_goes_on() -> None:
    bench = Bench("open")
    bench.use(bench.make.overlap("s", bench.make.service("v")))
    bench.done("s")
    bench.faults.script = [Fault("v.deliver", Goes.UNREACHABLE, call=call) for call in range(20)]
    bench.rotate("s", wait=timedelta(0))
    (report,) = bench.rotate("s", by_name=False)
    assert (report.state, report.exit_code) == ("skipped", 0)
    assert report.skipped.endswith("next: vaultkeeper resume s")


def test_the_first_step_of_a_new_secret_is_to_adopt_what_a_target_checks_and_else_to_make_it() -> None:
    bench = Bench("new")
    bench.use(bench.make.overlap("checked"), bench.make.unchecked("free", bench.make.file("f")))
    told = {each.name: each.next for each in status(bench.parts())}
    assert told == {"checked": "vaultkeeper adopt checked", "free": "vaultkeeper rotate free"}
