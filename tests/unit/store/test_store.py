from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.store.conftest import Place
from tests.unit.store.samples import NOW, SECRET, rotation, version
from vaultkeeper.errors import AlreadyOpen, EpochLost, Locked, NotFound
from vaultkeeper.model.rotation import State
from vaultkeeper.model.secret import Acceptance, Handle, StagingLabel
from vaultkeeper.ports import Change, Pause, VersionChange
from vaultkeeper.store.database import SqlStore

PENDING, CURRENT, PREVIOUS = StagingLabel.PENDING, StagingLabel.CURRENT, StagingLabel.PREVIOUS
BUDGET = (2, timedelta(minutes=5))


# ---------------------------------------------------------------------------------------------------- rotations


def test_a_rotation_comes_back_as_it_was_opened_from_another_process(place: Place) -> None:
    opened = place.create().open_rotation(rotation(), Change())
    other = place.open()
    assert other.rotation(opened.id) == opened
    assert list(other.open_rotations()) == [opened]
    assert opened.epoch == 1


def test_invariant_04_a_second_rotation_of_an_open_secret_is_refused_and_leaves_nothing(store: SqlStore) -> None:
    first = store.open_rotation(rotation(), Change())
    with pytest.raises(AlreadyOpen):
        store.open_rotation(rotation(), Change(new_version=version(1), labels={PENDING: 1}))
    assert list(store.open_rotations()) == [first]
    assert list(store.versions(SECRET)) == []


def test_invariant_04_parked_and_ambiguous_rotations_still_block_a_second_one(store: SqlStore) -> None:
    opened = store.open_rotation(rotation(), Change())
    for state in (State.PARKED, State.AMBIGUOUS, State.WAITING):
        store.commit(Change(rotation=replace(opened, state=state)))
        with pytest.raises(AlreadyOpen):
            store.open_rotation(rotation(), Change())


def test_an_ended_rotation_makes_room_for_the_next_and_stays_in_history_newest_first(store: SqlStore) -> None:
    first = store.open_rotation(rotation(), Change())
    store.commit(Change(rotation=replace(first, state=State.DONE, ended_at=NOW)))
    second = store.open_rotation(rotation(), Change())
    assert [r.id for r in store.rotations(SECRET)] == [second.id, first.id]
    assert [r.id for r in store.rotations(SECRET, limit=1)] == [second.id]
    assert [r.id for r in store.open_rotations()] == [second.id]


def test_a_rotation_closes_its_predecessor_in_the_same_transaction(store: SqlStore) -> None:
    first = store.open_rotation(rotation(), Change())
    ended = replace(first, state=State.DONE, superseded=True)
    second = store.open_rotation(rotation(), Change(rotation=ended))
    assert store.rotation(first.id) == ended
    assert list(store.open_rotations()) == [second]


def test_a_fenced_process_cannot_supersede_a_rotation(store: SqlStore) -> None:
    first = store.open_rotation(rotation(), Change())
    taken = store.take(first.id)
    with pytest.raises(EpochLost):
        store.open_rotation(rotation(), Change(rotation=replace(first, state=State.DONE)))
    assert list(store.open_rotations()) == [taken]


def test_a_taken_rotation_fences_its_earlier_holder(store: SqlStore) -> None:
    mine = store.open_rotation(rotation(), Change())
    theirs = store.take(mine.id)
    assert theirs.epoch > mine.epoch
    with pytest.raises(EpochLost):
        store.commit(Change(rotation=replace(mine, at=1), new_version=version(1), labels={PENDING: 1}))
    assert store.rotation(mine.id) == theirs
    assert list(store.versions(SECRET)) == []
    store.commit(Change(rotation=replace(theirs, at=1)))
    assert store.rotation(mine.id).at == 1


def test_epochs_of_one_secret_grow_over_all_its_rotations(store: SqlStore) -> None:
    first = store.take(store.open_rotation(rotation(), Change()).id)
    store.commit(Change(rotation=replace(first, state=State.DONE)))
    assert store.open_rotation(rotation(), Change()).epoch > first.epoch


