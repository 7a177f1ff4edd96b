"""Failed logins are spent durably before they are tried, and never more than a target forgives (section 6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine.budget import EVERYWHERE, is_here
from vaultkeeper.engine.preview import preview
from vaultkeeper.errors import BackendError, RotationFailed
from vaultkeeper.model.outcome import Login
from vaultkeeper.model.rotation import Cause, State, Step, Waiting
from vaultkeeper.model.secret import SecretVersion
from vaultkeeper.ports import Change, Context
from vaultkeeper.testing.faults import Fault, Goes, SimulatedKill
from vaultkeeper.testing.simulators.base import Plain
from vaultkeeper.testing.simulators.throttling import LOCKS_AT, WINDOW


def failures(bench: Bench) -> int:
    """The most failed logins of one account within any window, as the target counts them."""
    worst = 0
    for times in bench.world.state["db_t"].get("failures", {}).values():
        for last in times:
            worst = max(worst, sum(last - WINDOW < at <= last for at in times))
    return worst


def throttling(name: str) -> Bench:
    bench = Bench(name)
    bench.use(bench.make.throttling("t", bench.make.file("f")))
    bench.done()
    bench.clock.advance(WINDOW)
    return bench


def test_a_rotation_costs_one_failure() -> None:
    bench = throttling("one")
    bench.world.state["db_t"]["failures"] = {}
    bench.done()
    assert sum(map(len, bench.world.state["db_t"]["failures"].values())) == 1


@pytest.mark.parametrize("call", range(1, 7))
def test_a_crash_at_any_login_never_locks_the_account(call: int) -> None:
    bench = throttling(f"crash-{call}")
    begun = bench.calls("db_t.test")
    bench.faults.script = [Fault("db_t.test", Goes.KILLED_AFTER, call=begun + n) for n in range(1, call + 1)]
    for _ in range(call):
        with pytest.raises(SimulatedKill):
            bench.rotate() if not bench.store.open_rotations() else bench.resume()
        assert failures(bench) < LOCKS_AT
    bench.resume() if bench.store.open_rotations() else bench.done()
    assert bench.newest("t").state is State.DONE
    assert failures(bench) < LOCKS_AT


def test_a_spent_budget_is_waited_for_and_not_tried_every_few_seconds() -> None:
    """It was once: each try spent what the last wait had freed, for ever."""
    bench = throttling("wait")
    bench.store.spend_login("app", "localhost:db_t", (LOCKS_AT - 1, WINDOW), bench.clock.now())
    before = bench.calls("db_t.test")
    bench.done()
    assert bench.calls("db_t.test") - before <= 6
    assert failures(bench) < LOCKS_AT


def test_an_observation_after_a_crash_leaves_the_failure_that_the_test_needs() -> None:
    """It was livelock once: looking spent the one failure of each window, and the control was put off again."""
    bench = throttling("livelock")
    bench.faults.script = [Fault("db_t.set", Goes.KILLED_AFTER, call=bench.calls("db_t.set") + 1)]
    with pytest.raises(SimulatedKill):
        bench.rotate()
    bench.faults.script = [Fault("db_t.test", Goes.THROTTLED, call=bench.calls("db_t.test") + 2)]
    bench.resume(wait=timedelta(0))
    stands = bench.newest("t")
    assert stands.phase is not None
    assert stands.phase.step is Step.TEST
    bench.store.commit(Change(replace(stands, outcome_unknown=True, doubted=True)))  # as a person's resume notes it
    before = bench.calls("db_t.test")
    bench.resume(wait=timedelta(hours=1))
    assert bench.newest("t").state is State.DONE
    assert bench.calls("db_t.test") - before < 10
    assert failures(bench) < LOCKS_AT


def test_three_dead_values_are_told_apart_within_the_budget() -> None:
    """The target forgives two failures per window; what was found rejected is remembered over the wait."""
    bench = throttling("dead")
    bench.done()
    bench.clock.advance(WINDOW)
    bench.world.state["db_t"]["accounts"] = {"app": [b"set by hand"]}
    rotation = bench.one("t", wait=timedelta(hours=1))
    assert (rotation.state, rotation.cause) == (State.AMBIGUOUS, Cause.NONE_ACCEPTED)
    assert failures(bench) < LOCKS_AT


def test_a_rejection_after_a_failure_counts_as_throttled_until_the_window_has_passed() -> None:
    bench = throttling("lockout")
    bench.store.spend_login("app", "localhost:db_t", (LOCKS_AT - 1, WINDOW), bench.clock.now())
    bench.world.state["db_t"]["accounts"] = {"app": [b"set by hand"]}
    rotation = bench.one("t", wait=timedelta(0))
    assert (rotation.state, rotation.waiting) == (State.WAITING, Waiting.THROTTLED)
    assert rotation.not_before is not None
    assert rotation.not_before - bench.clock.now() == WINDOW


# ------------------------------------------------------------------------------------- where no kind says how many


FAR = {"address": "10.0.0.7:5432"}


def far(number: int) -> dict[str, object]:
    """An account of its own, at a server that is not this machine."""
    return {**FAR, "user": f"user{number}"}


class Log:
    """What a server's own log says: when a login failed, by the host that it was tried at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
        self.at: list[datetime] = []
        told = Plain.test

        def test(target: Plain, version: SecretVersion, ctx: Context) -> Login:
            said = told(target, version, ctx)
            if said is Login.REJECTED:
                self.at.append(bench.clock.now())
            return said

        monkeypatch.setattr(Plain, "test", test)

    def worst(self) -> int:
        window = EVERYWHERE[1]
        return max((sum(last - window < at <= last for at in self.at) for last in self.at), default=0)


