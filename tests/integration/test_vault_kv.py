"""Delivering into a key-value store beside other writers, with lost answers, and where nothing is as it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.delivery_kit import version
from tests.integration.vault_kit import delivery
from tests.servers.vaults import Vaults
from vaultkeeper.access import vault as logins
from vaultkeeper.access.vault import kv as vault_kv
from vaultkeeper.destinations.vault_kv import VaultKvDestination
from vaultkeeper.model.outcome import (
    Confirmed,
    Done,
    Finding,
    Held,
    Holds,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Unknown,
)
from vaultkeeper.model.secret import Slot

KV = VaultKvDestination()
OLD, NEW = version(1, "old-value"), version(2, "new-value")


@pytest.fixture
def vault() -> Iterator[Vaults]:
    server = Vaults()
    yield server
    logins.end()
    server.stop()


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vaults]:
    """For states that no client can put a server into."""
    monkeypatch.delenv("VAULTKEEPER_TEST_VAULT_ADDR", raising=False)
    server = Vaults()
    yield server
    logins.end()
    server.stop()


def between(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object], *, times: int = 1) -> None:
    """Somebody acts just before our request of that name."""
    real, left = getattr(vault_kv, name), [times]

    def first(*args: Any, **given: Any) -> Any:
        if left[0]:
            left[0] -= 1
            act()
        return real(*args, **given)

    monkeypatch.setattr(vault_kv, name, first)


# ------------------------------------------------------------------------------------------------------- other writers


def test_a_key_that_somebody_writes_meanwhile_is_kept(vault: Vaults, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.put("shop/db", {"port": 5432})
    place = delivery(vault)
    assert isinstance(place.prepare(OLD), Prepared)
    between(monkeypatch, "write", lambda: vault.put("shop/db", {"port": 5433, "theirs": [1, {"a": None}]}))
    assert place.deliver(OLD) == Done()
    assert vault.get("shop/db") == {"port": 5433, "theirs": [1, {"a": None}], "password": "old-value"}


def test_a_key_that_somebody_writes_between_two_hooks_is_kept(vault: Vaults) -> None:
    """`deliver` goes by what `prepare` read, so its compare-and-set must too."""
    vault.put("shop/db", {"port": 5432})
    place = delivery(vault)
    assert isinstance(place.prepare(OLD), Prepared)
    vault.put("shop/db", {"port": 5433})
    assert place.deliver(OLD) == Done()
    assert vault.get("shop/db") == {"port": 5433, "password": "old-value"}


def test_a_secret_that_is_written_all_the_time_is_a_conflict_and_keeps_what_they_wrote(
    vault: Vaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = delivery(vault)
    place.prepare(OLD)
    between(monkeypatch, "write", lambda: vault.put("shop/db", {"n": "theirs"}), times=99)
    answer = place.deliver(OLD)
    assert isinstance(answer, Refused)
    assert answer.why is No.CONFLICT
    assert vault.get("shop/db") == {"n": "theirs"}


def test_delivering_again_makes_no_new_version(vault: Vaults) -> None:
    place = delivery(vault, custom_metadata=True)
    for _ in range(3):
        assert place.hand_over(OLD) == Done()
    told = vault.api("GET", f"{vault.mount}/metadata/shop/db")["data"]
    assert told["current_version"] == 1
    assert told["custom_metadata"] == {"vaultkeeper-password": "test shop/db v1 epoch 0"}


def test_notes_of_others_are_kept(vault: Vaults) -> None:
    vault.put("shop/db", {"port": 1})
    vault.api("POST", f"{vault.mount}/metadata/shop/db", {"custom_metadata": {"team": "shop"}})
    assert delivery(vault, custom_metadata=True).hand_over(OLD) == Done()
    noted = vault.api("GET", f"{vault.mount}/metadata/shop/db")["data"]["custom_metadata"]
    assert set(noted) == {"team", "vaultkeeper-password"}


def test_a_note_that_is_refused_after_the_write_is_not_taken_for_nothing_done(vault: Vaults) -> None:
    """Refused would mean that the store holds the old value, and the target alone would be put back."""
    vault.put("shop/db", {"port": 1})
    full = {f"theirs-{number}": "x" for number in range(64)}
    vault.api("POST", f"{vault.mount}/metadata/shop/db", {"custom_metadata": full})
    place = delivery(vault, custom_metadata=True)
    assert isinstance(place.prepare(OLD), Prepared)
    assert isinstance(place.deliver(OLD), Unknown)
    assert vault.get("shop/db") == {"port": 1, "password": "old-value"}
    assert isinstance(place.deliver(OLD), Refused)


def test_invariant_12_a_newer_generation_of_ours_is_left_alone(vault: Vaults) -> None:
    assert delivery(vault, custom_metadata=True).hand_over(version(9, "from-the-future")) == Done()
    answer = delivery(vault, custom_metadata=True).prepare(NEW)
    assert isinstance(answer, Refused)
    assert answer.why is No.STALE


def test_a_secret_with_other_keys_is_refused_where_it_shall_be_ours_alone(vault: Vaults) -> None:
    vault.put("shop/db", {"theirs": "x"})
    answer = delivery(vault, merge=False).prepare(OLD)
    assert isinstance(answer, Refused)
    assert answer.why is No.CAPACITY
    assert vault.get("shop/db") == {"theirs": "x"}


def test_what_is_put_back_has_its_type_again(vault: Vaults) -> None:
    vault.put("shop/db", {"password": 12.5, "port": 5432})
    place = delivery(vault)
    assert place.hand_over(NEW) == Done()
    assert vault.get("shop/db") == {"password": "new-value", "port": 5432}
    assert place.deliver(None) == Done()
    assert vault.get("shop/db") == {"password": 12.5, "port": 5432}


def test_a_login_that_ended_after_the_write_is_nobodys_failure(vault: Vaults) -> None:
    """Failed would send a rotation back, whose old value this login could not write either."""
    token = vault.new_token()
    place = delivery(vault, **vault.by_token(token))
    assert place.hand_over(NEW) == Done()
    vault.api("POST", "auth/token/revoke-self", token=token)
    logins.end()
    answer = place.confirm(NEW)
    assert isinstance(answer, Unknown)
    assert "the token is not valid" in answer.detail


# ------------------------------------------------------------------------------------------------------------ deletion


def test_old_versions_that_hold_the_retired_value_are_destroyed_and_never_the_current_one(vault: Vaults) -> None:
    place = delivery(vault, destroy_old=True)
    assert place.hand_over(OLD) == Done()
    vault.put("shop/db", {"password": "old-value", "more": "x"})
    vault.put("shop/db", {"password": "of somebody"})
    assert place.hand_over(NEW) == Done()
    (item,) = place.items(NEW)
    assert KV.holds(place.group, OLD, item, place.ctx) is Holds.ROLLBACK_PATH
    assert KV.release(place.group, OLD, item, place.ctx) == Done()
    assert KV.holds(place.group, OLD, item, place.ctx) is Holds.NOTHING
    assert [vault.get("shop/db", n) for n in (1, 2)] == [None, None]
    assert vault.get("shop/db", 3) == {"password": "of somebody"}
    assert KV.release(place.group, NEW, item, place.ctx) == Done()
    assert vault.get("shop/db") == {"password": "new-value"}


def test_without_being_asked_nothing_is_destroyed(vault: Vaults) -> None:
    place = delivery(vault)
    place.hand_over(OLD)
    place.hand_over(NEW)
    (item,) = place.items(NEW)
    assert KV.release(place.group, OLD, item, place.ctx) == Done()
    assert vault.get("shop/db", 1) == {"password": "old-value"}


def test_a_deleted_secret_holds_nothing_is_warned_of_and_written_anew(vault: Vaults) -> None:
    vault.put("shop/db", {"password": "x", "theirs": "y"})
    vault.api("DELETE", f"{vault.mount}/data/shop/db")
    place = delivery(vault)
    assert place.observe(OLD) == {Slot("password"): Held(None)}
    (finding,) = place.destination.check(place.group, place.items(OLD), place.ctx)
    assert finding.level == "warn"
    assert "undelete" in finding.next
    assert place.hand_over(OLD) == Done()
    assert vault.get("shop/db") == {"password": "old-value"}


# ------------------------------------------------------------------------------------------------------- lost and late


@pytest.mark.parametrize("lost", range(1, 11))
def test_any_lost_answer_is_unknown_and_a_repeat_converges(simulated: Vaults, lost: int) -> None:
    server, place = simulated.simulator, delivery(simulated, custom_metadata=True, destroy_old=True)
    assert server is not None
    assert place.hand_over(OLD) == Done()
    logins.end()
    server.lose_reply_of(lost)
    unknown = 0
    for _ in range(3):
        (item,) = place.items(NEW)
        answers: list[object] = [place.hand_over(NEW)]
        if answers[0] == Done():
            answers += [place.confirm(NEW), KV.release(place.group, OLD, item, place.ctx)]
        unknown += sum(isinstance(answer, Unknown) for answer in answers)
        assert not any(isinstance(answer, Refused) for answer in answers)
        if answers[1:] == [Confirmed(Proof.WRITTEN), Done()]:
            break
    assert unknown == 1
    assert simulated.get("shop/db") == {"password": "new-value"}
    told = simulated.api("GET", f"{simulated.mount}/metadata/shop/db")["data"]
    assert told["current_version"] == 2
    assert told["versions"]["1"]["destroyed"]


def test_these_are_all_requests_of_a_delivery(simulated: Vaults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_kv, "RECENT_S", 600.0)
    monkeypatch.setattr(logins, "KEPT_S", 600.0)
    place = delivery(simulated, custom_metadata=True, destroy_old=True)
    assert place.hand_over(OLD) == Done()
    logins.end()
    assert simulated.simulator is not None
    begun = simulated.simulator.requests
    assert place.hand_over(NEW) == Done()
    assert place.confirm(NEW) == Confirmed(Proof.WRITTEN)
    (item,) = place.items(NEW)
    assert KV.release(place.group, OLD, item, place.ctx) == Done()
    assert simulated.simulator.requests - begun == 10


def test_a_standby_that_lags_is_waited_for(simulated: Vaults, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated.put("shop/db", {"n": "1"})
    place = delivery(simulated)
    place.prepare(OLD)
    stale = vault_kv.Stored(1, {"n": "1"})
    simulated.put("shop/db", {"n": "2"})
    monkeypatch.setattr(vault_kv, "read", lambda *_args, **_given: stale)
    assert isinstance(place.deliver(OLD), NotYet)
    assert simulated.get("shop/db") == {"n": "2"}


def test_what_a_standby_still_shows_is_not_taken_for_what_stands_there(
    simulated: Vaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going back at once: it would find the old value, write nothing, and leave the new one, which is then refused."""
    monkeypatch.setattr(vault_kv, "LAG_S", 600.0)
    place = delivery(simulated)
    assert place.hand_over(OLD) == Done()
    assert place.hand_over(NEW) == Done()
    real, late = vault_kv._read, [vault_kv.Stored(1, {"password": "old-value"})] * 4

    def lagging(*asked: Any) -> vault_kv.Stored:
        return late.pop() if late else real(*asked)

    monkeypatch.setattr(vault_kv, "_read", lagging)
    for answer in (place.deliver(OLD), place.confirm(OLD)):
        assert isinstance(answer, NotYet), answer
        assert "lags behind" in answer.reason
    late.clear()
    assert place.deliver(OLD) == Done()
    assert simulated.get("shop/db") == {"password": "old-value"}
    assert place.confirm(OLD) == Confirmed(Proof.WRITTEN)