def test_only_an_open_rotation_can_be_taken(store: SqlStore) -> None:
    with pytest.raises(NotFound):
        store.take("nowhere")
    opened = store.open_rotation(rotation(), Change())
    store.commit(Change(rotation=replace(opened, state=State.ROLLED_BACK)))
    with pytest.raises(NotFound):
        store.take(opened.id)


def test_a_rotation_that_was_never_opened_is_not_found(store: SqlStore) -> None:
    with pytest.raises(NotFound):
        store.rotation("nowhere")
    with pytest.raises(NotFound):
        store.commit(Change(rotation=rotation()))
    with pytest.raises(ValueError, match="amend"):
        store.commit(Change())


# ----------------------------------------------------------------------------------------------------- versions


def test_a_version_comes_back_field_by_field_oldest_first(place: Place) -> None:
    store = place.create()
    full = version(
        2, handle=Handle('{"id":7}'), expires_at=NOW + timedelta(days=1), acceptance=Acceptance.ACCEPTED,
        verified=True, compromised=True,
    )  # fmt: skip
    store.amend(SECRET, Change(new_version=full))
    store.amend(SECRET, Change(new_version=version(1, sealed=None)))
    assert list(place.open().versions(SECRET)) == [version(1, sealed=None), full]


def test_facts_change_what_they_name_and_nothing_else(store: SqlStore) -> None:
    store.amend(SECRET, Change(new_version=version(1, sealed=None)))
    store.amend(SECRET, Change(new_version=version(2)))
    facts = VersionChange(
        acceptance=Acceptance.REFUSED, verified=True, compromised=True, handle=Handle("h"), expires_at=NOW, sealed=b"s"
    )
    store.amend(SECRET, Change(facts={1: facts}))
    store.amend(SECRET, Change(facts={1: VersionChange(verified=False), 2: VersionChange()}))
    expected = version(
        1, sealed=b"s", acceptance=Acceptance.REFUSED, compromised=True, handle=Handle("h"), expires_at=NOW
    )
    assert list(store.versions(SECRET)) == [expected, version(2)]


def test_a_change_with_one_impossible_part_changes_nothing(store: SqlStore) -> None:
    opened = store.open_rotation(rotation(), Change())
    change = Change(
        rotation=replace(opened, at=2),
        new_version=version(1),
        labels={PENDING: 1},
        facts={9: VersionChange(verified=True)},
    )
    with pytest.raises(NotFound):
        store.commit(change)
    assert store.rotation(opened.id) == opened
    assert (list(store.versions(SECRET)), store.labels(SECRET)) == ([], {})


def test_labels_move_and_go_together(store: SqlStore) -> None:
    store.amend(SECRET, Change(new_version=version(1), labels={CURRENT: 1}))
    store.amend(SECRET, Change(new_version=version(2), labels={PENDING: 2}))
    store.amend(SECRET, Change(labels={CURRENT: 2, PREVIOUS: 1, PENDING: None}))
    assert store.labels(SECRET) == {CURRENT: 2, PREVIOUS: 1}


def test_amend_is_refused_while_a_rotation_is_open(store: SqlStore) -> None:
    store.open_rotation(rotation(), Change())
    with pytest.raises(AlreadyOpen):
        store.amend(SECRET, Change(new_version=version(1)))
    store.amend("other", Change(new_version=version(1, "other")))


def test_numbers_are_never_given_twice_not_even_after_forget(store: SqlStore) -> None:
    assert [store.next_number(SECRET), store.next_number(SECRET, at_least=10)] == [1, 10]
    for number in (1, 10):
        store.amend(SECRET, Change(new_version=version(number)))
    assert store.next_number(SECRET, at_least=5) == 11
    store.amend(SECRET, Change(new_version=version(20)))
    store.forget(SECRET)
    assert store.next_number(SECRET) == 21
    assert store.next_number("other") == 1


def test_forget_removes_one_secret_and_its_history(store: SqlStore) -> None:
    for name in (SECRET, "other"):
        opened = store.open_rotation(rotation(name), Change(new_version=version(1, name), labels={CURRENT: 1}))
        store.commit(Change(rotation=replace(opened, state=State.DONE)))
        store.pause(name, Pause(until=None, reason="", since=NOW))
    assert list(store.secrets()) == ["other", SECRET]
    store.forget(SECRET)
    store.forget(SECRET)
    assert list(store.secrets()) == ["other"]
    assert (list(store.versions(SECRET)), store.labels(SECRET), list(store.rotations(SECRET))) == ([], {}, [])
    assert list(store.pauses()) == ["other"]
    assert store.labels("other") == {CURRENT: 1}


