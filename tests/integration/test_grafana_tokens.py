"""Tokens of service accounts of a simulated Grafana: whole rotations, and what can be wrong, with the clock turned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.grafana_kit import Home, saw, texts
from vaultkeeper.engine.rotate import rotate
from vaultkeeper.errors import BackendError, RotationFailed
from vaultkeeper.model.outcome import Login, No, Observation, Refused, Unknown, Usage
from vaultkeeper.model.rotation import Cause, State, Waiting
from vaultkeeper.model.secret import Handle, SecretBytes, SecretVersion
from vaultkeeper.targets.grafana_service_account_token import GrafanaTokenTarget
from vaultkeeper.testing.contract.trial import Watch, version
from vaultkeeper.testing.grafana import Seen, Token

NAME = "grafana/reader"
PERIOD = timedelta(days=60)
EVERY = 2  # of the calls, where each of them loses its reply


class Reader:
    """A service account `reader` with one token that a person made, and somebody else's beside it."""

    def __init__(self, home: Home, role: str = "Viewer") -> None:
        self.home, self.state = home, home.state
        self.account = self.state.account("reader", role)
        self.by_hand = self.state.token(self.account, "by hand")
        self.theirs = self.state.token(self.account, "somebody else's")

    def policy(self, *, adopted: bool = True, **target: Any) -> None:
        settings: dict[str, Any] = {"kind": "grafana_service_account_token", "service_account": "reader"}
        settings |= {"url": self.home.grafana.url}
        settings |= {"admin": self.home.by_ops, "first_token": "by hand", **target}
        self.home.policy(NAME, target=settings, grace_period="1h", rotation_period="60d")
        if adopted:
            self.home.adopt(NAME, value=self.by_hand.value)

    def itself(self) -> None:
        self.account.edits = {self.account.id}
        self.policy(admin="self")

    @property
    def living(self) -> set[str]:
        return {token.value for token in self.state.tokens.values() if token.account == self.account.id}

    @property
    def ours(self) -> list[Token]:
        return [token for token in self.state.tokens.values() if token.name.startswith("vk-")]

    def is_whole(self, before: str) -> str:
        current = self.home.current(NAME)
        assert self.living == {current, self.theirs.value}
        assert current == self.home.delivered(NAME) != before
        return current

    def opened(self, **settings: object) -> GrafanaTokenTarget:
        whole = {"url": self.home.grafana.url, "service_account": "reader", "admin": self.home.by_ops, **settings}
        return GrafanaTokenTarget.open(whole, 1)

    def check(self, **settings: object) -> Any:
        old = stored(self.by_hand.value)
        return texts(self.opened(**{"first_token": "by hand", **settings}).check(Watch().context(old)))


