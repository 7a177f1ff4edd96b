"""Every contract test is seen to fail: back ends that are wrong in one way each, and the test that must notice."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.contract.test_simulators import ServicePlace, SeveralValues, SimulatedServer
from vaultkeeper.model.outcome import (
    Confirmed,
    Done,
    Finding,
    Held,
    Holds,
    Login,
    Observation,
    Prepared,
    Proof,
    Receipt,
    Refused,
)
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import Fields, GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import Context, DeliveryContext, Item, Spot
from vaultkeeper.testing.contract import DestinationContract, GeneratorContract, TargetContract
from vaultkeeper.testing.servers import LOST_REPLY, SILENT, UNREACHABLE, Account
from vaultkeeper.testing.simulators.alternating import AlternatingTarget
from vaultkeeper.testing.simulators.base import SimulatedDestination, SimulatedTarget
from vaultkeeper.testing.simulators.counter import CounterGenerator
from vaultkeeper.testing.simulators.file import FileDestination
from vaultkeeper.testing.simulators.minting import MintingTarget
from vaultkeeper.testing.simulators.overlap import OverlapTarget
from vaultkeeper.testing.simulators.service import ServiceDestination
from vaultkeeper.testing.simulators.throttling import ThrottlingTarget
from vaultkeeper.testing.world import State, World, secret_value

# ------------------------------------------------------------------------------------------------ targets


class CheckSpoils(OverlapTarget):
    def check(self, ctx: Context) -> Any:
        self.accounts.clear()
        return []


class Renames(OverlapTarget):
    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return {**given, "username": SecretBytes(b"somebody")}


class PicksAtRandom(AlternatingTarget):
    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        if adopting:
            return given
        turn = self.state["turn"] = self.state.get("turn", 0) + 1
        return {**given, "username": SecretBytes(self.settings.users[turn % 2].encode())}


class OnlyTheFirst(OverlapTarget):
    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        self.accounts.clear()
        return super().set(accept[:1], refuse, ctx)


class Appends(OverlapTarget):
    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        done = super().set(accept, refuse, ctx)
        self.state["writes"] = self.state.get("writes", 0) + 1
        self.accounts[self.settings.user].append(b"another %d" % self.state["writes"])
        return done


class NeverRefuses(OverlapTarget):
    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        return super().set(accept, [], ctx)


class MissesAbsent(OverlapTarget):
    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        for version in refuse:
            self.accounts[self.pair(version)[0]].remove(secret_value(version))
        return super().set(accept, refuse, ctx)


class RefusesTwins(OverlapTarget):
    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        done = super().set(accept, refuse, ctx)
        for account, value in map(self.pair, refuse):
            self.accounts[account] = [v for v in self.accounts[account] if v != value]
        return done


class TidiesUp(OverlapTarget):
    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        done = super().set(accept, refuse, ctx)
        for account, values in self.accounts.items():
            self.accounts[account] = [v for v in values if v in map(secret_value, accept)]
        return done


class CutsValues(OverlapTarget):
    def pair(self, version: SecretVersion) -> tuple[str, bytes]:
        account, value = super().pair(version)
        return account, value.split(b"#")[0]


class TakesLineBreaks(OverlapTarget):
    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        done = super().set(accept, refuse, ctx)
        return Done() if isinstance(done, Refused) else done


class Trusting(OverlapTarget):
    def test(self, version: SecretVersion, ctx: Context) -> Login:
        return Login.ACCEPTED


class Remembers(OverlapTarget):
    def test(self, version: SecretVersion, ctx: Context) -> Login:
        known = self.state.setdefault("known", [])
        known.extend(secret_value(version) for _ in range(super().test(version, ctx) is Login.ACCEPTED))
        return Login.ACCEPTED if secret_value(version) in [*known, b""] else super().test(version, ctx)


class ObservesTheStore(OverlapTarget):
    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        return replace(super().observe(candidates, ctx), answers={v.number: Login.ACCEPTED for v in candidates})


class TellsMore(OverlapTarget):
    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        seen = super().observe(candidates, ctx)
        return replace(seen, answers={**seen.answers, 77: Login.REJECTED})


class ChargesTheValue(OverlapTarget):
    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return secret_value(version).decode(), self.home


class HurtsItself(ThrottlingTarget):
    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return version


class Untagged(OverlapTarget):
    def stale(self, versions: Sequence[SecretVersion], ctx: Context) -> Refused | None:
        return None


class EpochBlind(OverlapTarget):
    def stale(self, versions: Sequence[SecretVersion], ctx: Context) -> Refused | None:
        return super().stale(versions, replace(ctx, epoch=1))


class LosesOrphans(MintingTarget):
    def find(self, version_id: str, ctx: Context) -> Any:
        return None


class ClosesTheAccount(AlternatingTarget):
    def disconnect(self, version: SecretVersion, ctx: Context) -> Done:
        self.accounts.clear()
        return Done()


class TakesAbsenceForNo(OverlapTarget):
    pass


def _no_for_absent(self: TakesAbsenceForNo, version: SecretVersion, ctx: Context) -> Login:
    said = OverlapTarget.test(self, version, ctx)
    return Login.REJECTED if said is Login.UNREACHABLE else said


TakesAbsenceForNo.test = _no_for_absent  # type: ignore[method-assign, assignment]  # past the fault switchboard, unlike a hook


class QuotesItsArguments(OverlapTarget):
    def test(self, version: SecretVersion, ctx: Context) -> Login:
        raise RuntimeError(f"cannot log in with {secret_value(version)!r}")


class Nameless(OverlapTarget):
    kind = ""


TARGET_CASES: list[tuple[type[SimulatedTarget], str]] = [
    (Nameless, "test_a_kind_describes_itself"),
    (CheckSpoils, "test_check_finds_nothing_to_refuse_and_changes_nothing"),
    (Renames, "test_complete_keeps_what_it_was_given_and_adopts_the_account_as_it_is"),
    (PicksAtRandom, "test_complete_picks_the_same_account_each_time"),
    (OnlyTheFirst, "test_a_new_value_is_accepted_and_the_old_one_beside_it_where_that_can_be"),
    (Appends, "test_setting_twice_equals_setting_once"),
    (NeverRefuses, "test_the_old_value_is_refused_when_it_is_retired_and_again_without_harm"),
    (NeverRefuses, "test_going_back_refuses_the_new_value_and_keeps_the_old"),
    (MissesAbsent, "test_a_value_that_was_never_there_is_refused_already"),
    (RefusesTwins, "test_a_value_that_an_accepted_version_also_holds_is_never_refused"),
    (TidiesUp, "test_other_peoples_credentials_are_kept"),
    (CutsValues, "test_every_character_that_is_not_forbidden_works"),
    (TakesLineBreaks, "test_a_forbidden_character_is_refused_or_works"),
    (Trusting, "test_one_login_tells_right_from_wrong"),
    (Trusting, "test_a_new_connection_is_made_for_each_login"),
    (ObservesTheStore, "test_what_it_observes_is_what_a_login_finds"),
    (TellsMore, "test_only_what_was_asked_is_answered"),
    (ChargesTheValue, "test_a_failed_login_is_charged_to_the_account_and_a_decoy_to_nobody_else"),
    (HurtsItself, "test_a_failed_login_is_charged_to_the_account_and_a_decoy_to_nobody_else"),
    (Untagged, "test_who_wrote_last_is_written_down"),
    (Untagged, "test_a_newer_generation_at_the_target_is_left_alone"),
    (EpochBlind, "test_an_old_epoch_writes_nothing"),
    (LosesOrphans, "test_what_was_minted_is_found_by_name_and_dropped_twice"),
    (ClosesTheAccount, "test_use_is_reported_and_sessions_are_closed_twice"),
    (TakesAbsenceForNo, "test_nobody_there_is_never_taken_for_a_refusal"),
    (QuotesItsArguments, "test_no_answer_and_no_exception_shows_a_value"),
]


def run(contract: Any, test: str, **fixtures: object) -> None:
    """One contract test by hand, with the fixtures that it asks for."""
    method = getattr(contract, test)
    method(**{name: fixtures[name] for name in inspect.signature(method).parameters})


@pytest.mark.parametrize(("broken", "test"), TARGET_CASES, ids=lambda part: getattr(part, "__name__", part))
def test_a_wrong_target_is_noticed(broken: type[SimulatedTarget], test: str, caplog: pytest.LogCaptureFixture) -> None:
    class Suite(TargetContract):
        target = broken  # type: ignore[assignment]  # a Target, as its working parent is
        field = "token" if issubclass(broken, MintingTarget) else "password"
        faults = frozenset({UNREACHABLE})

    server = (SeveralValues if issubclass(broken, OverlapTarget) else SimulatedServer)(broken.__mro__[1].kind)  # type: ignore[attr-defined]
    suite = Suite()
    with pytest.raises(AssertionError):
        run(suite, test, trial=suite.begin(server), caplog=caplog)


def test_every_test_of_the_target_contract_was_seen_to_fail() -> None:
    seen = {test for _, test in TARGET_CASES} | {
        "test_a_silent_server_does_not_outlast_the_deadline",  # below
        "test_a_lost_reply_is_unknown_and_setting_again_settles_it",  # below
        "test_what_only_a_person_changes_is_refused_and_left_as_it_is",  # below
    }
    assert seen == {name for name in vars(TargetContract) if name.startswith("test_")}


class Unfazed(SimulatedServer):
    """Its faults break nothing, so that a target's own wrongness shows."""

    def fault(self, name: str) -> Any:
        return nullcontext()