@pytest.mark.parametrize("strategy", ["overlap", "single"])
def test_many_secrets_of_one_server_never_look_like_an_attack(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """Each is another account; a ban counts what comes from us, whoever it is for."""
    bench = Bench(f"many-{strategy}")
    make = getattr(bench.make, strategy)
    bench.use(*(make(f"s{n}", bench.make.file(f"f{n}"), target=far(n)) for n in range(7)))
    bench.done()
    log = Log(monkeypatch, bench)
    bench.events.clear()
    bench.done()
    assert len(log.at) == {"overlap": 14, "single": 7}[strategy]
    assert log.worst() == EVERYWHERE[0]


def test_the_gap_of_single_is_not_made_longer_by_what_was_paid_before_it() -> None:
    bench = Bench("gap")
    bench.use(*(bench.make.single(f"s{n}", bench.make.file(f"f{n}"), target=far(n)) for n in range(7)))
    bench.done()
    bench.events.clear()
    bench.done()
    put_off = [event.secret for event in bench.events if event.step == "waiting" and "throttled" in event.text]
    assert put_off
    for name in {event.secret for event in bench.events}:
        steps = [event.step for event in bench.events if event.secret == name]
        gap = steps[steps.index("set") : steps.index("deliver")]
        assert "waiting" not in gap


def test_on_this_machine_nobody_is_put_off() -> None:
    bench = Bench("here")
    bench.use(*(bench.make.overlap(f"s{n}", bench.make.file(f"f{n}")) for n in range(7)))
    bench.done()
    bench.events.clear()
    bench.done()
    assert not [event for event in bench.events if "throttled" in event.text]


def test_whoever_changes_its_own_password_is_charged_for_the_login_that_must_fail_first() -> None:
    bench = Bench("own")
    bench.use(bench.make.overlap("s", bench.make.file("f"), target=FAR, grace_period=timedelta(0)))
    target = bench.policies["s"].target
    assert target is not None
    bench.done()
    bench.clock.advance(timedelta(hours=1))
    bench.done()
    window, account, address = EVERYWHERE[1], "app", FAR["address"]
    assert bench.store.failed_logins(account, address, window, bench.clock.now()) == 2
    bench.edit("s", target=replace(target, self_service=True))
    bench.clock.advance(timedelta(hours=1))
    bench.done()
    assert bench.store.failed_logins(account, address, window, bench.clock.now()) == 3


def test_a_wrong_value_is_not_adopted_again_and_again() -> None:
    bench = Bench("adopt")
    bench.use(bench.make.overlap("s", bench.make.file("f"), target=FAR))
    for _ in range(EVERYWHERE[0]):
        with pytest.raises(RotationFailed):
            bench.adopt("s", "wrong")
    with pytest.raises(BackendError, match="could not be asked"):
        bench.adopt("s", "wrong")


def test_a_server_that_does_not_answer_costs_nothing_of_the_budget() -> None:
    bench = Bench("silent")
    bench.use(bench.make.single("s", bench.make.file("f"), target=FAR))
    bench.done()
    bench.clock.advance(timedelta(hours=1))
    bench.faults.script = [Fault("test", Goes.UNREACHABLE, call=0)]
    bench.one("s", wait=timedelta(minutes=5))
    assert bench.store.failed_logins("app", FAR["address"], EVERYWHERE[1], bench.clock.now()) == 0


@pytest.mark.parametrize(
    ("strategy", "more", "expected"),
    [
        ("overlap", {}, ["test: a wrong value", "prove: the old value"]),
        ("alternating", {}, ["prove: the old value"]),  # its protocol proves the server
        ("minted", {}, ["test: a wrong value", "prove: the old value"]),
        ("manual", {}, ["test: a wrong value", "prove: the old value"]),
        ("manual", {"unverified": "nobody can tell"}, []),
        ("single", {}, ["test: the old value"]),
        ("unchecked", {}, None),
    ],
)
def test_a_plan_tells_which_logins_fail_on_purpose(
    strategy: str, more: dict[str, object], expected: list[str] | None
) -> None:
    bench = Bench(f"plan-{strategy}-{len(more)}")
    bench.use(getattr(bench.make, strategy)("s", **more))
    if strategy == "manual":
        bench.adopt("s", bench.made_by_hand("s", "old"))
    else:
        bench.done()
    (plan,) = preview(["s"], bench.parts(), ask_servers=False)
    told = plan.deliberate and [f"{refusal.step.value}: {refusal.of}" for refusal in plan.deliberate.refusals]
    assert told == expected


def test_a_plan_names_the_account_as_its_target_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failures are counted by may be longer: a kind, a path and the name."""
    bench = Bench("plan-account")
    bench.use(bench.make.overlap("s"))
    bench.done()
    monkeypatch.setattr(Plain, "login_key", lambda *_: ("sim_overlap:db_s:app", "localhost"))
    (plan,) = preview(["s"], bench.parts(), ask_servers=False)
    assert plan.deliberate is not None
    assert {refusal.account for refusal in plan.deliberate.refusals} == {"app"}


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("", True), ("local", True), ("/run/postgresql", True), ("127.0.0.1:5432", True), ("[::1]:5432", True),
        ("localhost:80", True), ("localhost", True), ("vk.localhost:80", True),
        ("10.0.0.7:5432", False), ("db.internal:5432", False), ("[fe80::1]:5432", False), ("db", False),
    ],
)  # fmt: skip
def test_what_is_this_machine(address: str, here: bool) -> None:
    assert is_here(address) is here
