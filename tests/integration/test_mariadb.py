"""`mariadb` against a real server: what the contract cannot ask. The contract runs in tests/contract."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
import pytest

from tests.integration.mysql_kit import ODD_NAMES, A, Hooks, R, admin, value
from tests.servers import ServerMissing, TestAccount, tls
from tests.servers.mariadb import MariadbServer, start
from vaultkeeper.access import mysql_hashes as hashes
from vaultkeeper.access.mysql import LoginFailed
from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Done, Login, No, Refused, Unknown, Usage


@pytest.fixture(scope="module")
def server() -> Iterator[MariadbServer]:
    try:
        made = start(ssl=True)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield made
    made.stop()


def native(password: str) -> str:
    return f"mysql_native_password USING '{hashes.native(password.encode())}'"


def rewritten(server: MariadbServer, account: TestAccount, via: str) -> Hooks:
    """The account with these methods; `{}` is its own password."""
    server.execute(f"ALTER USER '{account.username}'@'%' IDENTIFIED VIA {via.format(native(account.password))}")
    return Hooks(account)


def plain_login(server: MariadbServer, name: str, password: str) -> bool:
    """By PyMySQL as an application uses it: it follows one change of method."""
    try:
        pymysql.connect(
            host=server.host, port=server.port, user=name, password=password.encode(), ssl_disabled=True
        ).close()
    except pymysql.OperationalError as error:
        if error.args[0] in {1045, 1698}:
            return False
        raise
    return True


# ------------------------------------------------------------------------------------------------------------- methods

ED, SOCKET = f"ed25519 USING '{hashes.ed25519(b'theirs')}'", "unix_socket"


@pytest.mark.parametrize("via", [f"{{}} OR {ED}", f"{ED} OR {{}}", f"{SOCKET} OR {{}}", f"{{}} OR {SOCKET}", "{}"])
def test_other_methods_stay_behind_ours_where_every_client_survives(server: MariadbServer, via: str) -> None:
    account = server.account()
    hooks = rewritten(server, account, via)
    others = [method for method in (ED, SOCKET) if method in via]
    for step, passwords in (
        (hooks.introduce, [value(hooks.new), account.password]),
        (hooks.retire, [value(hooks.new)]),
    ):
        assert step() == Done()
        expected = " OR ".join([*(native(password) for password in passwords), *others])
        shown = server.methods(account.username).partition("` IDENTIFIED ")[2]
        assert shown in {f"VIA {expected}", f"BY PASSWORD '{hashes.native(passwords[0].encode())}'"}
        for password in passwords:
            assert plain_login(server, account.username, password)
            assert server.login(account.username, password)
    assert not server.login(account.username, account.password)
    assert server.login(account.username, "theirs") is (ED in others)
    assert hooks.seen().foreign == len(others)


def test_a_method_of_another_kind_that_holds_the_old_password_goes_with_it(server: MariadbServer) -> None:
    account = server.account()
    both = f"{{}} OR ed25519 USING '{hashes.ed25519(account.password.encode())}'"
    hooks = rewritten(server, account, both)
    assert hooks.seen().foreign == 0
    hooks.introduce()
    assert server.login(account.username, account.password)
    hooks.retire()
    assert not server.login(account.username, account.password)
    assert server.methods(account.username).endswith(
        f"IDENTIFIED BY PASSWORD '{hashes.native(value(hooks.new).encode())}'"
    )


def test_a_wrong_password_is_refused_by_every_method_of_the_account(server: MariadbServer) -> None:
    hooks = rewritten(server, server.account(), f"{ED} OR {{}} OR {SOCKET} OR {native('third')}")
    wrong = hooks.version(3, "wrong", hooks.account.username)
    third, theirs = (hooks.version(4, text, hooks.account.username) for text in ("third", "theirs"))
    assert hooks.logins(hooks.old, third, theirs, wrong) == [A, A, A, R]


def test_what_is_so_already_is_not_written_again(server: MariadbServer) -> None:
    hooks = Hooks(server.account(through_proxy=True))
    hooks.introduce()
    with server.fault("lost-request") as loss:
        assert hooks.introduce() == Done()
    assert getattr(loss, "hits") == 0  # noqa: B009 - typed as object


def test_other_settings_of_the_account_stay(server: MariadbServer) -> None:
    account = server.account()
    rest = "WITH MAX_USER_CONNECTIONS 7 PASSWORD EXPIRE INTERVAL 90 DAY"
    server.execute(f"ALTER USER '{account.username}'@'%' {rest}")
    hooks = Hooks(account)
    assert hooks.introduce() == Done()
    assert server.methods(account.username).endswith(f" {rest}")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_account_may_be_called_anything(server: MariadbServer, name: str) -> None:
    hooks = Hooks(server.account(name, password="o'd \" %s % \\ ü@`"))
    assert hooks.findings("refuse") == []
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])
    assert (hooks.retire(), hooks.logins()) == (Done(), [R, A])
    assert server.login(name, value(hooks.new))
    assert isinstance(hooks.target.usage(hooks.old, datetime.now(UTC), hooks.context()), Usage)
    assert hooks.target.disconnect(hooks.old, hooks.context()) == Done()


def test_every_host_of_an_account_changes_and_a_forgotten_one_is_named(server: MariadbServer) -> None:
    account = server.account(hosts=("127.0.0.1", "10.1.%", "%"))
    hooks = Hooks(account, {"hosts": ["127.0.0.1", "10.1.%"]})
    assert [one.next for one in hooks.findings("warn")] == [f"add % to `hosts`, or DROP USER '{account.username}'@'%'"]
    hooks.introduce()
    texts = [server.methods(account.username, host) for host in ("127.0.0.1", "10.1.%", "%")]
    assert [hashes.native(value(hooks.new).encode()) in text for text in texts] == [True, True, False]
    server.execute(f"ALTER USER '{account.username}'@'10.1.%' IDENTIFIED VIA {native('another')}")
    assert list(hooks.seen().answers.values()) == [R, R]  # not from everywhere
    assert hooks.introduce() == Done()
    assert list(hooks.seen().answers.values()) == [A, A]


# ---------------------------------------------------------------------------------------------------------- privileges


def rotator(server: MariadbServer, name: str, *grants: str) -> dict[str, object]:
    server.execute("DROP USER IF EXISTS %s@'%%'", [name])
    server.account(name, password="rotates")
    for grant in grants:
        server.execute(grant)
    return admin(name, "rotates")


def test_each_missing_privilege_is_named_with_the_grant_that_gives_it(server: MariadbServer) -> None:
    hooks = Hooks(server.account(), {"admin": rotator(server, "poor"), "close_sessions": True})
    needed = {
        f"GRANT {what} ON {where} TO 'poor'@'%'"
        for what, where in {
            "CREATE USER": "*.*", "SELECT": "mysql.global_priv", "PROCESS": "*.*", "CONNECTION ADMIN": "*.*"
        }.items()
    }  # fmt: skip
    assert {one.next for one in hooks.findings("refuse")} == needed
    with pytest.raises(NotAuthorised, match=r"lacks SELECT ON mysql\.global_priv"):
        hooks.seen()
    server.execute("GRANT SELECT ON mysql.global_priv TO 'poor'@'%'")
    with pytest.raises(NotAuthorised, match=r"'poor'@'%' lacks CREATE USER ON \*\.\*"):
        hooks.introduce()
    for grant in needed:
        server.execute(grant)
    hooks.target.close()
    assert hooks.findings("refuse") == []
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])


def test_a_privilege_may_come_by_a_default_role(server: MariadbServer) -> None:
    hooks = Hooks(server.account(), {"admin": rotator(server, "actor")})
    for statement in (
        "CREATE OR REPLACE ROLE rotates_passwords",
        "GRANT CREATE USER, PROCESS ON *.* TO rotates_passwords",
        "GRANT SELECT ON mysql.* TO rotates_passwords",
        "GRANT rotates_passwords TO actor@'%'",
        "SET DEFAULT ROLE rotates_passwords FOR actor@'%'",
    ):
        server.execute(statement)
    assert hooks.findings("refuse") == []
    assert hooks.introduce() == Done()


def test_a_wrong_password_of_the_admin_is_told_as_that(server: MariadbServer) -> None:
    hooks = Hooks(server.account(), {"admin": admin(server.rotator, "wrong")})
    (finding,) = hooks.findings()
    assert (finding.level, "rejected the password of vk_rotator" in finding.text) == ("refuse", True)
    with pytest.raises(NotAuthorised, match="rejected the password of vk_rotator"):
        hooks.introduce()
    assert hooks.logins(hooks.old) == [A]


def test_a_server_of_the_other_kind_is_told_apart(server: MariadbServer) -> None:
    account = server.account()
    hooks = Hooks(TestAccount(account.username, account.password, {**account.settings, "kind": "mysql"}))
    (finding,) = hooks.findings()
    assert (finding.level, finding.next) == ("refuse", "say kind: mariadb")
    with pytest.raises(ConfigurationInvalid, match="is MariaDB"):
        hooks.introduce()


# ------------------------------------------------------------------------------------------------------------- its own


def test_an_account_changes_itself_without_any_privilege(server: MariadbServer) -> None:
    account = server.account()
    server.execute(f"ALTER USER '{account.username}'@'%' IDENTIFIED VIA {native(account.password)} OR unix_socket")
    hooks = Hooks(account, {"admin": "self"})
    assert hooks.findings("refuse") == []
    two = hooks.introduce()
    assert isinstance(two, Refused)
    assert "strategy: single" in two.detail
    for _ in range(2):
        assert (hooks.retire(), hooks.logins()) == (Done(), [R, A])
    assert server.methods(account.username).endswith(" OR unix_socket")
    for _ in range(2):
        assert (hooks.set([hooks.old], [hooks.new]), hooks.logins()) == (Done(), [A, R])


def test_an_account_does_not_take_somebody_elses_password_for_its_own(server: MariadbServer) -> None:
    account = server.account()
    rewritten(server, account, f"{native('theirs')} OR {{}}")
    hooks = Hooks(account, {"admin": "self"})
    assert [one.level for one in hooks.findings()] == ["ok", "warn"]
    refused = hooks.retire()
    assert isinstance(refused, Refused)
    assert refused.why is No.CAPACITY
    assert server.login(account.username, "theirs")


# ------------------------------------------------------------------------------------------------------------ sessions


def opened(server: MariadbServer, hooks: Hooks, version: Any) -> Any:
    return pymysql.connect(
        host=server.host, port=server.port, user=hooks.account.username, password=value(version), autocommit=True,
        ssl_disabled=True,
    )  # fmt: skip


def alive(connection: Any) -> bool:
    try:
        connection.ping(reconnect=False)
    except pymysql.MySQLError:
        return False
    return True


def test_a_session_from_before_the_rotation_counts_as_use_of_the_old_value_until_it_ends(server: MariadbServer) -> None:
    hooks = Hooks(server.account())
    now, hour = datetime.now(UTC), timedelta(hours=1)

    def usage(newer_made: datetime) -> Usage:
        hooks.new = replace(hooks.new, created_at=newer_made)
        used = hooks.target.usage(hooks.old, now, hooks.context())
        assert isinstance(used, Usage)
        return used

    assert usage(now) == Usage(in_use=False)
    before = opened(server, hooks, hooks.old)
    assert (hooks.introduce(), hooks.retire()) == (Done(), Done())
    assert alive(before)  # the server ends no session by itself
    assert usage(now - hour) == Usage(in_use=None)  # it may have begun with either
    holder = f"1 session of {hooks.account.username} from 127.0.0.1 (id {before.thread_id()})"
    assert usage(now + hour) == Usage(in_use=True, holders=(holder,))
    after = opened(server, hooks, hooks.new)
    assert hooks.target.disconnect(hooks.old, hooks.context()) == Done()
    assert (alive(before), alive(after)) == (False, False)
    assert usage(now) == Usage(in_use=False)


def test_any_session_of_an_alternating_user_counts(server: MariadbServer) -> None:
    hooks = Hooks(server.alternating())
    with opened(server, hooks, hooks.old):
        used = hooks.target.usage(hooks.old, datetime.now(UTC), hooks.context())
    assert used.in_use is True


def test_without_process_nothing_is_claimed_of_sessions(server: MariadbServer) -> None:
    blind = rotator(server, "blind", "GRANT CREATE USER ON *.* TO blind@'%'", "GRANT SELECT ON mysql.* TO blind@'%'")
    hooks = Hooks(server.account(), {"admin": blind})
    assert [one.next for one in hooks.findings("warn")] == ["GRANT PROCESS ON *.* TO 'blind'@'%'"]
    with opened(server, hooks, hooks.old):
        assert hooks.target.usage(hooks.old, datetime.now(UTC), hooks.context()) == Usage(in_use=None)
        refused = hooks.target.disconnect(hooks.old, hooks.context())
        assert isinstance(refused, Refused)
        assert "GRANT PROCESS ON *.* TO 'blind'@'%'" in refused.detail
        server.execute("GRANT PROCESS ON *.* TO blind@'%'")
        hooks.target.close()
        refused = hooks.target.disconnect(hooks.old, hooks.context())
        assert isinstance(refused, Refused)
        assert "GRANT CONNECTION ADMIN ON *.* TO 'blind'@'%'" in refused.detail


# ---------------------------------------------------------------------------------------- accounts that stand in the way


@pytest.mark.parametrize(
    ("state", "level", "following"),
    [
        ("ACCOUNT LOCK", "refuse", "ALTER USER {} ACCOUNT UNLOCK"),
        ("IDENTIFIED VIA mysql_native_password USING ''", "refuse",
         "ALTER USER {} IDENTIFIED VIA mysql_native_password USING 'invalid'"),
        ("REQUIRE SSL", "refuse", "say tls: {{ca: PATH}}"),
        ("REQUIRE X509", "refuse", "ALTER USER {} REQUIRE SSL"),
        ("PASSWORD EXPIRE", "warn", ""),
    ],
)  # fmt: skip
def test_an_account_that_nobody_can_use_or_anybody_is_told_before_anything_changes(
    server: MariadbServer, state: str, level: str, following: str
) -> None:
    hooks = Hooks(server.account())
    account = f"'{hooks.account.username}'@'%'"
    server.execute(f"ALTER USER {account} {state}")
    assert [one.next for one in hooks.findings(level)] == [following.format(account)]
    if state.startswith(("ACCOUNT", "IDENTIFIED")):
        assert isinstance(hooks.introduce(), Refused)


def test_an_account_that_does_not_exist_is_named(server: MariadbServer) -> None:
    hooks = Hooks(server.account())
    server.execute("DROP USER %s@'%%'", [hooks.account.username])
    account = f"'{hooks.account.username}'@'%'"
    assert [one.text for one in hooks.findings("refuse")] == [f"the account {account} does not exist"]
    refused = hooks.introduce()
    assert isinstance(refused, Refused)
    assert f"the account {account} does not exist" in refused.detail


def test_a_locked_account_and_one_with_an_expired_password_are_not_taken_for_a_wrong_one(server: MariadbServer) -> None:
    hooks = Hooks(server.account())
    account = f"'{hooks.account.username}'@'%'"
    server.execute(f"ALTER USER {account} ACCOUNT LOCK")
    assert (hooks.logins(hooks.old), list(hooks.seen().answers.values())) == ([R], [R, R])
    server.execute(f"ALTER USER {account} ACCOUNT UNLOCK PASSWORD EXPIRE")
    server.execute("SET GLOBAL disconnect_on_expired_password = ON")
    try:
        with pytest.raises(LoginFailed, match="the password has expired"):
            hooks.logins(hooks.old)
    finally:
        server.execute("SET GLOBAL disconnect_on_expired_password = OFF")
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])


def test_a_blocked_account_is_throttled_and_too_small_a_budget_is_refused(server: MariadbServer) -> None:
    hooks = Hooks(server.account())
    wrong = hooks.version(3, "wrong", hooks.account.username)
    server.execute("SET GLOBAL max_password_errors = 2")
    try:
        assert [one.next for one in hooks.findings("refuse")] == ["SET GLOBAL max_password_errors = 4, or more"]
        assert hooks.logins(wrong, wrong, wrong, hooks.old) == [R, R, Login.THROTTLED, Login.THROTTLED]
    finally:
        server.execute("SET GLOBAL max_password_errors = 4294967295")
        server.execute("FLUSH PRIVILEGES")
    assert hooks.logins(hooks.old) == [A]


def test_a_server_that_takes_no_hashes_or_no_writes_says_so_first(server: MariadbServer) -> None:
    hooks = Hooks(server.account())
    server.execute("INSTALL SONAME 'simple_password_check'")
    try:
        assert [one.next for one in hooks.findings("refuse")] == ["SET GLOBAL strict_password_validation = OFF"]
        refused = hooks.introduce()
        assert isinstance(refused, Refused)
        assert (refused.why, "vaultkeeper check" in refused.detail) == (No.UNSUPPORTED, True)
    finally:
        server.execute("UNINSTALL SONAME 'simple_password_check'")
    server.execute("SET GLOBAL read_only = ON")
    try:
        assert [one.next for one in hooks.findings("refuse")] == ["name the primary in `host`"]
        assert isinstance(hooks.introduce(), Refused)
    finally:
        server.execute("SET GLOBAL read_only = OFF")
    assert hooks.introduce() == Done()


# ------------------------------------------------------------------------------------------------------ others, crashes


def test_two_writers_do_not_meet_and_one_that_waits_too_long_comes_again(server: MariadbServer) -> None:
    hooks = Hooks(server.account(), seconds=3)
    with hooks.target._alone(hooks.context()):
        other = Hooks(hooks.account, seconds=3)
        refused = other.introduce()
    assert isinstance(refused, Refused)
    assert refused.why is No.CONFLICT
    assert other.introduce() == Done()
    with server.root() as holder, holder.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        assert isinstance(other.set([other.old], [other.new]), Refused | Unknown)
    assert other.set([other.old], [other.new]) == Done()


def test_what_was_set_survives_a_crash_of_the_server(server: MariadbServer) -> None:
    hooks = Hooks(server.account())
    assert hooks.seen().durable is True
    hooks.introduce()
    with server.fault("crash"):
        assert isinstance(hooks.introduce(), Unknown)
    assert list(hooks.seen().answers.values()) == [A, A]
    assert hooks.logins() == [A, A]


def test_tls_is_verified_in_full_or_not_used(server: MariadbServer) -> None:
    account = server.account()
    server.execute(f"ALTER USER '{account.username}'@'%' REQUIRE SSL")
    by_name = {"host": "localhost", "tls": {"ca": str(server.ca)}}
    hooks = Hooks(account, by_name)
    assert ["TLS" in one.text for one in hooks.findings()] == [True]
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])
    stranger = tls.issue().ca
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(stranger)
        file.flush()
        untrusting = Hooks(account, {**by_name, "tls": {"ca": file.name}})
        (finding,) = untrusting.findings()
        assert finding.level == "refuse"
        assert finding.text.startswith(f"no verified TLS connection to the server at localhost:{server.port}")
        with pytest.raises(LoginFailed):
            untrusting.logins(hooks.old)
    missing = Hooks(account, {**by_name, "tls": {"ca": "/nowhere"}})
    assert [one.next for one in missing.findings()] == ["name a PEM file in tls: {ca: PATH}"]


def test_a_unix_socket_is_as_good_as_an_address(server: MariadbServer) -> None:
    hooks = Hooks(server.account(), {"host": str(server.socket)})
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])
    away = Hooks(hooks.account, {"host": "/nowhere/socket"})
    assert isinstance(away.introduce(), Unknown)
    assert away.logins(hooks.old) == [Login.UNREACHABLE]