def test_a_target_that_waits_for_ever_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    class Waits(OverlapTarget):
        def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Any:
            ended.wait()

    class Suite(TargetContract):
        target = Waits
        faults = frozenset({SILENT})

    monkeypatch.setattr("vaultkeeper.testing.contract.trial.PATIENCE_S", 0.1)
    trial = Suite().begin(Unfazed("sim_overlap"))
    with pytest.raises(AssertionError, match="ignored its deadline"):
        run(Suite(), "test_a_silent_server_does_not_outlast_the_deadline", trial=trial)
    ended.set()


def test_a_target_that_takes_a_lost_reply_for_success_is_noticed() -> None:
    class Suite(TargetContract):
        target = OverlapTarget
        faults = frozenset({LOST_REPLY})

    trial = Suite().begin(Unfazed("sim_overlap"))
    with pytest.raises(AssertionError):
        run(Suite(), "test_a_lost_reply_is_unknown_and_setting_again_settles_it", trial=trial)


class ByPeople(SeveralValues):
    """Its values are made and revoked by people."""

    def make(self, account: Account) -> str:
        return self.foreign(account)[1]

    def revoke(self, account: Account, value: str) -> None:
        self.world.system(str(account.settings["system"]))["accounts"][account.username].remove(value.encode())


class Meddles(OverlapTarget):
    """Sets and revokes where only people may."""

    def page(self) -> str:
        return ""

    def misfits(self, names: Sequence[str]) -> Sequence[str]:
        return []

    def faults(self, given: Fields) -> Sequence[str]:
        return []


