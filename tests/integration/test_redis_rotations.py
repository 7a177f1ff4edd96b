"""Whole rotations of Redis accounts: policy, store, engine and real servers, in this process."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.integration.hunter import Hunter
from tests.integration.redis_kit import Installed, Monitor, as_user, plain, wait_until
from tests.servers import ServerMissing, TestAccount
from tests.servers.redis import Node, RedisServer, hashed, logs_in, start
from vaultkeeper.access import refused
from vaultkeeper.engine.rotate import rotate
from vaultkeeper.errors import RotationFailed
from vaultkeeper.model.rotation import Purpose
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

NAME = "shop/cache"
Install = Callable[..., Installed]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    initialise(Wishes(home / "state", None, home / "identity.txt"), Recovery())
    return home


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    try:
        made = start()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield made
    made.stop()


@pytest.fixture
def install(tmp_path: Path, template: Path) -> Iterator[Install]:
    with ExitStack() as stack:

        def made(accounts: dict[str, TestAccount] | TestAccount, **keys: Any) -> Installed:
            named = {NAME: accounts} if isinstance(accounts, TestAccount) else accounts
            opened = Installed(tmp_path / "home", template, named, **keys)
            stack.callback(opened.close)
            return opened

        yield made


@pytest.fixture
def new_node() -> Iterator[Callable[..., Node]]:
    with ExitStack() as stack:

        def make(*words: Any, **options: Any) -> Node:
            try:
                made = Node(*words, **options)
            except ServerMissing as missing:
                pytest.skip(str(missing))
            stack.callback(made.stop)
            return made

        yield make


def test_an_adopted_account_rotates_five_times_in_a_row_and_a_crash_changes_nothing(
    server: RedisServer, install: Install
) -> None:
    account = server.account(everywhere=True)
    theirs = server.foreign(account)
    shop = install(account)
    shop.adopt(NAME)
    before = [account.password]
    for _ in range(5):
        assert shop.rotate().state == "done"
        current = shop.current(NAME)
        assert shop.delivered(NAME) == current
        assert server.login(account.username, current)
        assert server.login(*theirs)
        assert not any(server.login(account.username, old) for old in before)
        assert server.node.hashes(account.username) == {hashed(current), hashed(theirs[1])}
        before.append(current)
    for node in (server.node, *server.others):
        node.restart()
    assert server.login(account.username, before[-1])
    assert not any(server.login(account.username, old) for old in before[:-1])


@pytest.mark.parametrize("password", ["", "somebody's"])
def test_the_first_value_of_an_account_takes_nobodys_place(
    server: RedisServer, install: Install, password: str
) -> None:
    account = server.account()
    if not password:
        server.node.acl(account.username, "resetpass")
    shop = install(account)
    assert shop.rotate().state == "done"
    assert server.login(account.username, shop.current(NAME))
    assert server.login(account.username, account.password) is bool(password)


def test_a_value_that_is_accepted_as_any_other_would_be_is_not_adopted(server: RedisServer, install: Install) -> None:
    account = server.account()
    server.node.acl(account.username, "nopass")
    shop = install(account)
    with pytest.raises(RotationFailed, match="accepted, as any other would be") as caught:
        shop.adopt(NAME, "made up")
    assert "nopass" in caught.value.why
    assert shop.parts.store.labels(NAME) == {}
    server.node.acl(account.username, "resetpass", f"#{hashed(account.password)}")
    shop.adopt(NAME)


def test_two_policies_on_one_server_and_two_on_one_account_keep_each_others_values(
    server: RedisServer, install: Install
) -> None:
    one, other = server.account(), server.account()
    shared = TestAccount(one.username, server.foreign(one)[1], one.settings)
    shop = install({"shop/one": one, "shop/shared": shared, "shop/other": other})
    for name in shop.accounts:
        shop.adopt(name)
    for _ in range(2):
        reports = rotate(list(shop.accounts), shop.parts, by_name=True)
        assert [report.state for report in reports] == ["done"] * 3
    for name, account in shop.accounts.items():
        assert server.login(account.username, shop.delivered(name))
        assert not server.login(account.username, account.password)
    assert len(server.node.hashes(one.username)) == 2


@pytest.mark.parametrize("lost", ["lost-reply", "lost-request"])
def test_a_lost_set_is_looked_at_and_ends_well(server: RedisServer, install: Install, lost: str) -> None:
    account = server.account()
    shop = install(account)
    shop.adopt(NAME)
    with server.fault(lost) as loss:
        report = shop.rotate(wait=timedelta(0))
        assert report.state == "waiting"
        assert getattr(loss, "hits", 0) == 1
    assert shop.resume(NAME).state == "done"
    assert server.node.hashes(account.username) == {hashed(shop.current(NAME))}


def test_a_client_that_reconnects_every_20_ms_is_never_refused_in_20_rotations(
    server: RedisServer, install: Install
) -> None:
    """With what it was given. What was taken from it while it was on its way does not count, and is counted."""
    account = server.account()
    shop = install(account)
    shop.adopt(NAME)
    assert shop.rotate().state == "done"
    over, answers = threading.Event(), list[str]()

    def consumer() -> None:
        while not over.wait(0.02):
            given = shop.delivered(NAME)
            if logs_in(server.node.address, account.username, given):
                answers.append("accepted")
            else:
                answers.append("refused" if shop.delivered(NAME) == given else "overtaken")

    thread = threading.Thread(target=consumer)
    thread.start()
    try:
        for _ in range(20):
            logins = len(answers)
            assert shop.rotate().state == "done"
            wait_until(lambda seen=logins: len(answers) > seen + 3)  # type: ignore[misc]
    finally:
        over.set()
        thread.join()
    assert answers.count("refused") == 0
    assert answers.count("accepted") > 40
    assert answers.count("overtaken") < 20


def test_a_session_from_before_holds_the_old_value_until_it_ends(server: RedisServer, install: Install) -> None:
    account = server.account()
    shop = install(account)
    shop.adopt(NAME)
    session = as_user(server.node, account.username, account.password)
    wait_until(lambda: int(server.node.sessions(account.username)[0]["age"]) >= 2)  # ages are whole seconds
    report = shop.rotate(wait=timedelta(0))
    assert report.state == "waiting"
    (rotation,) = shop.parts.store.open_rotations()
    assert rotation.waiting is not None
    assert rotation.waiting.value == "evidence"
    assert rotation.waiting_for[0].startswith(f"1 session of {account.username} from 127.0.0.1")
    assert server.login(account.username, account.password)
    assert server.login(account.username, shop.current(NAME))
    assert session("PING") == b"PONG"
    session.close()
    wait_until(lambda: not server.node.sessions(account.username))
    assert shop.resume(NAME).state == "done"
    assert not server.login(account.username, account.password)


def test_an_emergency_closes_the_sessions_of_the_account(server: RedisServer, install: Install) -> None:
    account = server.account()
    shop = install(account)
    shop.adopt(NAME)
    with as_user(server.node, account.username, account.password) as session:
        (report,) = rotate([NAME], shop.parts, by_name=True, purpose=Purpose.EMERGENCY)
        assert report.state == "done"
        with pytest.raises(OSError, match="hung up"):
            session("PING")
    assert not server.login(account.username, account.password)


def test_a_leaked_password_that_an_old_acl_file_brought_back_is_refused_by_the_next_rotation(
    server: RedisServer, install: Install
) -> None:
    account = server.account()
    shop = install(account)
    shop.adopt(NAME)
    (report,) = rotate([NAME], shop.parts, by_name=True, purpose=Purpose.EMERGENCY)
    assert report.state == "done"
    assert shop.rotate().state == "done"
    server.node.acl(account.username, f">{account.password}")
    assert server.login(account.username, account.password)
    assert shop.rotate().state == "done"
    assert server.node.hashes(account.username) == {hashed(shop.current(NAME))}


def test_where_accounts_cannot_be_saved_nothing_is_set_and_the_way_out_is_told(
    new_node: Callable[..., Node], install: Install
) -> None:
    node = new_node("nothing", requirepass="first")
    shop = install(plain(node, "default", "first"))
    shop.adopt(NAME)
    calls = node.calls("acl|setuser")
    report = shop.rotate()
    assert report.state == "rolled_back"
    assert report.exit_code == 5
    assert "persisted_by" in str(report.error)
    assert node.calls("acl|setuser") == calls
    assert node.hashes("default") == {hashed("first")}
    assert not shop.out(NAME).exists()


def test_a_value_that_a_destination_keeps_outlives_the_server_that_cannot(
    new_node: Callable[..., Node], install: Install, tmp_path: Path
) -> None:
    """As `redis-server --requirepass "$(cat FILE)"`, started again by somebody else."""
    node = new_node("nothing", requirepass="first")
    kept = tmp_path / "requirepass"
    kept.write_text("first")
    account = plain(node, "default", "first", persisted_by={"kind": "file", "path": str(kept), "read": "at_start"})
    shop = install(account, generator={"kind": "password", "length": 40})
    shop.adopt(NAME)
    for _ in range(2):
        assert shop.rotate().state == "done"
        assert kept.read_text() == shop.current(NAME) == shop.delivered(NAME)
        assert logs_in(node.address, "default", shop.current(NAME))
        assert not logs_in(node.address, "default", "first")
    node.arguments[node.arguments.index("--requirepass") + 1] = kept.read_text()
    node.restart()
    assert logs_in(node.address, "default", shop.current(NAME))
    assert not logs_in(node.address, "default", "first")


# ------------------------------------------------------------------------------------------------------------ leaks


def test_no_password_is_in_what_the_server_logs_shows_and_counts(
    server: RedisServer, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log at debug level, MONITOR, SLOWLOG of everything, ACL LOG, its files; our own log and output."""
    caplog.set_level("DEBUG")
    first = "canary-'\"\\%/+&=?é-first"
    account = server.account(password=first, everywhere=True)
    with server.node.client() as say:
        say("CONFIG", "SET", "slowlog-log-slower-than", "0")
        say("CONFIG", "SET", "slowlog-max-len", "10000")
        say("SLOWLOG", "RESET")
    shop = install(account, generator={"kind": "password", "length": 40, "symbols": "'\"\\%/+&=?"})
    monitor = Monitor(server.node)
    values = {"admin": server.node.rotator, "adopted": first}
    shop.adopt(NAME)
    said = [_command(shop, "rotate", NAME, "--wait", "10min", "--json")]
    values["first"] = shop.current(NAME)
    with server.fault("lost-reply"):
        shop.rotate(wait=timedelta(0))
    shop.resume(NAME)
    values["second"] = shop.current(NAME)
    server.node.acl("vk_rotator", "-acl|setuser")
    said += [str(shop.rotate().error), _command(shop, "check", code=3), _command(shop, "rotate", NAME, code=5)]
    server.node.acl("vk_rotator", "+acl|setuser")
    assert len(set(values.values())) == 4
    hunter = Hunter(values)
    with server.node.client() as say:
        hunter.look("SLOWLOG", repr(say("SLOWLOG", "GET", "-1")))
        hunter.look("ACL LOG", repr(say("ACL", "LOG", "100")))
    shown = monitor.text()
    hunter.look("MONITOR", shown)
    for node in (server.node, *server.others):
        for path in node.folder.iterdir():
            if path.is_file() and path != server.rotator_file:
                hunter.look("the server's files", path.read_bytes())
    hunter.look("what we said", "\n".join([caplog.text, *said]))
    for path in (shop.home / "state").rglob("*"):
        if path.is_file():
            hunter.look("the state directory", path.read_bytes())
    assert hunter.hits == []
    assert '"AUTH" "(redacted)"' in shown
    assert min(hunter.looked_at.values()) > 300, hunter.looked_at  # one entry of the ACL log
    monitor = Monitor(server.node)
    with server.node.client() as say:
        say("SET", "planted", values["second"])
    found = Hunter(values)
    found.look("MONITOR", monitor.text())
    assert found.hits, "the hunt would not have found anything"


