"""The contract of every destination: additive prepare, idempotent deliver, a way back, honest looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar

import pytest

from vaultkeeper.model.outcome import Confirmed, Done, Held, Holds, No, NotYet, Prepared, Proof, Refused, Result
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion
from vaultkeeper.ports import Destination, Item, ReadsBack, Releases, Spot
from vaultkeeper.testing.contract.trial import SECRET, Raised, Watch, canary, difficult, version
from vaultkeeper.testing.servers import ReadingPlace, SharesWithForeign

MOST_POLLS = 2000


@dataclass
class Handover:
    """One fresh destination and two versions to carry there."""

    place: ReadingPlace
    destination: Destination
    spec: DestinationSpec
    spots: Sequence[Spot]
    old: SecretVersion
    new: SecretVersion
    watch: Watch = field(default_factory=Watch)

    def items(self, carried: SecretVersion) -> dict[GroupKey, list[Item]]:
        """Every slot carrying `carried`, as the engine would ask for it."""
        groups: dict[GroupKey, list[Item]] = {}
        for spot in self.spots:
            content = SecretBytes(self.content(carried, spot.value))
            item = Item(spot.slot, self.spec, SECRET, carried, content, (self.new, self.old))
            groups.setdefault(spot.group, []).append(item)
        return groups

    def content(self, carried: SecretVersion, name: str) -> bytes:
        """The template applied: its only field."""
        return carried.fields["password"].reveal()

    def prepare(self, groups: Mapping[GroupKey, list[Item]]) -> dict[GroupKey, list[Item]]:
        """The items with their receipts, as the journal keeps them."""
        prepared: dict[GroupKey, list[Item]] = {}
        for group, items in groups.items():
            answer = self.watch.call(lambda g=group, i=items: self.destination.prepare(g, i, self.watch.delivery()))  # type: ignore[misc]
            assert isinstance(answer, Prepared), answer
            assert set(answer.receipts) == {item.slot for item in items}
            prepared[group] = [replace(item, receipt=answer.receipts[item.slot]) for item in items]
        return prepared

    def release(self, group: GroupKey, of: SecretVersion, item: Item) -> Result:
        """What the engine makes of a kind that leaves nothing behind: done."""
        if not isinstance(self.destination, Releases):
            return Done()
        return self.destination.release(group, of, item, self.watch.delivery())

    def deliver(self, groups: Mapping[GroupKey, list[Item]]) -> None:
        for group, items in groups.items():
            answer = self._delivered(group, items)
            for _ in range(MOST_POLLS):
                if not isinstance(answer, NotYet):
                    break
                self.place.pass_time(answer.after)
                answer = self._delivered(group, items)
            assert isinstance(answer, Done), answer

    def _delivered(self, group: GroupKey, items: Sequence[Item]) -> Result | Raised:
        return self.watch.call(lambda: self.destination.deliver(group, items, self.watch.delivery()))

    def hand_over(self, carried: SecretVersion) -> dict[GroupKey, list[Item]]:
        groups = self.prepare(self.items(carried))
        self.deliver(groups)
        self.await_confirmed(groups)
        return groups

    def await_confirmed(self, groups: Mapping[GroupKey, list[Item]]) -> list[Proof]:
        proofs = []
        for group, items in groups.items():
            answer = self.destination.confirm(group, items, self.watch.delivery())
            for _ in range(MOST_POLLS):
                if not isinstance(answer, NotYet):
                    break
                self.place.pass_time(answer.after)
                answer = self.destination.confirm(group, items, self.watch.delivery())
            assert isinstance(answer, Confirmed), answer
            proofs.append(answer.proof)
        return proofs

    def read(self) -> dict[str, bytes | None]:
        """What consumers read, by value name."""
        return {name: self.place.read(self.spec, name) for name in self.spec.values}

    def carrying(self, carried: SecretVersion) -> dict[str, bytes | None]:
        """What they should read then."""
        return {name: self.content(carried, name) for name in self.spec.values}


class DestinationContract:
    """Inherit it, name `destination`, and give a `place`."""

    destination: ClassVar[type[Destination]]
    refuses_some: ClassVar[bool] = False  #: this place cannot carry some values that its kind can; prepare says so

    @pytest.fixture
    def place(self) -> ReadingPlace:
        raise NotImplementedError("give this contract a place")

    @pytest.fixture
    def handover(self, place: ReadingPlace) -> Handover:
        return self.begin(place)

    def begin(self, place: ReadingPlace, *, new: str | None = None) -> Handover:
        """A fresh place with every name that a place can have."""
        spec = place.spec(dict.fromkeys(place.names, "{password}"))
        opened, watch = self.destination.open(), Watch()
        spots = opened.spots(spec, watch.delivery())
        assert isinstance(spots, Sequence)
        values = [SecretBytes(value.encode()) for value in (canary(), new or canary())]
        first, second = (version(number, {"password": value}, "none", {}) for number, value in enumerate(values, 1))
        return Handover(place, opened, spec, spots, first, second, watch)

    # ------------------------------------------------------------------------------------------ what it says of itself

    def test_a_kind_describes_itself(self) -> None:
        assert self.destination.kind
        assert self.destination.codec >= 1
        assert isinstance(self.destination.proof, Proof)
        assert isinstance(self.destination.puts_back, bool)
        assert self.destination.Settings.model_json_schema()["properties"]
        assert self.destination.Settings.model_config.get("frozen")
        assert all(len(character) == 1 for character in self.destination.forbidden)

    def test_every_value_has_its_own_slot_and_asking_again_says_the_same(self, handover: Handover) -> None:
        places = [(spot.group, spot.slot) for spot in handover.spots]
        assert len(set(places)) == len(places)
        assert {spot.value for spot in handover.spots} == set(handover.spec.values)
        assert all(spot.name for spot in handover.spots)
        assert handover.destination.spots(handover.spec, handover.watch.delivery()) == handover.spots

    def test_two_places_never_share_a_slot(self, place: ReadingPlace, handover: Handover) -> None:
        other = self.begin(place)
        mine = {(spot.group, spot.slot) for spot in handover.spots}
        assert mine.isdisjoint((spot.group, spot.slot) for spot in other.spots)

    def test_check_finds_nothing_to_refuse_and_changes_nothing(self, handover: Handover) -> None:
        for carried in (None, handover.old):
            if carried:
                handover.hand_over(carried)
            before = handover.read()
            for group, items in handover.items(handover.new).items():
                bare = [replace(item, content=None) for item in items]
                findings = handover.destination.check(group, bare, handover.watch.delivery())
                assert [finding for finding in findings if finding.level == "refuse"] == []
            assert handover.read() == before

    # ------------------------------------------------------------------------------------------ deliver

    def test_preparing_shows_consumers_nothing(self, handover: Handover) -> None:
        empty = handover.read()
        handover.prepare(handover.items(handover.old))
        assert handover.read() == empty
        handover.hand_over(handover.old)
        handover.prepare(handover.items(handover.new))
        assert handover.read() == handover.carrying(handover.old)

    def test_preparing_twice_gives_the_same_receipt(self, handover: Handover) -> None:
        handover.hand_over(handover.old)
        once = handover.prepare(handover.items(handover.new))
        assert handover.prepare(handover.items(handover.new)) == once
        assert handover.prepare(once) == once

    def test_a_receipt_is_kept_after_the_delivery_it_belongs_to(self, handover: Handover) -> None:
        handover.hand_over(handover.old)
        groups = handover.hand_over(handover.new)
        assert handover.prepare(groups) == groups

    def test_a_receipt_that_must_be_public_is_plain(self, handover: Handover) -> None:
        handover.hand_over(handover.old)
        for items in handover.prepare(handover.items(handover.new)).values():
            for item in items:
                assert item.receipt is not None
                handover.watch.answers.append(item.receipt.public)
        assert handover.watch.shows(handover.old.fields["password"].reveal()) == []

    def test_consumers_read_what_was_delivered_and_delivering_twice_changes_nothing(self, handover: Handover) -> None:
        for carried in (handover.old, handover.new):
            groups = handover.prepare(handover.items(carried))
            for _ in range(2):
                handover.deliver(groups)
            handover.await_confirmed(groups)
            assert handover.read() == handover.carrying(carried)

    def test_going_back_delivers_the_old_version_again(self, handover: Handover) -> None:
        if not handover.destination.puts_back:
            return
        handover.hand_over(handover.old)
        receipts = {item.slot: item.receipt for items in handover.hand_over(handover.new).values() for item in items}
        back = {
            group: [replace(item, receipt=receipts[item.slot]) for item in items]
            for group, items in handover.items(handover.old).items()
        }
        for _ in range(2):
            handover.deliver(back)
        handover.await_confirmed(back)
        assert handover.read() == handover.carrying(handover.old)

    @pytest.mark.parametrize("first", [True, False])
    def test_a_first_delivery_goes_back_to_what_its_receipt_holds(self, handover: Handover, *, first: bool) -> None:
        if not handover.destination.puts_back:
            return
        if not first:
            handover.hand_over(handover.old)
        before = handover.read()
        groups = handover.hand_over(handover.new)
        back = {g: [replace(item, primary=None, content=None, accepted=()) for item in i] for g, i in groups.items()}
        for _ in range(2):
            handover.deliver(back)
        assert handover.read() == before

    def test_other_peoples_content_is_kept(self, place: ReadingPlace) -> None:
        if not isinstance(place, SharesWithForeign):
            return
        handover = self.begin(place)
        theirs = place.put_foreign(handover.spec)
        groups = handover.hand_over(handover.old)
        assert place.read_foreign(handover.spec) == theirs
        handover.hand_over(handover.new)
        assert place.read_foreign(handover.spec) == theirs
        if handover.destination.puts_back:
            handover.deliver(
                {g: [replace(i, primary=None, content=None, accepted=()) for i in s] for g, s in groups.items()}
            )
            assert place.read_foreign(handover.spec) == theirs
            assert set(handover.read().values()) == {None}

    def test_every_character_that_is_not_forbidden_arrives(self, place: ReadingPlace) -> None:
        for value in difficult(self.destination.forbidden, self.destination.max_bytes):
            handover = self.begin(place, new=value)
            if self.refuses_some and self._refused(handover):
                continue
            handover.hand_over(handover.new)
            assert handover.read() == handover.carrying(handover.new)

    def _refused(self, handover: Handover) -> bool:
        """Does prepare refuse the value, and leave everything as it was?"""
        before = handover.read()
        answers = [
            handover.destination.prepare(group, items, handover.watch.delivery())
            for group, items in handover.items(handover.new).items()
        ]
        refused = any(isinstance(answer, Refused) and answer.why is No.VALUE for answer in answers)
        assert handover.read() == before
        return refused

    # ------------------------------------------------------------------------------------------ look

    def test_it_observes_which_version_each_slot_holds(self, handover: Handover) -> None:
        def held() -> set[Held]:
            found: set[Held] = set()
            for group, items in handover.items(handover.new).items():
                answer = handover.destination.observe(group, items, handover.watch.delivery())
                assert isinstance(answer, Mapping)
                assert set(answer) == {item.slot for item in items}
                found |= set(answer.values())
            return found

        assert held() == {Held(None)}
        handover.hand_over(handover.old)
        assert held() == {Held(1)}
        handover.hand_over(handover.new)
        assert held() == {Held(2)}

    def test_content_of_nobodys_version_is_foreign(self, handover: Handover) -> None:
        handover.hand_over(handover.old)
        for group, items in handover.items(handover.new).items():
            only_new = [replace(item, accepted=(handover.new,)) for item in items]
            answer = handover.destination.observe(group, only_new, handover.watch.delivery())
            assert answer == {item.slot: Held(None, foreign=True) for item in items}

    def test_nothing_is_confirmed_before_it_is_delivered(self, handover: Handover) -> None:
        handover.hand_over(handover.old)
        for group, items in handover.prepare(handover.items(handover.new)).items():
            answer = handover.destination.confirm(group, items, handover.watch.delivery())
            assert not isinstance(answer, Confirmed)

    def test_a_confirm_is_worth_no_more_than_its_kind_can_prove(self, handover: Handover) -> None:
        groups = handover.hand_over(handover.new)
        proofs = handover.await_confirmed(groups)
        if handover.destination.proof is Proof.WRITTEN:
            assert set(proofs) == {Proof.WRITTEN}
        assert all(handover.destination.confirm_deadline(g, items) > timedelta(0) for g, items in groups.items())

    def test_what_is_read_back_is_what_consumers_read(self, handover: Handover) -> None:
        if not isinstance(handover.destination, ReadsBack):
            return
        for carried in (None, handover.old, handover.new):
            if carried:
                handover.hand_over(carried)
            for spot in handover.spots:
                item = next(i for i in handover.items(handover.new)[spot.group] if i.slot == spot.slot)
                there = handover.destination.read(spot.group, item, handover.watch.delivery())
                expected = handover.place.read(handover.spec, spot.value)
                assert there == (SecretBytes(expected) if expected is not None else None)

    # ------------------------------------------------------------------------------------------ release

    def test_a_version_is_held_until_it_is_replaced_and_released(self, handover: Handover) -> None:
        def holds(of: SecretVersion, groups: Mapping[GroupKey, list[Item]]) -> set[object]:
            ctx = handover.watch.delivery()
            return {handover.destination.holds(g, of, item, ctx) for g, items in groups.items() for item in items}

        def release(of: SecretVersion, groups: Mapping[GroupKey, list[Item]]) -> None:
            for group, items in groups.items():
                for item in items:
                    assert [handover.release(group, of, item) for _ in range(2)] == [Done(), Done()]

        assert holds(handover.old, handover.items(handover.old)) == {Holds.NOTHING}
        groups = handover.hand_over(handover.old)
        assert holds(handover.old, groups) == {Holds.RUNNING}
        groups = handover.hand_over(handover.new)
        assert Holds.RUNNING not in holds(handover.old, groups)
        assert holds(handover.new, groups) == {Holds.RUNNING}
        release(handover.old, groups)
        assert holds(handover.old, groups) == {Holds.NOTHING}
        assert holds(handover.new, groups) == {Holds.RUNNING}
        assert handover.read() == handover.carrying(handover.new)

    def test_releasing_a_discarded_version_leaves_the_running_one(self, handover: Handover) -> None:
        handover.hand_over(handover.old)
        for group, items in handover.prepare(handover.items(handover.new)).items():
            for item in items:
                assert handover.release(group, handover.new, item) == Done()
                assert handover.destination.holds(group, handover.new, item, handover.watch.delivery()) is Holds.NOTHING
        assert handover.read() == handover.carrying(handover.old)

    # ------------------------------------------------------------------------------------------ no plaintext

    def test_no_answer_shows_a_value(self, handover: Handover, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("DEBUG")
        handover.hand_over(handover.old)
        for group, items in handover.hand_over(handover.new).items():
            handover.watch.answers += [
                items,
                handover.destination.observe(group, items, handover.watch.delivery()),
                handover.destination.check(group, items, handover.watch.delivery()),
                handover.destination.confirm(group, items, handover.watch.delivery()),
            ]
        handover.watch.answers += [handover.spots, handover.destination, caplog.text]
        for shown in (handover.old, handover.new):
            assert handover.watch.shows(shown.fields["password"].reveal()) == []