def stored(value: str, number: int = 1, handle: int | None = None) -> SecretVersion:
    made = version(number, {"token": SecretBytes(value.encode())}, "grafana_service_account_token", {})
    return replace(made, handle=None if handle is None else Handle(f'{{"id": {handle}}}'))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    opened = Home(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def reader(home: Home) -> Reader:
    return Reader(home)


# ----------------------------------------------------------------------------------------------------------- rotations


@pytest.mark.parametrize("admin", ["ops", "itself"])
def test_five_in_a_row_leave_one_token_of_ours_and_everybody_elses(home: Home, admin: str) -> None:
    reader = Reader(home, "None")
    reader.policy() if admin == "ops" else reader.itself()
    before = reader.by_hand.value
    for _ in range(5):
        assert home.to_the_end().exit_code == 0
        before = reader.is_whole(before)
    (made,) = reader.ours
    assert made.expires is not None
    lives = made.expires - made.created
    assert 2 * PERIOD + timedelta(days=1, minutes=-1) < lives <= 2 * PERIOD + timedelta(days=1, hours=9)
    assert not any(home.state.failures.values())


@pytest.mark.parametrize("admin", ["ops", "itself"])
def test_where_anybody_may_look_a_wrong_token_is_refused_all_the_same(home: Home, admin: str) -> None:
    """Grafana gives no reason then, and the list shows the new token, which is not the one that was tried."""
    home.state.settings["auth.anonymous"]["enabled"] = "true"
    reader = Reader(home, "None")
    reader.policy() if admin == "ops" else reader.itself()
    report = home.rotate(wait=timedelta(0))
    assert (report.rotation.waiting, report.rotation.detail) == (Waiting.GRACE, "")
    assert home.to_the_end().exit_code == 0
    reader.is_whole(reader.by_hand.value)


def test_who_may_not_see_the_account_is_told_so_and_nothing_is_made(home: Home, reader: Reader) -> None:
    editor = home.state.token(home.state.account("an editor", "Editor"), "e")
    reader.policy(admin={"token": home.write("editor", editor.value)})
    report = home.rotate(wait=timedelta(0))
    assert (report.rotation.state, report.rotation.cause) == (State.ROLLED_BACK, Cause.PRIVILEGE)
    assert "lacks serviceaccounts:read" in report.rotation.detail
    assert reader.ours == []


def test_a_first_token_needs_no_adopting(home: Home, reader: Reader) -> None:
    reader.policy(adopted=False)
    assert home.to_the_end().exit_code == 0
    assert reader.living == {home.current(NAME), reader.theirs.value, reader.by_hand.value}


def test_old_and_new_work_side_by_side_until_grace_is_over(home: Home, reader: Reader) -> None:
    reader.policy()
    rotate([NAME], home.parts, by_name=True, wait=timedelta(minutes=5))
    assert reader.living == {home.current(NAME), reader.by_hand.value, reader.theirs.value}


@pytest.mark.parametrize("admin", ["ops", "itself"])
def test_a_reply_lost_at_any_call_leaves_no_orphan(home: Home, admin: str) -> None:
    reader = Reader(home, "None")
    reader.policy() if admin == "ops" else reader.itself()
    assert home.lost_at_each_call(NAME, reader.is_whole, reader.by_hand.value, EVERY) >= 12


def test_a_minted_token_whose_reply_was_lost_is_deleted_by_its_id_and_made_anew(home: Home, reader: Reader) -> None:
    reader.policy()
    with home.grafana.fault("lost-reply", "POST /api/serviceaccounts/", times=1):
        assert home.to_the_end().exit_code == 0
    first, second = saw(home.grafana, "POST /api/serviceaccounts/")
    assert first.given["name"] == second.given["name"]
    reader.is_whole(reader.by_hand.value)


def test_a_consumer_that_fails_takes_the_new_token_away(home: Home, reader: Reader) -> None:
    reader.policy()
    file = home.bodies[NAME]["destinations"][0]
    home.write("only", reader.by_hand.value)
    works = {"confirm": {"command": ["/usr/bin/cmp", file["path"], str(home.folder / "only")]}, "healthy_for": "0s"}
    home.policy(NAME, **{**home.bodies[NAME], "destinations": [{**file, **works, "timeout": "1s"}]})
    assert home.to_the_end().rotation.state is State.ROLLED_BACK
    assert reader.living == {reader.by_hand.value, reader.theirs.value}


# ------------------------------------------------------------------------------------------------------------ last use


def test_a_token_that_somebody_still_uses_is_kept_and_its_holder_named(home: Home, reader: Reader) -> None:
    reader.policy()
    rotate([NAME], home.parts, by_name=True, wait=timedelta(minutes=5))
    report = None
    for _ in range(3):
        home.clock.sleep(timedelta(minutes=59))
        reader.by_hand.used_at = home.state.now()
        report = home.resume(wait=timedelta(0))
    assert report is not None
    assert report.rotation.waiting is Waiting.EVIDENCE
    (holder,) = report.rotation.waiting_for
    assert holder.startswith("the token by hand, used at 20")
    assert reader.by_hand.value in reader.living
    home.clock.sleep(timedelta(hours=2))
    assert home.to_the_end().exit_code == 0
    assert reader.by_hand.value not in reader.living


@pytest.mark.parametrize(("minutes", "in_use"), [(0, True), (9, True), (11, False), (None, False)])
def test_a_use_that_may_have_been_left_out_counts_as_one(
    home: Home, reader: Reader, minutes: int | None, in_use: bool
) -> None:
    """Grafana writes down the first use of five minutes; the consumer asks every five."""
    reader.by_hand.used_at = None if minutes is None else home.state.now() - timedelta(minutes=minutes)
    asked, old = reader.opened(unused_for="5min"), stored(reader.by_hand.value, handle=reader.by_hand.id)
    found = asked.usage(old, datetime.now(UTC), Watch().context(old))
    assert isinstance(found, Usage)
    assert found.in_use is in_use


def test_a_clock_that_differs_does_not_make_a_silent_token_seem_in_use(home: Home, reader: Reader) -> None:
    home.state.advance(86_400)  # Grafana's is a day ahead
    reader.by_hand.used_at = home.state.now() - timedelta(hours=3)
    old = stored(reader.by_hand.value, handle=reader.by_hand.id)
    found = reader.opened().usage(old, datetime.now(UTC), Watch().context(old))
    assert isinstance(found, Usage)
    assert found.in_use is False


def test_asking_for_the_last_use_is_no_use(home: Home, reader: Reader) -> None:
    reader.account.edits = {reader.account.id}
    fresh = home.state.token(reader.account, "vk-fresh")
    old, new = stored(reader.by_hand.value, 1, reader.by_hand.id), stored(fresh.value, 2, fresh.id)
    found = reader.opened(admin="self").usage(old, datetime.now(UTC), Watch().context(old, new))
    assert found == Usage(in_use=False)
    assert (reader.by_hand.used_at, fresh.used_at is None) == (None, False)


# ---------------------------------------------------------------------------------------------------- what can be wrong


def test_a_missing_right_is_named_with_its_scope_and_how_to_give_it(home: Home, reader: Reader) -> None:
    viewer = home.state.token(home.state.account("a viewer"), "v")
    editor = home.state.token(home.state.account("an admin", "Admin"), "e")
    found = reader.check(admin={"token": home.write("viewer", viewer.value)})["refuse"]
    assert "the token lacks serviceaccounts:read" in found or "no service account is called reader" in found
    assert "ok" in reader.check(admin={"token": home.write("editor", editor.value)})
    own = reader.check(admin="self")["refuse"]
    assert f"lacks serviceaccounts:write on serviceaccounts:id:{reader.account.id}" in own or "serviceaccounts" in own
    assert "Edit on this one service account" in own


def test_a_wrong_admin_password_is_told_before_anything_is_made(home: Home, reader: Reader) -> None:
    reader.policy()
    home.write("ops", "not that one")
    report = home.rotate()
    assert (report.rotation.state, report.rotation.cause) == (State.ROLLED_BACK, Cause.PRIVILEGE)
    assert "ops was refused" in report.rotation.detail
    assert home.state.failed("ops") == 1
    assert reader.ours == []


def test_a_server_that_is_down_is_waited_for(home: Home, reader: Reader) -> None:
    reader.policy()
    with home.grafana.fault("unreachable"):
        assert home.rotate(wait=timedelta(0)).rotation.waiting is Waiting.UNREACHABLE
    assert home.to_the_end().exit_code == 0
    reader.is_whole(reader.by_hand.value)


@pytest.mark.parametrize("admin", ["ops", "itself"])
def test_while_grafanas_own_database_fails_no_token_is_taken_for_dead(home: Home, reader: Reader, admin: str) -> None:
    """Every token is refused then, without a reason, and /api/health is late: five seconds of `ok`."""
    old = stored(reader.by_hand.value, handle=reader.by_hand.id)
    asked = reader.opened(admin=home.by_ops if admin == "ops" else "self")
    home.state.database_fails = True
    for late in (False, True):
        if late:
            home.grafana.before.append(lambda seen: setattr(home.state, "database_fails", seen.path != "/api/health"))
        assert asked.test(old, Watch().context(old)) is Login.UNREACHABLE
        assert isinstance(asked.observe([old], Watch().context(old)), Unknown)


@pytest.mark.parametrize("admin", ["ops", "itself"])
def test_a_token_that_a_person_deleted_is_dead(home: Home, reader: Reader, admin: str) -> None:
    old = stored(reader.by_hand.value, handle=reader.by_hand.id)
    asked = reader.opened(admin=home.by_ops if admin == "ops" else "self")
    del home.state.tokens[reader.by_hand.id]
    assert asked.test(old, Watch().context(old)) is Login.REJECTED
    seen = asked.observe([old], Watch().context(old))
    assert isinstance(seen, Observation)
    assert seen.answers == {1: Login.REJECTED}
    reader.policy(adopted=False, admin=asked.settings.model_dump(mode="json", exclude_none=True)["admin"])
    with pytest.raises(RotationFailed):
        home.adopt(NAME, value=old.fields["token"].text())


def test_which_token_is_the_adopted_one_must_be_known(home: Home, reader: Reader) -> None:
    found = reader.check(first_token=None)["refuse"]
    assert "which token is the adopted one is not known" in found
    assert "first_token" in found
    old = stored(reader.by_hand.value)
    refused = reader.opened().set([], [old], Watch().context(old))
    assert isinstance(refused, Refused)
    assert reader.living == {reader.by_hand.value, reader.theirs.value}
    del home.state.tokens[reader.theirs.id]  # the only one: no doubt
    assert "ok" in reader.check(first_token=None)


def test_a_stranger_with_the_adopted_ones_name_is_not_deleted_once_that_one_is_dead(home: Home, reader: Reader) -> None:
    old = stored(reader.by_hand.value)
    reader.by_hand.value = home.state.token(reader.account, "x").value + "0"  # made anew by somebody, of the same name
    reader.opened(first_token="by hand").set([], [old], Watch().context(old))
    assert reader.by_hand.id in home.state.tokens


def test_a_token_of_another_account_or_organisation_is_not_taken(home: Home, reader: Reader) -> None:
    other = home.state.token(home.state.account("other"), "o")
    reader.policy(adopted=False)
    with pytest.raises(BackendError, match="could not be asked"):
        home.adopt(NAME, value=other.value)
    second = home.state.org("second")
    old = stored(reader.by_hand.value)
    with pytest.raises(BackendError, match="another organisation"):
        reader.opened(org=second).test(old, Watch().context(old))
    assert "no service account is called reader" in reader.check(org=second)["refuse"]


def test_an_admin_who_looks_at_another_organisation_finds_the_account_all_the_same(home: Home, reader: Reader) -> None:
    home.ops.using = home.state.org("second")
    reader.policy()
    assert home.to_the_end().exit_code == 0


def test_a_disabled_account_is_no_dead_token(home: Home, reader: Reader) -> None:
    reader.account.disabled = True
    old = stored(reader.by_hand.value)
    assert "is disabled" in reader.check()["refuse"]
    with pytest.raises(BackendError, match="disabled"):
        reader.opened().test(old, Watch().context(old))


def test_a_list_that_may_be_cut_off_concludes_nothing(home: Home, reader: Reader) -> None:
    for number in range(300):
        home.state.token(reader.account, f"a {number}")
    assert "300 tokens or more" in reader.check()["refuse"]
    old = stored(reader.by_hand.value, handle=reader.by_hand.id)
    assert isinstance(reader.opened().observe([old], Watch().context(old)), Unknown)
    assert isinstance(reader.opened().find("never", Watch().context(old)), Unknown)


@pytest.mark.parametrize("period", ["60d", None])
def test_a_limit_on_how_long_tokens_live_is_told_with_the_way_out(
    home: Home, reader: Reader, period: str | None
) -> None:
    reader.policy()
    body = {key: value for key, value in home.bodies[NAME].items() if key != "rotation_period"}
    home.policy(NAME, **body, **({"rotation_period": period} if period else {}))
    home.state.settings["service_accounts"]["token_expiration_day_limit"] = "30"
    report = home.rotate()
    assert report.rotation.state is State.ROLLED_BACK
    assert ("so long" if period else "rotation_period") in report.rotation.detail
    assert reader.living == {reader.by_hand.value, reader.theirs.value}


def test_a_name_that_is_taken_is_looked_for_again(home: Home, reader: Reader) -> None:
    reader.policy()

    def taken(seen: Seen) -> None:
        if str(seen).startswith("POST /api/serviceaccounts/"):
            home.grafana.before.remove(taken)
            home.state.token(reader.account, seen.given["name"])

    home.grafana.before.append(taken)
    assert home.to_the_end().exit_code == 0
    reader.is_whole(reader.by_hand.value)


def test_a_deleted_token_is_not_made_accepted_again(home: Home, reader: Reader) -> None:
    old = stored("glsa_gone", handle=99)
    answer = reader.opened().set([old], [], Watch().context(old))
    assert answer == Refused(No.UNSUPPORTED, "a token that was deleted or has expired cannot be made again")


def test_two_accounts_of_one_server_rotate_in_one_command(home: Home, reader: Reader) -> None:
    reader.policy()
    other = home.state.account("writer", "Editor")
    token = home.state.token(other, "w")
    target = {**home.bodies[NAME]["target"], "service_account": "writer", "first_token": "w"}
    home.policy("grafana/writer", **{**home.bodies[NAME], "target": target, "destinations": []})
    home.adopt("grafana/writer", value=token.value)
    assert home.to_the_end().exit_code == 0
    assert home.parts.store.open_rotations() == []
    reader.is_whole(reader.by_hand.value)
    assert token.id not in home.state.tokens


def test_a_value_that_is_no_token_is_refused_without_asking(home: Home, reader: Reader) -> None:
    for value in ("two words", "zürich", "line\nbreak"):
        old = stored(value)
        assert reader.opened().test(old, Watch().context(old)) is Login.REJECTED
    assert home.grafana.seen == []
