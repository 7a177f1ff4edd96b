"""The simulated systems behave like the systems they stand for, and the switchboard breaks them as told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from vaultkeeper.errors import AlreadyOpen, AuditUnwritable, EnvelopeInvalid, EpochLost, Locked, NotFound, StoreFull
from vaultkeeper.model.outcome import (
    Confirmed,
    Done,
    Failed,
    Held,
    Holds,
    Login,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec, Place, Read, RotationPolicy
from vaultkeeper.model.rotation import Phase, Rotation, State, Step
from vaultkeeper.model.secret import (
    Acceptance,
    Binding,
    Fields,
    GroupKey,
    SecretBytes,
    SecretVersion,
    Slot,
    StagingLabel,
    Strategy,
    VersionRecord,
)
from vaultkeeper.ports import Change, Context, Deadline, DeliveryContext, Destination, Item, Releases, VersionChange
from vaultkeeper.testing.clock import START
from vaultkeeper.testing.faults import Fault, Faults, Goes, SimulatedKill, possible
from vaultkeeper.testing.memory import MemoryEnvelope, MemoryStore
from vaultkeeper.testing.simulators import DESTINATIONS, GENERATORS, TARGETS
from vaultkeeper.testing.world import World

BINDING = Binding(Strategy.OVERLAP, "sim", {}, 1)


class NoCredentials:
    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        raise AssertionError("no simulator needs a credential")


def version(number: int, value: str, username: str | None = None) -> SecretVersion:
    fields = {"password": SecretBytes(value.encode())}
    if username is not None:
        fields["username"] = SecretBytes(username.encode())
    return SecretVersion("s", number, f"id{number}", fields, BINDING, START)


def context(epoch: int = 1, current: SecretVersion | None = None) -> Context:
    return Context("here", "s", epoch, Deadline(1e9), NoCredentials(), current, None)


DELIVERY = DeliveryContext("here", {"s": 1}, Deadline(1e9), NoCredentials())
OLD, NEW = version(1, "old"), version(2, "new")


@pytest.fixture
def world() -> World:
    world = World("w")
    world.system("db")["accounts"] = {"app": [b"old"], "app_a": [b"old"]}
    world.backup("db")
    return world


def target(kind: str, world: World, **settings: object) -> Any:
    return TARGETS[kind].open({"world": world.name, "system": "db", **settings}, 1)


# ------------------------------------------------------------------------------------------------ targets


def test_an_overlap_target_accepts_both_until_one_is_refused_and_keeps_foreign_values(world: World) -> None:
    world.system("db")["accounts"]["app"].append(b"foreign")
    db = target("sim_overlap", world)
    assert db.set([NEW, OLD], [], context()) == Done()
    assert world.accepted("db") >= {("app", b"old"), ("app", b"new"), ("app", b"foreign")}
    assert db.observe([OLD, NEW], context()).foreign == 2  # the other one is app_a's
    db.set([NEW], [OLD], context())
    db.set([NEW], [OLD], context())
    assert db.test(OLD, context()) is Login.REJECTED
    assert db.test(NEW, context()) is Login.ACCEPTED
    assert world.system("db")["accounts"]["app"] == [b"new", b"foreign"]


def test_a_value_that_another_accepted_version_holds_is_never_refused(world: World) -> None:
    twin = version(2, "old")
    for kind in ("sim_overlap", "sim_single"):
        db = target(kind, world)
        assert db.set([twin], [OLD], context()) == Done()
        assert db.test(twin, context()) is Login.ACCEPTED


def test_a_tag_newer_than_the_store_is_refused_and_nothing_is_written(world: World) -> None:
    db = target("sim_overlap", world)
    db.set([version(9, "later")], [], context())
    refused = db.set([NEW], [version(9, "later")], context(epoch=2))
    assert isinstance(refused, Done)  # 9 is known to this store
    refused = db.set([version(3, "stale")], [], context(epoch=2))
    assert isinstance(refused, Refused)
    assert refused.why is No.STALE
    assert not world.accepts("db", version(3, "stale"))


def test_an_old_epoch_is_fenced(world: World) -> None:
    db = target("sim_overlap", world)
    db.set([NEW, OLD], [], context(epoch=2))
    assert isinstance(db.set([NEW], [OLD], context(epoch=1)), Refused)


def test_alternating_users_take_turns_and_the_idle_one_cannot_log_in(world: World) -> None:
    db = target("sim_alternating", world)
    old = version(1, "old", "app_a")
    fields = db.complete({"password": SecretBytes(b"new")}, context(current=old), adopting=False)
    assert fields["username"].text() == "app_b"
    new = replace(NEW, fields=fields)
    db.set([new, old], [], context())
    assert world.serves("db", b"app_a:old")
    assert world.serves("db", b"app_b:new")
    db.set([new], [old], context())
    assert not world.serves("db", b"app_a:old")
    assert db.observe([old, new], context()).answers == {1: Login.REJECTED, 2: Login.ACCEPTED}


def test_a_single_target_takes_one_value(world: World) -> None:
    db = target("sim_single", world)
    assert isinstance(db.set([NEW, OLD], [], context()), Refused)
    db.set([NEW], [OLD], context())
    assert db.test(OLD, context()) is Login.REJECTED
    db.set([OLD], [NEW], context())
    assert db.test(OLD, context()) is Login.ACCEPTED


def test_a_throttling_target_rejects_the_right_value_while_it_is_locked(world: World) -> None:
    db = target("sim_throttling", world)
    for _ in range(3):
        assert db.test(NEW, context()) is Login.REJECTED
    assert db.test(OLD, context()) is Login.REJECTED  # looks like a rejection, is a lock-out
    world.clock.sleep(timedelta(minutes=5))
    assert db.test(OLD, context()) is Login.ACCEPTED


def test_a_decoy_login_does_not_hurt_the_account(world: World) -> None:
    db = target("sim_throttling", world)
    for _ in range(4):
        assert db.test(db.decoy(OLD), context()) is Login.REJECTED
    assert db.test(OLD, context()) is Login.ACCEPTED
    assert db.login_key(db.decoy(OLD)) != db.login_key(OLD)


def test_a_minting_target_finds_its_orphans_and_drops_them_twice(world: World) -> None:
    api, readable = target("sim_minting", world), target("sim_minting", world, readable=True)
    fields, handle = api.mint("id7", None, context())
    assert api.find("id7", context()) == (None, handle)
    assert readable.find("id7", context()) == (fields, handle)
    assert api.mint("id7", None, context()).why is No.CONFLICT
    minted = replace(version(7, ""), fields=fields)
    assert api.test(minted, context()) is Login.ACCEPTED
    assert api.drop(handle, context()) == api.drop(handle, context()) == Done()
    assert api.find("id7", context()) is None
    assert api.test(minted, context()) is Login.REJECTED
    assert isinstance(api.set([minted], [], context()), Refused)  # cannot be made again


def test_a_minted_token_dies_when_it_expires(world: World) -> None:
    api = target("sim_minting", world)
    fields, _ = api.mint("id7", world.clock.now() + timedelta(days=1), context())
    minted = replace(version(7, ""), fields=fields)
    world.clock.sleep(timedelta(days=1))
    assert api.test(minted, context()) is Login.REJECTED


def test_a_checker_reads_its_list_from_the_destination_that_carries_it(world: World) -> None:
    gate = TARGETS["sim_checker"].open(
        {"world": world.name, "system": "gate", "reads": ("gatefile", "collector", "tokens")}, 1
    )
    assert gate.test(NEW, context()) is Login.REJECTED
    rendered = gate.render([NEW, OLD], SecretBytes(b"other=kept\ns=gone"))  # type: ignore[attr-defined]
    assert rendered.reveal() == b"s=new\ns=old\nother=kept"
    deliver("sim_service", world, "gatefile", ["collector"], {"tokens": rendered.reveal()}, NEW)
    assert gate.test(NEW, context()) is gate.test(OLD, context()) is Login.ACCEPTED


def test_a_target_that_trusts_everybody_accepts_a_wrong_value(world: World) -> None:
    world.system("db")["trusting"] = True
    assert target("sim_overlap", world).test(version(3, "wrong"), context()) is Login.ACCEPTED


# ------------------------------------------------------------------------------------------------ destinations


def items(
    kind: str, world: World, system: str, services: list[str], contents: Mapping[str, bytes], carried: SecretVersion
) -> tuple[Destination, dict[GroupKey, list[Item]]]:
    settings: dict[str, object] = {"world": world.name, "system": system}
    if kind != "sim_clients":
        settings["services"] = services
    spec = DestinationSpec(kind, dict.fromkeys(contents, "{password}"), Read.AT_START, settings)
    destination = DESTINATIONS[kind].open()
    spots = destination.spots(spec, DELIVERY)
    assert not isinstance(spots, Unknown)
    groups: dict[GroupKey, list[Item]] = {}
    for spot in spots:
        content = SecretBytes(contents[spot.value])
        groups.setdefault(spot.group, []).append(Item(spot.slot, spec, "s", carried, content, (NEW, OLD)))
    return destination, groups


def deliver(
    kind: str, world: World, system: str, services: list[str], contents: Mapping[str, bytes], carried: SecretVersion
) -> tuple[Destination, dict[GroupKey, list[Item]]]:
    destination, groups = items(kind, world, system, services, contents, carried)
    for group, wanted in groups.items():
        prepared = destination.prepare(group, wanted, DELIVERY)
        assert isinstance(prepared, Prepared)
        groups[group] = [replace(item, receipt=prepared.receipts[item.slot]) for item in wanted]
        assert destination.deliver(group, groups[group], DELIVERY) == Done()
    return destination, groups


@pytest.mark.parametrize("kind", ["sim_file", "sim_service", "sim_keyring_app"])
def test_a_first_delivery_goes_back_from_its_receipt_to_nothing(world: World, kind: str) -> None:
    destination, groups = deliver(kind, world, "app", ["api"], {"key": b"new"}, NEW)
    ((group, (item,)),) = groups.items()
    assert world.consumers("app") == {"api": {"key": b"new"}}
    assert destination.observe(group, [item], DELIVERY) == {Slot("key"): Held(2)}
    back = replace(item, primary=None, content=None)
    assert destination.deliver(group, [back], DELIVERY) == Done()
    assert world.consumers("app") == {"api": {}}


def test_preparing_shows_consumers_nothing_and_a_release_closes_the_rollback_path(world: World) -> None:
    deliver("sim_service", world, "app", ["api"], {"db": b"old"}, OLD)
    service, groups = items("sim_service", world, "app", ["api"], {"db": b"new"}, NEW)
    ((group, wanted),) = groups.items()
    service.prepare(group, wanted, DELIVERY)
    assert world.consumers("app") == {"api": {"db": b"old"}}
    service.deliver(group, wanted, DELIVERY)
    assert service.holds(group, NEW, wanted[0], DELIVERY) is Holds.RUNNING
    assert service.holds(group, OLD, wanted[0], DELIVERY) is Holds.ROLLBACK_PATH
    assert isinstance(service, Releases)
    assert service.release(group, OLD, wanted[0], DELIVERY) == service.release(group, OLD, wanted[0], DELIVERY)
    assert service.holds(group, OLD, wanted[0], DELIVERY) is Holds.NOTHING
    assert list(world.system("app")["objects"]) == [f"{group}|db|id2"]


def test_one_failing_member_of_a_delivery_fails_alone(world: World) -> None:
    deliver("sim_service", world, "app", ["api", "worker"], {"db": b"old"}, OLD)
    world.system("app")["broken"] = {"worker": {"db": b"old"}}
    service, groups = deliver("sim_service", world, "app", ["api", "worker"], {"db": b"new"}, NEW)
    answers = {group: service.confirm(group, wanted, DELIVERY) for group, wanted in groups.items()}
    assert answers == {
        "sim_service:app/api": Confirmed(Proof.DEMONSTRATED),
        "sim_service:app/worker": Failed("worker", "exits after start"),
    }


def test_data_written_with_a_dropped_key_is_unreadable(world: World) -> None:
    deliver("sim_keyring_app", world, "app", ["api"], {"key": b"old", "previous": b""}, OLD)
    deliver("sim_keyring_app", world, "app", ["api"], {"key": b"old", "previous": b"new"}, OLD)
    deliver("sim_keyring_app", world, "app", ["api"], {"key": b"new", "previous": b"old"}, NEW)
    assert world.unreadable("app") == []
    deliver("sim_keyring_app", world, "app", ["api"], {"key": b"new", "previous": b""}, NEW)
    assert world.unreadable("app") == [("api", b"old")]


def test_promoting_a_key_before_all_services_know_it_is_seen(world: World) -> None:
    deliver("sim_keyring_app", world, "app", ["api", "worker"], {"key": b"old", "previous": b""}, OLD)
    deliver("sim_keyring_app", world, "app", ["api"], {"key": b"new", "previous": b"old"}, NEW)
    assert world.unreadable("app") == [("worker", b"new")]


def test_clients_are_waited_for_by_name_until_they_have_been_online(world: World) -> None:
    clients, groups = deliver("sim_clients", world, "fleet", [], {"": b"new"}, NEW)
    ((group, wanted),) = groups.items()
    waiting = clients.confirm(group, wanted, DELIVERY)
    assert isinstance(waiting, NotYet)
    assert waiting.waiting_for == ("laptop",)
    assert not clients.puts_back
    world.clock.sleep(timedelta(days=3))
    assert clients.confirm(group, wanted, DELIVERY) == Confirmed(Proof.DEMONSTRATED)
    assert world.consumers("fleet") == {"desktop": {"": b"new"}, "laptop": {"": b"new"}}


def test_the_counter_generator_never_repeats_and_keeps_to_its_alphabet(world: World) -> None:
    counter = GENERATORS["sim_counter"]()
    settings = {"world": world.name, "system": "gen"}
    values = [counter.generate(settings, frozenset("abc"), None)["password"].text() for _ in range(50)]
    assert len(set(values)) == 50
    assert set("".join(values)) <= counter.alphabet(settings) - frozenset("abc")


# ------------------------------------------------------------------------------------------------ faults


def struck(world: World, *script: Fault) -> Any:
    world.faults = Faults(script)
    return target("sim_overlap", world)


def test_a_kill_before_leaves_the_world_alone_and_a_kill_after_does_not(world: World) -> None:
    db = struck(world, Fault("db.set", Goes.KILLED_BEFORE, 1), Fault("db.set", Goes.KILLED_AFTER, 2))
    with pytest.raises(SimulatedKill):
        db.set([NEW], [], context())
    assert not world.accepts("db", NEW)
    with pytest.raises(SimulatedKill):
        db.set([NEW], [], context())
    assert world.accepts("db", NEW)


def test_a_lost_reply_did_happen_and_a_refusal_did_not(world: World) -> None:
    db = struck(world, Fault("set", Goes.REFUSED, 1, No.CAPACITY), Fault("set", Goes.LOST_REPLY, 2))
    assert db.set([NEW], [], context()).why is No.CAPACITY
    assert not world.accepts("db", NEW)
    assert isinstance(db.set([NEW], [], context()), Unknown)
    assert world.accepts("db", NEW)


@pytest.mark.parametrize(("goes", "login"), [(Goes.UNREACHABLE, Login.UNREACHABLE), (Goes.THROTTLED, Login.THROTTLED)])
def test_an_absent_system_answers_each_hook_in_its_own_type(world: World, goes: Goes, login: Login) -> None:
    db = struck(world, *(Fault(hook, goes, call=0) for hook in ("set", "test", "observe", "check")))
    assert db.test(OLD, context()) is login
    assert db.set([NEW], [], context()).reason is login
    assert db.observe([OLD], context()).reason is login
    assert db.check(context())[0].level == "unchecked"
    assert not world.accepts("db", NEW)


def test_a_restored_target_knows_only_what_its_backup_knew(world: World) -> None:
    db = struck(world, Fault("db.observe", Goes.RESTORED))
    db.set([NEW], [OLD], context())
    answers = db.observe([OLD, NEW], context()).answers
    assert answers == {1: Login.ACCEPTED, 2: Login.REJECTED}


def test_a_destination_is_struck_by_its_systems_name(world: World) -> None:
    world.faults = Faults([Fault("app.deliver", Goes.UNREACHABLE)])
    service, groups = items("sim_service", world, "app", ["api"], {"db": b"new"}, NEW)
    ((group, wanted),) = groups.items()
    assert service.deliver(group, wanted, DELIVERY) == Unknown(Login.UNREACHABLE, "simulated: unreachable")
    assert service.deliver(group, wanted, DELIVERY) == Done()
    assert world.faults.log == ["app.spots", "app.deliver", "app.deliver"]


def test_only_writing_hooks_can_be_refused_or_lose_their_reply() -> None:
    assert Goes.LOST_REPLY in possible("db.set")
    assert Goes.LOST_REPLY not in possible("db.test")
    assert possible("store.commit") == (Goes.KILLED_BEFORE, Goes.KILLED_AFTER)


def test_a_world_that_was_put_back_is_the_same_world(world: World) -> None:
    before, key = world.snapshot(), world.key()
    target("sim_overlap", world).set([NEW], [OLD], context())
    assert world.key() != key
    world.restore(before)
    assert world.key() == key


# ------------------------------------------------------------------------------------------------ store, envelope


def rotation(name: str = "r1", secret: str = "s") -> Rotation:
    policy = RotationPolicy(secret, Place("p.yaml"))
    return Rotation(name, secret, policy, (Phase(Step.OBSERVE), Phase(Step.CREATE)), START, START)


def record(number: int) -> VersionRecord:
    return VersionRecord("s", number, f"id{number}", BINDING, START, b"sealed")


def test_a_store_has_one_open_rotation_per_secret() -> None:
    store = MemoryStore()
    first = store.open_rotation(rotation(), Change())
    with pytest.raises(AlreadyOpen):
        store.open_rotation(rotation("r2"), Change())
    with pytest.raises(AlreadyOpen):
        store.amend("s", Change())
    store.open_rotation(rotation("r3", "other"), Change())
    store.commit(Change(rotation=replace(first, state=State.DONE)))
    assert store.open_rotation(rotation("r2"), Change()).epoch > first.epoch
    assert [r.id for r in store.rotations("s")] == ["r2", "r1"]


def test_a_rotation_can_supersede_its_predecessor_in_one_transaction() -> None:
    store = MemoryStore()
    first = store.open_rotation(rotation(), Change())
    store.open_rotation(rotation("r2"), Change(rotation=replace(first, state=State.DONE, superseded=True)))
    assert [r.id for r in store.open_rotations()] == ["r2"]


def test_a_rotation_taken_over_fences_its_earlier_holder() -> None:
    store = MemoryStore()
    mine = store.open_rotation(rotation(), Change())
    theirs = store.reopened().take("r1")
    with pytest.raises(EpochLost):
        store.commit(Change(rotation=replace(mine, at=1)))
    store.commit(Change(rotation=replace(theirs, at=1)))
    assert store.rotation("r1").at == 1


def test_a_change_is_applied_whole_or_not_at_all() -> None:
    store = MemoryStore(faults=Faults([Fault("store.commit", Goes.REFUSED, 1), Fault("commit", Goes.KILLED_AFTER, 2)]))
    opened = store.open_rotation(rotation(), Change())
    change = Change(replace(opened, at=1), record(1), {1: VersionChange(verified=True)}, {StagingLabel.PENDING: 1})
    with pytest.raises(StoreFull):
        store.commit(change)
    assert (store.rotation("r1").at, store.versions("s"), store.labels("s")) == (0, (), {})
    with pytest.raises(SimulatedKill):
        store.commit(change)
    assert store.rotation("r1").at == 1
    assert store.versions("s") == (replace(record(1), verified=True),)
    assert store.labels("s") == {StagingLabel.PENDING: 1}


def test_facts_that_are_not_given_stay_and_a_label_can_be_taken_away() -> None:
    store = MemoryStore()
    store.amend("s", Change(new_version=record(1), labels={StagingLabel.CURRENT: 1}))
    store.amend("s", Change(facts={1: VersionChange(acceptance=Acceptance.ACCEPTED)}))
    store.amend("s", Change(facts={1: VersionChange(compromised=True)}, labels={StagingLabel.CURRENT: None}))
    assert store.versions("s") == (replace(record(1), acceptance=Acceptance.ACCEPTED, compromised=True),)
    assert store.labels("s") == {}


def test_numbers_are_never_reused_except_by_a_restored_store() -> None:
    store = MemoryStore()
    backup = store.snapshot()
    assert [store.next_number("s"), store.next_number("s", at_least=7)] == [1, 7]
    store.amend("s", Change(new_version=record(8)))
    store.forget("s")
    assert store.next_number("s") == 9
    store.restore(backup)
    assert store.next_number("s") == 1


def test_a_change_with_an_unknown_version_changes_nothing() -> None:
    store = MemoryStore()
    opened = store.open_rotation(rotation(), Change())
    with pytest.raises(NotFound):
        store.commit(Change(replace(opened, at=1), record(1), {9: VersionChange(verified=True)}))
    assert (store.rotation("r1"), store.versions("s")) == (opened, ())


def test_an_open_rotation_is_not_forgotten_nor_a_labelled_value_discarded() -> None:
    store = MemoryStore()
    store.amend("s", Change(new_version=record(1)))
    store.amend("s", Change(new_version=record(2), labels={StagingLabel.CURRENT: 2}))
    store.discard_sealed("s", [1, 2])
    assert [version.sealed for version in store.versions("s")] == [None, b"sealed"]
    store.open_rotation(rotation(), Change())
    with pytest.raises(AlreadyOpen):
        store.forget("s")


def test_a_clock_that_was_set_back_does_not_block_an_account_for_ever() -> None:
    store, budget = MemoryStore(), (1, timedelta(minutes=5))
    store.spend_login("a", "host", budget, START + timedelta(days=3000))
    assert store.spend_login("a", "host", budget, START) is None


def test_a_lock_is_exclusive_and_a_kill_frees_it() -> None:
    store = MemoryStore()

    def die_holding_it() -> None:
        with store.hold("secret:s"):
            with pytest.raises(Locked), store.reopened().hold("secret:s"):
                pass
            raise SimulatedKill

    with pytest.raises(SimulatedKill):
        die_holding_it()
    with store.hold("secret:s"):
        pass


def test_failed_logins_are_charged_to_the_account_and_the_address() -> None:
    store, budget = MemoryStore(), (2, timedelta(minutes=5))
    assert store.spend_login("a", "host", budget, START) is None
    assert store.spend_login("b", "host", budget, START + timedelta(minutes=1)) is None
    assert store.spend_login("c", "host", budget, START + timedelta(minutes=2)) == timedelta(minutes=3)
    store.refund_login("b", "host")
    assert store.failed_logins("a", "host", budget[1], START + timedelta(minutes=2)) == 1
    assert store.spend_login("c", "host", budget, START + timedelta(minutes=2)) is None
    assert store.failed_logins("a", "host", budget[1], START + timedelta(minutes=9)) == 0


def test_an_unwritable_audit_log_says_so() -> None:
    store = MemoryStore()
    store.audit({"event": "one"})
    store.audit_unwritable = True
    with pytest.raises(AuditUnwritable):
        store.audit({"event": "two"})
    assert store.disk.audit == ({"event": "one"},)


@pytest.mark.parametrize(
    ("installation", "secret", "bound_to"), [("there", "s", "1:id1"), ("here", "t", "1:id1"), ("here", "s", "2:id1")]
)
def test_an_envelope_opens_only_as_what_it_was_sealed_for(installation: str, secret: str, bound_to: str) -> None:
    sealed = MemoryEnvelope("here").seal(NEW.fields, secret="s", bound_to="1:id1")
    assert b"new" not in sealed
    assert MemoryEnvelope("here").open(sealed, secret="s", bound_to="1:id1") == NEW.fields
    with pytest.raises(EnvelopeInvalid):
        MemoryEnvelope(installation).open(sealed, secret=secret, bound_to=bound_to)
