"""What is particular to one strategy, seen from outside: targets, consumers, kept values."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine.preview import Gap, preview
from vaultkeeper.errors import RotationFailed
from vaultkeeper.model.outcome import Failed, No
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, State, Step, Waiting
from vaultkeeper.model.secret import Strategy
from vaultkeeper.testing.faults import Fault, Faults, Goes, SimulatedKill
from vaultkeeper.testing.simulators.service import ServiceDestination


def value(bench: Bench, name: str, number: int) -> bytes:
    fields = bench.version(name, number).fields
    return fields["token" if "token" in fields else "password"].reveal()


def previous(bench: Bench, service: str = "app") -> list[bytes]:
    return [key for key in bench.running("keyring", service)["previous"].split(b",") if key]


# ------------------------------------------------------------------------------------------------------------- single


def planned_gap(bench: Bench) -> Gap | None:
    (plan,) = preview(["s"], bench.parts(), ask_servers=False)
    return plan.gap


@pytest.mark.parametrize("fails", [False, True])
def test_the_gap_is_stated_in_the_plan_and_measured_forward_and_back(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    bench = Bench(f"gap-{fails}")
    bench.use(bench.make.single("s", bench.make.service("v")))
    assert planned_gap(bench) is None  # nobody has a value yet
    bench.done()
    assert bench.newest("s").gap is None
    assert planned_gap(bench) == Gap(None)
    confirm, slow, answers = ServiceDestination.confirm, timedelta(seconds=7), list[Failed]()
    if fails:
        answers.append(Failed("app", "sick"))

    def slowly(*arguments: Any) -> Any:
        bench.clock.advance(slow)
        return answers.pop() if answers else confirm(*arguments)

    monkeypatch.setattr(ServiceDestination, "confirm", slowly)
    rotation = bench.one("s", wait=timedelta(minutes=5))
    assert rotation.state is (State.ROLLED_BACK if fails else State.DONE)
    assert rotation.gap is not None
    assert rotation.gap >= slow * (2 if fails else 1)
    assert planned_gap(bench) == Gap(None if fails else rotation.gap)


@pytest.mark.parametrize("strategy", ["overlap", "alternating"])
def test_where_nobody_is_cut_off_no_gap_is_stated_or_measured(strategy: str) -> None:
    bench = Bench(f"no-gap-{strategy}")
    bench.use(getattr(bench.make, strategy)("s", bench.make.service("v")))
    bench.done()
    bench.one("s", wait=timedelta(minutes=5))
    assert (planned_gap(bench), bench.newest("s").gap) == (None, None)


# ------------------------------------------------------------------------------------------------------ previous_keys


def test_a_new_key_is_in_every_fallback_list_before_anybody_writes_with_it() -> None:
    bench = Bench("keys-rounds")
    bench.use(bench.make.keys("k", "keyring", ("web", "worker")))
    bench.done()
    seen: list[dict[str, tuple[bytes, bytes]]] = []

    class Recording(Faults):
        def strike(self, hook: str) -> Fault | None:
            if hook == "keyring.confirm":
                consumers = bench.world.consumers("keyring")
                seen.append({name: (slots["key"], slots["previous"]) for name, slots in consumers.items()})
            return super().strike(hook)

    bench.world.faults = Recording()
    bench.done()
    old, new = value(bench, "k", 1), value(bench, "k", 2)
    assert {"web": (old, new), "worker": (old, new)} in seen
    assert seen[-1] == {"web": (new, old), "worker": (new, old)}
    assert bench.world.unreadable("keyring") == []


def test_every_earlier_key_stays_in_the_list() -> None:
    bench = Bench("keys-kept")
    bench.use(bench.make.keys("k", "keyring"))
    for _ in range(4):
        bench.done()
    assert previous(bench) == [value(bench, "k", number) for number in (3, 2, 1)]
    assert bench.world.unreadable("keyring") == []


def test_a_key_that_was_promoted_and_taken_back_stays_in_the_list_for_good() -> None:
    """Data may have been encrypted with it in between."""
    bench = Bench("keys-promoted")
    bench.use(bench.make.keys("k", "keyring"))
    bench.done()
    bench.faults.script = [Fault("keyring.confirm", Goes.REFUSED, call=3)]
    assert bench.one("k").state is State.ROLLED_BACK
    assert bench.running("keyring")["key"] == value(bench, "k", 1)
    assert previous(bench) == [value(bench, "k", 2)]
    bench.done()
    assert set(previous(bench)) == {value(bench, "k", 1), value(bench, "k", 2)}
    assert bench.world.unreadable("keyring") == []


def test_a_first_key_that_was_taken_back_comes_again_in_the_list_of_the_next() -> None:
    bench = Bench("keys-first")
    bench.use(bench.make.keys("k", "keyring"))
    bench.faults.script = [Fault("keyring.confirm", Goes.REFUSED)]
    assert bench.one("k").state is State.ROLLED_BACK
    bench.done()
    assert previous(bench) == [value(bench, "k", 1)]


# ----------------------------------------------------------------------------------------------------------------- via


@pytest.mark.parametrize("carrier", ["sim_file", "sim_service"])
def test_a_checker_behind_a_destination_accepts_both_before_any_consumer_changes(carrier: str) -> None:
    bench = Bench(f"via-{carrier}")
    bench.use(bench.make.via("v", Strategy.OVERLAP, carrier, bench.make.file("f", {"": "{password}"})))
    bench.done()
    bench.rotate("v", wait=timedelta(0))
    assert bench.newest("v").waiting is Waiting.GRACE
    assert bench.accepted("v") == {1, 2}
    assert bench.running("f") == {"": value(bench, "v", 2)}
    bench.resume()
    assert bench.newest("v").state is State.DONE
    assert bench.accepted("v") == {2}


def test_lines_of_others_in_a_checkers_list_are_kept() -> None:
    bench = Bench("via-foreign")
    bench.use(bench.make.via("v", Strategy.OVERLAP, "sim_file"))
    bench.done()
    held = bench.world.state["list_v"]["running"]["checker"]["list"]
    held["content"] += b"\nsomebody=else"
    bench.done()
    assert bench.running("list_v", "checker")["list"].endswith(b"\nsomebody=else")


def test_a_single_checker_behind_a_destination_is_changed_before_its_consumers() -> None:
    bench = Bench("via-single")
    bench.use(bench.make.via("v", Strategy.SINGLE, "sim_service", bench.make.file("f", {"": "{password}"})))
    bench.done()
    bench.done()
    assert bench.accepted("v") == {2}
    assert bench.running("f") == {"": value(bench, "v", 2)}


# -------------------------------------------------------------------------------------------------------------- minted


def minted(bench: Bench, *, readable: bool = False) -> RotationPolicy:
    return bench.make.minted("m", bench.make.file("f", {"": "{token}"}), target={"readable": readable})


def tokens(bench: Bench) -> list[bytes]:
    return [token["value"] for token in bench.world.state["db_m"]["tokens"].values()]


def test_a_minted_value_is_used_as_soon_as_it_is_made() -> None:
    """Its emptiness before was remembered once."""
    bench = Bench("minted")
    bench.use(minted(bench))
    bench.done()
    assert bench.running("f") == {"": b"minted-token-1"}


@pytest.mark.parametrize(("readable", "made"), [(True, 1), (False, 2)])
def test_an_orphan_is_kept_where_its_value_can_be_read_and_else_deleted(readable: bool, made: int) -> None:
    bench = Bench(f"orphan-{readable}", Fault("db_m.mint", Goes.KILLED_AFTER))
    bench.use(minted(bench, readable=readable))
    with pytest.raises(SimulatedKill):
        bench.rotate()
    bench.resume()
    assert bench.newest("m").state is State.DONE
    assert tokens(bench) == [f"minted-token-{made}".encode()]


def test_going_back_deletes_what_was_minted_and_never_stored() -> None:
    bench = Bench("orphan-back", Fault("db_m.mint", Goes.KILLED_AFTER))
    bench.use(minted(bench))
    with pytest.raises(SimulatedKill):
        bench.rotate()
    assert len(tokens(bench)) == 1
    assert bench.rollback("m").state == "rolled_back"
    assert tokens(bench) == []


def test_the_expiry_on_record_is_the_one_that_the_system_was_given() -> None:
    bench = Bench("expiry", Fault("db_m.mint", Goes.KILLED_AFTER))
    policy = bench.make.minted("m", target={"readable": True}, rotation_period=timedelta(days=30))
    bench.use(policy)
    with pytest.raises(SimulatedKill):
        bench.rotate()
    bench.clock.advance(timedelta(days=2))
    bench.resume()
    (token,) = bench.world.state["db_m"]["tokens"].values()
    assert bench.record("m", 1).expires_at == token["expires_at"]


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_value_refused_three_times_in_a_row_parks() -> None:
    bench = Bench("values")
    bench.use(bench.make.overlap("a", bench.make.file("f")))
    bench.done()
    bench.faults.script = [Fault("db_a.set", Goes.REFUSED, call=0, no=No.VALUE)]
    states = [bench.one("a").state for _ in range(3)]
    assert states == [State.ROLLED_BACK, State.ROLLED_BACK, State.PARKED]
    assert bench.newest("a").cause is Cause.VALUE
    assert bench.accepted("a") == {1}
    assert bench.running("f") == {"": b"app:" + value(bench, "a", 1)}


def test_a_target_that_checks_nothing_is_told_and_never_done() -> None:
    bench = Bench("trusting")
    bench.use(bench.make.single("a"))
    bench.done()
    bench.world.state["db_a"]["trusting"] = True
    rotation = bench.one("a")
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.CHECKS_NOTHING)


def test_a_value_that_is_accepted_as_any_other_would_be_is_not_adopted() -> None:
    bench = Bench("adopting-trust")
    bench.use(bench.make.manual("a"))
    real = bench.made_by_hand("a", "real-value-1234567890")
    bench.world.state["db_a"]["trusting"] = True
    with pytest.raises(RotationFailed, match="accepted, as any other would be"):
        bench.adopt("a", real)
    assert bench.current("a") is None
    bench.world.state["db_a"]["trusting"] = False
    bench.adopt("a", real)
    assert bench.current("a") == 1


def test_a_rollback_version_is_stored_before_it_is_tested() -> None:
    """Without a set in between nothing had made it durable."""
    bench = Bench("tested")
    bench.use(minted(bench))
    bench.done()
    bench.rotate("m", wait=timedelta(0))
    stored: list[int] = []

    class Recording(Faults):
        def strike(self, hook: str) -> Fault | None:
            if hook == "db_m.test":
                stored.append(max(record.number for record in bench.store.versions("m")))
            return super().strike(hook)

    bench.world.faults = Recording()
    assert bench.rollback("m").state == "done"
    assert stored[0] == 3


def test_the_gap_of_single_opens_only_when_every_destination_is_prepared() -> None:
    bench = Bench("barrier")
    make = bench.make
    bench.use(make.single("s", make.service("one"), make.service("two")))
    bench.done()
    order: list[str] = []

    class Recording(Faults):
        def strike(self, hook: str) -> Fault | None:
            order.append(hook)
            return super().strike(hook)

    bench.world.faults = Recording()
    bench.done()
    changing = [hook for hook in order if hook.rpartition(".")[2] in {"prepare", "set", "deliver"}]
    assert changing == ["one.prepare", "two.prepare", "db_s.set", "one.deliver", "two.deliver"]
    between = order[order.index("db_s.set") : order.index("one.deliver")]
    assert [hook.rpartition(".")[2] for hook in between] == ["set", "test", "test"]


def test_a_dependency_finishes_before_its_dependent_draws_a_value() -> None:
    bench = Bench("depends")
    make = bench.make
    bench.use(make.overlap("a", make.file("f")), make.overlap("b", make.file("g"), depends_on=("a",)))
    bench.rotate("b", "a", wait=timedelta(minutes=1))
    steps = [(event.secret, event.step) for event in bench.events if event.text == "done"]
    assert steps.index(("a", Step.FINISH.value)) < steps.index(("b", Step.CREATE.value))


def test_a_dependency_that_is_stuck_is_asked_after_ever_more_rarely() -> None:
    bench = Bench("stuck", Fault("db_a.set", Goes.UNREACHABLE, call=0))
    make = bench.make
    bench.use(make.overlap("a"), make.overlap("b", depends_on=("a",)))
    bench.rotate("a", wait=timedelta(0))
    before = bench.calls("store.commit")
    rotation = bench.one("b", wait=timedelta(days=10))
    assert rotation.waiting is Waiting.DEPENDENCY
    assert rotation.waiting_for == ("a",)
    assert bench.calls("store.commit") - before < 150