def test_a_secret_that_somebody_removed_counts_from_one_again(
    simulated: Vaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_kv, "LAG_S", 600.0)
    place = delivery(simulated)
    assert place.hand_over(OLD) == Done()
    assert place.hand_over(NEW) == Done()
    simulated.api("DELETE", f"{simulated.mount}/metadata/shop/db")
    assert isinstance(place.deliver(NEW), NotYet)
    monkeypatch.setattr(vault_kv, "LAG_S", 0.0)
    assert place.deliver(NEW) == Done()
    assert simulated.get("shop/db") == {"password": "new-value"}


# ---------------------------------------------------------------------------------------------------- not as it should


def test_a_missing_right_is_found_before_anything_is_set(vault: Vaults) -> None:
    vault.policy(vault.policy_name, {f"{vault.mount}/data/*": ["read", "update"]})
    place = delivery(vault)
    answer = place.prepare(OLD)
    assert isinstance(answer, Refused)
    assert answer.why is No.PRIVILEGE
    assert "lacks create on" in answer.detail
    (finding,) = place.destination.check(place.group, place.items(OLD), place.ctx)
    assert finding.level == "refuse"


def test_the_metadata_rights_are_asked_for_where_they_are_needed(vault: Vaults) -> None:
    vault.policy(vault.policy_name, {f"{vault.mount}/data/*": ["create", "read", "update"]})
    noting = delivery(vault, custom_metadata=True).prepare(OLD)
    destroying = delivery(vault, destroy_old=True).prepare(OLD)
    assert f"lacks patch on {vault.mount}/metadata" in noting.detail
    assert f"lacks read on {vault.mount}/metadata" in destroying.detail


