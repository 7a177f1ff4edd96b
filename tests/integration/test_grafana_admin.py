"""Passwords of users of a simulated Grafana: whole rotations, and what can be wrong, with the clock turned."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.grafana_kit import Home, forget_refusals, saw, texts
from tests.servers import tls
from tests.servers.grafana_admin import ODD
from vaultkeeper.engine.preview import preview
from vaultkeeper.errors import BackendError, RotationFailed
from vaultkeeper.model.outcome import Done, Login, No, Refused, Unknown
from vaultkeeper.model.rotation import Cause, State, Waiting
from vaultkeeper.model.secret import SecretBytes, SecretVersion
from vaultkeeper.targets.grafana_admin import GrafanaAdminTarget
from vaultkeeper.testing.contract.trial import DIFFICULT, Watch, version
from vaultkeeper.testing.grafana import Seen, User

NAME = "grafana/rosa"
FIRST = "the first one"
EVERY = 1  # of the calls, where each of them loses its reply


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    opened = Home(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def rosa(home: Home) -> User:
    made = home.state.user("rosa", "rosa@example.test")
    made.password = FIRST
    return made


def by(admin: str, user: User) -> dict[str, Any]:
    """Settings by which `ops`, or the user itself, changes it; `blind`: without an e-mail address."""
    own = {"admin": "self", "email": user.email} if admin == "self" else {"admin": "self"}
    return {} if admin == "ops" else own


def failures(home: Home, name: str = "rosa") -> int:
    return home.state.failed(name)


def locked_by_a_stale_client(home: Home, *names: str) -> None:
    """What a scraper with a wrong password does within a minute."""
    for name in names:
        for _ in range(5):
            home.state.fail(name)


# ----------------------------------------------------------------------------------------------------------- rotations


@pytest.mark.parametrize("admin", ["ops", "self"])
def test_five_in_a_row_cost_one_failed_login_each(home: Home, rosa: User, admin: str) -> None:
    home.user(NAME, rosa, **by(admin, rosa))
    for _ in range(5):
        home.clock.sleep(timedelta(minutes=6))
        before = home.current(NAME)
        assert home.rotate().exit_code == 0
        assert home.current(NAME) == rosa.password == home.delivered(NAME) != before
        assert failures(home) == 1
    assert failures(home, rosa.email) == failures(home, "ops") == 0


def test_rotations_in_quick_succession_never_lock_the_name(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    for _ in range(4):
        assert home.rotate().exit_code == 0
        assert not home.state.locked("rosa")
    assert home.current(NAME) == rosa.password


def test_a_first_rotation_asks_before_it_takes_a_password_away(home: Home, rosa: User) -> None:
    home.user(NAME, rosa, adopted=False)
    report = home.rotate()
    assert report.rotation.cause is Cause.ACCOUNT_IN_USE
    assert rosa.password == FIRST
    assert home.rotate(replace=True).exit_code == 0
    assert home.current(NAME) == rosa.password
    assert failures(home) == 0  # the wrong login was that of a user whom nobody has
    assert [name for name in home.state.failures if name.startswith("vk-probe-")]


@pytest.mark.parametrize("admin", ["ops", "self"])
def test_a_reply_lost_at_any_call_leaves_one_password(home: Home, rosa: User, admin: str) -> None:
    home.user(NAME, rosa, **by(admin, rosa))

    def is_whole(before: str) -> str:
        assert home.current(NAME) == rosa.password == home.delivered(NAME) != before
        assert max(map(home.state.failed, home.state.failures)) < 5
        return home.current(NAME)

    assert home.lost_at_each_call(NAME, is_whole, FIRST, EVERY) >= 6


def test_two_users_of_one_server_rotate_in_one_command(home: Home, rosa: User) -> None:
    other = home.state.user("max", "max@example.test")
    home.user(NAME, rosa)
    home.user("grafana/max", other)
    home.parts = replace(home.parts, parallel=2)
    assert home.rotate().exit_code == 0
    assert (home.current(NAME), home.current("grafana/max")) == (rosa.password, other.password)
    assert (failures(home), failures(home, "max")) == (1, 1)


def test_a_consumer_that_fails_takes_the_password_back(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    file = home.bodies[NAME]["destinations"][0]
    home.write("only", FIRST)
    works = {"confirm": {"command": ["/usr/bin/cmp", file["path"], str(home.folder / "only")]}, "healthy_for": "0s"}
    home.policy(NAME, **{**home.bodies[NAME], "destinations": [{**file, **works, "timeout": "1s"}]})
    report = home.rotate()
    assert report.rotation.state is State.ROLLED_BACK
    assert rosa.password == FIRST == home.current(NAME)


@pytest.mark.parametrize("login", ["o'brien", 'the "boss"', "50%", "rosa@work", "Rößle 日本", "a/b?c#d", ODD])
def test_any_login_name_and_every_character_of_a_password(home: Home, login: str) -> None:
    user = home.state.user(login, "x@example.test")
    for admin in ("ops", "self"):
        asked = opened(home, user, **by(admin, user))
        old, new = account(1, user.password, login), account(2, DIFFICULT, login)
        watch = Watch()
        assert asked.set([new], [old], watch.context(old, new)) == Done()
        assert asked.test(new, watch.context(old, new)) is Login.ACCEPTED
        assert user.password == DIFFICULT
        assert asked.set([old], [new], watch.context(old, new)) == Done()


def opened(home: Home, user: User, **settings: object) -> GrafanaAdminTarget:
    whole = {"url": home.grafana.url, "user": user.login, "admin": home.by_ops, **settings}
    return GrafanaAdminTarget.open(whole, 1)


def account(number: int, password: str, login: str = "rosa") -> SecretVersion:
    fields = {"username": SecretBytes(login.encode()), "password": SecretBytes(password.encode())}
    return version(number, fields, "grafana_admin", {})


# ----------------------------------------------------------------------------------------------- locked, and not undone


def after_the_set(home: Home, *names: str) -> None:
    """As soon as the new password is set, a stale client locks these names."""

    def strike(seen: Seen) -> None:
        if home.grafana.seen and str(home.grafana.seen[-1]).endswith("/password"):
            locked_by_a_stale_client(home, *names)
            home.grafana.before.remove(strike)

    home.grafana.before.append(strike)


def test_a_locked_name_is_got_round_by_the_users_e_mail_address(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    locked_by_a_stale_client(home, "rosa")
    after_the_set(home, "rosa")
    assert home.rotate(wait=timedelta(0)).exit_code == 0
    assert home.current(NAME) == rosa.password == home.delivered(NAME)


@pytest.mark.parametrize("admin", ["ops", "self", "blind"])
def test_locked_in_every_name_it_is_throttled_waits_and_is_never_undone(home: Home, rosa: User, admin: str) -> None:
    home.user(NAME, rosa, **by(admin, rosa))
    after_the_set(home, "rosa", rosa.email)
    report = home.rotate(wait=timedelta(0))
    assert (report.rotation.state, report.rotation.waiting) == (State.WAITING, Waiting.THROTTLED)
    new = rosa.password
    assert new != FIRST
    assert home.to_the_end().exit_code == 0
    assert home.current(NAME) == rosa.password == home.delivered(NAME) == new
    assert len(saw(home.grafana, "PUT /api/")) == 1


def test_while_a_stale_client_goes_on_nothing_is_undone(home: Home, rosa: User) -> None:
    """It locks name and address again and again for an hour; when it has stopped the rotation ends by itself."""
    home.user(NAME, rosa)
    after_the_set(home, "rosa", rosa.email)
    home.rotate(wait=timedelta(0))
    for _ in range(12):
        home.clock.sleep(timedelta(minutes=5))
        locked_by_a_stale_client(home, "rosa", rosa.email)
        report = home.resume(wait=timedelta(0))
        assert (report.rotation.state, report.rotation.waiting) == (State.WAITING, Waiting.THROTTLED)
    assert home.to_the_end().exit_code == 0
    assert home.current(NAME) == rosa.password == home.delivered(NAME)


def test_a_blocked_address_is_throttled_and_a_person_is_warned_of_it(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    home.state.settings["security"]["disable_ip_address_login_protection"] = "false"
    assert "block this machine's address" in texts(check(home, rosa))["warn"]
    locked_by_a_stale_client(home, "somebody", "else")
    asked, old = opened(home, rosa), account(1, FIRST)
    assert asked.test(old, Watch().context(old)) is Login.THROTTLED
    assert isinstance(asked.set([old], [], Watch().context(old)), Unknown)


def test_a_password_that_a_person_changed_is_not_taken_for_a_lock(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    rosa.password = "changed by hand"
    report = home.rotate()
    assert (report.rotation.state, report.rotation.cause) == (State.AMBIGUOUS, Cause.NONE_ACCEPTED)
    home.clock.sleep(timedelta(minutes=6))
    home.adopt(NAME, password=rosa.password)
    assert home.rotate().exit_code == 0


def test_a_locked_admin_after_the_check_is_waited_for(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)

    def strike(seen: Seen) -> None:
        if str(seen).startswith("PUT "):
            locked_by_a_stale_client(home, "ops")
            home.grafana.before.remove(strike)

    home.grafana.before.append(strike)
    report = home.rotate(wait=timedelta(0))
    assert report.rotation.waiting is Waiting.THROTTLED
    assert "five failed logins" in report.rotation.detail
    forget_refusals()
    assert home.to_the_end().exit_code == 0


# ---------------------------------------------------------------------------------------------------- what can be wrong


def check(home: Home, user: User, current: str = FIRST, **settings: object) -> object:
    old = account(1, current, user.login)
    return opened(home, user, **settings).check(Watch().context(old))


def test_a_wrong_admin_password_is_told_before_anything_is_set_and_tried_once(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    home.user("grafana/max", home.state.user("max"))
    home.write("ops", "not that one")
    report = home.rotate()
    assert (report.rotation.state, report.rotation.cause) == (State.ROLLED_BACK, Cause.PRIVILEGE)
    assert "ops was refused" in report.rotation.detail
    assert preview(list(home.bodies), home.parts, ask_servers=True)
    assert failures(home, "ops") == 1
    assert rosa.password == FIRST


def test_who_is_no_server_admin_is_told_which_right_is_missing(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    home.ops.is_admin = False
    report = home.rotate()
    assert report.rotation.cause is Cause.PRIVILEGE
    assert "ops lacks settings:read; make it a server admin" in report.rotation.detail
    answer = opened(home, rosa).set([account(2, "a new one")], [], Watch().context(account(1, FIRST)))
    assert isinstance(answer, Refused)
    assert (answer.why, "users:read" in answer.detail) == (No.PRIVILEGE, True)


def test_what_the_plan_says(home: Home) -> None:
    admin = home.state.admin
    home.user("grafana/admin", admin)
    (plan,) = preview(["grafana/admin"], home.parts, ask_servers=True)
    told = texts(plan.findings)
    assert "GF_SECURITY_ADMIN_PASSWORD acts only when Grafana makes its database" in told["warn"]
    assert "read: first_start" in told["warn"]
    assert "one failed login on purpose" in told["ok"]
    assert "barrier" in "".join(plan.steps)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _, u: setattr(u, "external", True), "LDAP, OAuth"),
        (lambda _, u: setattr(u, "disabled", True), "is disabled"),
        (lambda h, u: h.state.users.pop(u.id), "nobody has the login name rosa"),
        (lambda h, _: h.state.settings["auth"].update(disable_login_form="true"), "use `admin: self`"),
        (lambda h, _: h.state.settings["auth.basic"].update(enabled="false"), "basic auth is off"),
    ],
)
def test_what_is_refused_before_anything_is_set(
    home: Home, rosa: User, spoil: Callable[[Home, User], object], says: str
) -> None:
    spoil(home, rosa)
    assert says in texts(check(home, rosa))["refuse"]


def test_with_the_login_form_off_a_user_still_changes_its_own(home: Home, rosa: User) -> None:
    home.user(NAME, rosa, admin="self", email=rosa.email)
    home.state.settings["auth"]["disable_login_form"] = "true"
    assert home.rotate().exit_code == 0
    assert home.current(NAME) == rosa.password


@pytest.mark.parametrize("admin", ["ops", "self"])
def test_a_password_that_the_policy_refuses_changes_nothing_and_says_what_it_wants(
    home: Home, rosa: User, admin: str
) -> None:
    home.user(NAME, rosa, **by(admin, rosa))
    home.state.settings["auth.basic"]["password_policy"] = "true"
    report = home.rotate()
    assert (report.rotation.state, report.rotation.cause) == (State.ROLLED_BACK, Cause.VALUE)
    assert "a digit and a symbol" in report.rotation.detail
    assert home.current(NAME) == rosa.password == FIRST
    symbols = {"kind": "password", "symbols": "-_", "minimum": {"symbols": 1, "upper": 1, "lower": 1, "digits": 1}}
    home.policy(NAME, **{**home.bodies[NAME], "generator": symbols})
    home.clock.sleep(timedelta(minutes=6))
    assert home.rotate().exit_code == 0


def test_a_server_that_is_down_is_waited_for(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    with home.grafana.fault("unreachable"):
        report = home.rotate(wait=timedelta(0))
        assert report.rotation.waiting is Waiting.UNREACHABLE
        assert report.error.why  # of a login that a look made
    assert home.to_the_end().exit_code == 0
    assert home.current(NAME) == rosa.password


@pytest.mark.parametrize("fault", ["500", "html", "redirect", "429", "silent"])
def test_no_other_answer_is_taken_for_a_refusal(home: Home, rosa: User, fault: str) -> None:
    asked, old, watch = opened(home, rosa), account(1, FIRST), Watch(seconds=1.0)
    with home.grafana.fault(fault):
        assert asked.test(old, watch.context(old)) in (Login.UNREACHABLE, Login.THROTTLED)
        assert isinstance(asked.set([account(2, "another")], [old], watch.context(old)), Unknown)


def test_while_grafanas_own_database_fails_nothing_is_concluded(home: Home, rosa: User) -> None:
    home.user(NAME, rosa)
    home.state.database_fails = True
    report = home.rotate(wait=timedelta(0))
    assert report.rotation.waiting is Waiting.UNREACHABLE
    home.state.database_fails = False
    assert home.to_the_end().exit_code == 0


def test_where_anybody_may_look_the_login_is_proven_all_the_same(home: Home, rosa: User) -> None:
    home.state.settings["auth.anonymous"]["enabled"] = "true"
    home.user(NAME, rosa)
    assert home.rotate().exit_code == 0
    old, wrong = account(1, rosa.password), account(2, "wrong")
    assert opened(home, rosa).test(wrong, Watch().context(old)) is Login.REJECTED
    home.write("ops", "not that one")  # and served as the viewer: 403, which is the login's, not a right's
    assert "ops was refused" in texts(check(home, rosa, rosa.password))["refuse"]


def test_behind_a_sub_path(home: Home, rosa: User) -> None:
    home.state.prefix = "/grafana"
    home.user(NAME, rosa, url=f"{home.grafana.url}/grafana/")
    assert home.rotate().exit_code == 0


def test_over_tls_the_server_must_be_the_one_that_is_meant(tmp_path: Path) -> None:
    certificates = tls.issue()
    for name in ("ca", "certificate", "key"):
        (tmp_path / name).write_text(getattr(certificates, name))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    home = Home(tmp_path, tls=context)
    rosa = home.state.user("rosa", "rosa@example.test")
    try:
        home.user(NAME, rosa, ca=str(tmp_path / "ca"))
        assert home.rotate().exit_code == 0
        found = texts(check(home, rosa, rosa.password))
        assert "TLS: " in found["unchecked"]
        assert "refuse" not in found
    finally:
        home.close()


def test_adopting_tells_a_wrong_value_from_one_that_cannot_be_judged(home: Home, rosa: User) -> None:
    home.user(NAME, rosa, adopted=False)
    with pytest.raises(RotationFailed):
        home.adopt(NAME, password="a typo")
    home.user(NAME, rosa, adopted=False, admin="self")
    home.clock.sleep(timedelta(minutes=6))
    with pytest.raises(BackendError, match="could not be asked"):
        home.adopt(NAME, password="a typo")
    assert "say the e-mail address" in texts(check(home, rosa, admin="self"))["warn"]


def test_an_e_mail_address_of_somebody_else_is_noticed(home: Home, rosa: User) -> None:
    other = home.state.user("max", "max@example.test")
    other.password = FIRST
    locked_by_a_stale_client(home, "rosa")
    asked, old = opened(home, rosa, email="max@example.test"), account(1, FIRST)
    with pytest.raises(BackendError, match="another user"):
        asked.test(old, Watch().context(old))


def test_many_threads_with_one_wrong_admin_password_try_it_once_at_a_time(home: Home, rosa: User) -> None:
    """Four wrong ones are safe; the fifth locks the admin for everybody."""
    home.write("ops", "not that one")
    threads = [threading.Thread(target=check, args=(home, rosa)) for _ in range(8)]
    for thread in threads:
        thread.start()
        thread.join()
    assert failures(home, "ops") == 1