def test_a_target_that_does_a_persons_work_is_noticed() -> None:
    class Suite(TargetContract):
        target = Meddles

    test = "test_what_only_a_person_changes_is_refused_and_left_as_it_is"
    with pytest.raises(AssertionError):
        run(Suite(), test, trial=Suite().begin(ByPeople("sim_overlap")))


# ------------------------------------------------------------------------------------------------ destinations


class OneSlot(FileDestination):
    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot]:
        return [replace(spot, slot=Slot("same")) for spot in super().spots(spec, ctx)]


class OneGroup(FileDestination):
    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot]:
        return [replace(spot, group=GroupKey("everybody's")) for spot in super().spots(spec, ctx)]


class CheckWrites(FileDestination):
    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        self.deliver(group, [replace(item, content=SecretBytes(b"probe")) for item in items], ctx)
        return []


class PrepareDelivers(FileDestination):
    def prepare(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        done = super().prepare(group, items, ctx)
        self.deliver(group, items, ctx)
        return done


class ReceiptsChange(FileDestination):
    made = 0

    def prepare(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        ReceiptsChange.made += 1
        return Prepared({item.slot: Receipt({"made": ReceiptsChange.made}) for item in items})


class ForgetsReceipts(FileDestination):
    def prepare(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        return super().prepare(group, [replace(item, receipt=None) for item in items], ctx)


class ReceiptsTell(FileDestination):
    def prepare(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        done = super().prepare(group, items, ctx)
        assert isinstance(done, Prepared)
        opened = {slot: Receipt({"was": r.sealed.text() if r.sealed else ""}) for slot, r in done.receipts.items()}
        return Prepared(opened)


class AppendsContent(FileDestination):
    def wanted(self, item: Item) -> State | None:
        wanted = super().wanted(item)
        return {**wanted, "content": wanted["content"] + b"\n"} if wanted else None


class DeliversOnce(FileDestination):
    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        seen = self.state(items[0]).setdefault("seen", [])
        ids = [item.primary.id for item in items if item.primary]
        if ids and ids in seen:
            return Done()
        seen.append(ids)
        return super().deliver(group, items, ctx)


class KeepsFirst(FileDestination):
    def wanted(self, item: Item) -> State | None:
        if item.primary is None:
            return {"content": b"left behind", "version": ""}
        return super().wanted(item)


class Overwrites(FileDestination):
    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        self.state(items[0])["running"].pop(self.service(group), None)
        return super().deliver(group, items, ctx)


class Strips(FileDestination):
    def wanted(self, item: Item) -> State | None:
        wanted = super().wanted(item)
        return {**wanted, "content": wanted["content"].replace(b"$", b"")} if wanted else None


class SeesTheNewest(FileDestination):
    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        return {item.slot: Held(item.accepted[0].number) for item in items}


class Optimist(FileDestination):
    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        return Confirmed(Proof.WRITTEN)


class Boasts(FileDestination):
    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        done = super().confirm(group, items, ctx)
        return Confirmed(Proof.DEMONSTRATED) if isinstance(done, Confirmed) else done


class NeverPatient(FileDestination):
    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        return timedelta(0)


class ReadsItsOwn(FileDestination):
    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | None:
        return item.content


class NeverReleases(ServiceDestination):
    def release(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Done:
        return Done()


class HoldsNothing(ServiceDestination):
    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds:
        return Holds.NOTHING


class ReleasesAll(ServiceDestination):
    def release(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Done:
        self.state(item)["running"].clear()
        return Done()


class ShowsValues(FileDestination):
    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Any:
        return [Finding("ok", f"would write {item.content.text() if item.content else ''}") for item in items]


class Unnamed(FileDestination):
    kind = ""


DESTINATION_CASES: list[tuple[type[SimulatedDestination], str]] = [
    (Unnamed, "test_a_kind_describes_itself"),
    (OneSlot, "test_every_value_has_its_own_slot_and_asking_again_says_the_same"),
    (OneGroup, "test_two_places_never_share_a_slot"),
    (CheckWrites, "test_check_finds_nothing_to_refuse_and_changes_nothing"),
    (PrepareDelivers, "test_preparing_shows_consumers_nothing"),
    (ReceiptsChange, "test_preparing_twice_gives_the_same_receipt"),
    (ForgetsReceipts, "test_a_receipt_is_kept_after_the_delivery_it_belongs_to"),
    (ReceiptsTell, "test_a_receipt_that_must_be_public_is_plain"),
    (AppendsContent, "test_consumers_read_what_was_delivered_and_delivering_twice_changes_nothing"),
    (DeliversOnce, "test_going_back_delivers_the_old_version_again"),
    (KeepsFirst, "test_a_first_delivery_goes_back_to_what_its_receipt_holds"),
    (Overwrites, "test_other_peoples_content_is_kept"),
    (Strips, "test_every_character_that_is_not_forbidden_arrives"),
    (SeesTheNewest, "test_it_observes_which_version_each_slot_holds"),
    (SeesTheNewest, "test_content_of_nobodys_version_is_foreign"),
    (Optimist, "test_nothing_is_confirmed_before_it_is_delivered"),
    (Boasts, "test_a_confirm_is_worth_no_more_than_its_kind_can_prove"),
    (NeverPatient, "test_a_confirm_is_worth_no_more_than_its_kind_can_prove"),
    (ReadsItsOwn, "test_what_is_read_back_is_what_consumers_read"),
    (NeverReleases, "test_a_version_is_held_until_it_is_replaced_and_released"),
    (HoldsNothing, "test_a_version_is_held_until_it_is_replaced_and_released"),
    (ReleasesAll, "test_releasing_a_discarded_version_leaves_the_running_one"),
    (ShowsValues, "test_no_answer_shows_a_value"),
]


@pytest.mark.parametrize(("broken", "test"), DESTINATION_CASES, ids=lambda part: getattr(part, "__name__", part))
def test_a_wrong_destination_is_noticed(
    broken: type[SimulatedDestination], test: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Suite(DestinationContract):
        destination = broken

    suite, place = Suite(), ServicePlace(broken.__mro__[1].kind)  # type: ignore[attr-defined]  # its working parent's
    with pytest.raises(AssertionError):
        run(suite, test, handover=suite.begin(place), place=place, caplog=caplog, first=True)


def test_every_test_of_the_destination_contract_was_seen_to_fail() -> None:
    assert {test for _, test in DESTINATION_CASES} == {n for n in vars(DestinationContract) if n.startswith("test_")}


# ------------------------------------------------------------------------------------------------ generators


class Repeats(CounterGenerator):
    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        return {self.field: SecretBytes(b"always")}


class Strays(CounterGenerator):
    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return frozenset("ab")


class Exaggerates(CounterGenerator):
    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        return 256.0


class IgnoresForbidden(CounterGenerator):
    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        return super().generate(settings, frozenset(), max_bytes)


class IgnoresLimits(CounterGenerator):
    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        return super().generate(settings, forbidden, None)


class Anonymous(CounterGenerator):
    kind = ""


GENERATOR_CASES: list[tuple[type[CounterGenerator], str]] = [
    (Anonymous, "test_a_kind_describes_itself"),
    (Repeats, "test_values_do_not_repeat"),
    (Strays, "test_values_keep_to_the_alphabet"),
    (Exaggerates, "test_no_more_entropy_is_claimed_than_a_value_could_hold"),
    (IgnoresForbidden, "test_forbidden_characters_never_occur_or_the_kind_says_that_it_cannot"),
    (IgnoresLimits, "test_a_value_fits_or_the_kind_says_that_it_cannot"),
]


@pytest.mark.parametrize(("broken", "test"), GENERATOR_CASES, ids=lambda part: getattr(part, "__name__", part))
def test_a_wrong_generator_is_noticed(broken: type[CounterGenerator], test: str) -> None:
    class Suite(GeneratorContract):
        generator = broken
        settings = ({"world": "can-fail", "system": "generator"},)

    world = World("can-fail")
    with pytest.raises(AssertionError):
        run(Suite(), test)
    assert world.name == "can-fail"


def test_every_test_of_the_generator_contract_was_seen_to_fail() -> None:
    assert {test for _, test in GENERATOR_CASES} == {n for n in vars(GeneratorContract) if n.startswith("test_")}