def prepared(vault: Vaults, **settings: Any) -> tuple[Any, list[Finding]]:
    place = delivery(vault, **settings)
    items = place.items(OLD)
    return place.prepare(OLD), list(place.destination.check(place.group, items, place.ctx))


def test_a_store_of_version_1_is_not_taken_for_one(vault: Vaults) -> None:
    old = f"{vault.mount}-old"
    vault.api("POST", f"sys/mounts/{old}", {"type": "kv", "options": {"version": "1"}})
    root = vault.by_token(vault.root)
    answer, _ = prepared(vault, mount=old, **root)
    vault.api("DELETE", f"sys/mounts/{old}") if vault.simulator is None else None
    assert isinstance(answer, Refused)
    assert "version 2" in answer.detail


def test_a_missing_mount_and_a_missing_namespace_are_named(vault: Vaults) -> None:
    answer, findings = prepared(vault, mount="nowhere", **vault.by_token(vault.root))
    assert isinstance(answer, Refused)
    assert "nothing is mounted there" in answer.detail
    assert findings[0].level == "refuse"
    answer, _ = prepared(vault, namespace="nobodys")
    assert isinstance(answer, Refused)
    assert "no such namespace" in answer.detail


def test_a_value_that_is_no_text_is_refused_before_anything_is_set(vault: Vaults) -> None:
    answer = delivery(vault).prepare(version(3, b"\xff\xfe"))
    assert isinstance(answer, Refused)
    assert answer.why is No.VALUE


def test_a_key_of_two_secrets_of_ours_is_delivered_with_both(vault: Vaults) -> None:
    first, second = delivery(vault), delivery(vault)
    two = replace(second.specs[0], values={"token": "{password}"})
    second.specs = [two]
    assert first.hand_over(OLD) == Done()
    assert second.hand_over(NEW) == Done()
    assert vault.get("shop/db") == {"password": "old-value", "token": "new-value"}