def test_a_secret_with_an_open_rotation_is_not_forgotten(store: SqlStore) -> None:
    store.open_rotation(rotation(), Change(new_version=version(1)))
    with pytest.raises(AlreadyOpen):
        store.forget(SECRET)
    assert [v.number for v in store.versions(SECRET)] == [1]


def test_discarded_values_go_but_records_and_labelled_values_stay(store: SqlStore) -> None:
    for number in (1, 2, 3):
        store.amend(SECRET, Change(new_version=version(number)))
    store.amend(SECRET, Change(labels={CURRENT: 3}))
    store.discard_sealed(SECRET, [1, 3])
    assert list(store.versions(SECRET)) == [version(1, sealed=None), version(2), version(3)]


# ------------------------------------------------------------------------------------------------ login budget


def test_failed_logins_are_charged_until_the_budget_is_spent_and_free_with_the_window(place: Place) -> None:
    store = place.create()
    assert store.spend_login("shop", "db:5432", BUDGET, NOW) is None
    assert store.spend_login("shop", "db:5432", BUDGET, NOW + timedelta(minutes=1)) is None
    restarted = place.open()
    later = NOW + timedelta(minutes=2)
    assert restarted.failed_logins("shop", "db:5432", BUDGET[1], later) == 2
    assert restarted.spend_login("shop", "db:5432", BUDGET, later) == timedelta(minutes=3)
    assert restarted.failed_logins("shop", "db:5432", BUDGET[1], later) == 2
    assert restarted.spend_login("shop", "db:5432", BUDGET, NOW + timedelta(minutes=5)) is None


def test_the_budget_of_an_address_is_shared_by_its_accounts(store: SqlStore) -> None:
    assert store.spend_login("a", "db:5432", BUDGET, NOW) is None
    assert store.spend_login("b", "db:5432", BUDGET, NOW) is None
    assert store.spend_login("c", "db:5432", BUDGET, NOW) == timedelta(minutes=5)
    assert store.spend_login("a", "elsewhere:5432", BUDGET, NOW) is None


def test_a_login_that_succeeded_is_not_counted(store: SqlStore) -> None:
    store.spend_login("a", "db", BUDGET, NOW)
    store.refund_login("a", "db")
    store.refund_login("a", "db")
    assert store.failed_logins("a", "db", BUDGET[1], NOW) == 0


def test_a_clock_that_was_set_back_does_not_block_an_account_for_ever(store: SqlStore) -> None:
    far = NOW + timedelta(days=3000)
    for _ in range(2):
        store.spend_login("a", "db", BUDGET, far)
    assert store.spend_login("a", "db", BUDGET, NOW) is None
    assert store.failed_logins("a", "db", BUDGET[1], NOW) == 1


def test_old_charges_are_pruned(here: Place) -> None:
    store = here.create()
    for day in range(30):
        store.spend_login("a", "db", BUDGET, NOW + timedelta(days=day))
    with store._reader() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM charges").scalar() == 2 * 7


# ------------------------------------------------------------------------------------------------- pauses, locks


def test_a_pause_lasts_over_a_restart_until_it_is_lifted(place: Place) -> None:
    store = place.create()
    pause = Pause(until=NOW + timedelta(days=1), reason="freeze", since=NOW)
    store.pause("a", Pause(until=None, reason="x", since=NOW))
    store.pause("a", pause)
    assert place.open().pauses() == {"a": pause}
    store.pause("a", None)
    assert store.pauses() == {}


def test_what_is_held_is_held_against_other_openers_and_threads_until_released(place: Place) -> None:
    first, second = place.create(), place.open()
    outcomes: list[str] = []

    def try_it() -> None:
        try:
            with first.hold("secret:a"):
                outcomes.append("held")
        except Locked:
            outcomes.append("locked")

    with first.hold("secret:a"), second.hold("group:swarm:../../x"):
        with pytest.raises(Locked, match="secret a is held by"), second.hold("secret:a"):
            pass
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    try_it()
    assert outcomes == ["locked", "held"]
