"""Delivery groups: one consumer is handed everything in one go, and goes back as one (rotation.md section 4)."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import Holder
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, State
from vaultkeeper.testing.faults import Fault, Faults, Goes

FIVE = ("a", "b", "c", "d", "e")


def stacked(bench: Bench, *names: str, services: tuple[str, ...] = ("app",)) -> list[RotationPolicy]:
    """Secrets that one service reads."""
    return [
        bench.make.overlap(name, bench.make.service("stack", {name: "{username}:{password}"}, services=services))
        for name in names
    ]


def test_five_secrets_of_one_service_are_delivered_in_one_call() -> None:
    bench = Bench("five")
    bench.use(*stacked(bench, *FIVE))
    bench.done()
    assert bench.calls("stack.deliver") == 1
    assert set(bench.running("stack")) == set(FIVE)
    bench.done()
    assert bench.calls("stack.deliver") == 2
    assert {bench.current(name) for name in FIVE} == {2}


def test_strategies_of_every_speed_wait_for_each_other_before_their_common_delivery() -> None:
    bench = Bench("speeds")
    make = bench.make
    bench.use(
        make.single("slow", make.service("stack", {"slow": "{password}"})),
        make.minted("made", make.service("stack", {"made": "{token}"})),
        make.unchecked("free", make.service("stack", {"free": "{password}"})),
        make.alternating("pair", make.service("stack", {"pair": "{username}:{password}"})),
    )
    bench.done()
    bench.done()
    assert bench.calls("stack.deliver") == 2


def test_one_that_fails_takes_back_everybody_in_its_group_in_all_their_groups() -> None:
    bench = Bench("failing")
    make = bench.make
    two_places = make.overlap(
        "both", make.service("stack", {"both": "{password}"}), make.service("other", {"both": "{password}"})
    )
    neighbour = make.overlap("neighbour", make.service("other", {"neighbour": "{password}"}))
    bench.use(make.overlap("cause", make.service("stack", {"cause": "{password}"})), two_places, neighbour)
    bench.done()
    before = {system: dict(bench.running(system)) for system in ("stack", "other")}
    bench.world.state["stack"]["broken"] = {"app": dict(bench.running("stack"))}
    reports = {report.secret: report for report in bench.rotate()}
    assert reports["cause"].state == reports["both"].state == "rolled_back"
    assert reports["cause"].rotation is not None
    assert reports["cause"].rotation.cause is Cause.DELIVERY
    assert bench.running("stack") == before["stack"]
    assert bench.running("other")["both"] == before["other"]["both"]
    assert reports["neighbour"].state == "done"  # it has no item in the failing group
    assert bench.running("other")["neighbour"] != before["other"]["neighbour"]


def test_the_others_confirm_again_before_they_finish() -> None:
    bench = Bench("again")
    make = bench.make
    bench.use(
        make.overlap("both", make.service("a", {"both": "{password}"}), make.service("b", {"both": "{password}"})),
        make.overlap(
            "neighbour", make.service("b", {"neighbour": "{password}"}), make.service("c", {"n": "{password}"})
        ),
    )
    bench.done()
    bench.world.state["a"]["broken"] = {"app": dict(bench.running("a"))}
    confirmed: list[tuple[str, bytes]] = []

    class Recording(Faults):
        def strike(self, hook: str) -> Fault | None:
            if hook == "b.confirm":
                confirmed.append((hook, bench.running("b")["both"]))
            return super().strike(hook)

    bench.world.faults = Recording()
    reports = {report.secret: report.state for report in bench.rotate()}
    assert reports == {"both": "rolled_back", "neighbour": "done"}
    # The last look at b came after `both` had gone back there: the neighbour did not finish on what was seen before.
    assert confirmed[-1][1] == bench.running("b")["both"]


def test_one_asleep_goes_back_with_its_group_too() -> None:
    """Waiting for the confirm of another group is no shelter from a definite failure in this one."""
    bench = Bench("asleep")
    make = bench.make
    clients = make.to("sim_clients", "clients", {"": "{password}"}, timeout=timedelta(days=10))
    bench.use(
        make.overlap("sleeper", clients, make.service("stack", {"sleeper": "{password}"})),
        make.overlap("other", make.service("stack", {"other": "{password}"})),
    )
    bench.done()
    before = dict(bench.running("stack"))
    # `sleeper` waits six hours for its laptops; `other` is asked again after seconds, and fails then.
    bench.world.state["stack"]["broken"] = {"app": before}
    bench.faults.script = [Fault("stack.confirm", Goes.UNREACHABLE, call=bench.calls("stack.confirm") + 1)]
    bench.rotate(wait=timedelta(seconds=10))
    assert bench.newest("other").state is State.ROLLED_BACK
    assert bench.newest("sleeper").cause is Cause.DELIVERY
    assert bench.running("stack") == before


def test_neighbours_without_an_open_rotation_carry_their_current_value() -> None:
    bench = Bench("neighbours")
    bench.use(*stacked(bench, "a", "b"))
    bench.done()
    bench.world.state["stack"]["running"]["app"]["b"]["content"] = b"somebody changed it by hand"
    bench.done("a")
    current = bench.version("b", bench.current("b") or 0)
    assert bench.running("stack")["b"] == b"app:" + current.fields["password"].reveal()
    assert bench.current("b") == 1


def test_a_neighbour_that_was_never_rotated_is_not_written() -> None:
    bench = Bench("never")
    bench.use(*stacked(bench, "a", "b"))
    bench.world.system("stack").update(
        running={"app": {"b": {"content": b"by hand", "version": "not ours"}}}, previous={}, objects={}
    )
    bench.done("a")
    assert bench.running("stack")["b"] == b"by hand"


def test_a_group_that_another_process_delivers_is_waited_for() -> None:
    bench = Bench("busy")
    bench.use(*stacked(bench, "a"))
    with bench.store.hold("group:sim_service:stack/app"):
        rotation = bench.one("a", wait=timedelta(seconds=2))
    assert rotation.state is State.WAITING
    assert bench.calls("stack.deliver") == 0
    bench.resume()
    assert bench.newest("a").finished
    assert bench.calls("stack.deliver") == 1


def test_a_first_delivery_that_fails_puts_back_what_was_there_before_us() -> None:
    bench = Bench("receipts")
    bench.use(*stacked(bench, "a"))
    bench.world.system("stack").update(
        running={"app": {"a": {"content": b"theirs", "version": "not ours"}}},
        previous={},
        objects={},
        broken={"app": {"a": b"theirs"}},
    )
    rotation = bench.one("a")
    assert rotation.state is State.ROLLED_BACK
    assert bench.running("stack") == {"a": b"theirs"}
    assert bench.current("a") is None
    assert bench.accepted("a") == set()


def test_what_a_receipt_saves_is_sealed_in_the_journal_and_learned_when_opened() -> None:
    bench = Bench("sealed")
    bench.use(*stacked(bench, "a"))
    bench.world.system("stack").update(
        running={"app": {"a": {"content": b"theirs-to-keep", "version": "x"}}}, previous={}, objects={}
    )
    bench.faults.script = [Fault("stack.deliver", Goes.UNREACHABLE)]
    rotation = bench.one("a", wait=timedelta(0))
    (receipt,) = rotation.receipts.values()
    assert receipt.sealed is not None
    assert b"theirs-to-keep" not in receipt.sealed
    parts = bench.parts()  # a new process: it knows no value yet
    assert parts.redactor.clean("theirs-to-keep") == "theirs-to-keep"
    book = Book("a", parts.store, parts.envelope, parts.redactor)
    (place,) = rotation.places
    item = Holder("a", rotation.policy, rotation.places, rotation, book).item(place, [], parts)
    assert item.receipt is not None
    assert item.receipt.sealed.reveal() == b"theirs-to-keep"
    assert "theirs" not in parts.redactor.clean("driver: theirs-to-keep")


def test_a_refusal_after_a_part_was_prepared_collects_that_part() -> None:
    bench = Bench("partly")
    make = bench.make
    bench.use(make.overlap("a", make.file("first"), make.service("second")))
    bench.done()
    bench.faults.script = [Fault("second.prepare", Goes.REFUSED, call=2)]
    assert bench.one("a").state is State.ROLLED_BACK
    current = bench.version("a", bench.current("a") or 0)
    assert [key for key in bench.world.state["first"]["objects"] if current.id not in key] == []


def test_a_cluster_that_waits_keeps_no_other_from_its_work() -> None:
    bench = Bench("patience")
    make = bench.make
    clients = make.to("sim_clients", "clients", {"": "{password}"}, timeout=timedelta(days=10))
    bench.use(make.overlap("waits", clients), make.overlap("quick", make.file("f")))
    started = bench.clock.now()
    reports = {report.secret: report for report in bench.rotate("waits", "quick", wait=timedelta(days=5))}
    assert reports["waits"].state == reports["quick"].state == "done"
    assert bench.newest("quick").ended_at == started  # not after the three days that a laptop is offline
    assert bench.newest("waits").ended_at == started + timedelta(days=3)
