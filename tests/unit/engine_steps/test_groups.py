"""Delivery groups: one consumer is handed everything in one go, and goes back as one (rotation.md section 4)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import Holder
from vaultkeeper.model.outcome import Confirmation, NotYet, Result
from vaultkeeper.model.policy import Read, RotationPolicy
from vaultkeeper.model.rotation import Cause, State
from vaultkeeper.model.secret import GroupKey
from vaultkeeper.testing.faults import Fault, Faults, Goes
from vaultkeeper.testing.simulators.service import ServiceDestination

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


# ---------------------------------------------------------------------------------------------------- many, one by one


class Slow:
    """Services that are updated a few at a time: each is busy for a while, and a delivery beyond that is put off."""

    def __init__(self, bench: Bench, at_once: int, busy: timedelta) -> None:
        self.bench, self.at_once, self.busy = bench, at_once, busy
        self.until: dict[str, datetime] = {}
        self.put_off = 0
        self.order: list[str] = []
        self.most = 0

    def deliver(self, destination: ServiceDestination, group: GroupKey, *rest: Any) -> Result:
        now, service = self.bench.clock.now(), group.rpartition("/")[2]
        working = [name for name, until in self.until.items() if until > now]
        if len(working) >= self.at_once:
            self.put_off += 1
            return NotYet(f"{len(working)} are being updated", timedelta(seconds=1))
        self.until[service] = now + self.busy
        self.order.append(service)
        self.most = max(self.most, len(working) + 1)
        return DELIVER(destination, group, *rest)


DELIVER, CONFIRM = ServiceDestination.deliver, ServiceDestination.confirm


def test_one_that_is_put_off_keeps_no_other_from_its_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("put-off")
    bench.use(*stacked(bench, "a", services=("one", "two", "three")))
    asked: list[str] = []

    def deliver(destination: ServiceDestination, group: GroupKey, *rest: Any) -> Result:
        asked.append(group.rpartition("/")[2])
        return NotYet("mid-update", timedelta(minutes=1)) if asked == ["one"] else DELIVER(destination, group, *rest)

    monkeypatch.setattr(ServiceDestination, "deliver", deliver)
    bench.done()
    assert asked == ["one", "two", "three", "one"]


def test_two_hundred_services_are_delivered_a_few_at_a_time_and_told_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench("many")
    bench.use(*stacked(bench, "a", services=tuple(f"s{n}" for n in range(200))))
    slow = Slow(bench, 10, timedelta(seconds=5))

    def deliver(destination: ServiceDestination, group: GroupKey, *rest: Any) -> Result:
        return slow.deliver(destination, group, *rest)

    monkeypatch.setattr(ServiceDestination, "deliver", deliver)
    bench.done()
    assert (len(slow.order), slow.most) == (200, 10)
    told = [event.text for event in bench.events if event.step == "deliver" and " of 200: " in event.text]
    assert told[0].startswith("1 of 200: ")
    assert told[-1].startswith("200 of 200: ")
    # Journalled once for each time that it slept, not for each service; and few are asked in vain.
    assert bench.calls("store.commit") < 2 * 100 + 20
    assert slow.put_off <= 8 * 100


def test_a_consumer_is_touched_only_when_those_before_it_in_the_order_run_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench("in-order")
    services, order = ("worker", "web", "gateway", "mail"), ("gateway", "web")
    bench.use(bench.make.overlap("a", bench.make.service("stack", services=services, order=order)))
    seen: list[str] = []

    def deliver(destination: ServiceDestination, group: GroupKey, *rest: Any) -> Result:
        seen.append(f"deliver {group.rpartition('/')[2]}")
        return DELIVER(destination, group, *rest)

    def confirm(destination: ServiceDestination, group: GroupKey, *rest: Any) -> Confirmation:
        service = group.rpartition("/")[2]
        seen.append(f"confirm {service}")
        young = seen.count(f"confirm {service}") == 1
        return NotYet("starting", timedelta(seconds=5)) if young else CONFIRM(destination, group, *rest)

    monkeypatch.setattr(ServiceDestination, "deliver", deliver)
    monkeypatch.setattr(ServiceDestination, "confirm", confirm)
    bench.done()
    assert seen[: seen.index("deliver mail") + 1] == [
        "deliver gateway",
        "confirm gateway",
        "confirm gateway",
        "deliver web",
        "confirm web",
        "confirm web",
        "deliver worker",
        "deliver mail",
    ]


def test_a_first_one_in_the_order_that_fails_saves_all_the_others() -> None:
    bench = Bench("in-order-fails")
    bench.use(bench.make.overlap("a", bench.make.service("stack", services=("web", "canary"), order=("canary",))))
    bench.done()
    bench.world.state["stack"]["broken"] = {"canary": dict(bench.running("stack", "canary"))}
    before = bench.calls("stack.deliver")
    rotation = bench.one("a")
    assert (rotation.state, rotation.cause) == (State.ROLLED_BACK, Cause.DELIVERY)
    assert bench.calls("stack.deliver") - before == 1 + 2  # the canary; and both on the way back
    assert bench.running("stack", "canary") == bench.running("stack", "web")


def test_one_in_the_order_that_never_shows_itself_goes_back_in_time() -> None:
    bench = Bench("in-order-slow")
    bench.use(bench.make.overlap("a", bench.make.service("stack", services=("web", "canary"), order=("canary",))))
    bench.done()
    slow = NotYet("starting", timedelta(seconds=30))
    started = bench.clock.now()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServiceDestination, "confirm", lambda *_call: slow)
        rotation = bench.one("a", wait=timedelta(minutes=5))
    assert rotation.cause is Cause.CONFIRM_TIMEOUT
    assert bench.clock.now() - started < timedelta(minutes=6)
    assert bench.running("stack", "web") == bench.running("stack", "canary")


def test_going_back_reaches_everybody_however_the_first_one_takes_it() -> None:
    bench = Bench("in-order-back")
    bench.use(bench.make.overlap("a", bench.make.service("stack", services=("web", "canary"), order=("canary",))))
    bench.done()
    bench.world.state["stack"]["broken"] = {"canary": {"": b"nothing suits it"}}
    rotation = bench.one("a")
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.DELIVERY)
    assert bench.running("stack", "web") == {"": b"app:" + bench.version("a", 1).fields["password"].reveal()}


def test_a_consumer_that_runs_on_neither_value_parks_and_says_what_works_where() -> None:
    bench = Bench("neither")
    bench.use(*stacked(bench, "a", services=("one", "two")))
    bench.done()
    bench.world.state["stack"]["broken"] = {"two": {"a": b"nothing suits it"}}
    (report,) = bench.rotate("a")
    rotation = report.rotation
    assert rotation is not None
    assert (rotation.state, rotation.cause, report.exit_code) == (State.PARKED, Cause.DELIVERY, 6)
    assert bench.accepted("a") == {1, 2}
    assert report.error is not None
    assert report.error.why == "two: exits after start"
    assert report.error.works == "v1 (old): the target accepts it, v2 (new) may be refused"
    assert bench.running("stack", "one") == {"a": b"app:" + bench.version("a", 1).fields["password"].reveal()}


def test_a_consumer_that_reads_at_its_first_start_is_put_back_with_the_others() -> None:
    """A confirm that went back in the middle of the groups must not count the rest as delivered."""
    bench = Bench("first-start")
    make = bench.make
    kept = make.to("sim_file", "kept", {"": "{password}"}, read=Read.FIRST_START)
    bench.use(make.overlap("a", make.service("stack", {"": "{password}"}), kept))
    bench.done()
    before = dict(bench.running("kept"))
    bench.world.state["stack"]["broken"] = {"app": dict(bench.running("stack"))}
    assert bench.one("a").state is State.ROLLED_BACK
    assert bench.running("kept") == before