def _command(shop: Installed, *arguments: str, code: int = 0) -> str:
    places = {"STATE_DIR": "state", "POLICIES": "policies", "IDENTITY": "identity.txt"}
    env = {f"VAULTKEEPER_{name}": str(shop.home / path) for name, path in places.items()} | {"VAULTKEEPER_DEBUG": "1"}
    ran = forked.run(["-vv", *arguments], env=os.environ | env, cwd=shop.home)
    shown = (ran.stdout + ran.stderr).decode()
    assert ran.returncode == code, shown
    if "--json" in arguments:
        assert json.loads(ran.stdout)
    return shown


def test_one_wrong_password_of_the_admin_is_one_failed_login_for_all_secrets(
    server: RedisServer, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fail2ban bans an address at the fifth."""
    monkeypatch.setattr(refused, "TURN_S", 600)
    monkeypatch.setattr(refused, "FOR_S", 600)
    wrong = tmp_path / "wrong"
    wrong.write_text(os.urandom(8).hex())
    wrong.chmod(0o600)
    admin = {"username": "vk_rotator", "password": {"file": str(wrong)}}
    accounts = [server.account() for _ in range(6)]
    shop = install({f"shop/{n}": replace(a, settings={**a.settings, "admin": admin}) for n, a in enumerate(accounts)})
    before = server.refused_logins()
    for name in shop.accounts:
        shop.adopt(name)
    reports = rotate(list(shop.accounts), replace(shop.parts, parallel=4), by_name=True)
    assert {report.state for report in reports} == {"rolled_back"}
    assert server.refused_logins() - before == 1
