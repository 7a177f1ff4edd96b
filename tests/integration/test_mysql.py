"""`mysql`: two slots, what stands in the way of them, and what is said readable. On the simulator, or a real server.

What needs a version, TLS, or a setting of the whole server always runs on the simulator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pymysql
import pytest

from tests.integration.hunter import Hunter
from tests.integration.mysql_kit import ODD_NAMES, A, Hooks, R, admin, value
from tests.servers import TestAccount
from tests.servers.mysql import MysqlServer, start
from vaultkeeper.access.mysql import LoginFailed
from vaultkeeper.access.mysql.hashes import sha2
from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Done, Login, No, Refused, Usage
from vaultkeeper.targets.mysql import MysqlSettings, MysqlTarget
from vaultkeeper.testing.mysql import MysqlServer as Simulator

Start = Callable[..., MysqlServer]


@pytest.fixture(scope="module")
def server() -> Iterator[MysqlServer]:
    made = start()
    yield made
    made.stop()


@pytest.fixture
def simulated() -> Iterator[Start]:
    """Simulators that end with the test."""
    made: list[MysqlServer] = []

    def begin(version: str = "8.4.3", **options: Any) -> MysqlServer:
        made.append(start(version, **options))
        return made[-1]

    yield begin
    for one in made:
        one.stop()


def of(server: MysqlServer) -> Simulator:
    assert server.simulator is not None
    return server.simulator


def slots(server: MysqlServer, name: str) -> list[bool]:
    """Whether primary and second slot hold anything."""
    query = "SELECT User, Host, plugin, authentication_string, account_locked = 'Y', password_expired = 'Y', ssl_type, "
    more = "User_attributes ->> '$.additional_password', User_attributes ->> '$.Password_locking.failed_login_attempts'"
    [row] = server.execute(f"{query}{more} FROM mysql.user WHERE User IN ('{name}')")
    return [bool(row[3]), bool(row[7])]


def changes(log: list[str], *hooks: Hooks) -> list[str]:
    """How these accounts were changed, without the stored forms."""
    lines = [line for line in log for one in hooks if line.startswith(f"ALTER USER '{one.account.username}")]
    return [re.sub(r" AS '.*'", " AS <form>", line, flags=re.DOTALL) for line in lines]


# -------------------------------------------------------------------------------------------------------- the two slots


def test_the_old_password_moves_into_the_second_slot_and_out_of_it(server: MysqlServer) -> None:
    hooks = Hooks(server.account())
    name = hooks.account.username
    assert (slots(server, name), list(hooks.seen().answers.values())) == ([True, False], [A, R])
    for _ in range(2):
        assert (hooks.introduce(), slots(server, name), hooks.logins()) == (Done(), [True, True], [A, A])
    for _ in range(2):
        assert (hooks.retire(), slots(server, name), hooks.logins()) == (Done(), [True, False], [R, A])


def test_a_repeated_or_half_done_change_loses_neither_password(server: MysqlServer) -> None:
    hooks = Hooks(server.account(through_proxy=True))
    with server.logged() as log:
        with server.fault("lost-reply"):
            hooks.introduce()
        assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])
    assert len([line for line in changes(log, hooks) if "RETAIN" in line]) == 1
    with server.fault("lost-reply", statement="ALTER USER"):  # between the two statements of the way back
        hooks.set([hooks.old], [hooks.new])
    assert hooks.logins(hooks.old) == [A]
    assert (hooks.set([hooks.old], [hooks.new]), hooks.logins()) == (Done(), [A, R])
    assert slots(server, hooks.account.username) == [True, False]


def test_a_second_password_of_somebody_else_leaves_no_room(server: MysqlServer) -> None:
    hooks = Hooks(server.account())
    account = f"'{hooks.account.username}'@'%'"
    server.execute(f"ALTER USER {account} IDENTIFIED BY 'theirs' RETAIN CURRENT PASSWORD")
    server.execute(f"ALTER USER {account} IDENTIFIED BY '{hooks.account.password}'")
    server.execute(f"ALTER USER {account} IDENTIFIED BY 'theirs too' RETAIN CURRENT PASSWORD")
    refused = hooks.introduce()
    assert isinstance(refused, Refused)
    assert (refused.why, f"ALTER USER {account} DISCARD OLD PASSWORD" in refused.detail) == (No.CAPACITY, True)
    following = f"where nobody uses it: ALTER USER {account} DISCARD OLD PASSWORD"
    assert hooks.findings("warn") == []  # ours is the second one
    server.execute(f"ALTER USER {account} IDENTIFIED BY '{hooks.account.password}' RETAIN CURRENT PASSWORD")
    assert [one.next for one in hooks.findings("warn")] == [following]
    assert hooks.seen().foreign == 1
    refused = hooks.introduce()
    assert isinstance(refused, Refused)
    assert refused.why is No.CAPACITY
    assert server.login(hooks.account.username, "theirs too")
    server.execute(f"ALTER USER {account} DISCARD OLD PASSWORD")
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])


def test_going_back_is_said_as_a_hash_that_password_history_does_not_judge(server: MysqlServer) -> None:
    hooks = Hooks(server.account())
    account = f"'{hooks.account.username}'@'%'"
    server.execute(f"ALTER USER {account} PASSWORD HISTORY 5")
    with server.logged() as log:
        hooks.introduce()
        assert (hooks.set([hooks.old], [hooks.new]), hooks.logins()) == (Done(), [A, R])
    assert changes(log, hooks) == [
        f"ALTER USER {account} IDENTIFIED BY <secret> RETAIN CURRENT PASSWORD",
        f"ALTER USER {account} IDENTIFIED WITH caching_sha2_password AS <form>",
        f"ALTER USER {account} DISCARD OLD PASSWORD",
    ]
    refused = hooks.introduce()  # the same value once more is no new one
    assert isinstance(refused, Refused)
    assert refused.why is No.VALUE


FORM = sha2(b"by its form")
ANSWERS = [
    ([], "IDENTIFIED BY '' RETAIN CURRENT PASSWORD", 3895),
    (["IDENTIFIED BY ''"], "IDENTIFIED BY 'new' RETAIN CURRENT PASSWORD", 3878),
    ([], "IDENTIFIED WITH caching_sha2_password AS 'senseless'", 1827),
    ([], "IDENTIFIED WITH nothing_like_that BY 'new'", 1524),
    ([], "IDENTIFIED BY 'new', 'nobody'@'%' IDENTIFIED BY 'new'", 1396),
    ([], "IDENTIFIED BY 'new' RETAIN CURRENT PASSWORDS", 1064),
    (["PASSWORD HISTORY 3", "IDENTIFIED BY 'new'"], "IDENTIFIED BY 'new' RETAIN CURRENT PASSWORD", 3638),
    ([], f"IDENTIFIED WITH caching_sha2_password AS '{FORM}' RETAIN CURRENT PASSWORD", 0),  # as replicas are told it
    (["DISCARD OLD PASSWORD"], "DISCARD OLD PASSWORD", 0),
]
"""What MySQL 9.7.4 answered: ALTER USER before, the one that is judged, its error."""


@pytest.mark.parametrize(
    ("before", "said", "error"), ANSWERS, ids=[f"{said[:36]} {error}" for _, said, error in ANSWERS]
)
def test_a_change_is_answered_as_a_real_server_did(
    server: MysqlServer, before: list[str], said: str, error: int
) -> None:
    account = server.account()
    for one in before:
        server.execute(f"ALTER USER '{account.username}'@'%' {one}")
    try:
        server.execute(f"ALTER USER '{account.username}'@'%' {said}")
        answered = 0
    except pymysql.MySQLError as failed:
        answered = failed.args[0]
    assert answered == error
    if FORM in said:
        assert [server.login(account.username, one) for one in (account.password, "by its form")] == [True, True]


def test_a_value_that_the_servers_rules_refuse_is_told_as_that(simulated: Start) -> None:
    server = simulated()
    hooks = Hooks(server.account())
    of(server).state.globals["validate_password.length"] = 200
    refused = hooks.introduce()
    assert isinstance(refused, Refused)
    assert refused.why is No.VALUE


def test_an_account_of_the_older_method_is_changed_too(simulated: Start) -> None:
    newer = simulated("8.4.3")
    with pytest.raises(pymysql.MySQLError, match="'mysql_native_password' is not loaded"):
        newer.execute("CREATE USER 'native'@'%' IDENTIFIED WITH mysql_native_password BY 'old one'")
    server = simulated("8.0.40")
    name = f"native_{server.account().username}"
    server._made.append((name, "%"))
    server.execute(f"CREATE USER '{name}'@'%' IDENTIFIED WITH mysql_native_password BY 'old one'")
    hooks = Hooks(TestAccount(name, "old one", {**server.account().settings, "user": name}))
    assert (hooks.introduce(), list(hooks.seen().answers.values())) == (Done(), [A, A])
    assert (hooks.logins(), hooks.retire(), hooks.logins()) == ([A, A], Done(), [R, A])


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if len(name) < 30])
def test_an_account_may_be_called_anything(server: MysqlServer, name: str) -> None:
    hooks = Hooks(server.account(name, password="o'd \" %s % \\ ü@`"))
    assert hooks.findings("refuse") == []
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])
    assert (hooks.retire(), hooks.logins()) == (Done(), [R, A])
    assert isinstance(hooks.target.usage(hooks.old, datetime.now(UTC), hooks.context()), Usage)


# ------------------------------------------------------------------------------------------------------------- versions


def test_a_server_too_old_for_two_passwords_says_what_works_there(simulated: Start) -> None:
    server = simulated("8.0.13")
    hooks = Hooks(server.account())
    (finding,) = hooks.findings("refuse")
    assert finding.text == "MySQL 8.0.13 holds one password for an account: two of them need 8.0.14 or newer"
    assert finding.next == "upgrade, or say strategy: alternating_users with `users: [A, B]`"
    refused = hooks.introduce()
    assert isinstance(refused, Refused)
    assert refused.why is No.CAPACITY
    turns = Hooks(server.alternating())
    assert turns.findings("refuse") == []
    assert (turns.introduce(), turns.logins()) == (Done(), [A, A])
    assert (turns.retire(), turns.logins()) == (Done(), [R, A])
    assert (turns.set([turns.old], []), turns.logins()) == (Done(), [A, A])
    older = Hooks(simulated("5.7.44").account())
    assert "MySQL 5.7.44 is too old" in older.findings("refuse")[0].text


def test_a_server_of_the_other_kind_is_told_apart(server: MysqlServer) -> None:
    account = server.account()
    hooks = Hooks(TestAccount(account.username, account.password, {**account.settings, "kind": "mariadb"}))
    assert [one.next for one in hooks.findings()] == ["say kind: mysql"]
    with pytest.raises(ConfigurationInvalid, match="is MySQL"):
        hooks.introduce()


# ----------------------------------------------------------------------------------------------------- what is readable


def test_a_password_is_said_readable_over_tls_or_on_this_machine_only() -> None:
    with pytest.raises(ValueError, match="would send a new password readable"):
        MysqlSettings.model_validate({"host": "db.internal", "user": "shop", "admin": "self", "tls": "off"})
    for fine in ({"tls": {"ca": "/ca.pem"}}, {}, {"host": "127.0.0.1"}, {"host": "/run/mysqld.sock"}):
        MysqlSettings.model_validate({"host": "db.internal", "user": "shop", "admin": "self", **fine})
    turns = {"host": "db", "users": ["a", "b"], "admin": {"username": "r", "password": {"file": "f"}}, "tls": "off"}
    MysqlSettings.model_validate(turns)  # hashes only


def test_the_general_log_shows_no_password(server: MysqlServer) -> None:
    hooks = Hooks(server.account())
    turns = Hooks(server.alternating())
    with server.logged() as log:
        for one in (hooks, turns):
            assert (one.introduce(), one.set([one.old], [one.new]), one.introduce(), one.retire()) == (Done(),) * 4
    values = {f"{number}": value(v) for number, v in enumerate((hooks.old, hooks.new, turns.old, turns.new))}
    hunter = Hunter({**values, "admin": server.rotator_password})
    hunter.look("the general log", "\n".join(log))
    assert hunter.hits == []
    assert len(changes(log, hooks, turns)) == 9


def test_log_raw_would_show_it_and_is_refused(simulated: Start) -> None:
    server = simulated()
    hooks = Hooks(server.account())
    of(server).state.globals["log_raw"] = 1
    assert [one.next for one in hooks.findings("refuse")] == ["SET GLOBAL log_raw = OFF"]
    hooks.introduce()
    hunter = Hunter({"new": value(hooks.new)})
    hunter.look("the general log", "\n".join(of(server).general_log))
    assert hunter.hits


@pytest.mark.parametrize("way", ["tls", "socket", "loopback"])
def test_a_login_comes_by_tls_a_socket_or_the_servers_own_key(simulated: Start, way: str) -> None:
    server = simulated(with_tls=way == "tls")
    ways: dict[str, dict[str, object]] = {
        "tls": {"host": "localhost", "tls": {"ca": str(server.ca)}},
        "socket": {"host": str(of(server).socket_path)},
        "loopback": {},
    }
    reached = ways[way]
    hooks = Hooks(server.account(), reached)
    if way == "tls":
        server.execute(f"ALTER USER '{hooks.account.username}'@'%' REQUIRE SSL")
        over_plain = Hooks(hooks.account)
        assert [one.next for one in over_plain.findings("refuse")] == ["say tls: {ca: PATH}"]
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])  # in full, then from the server's cache
    assert hooks.logins(hooks.version(3, "wrong", hooks.account.username), hooks.new) == [R, A]


def test_a_password_too_long_to_be_encrypted_without_tls_is_told_as_that(simulated: Start) -> None:
    """213 bytes and their end are what RSA of 2048 bits takes, at a real server too."""
    server = simulated()
    fits, too_long = (Hooks(server.account(password="x" * size)) for size in (213, 214))
    assert MysqlTarget.capabilities.max_bytes == 213
    assert fits.logins(fits.old) == [A]
    with pytest.raises(LoginFailed, match="longer than what is encrypted without TLS"):
        too_long.logins(too_long.old)
    by_socket = Hooks(too_long.account, {"host": str(of(server).socket_path)})
    assert by_socket.logins(by_socket.old) == [A]


def test_a_server_without_tls_is_not_talked_to_readable(simulated: Start) -> None:
    server = simulated()
    hooks = Hooks(server.account(), {"host": "localhost", "tls": {"ca": "/etc/ssl/certs/ca-certificates.crt"}})
    (finding,) = hooks.findings()
    assert (finding.level, "it offers no TLS" in finding.text) == ("refuse", True)
    with pytest.raises(LoginFailed, match="it offers no TLS"):
        hooks.logins(hooks.old)


# ---------------------------------------------------------------------------------------------- privileges, own account


def rotator(server: MysqlServer, *grants: str) -> tuple[str, dict[str, object]]:
    name = f"rot_{server.account().username}"
    server.user(name, "rotates")
    for grant in grants:
        server.execute(f"GRANT {grant} TO '{name}'@'%'")
    return f"'{name}'@'%'", admin(name, "rotates")


def test_each_missing_privilege_is_named_with_the_grant_that_gives_it(server: MysqlServer) -> None:
    me, poor = rotator(server)
    hooks = Hooks(server.account(), {"admin": poor, "close_sessions": True})
    needed = [
        f"GRANT {what} TO {me}"
        for what in ("CREATE USER ON *.*", "SELECT ON mysql.user", "PROCESS ON *.*", "CONNECTION_ADMIN ON *.*")
    ]
    assert [one.next for one in hooks.findings("refuse")] == needed
    with pytest.raises(NotAuthorised, match=r"lacks SELECT ON mysql\.user"):
        hooks.introduce()
    server.execute(needed[1])
    with pytest.raises(NotAuthorised, match=r"lacks CREATE USER ON \*\.\*"):
        hooks.introduce()
    for grant in needed:
        server.execute(grant)
    hooks.target.close()
    assert hooks.findings("refuse") == []
    server.execute(f"GRANT SYSTEM_USER ON *.* TO '{hooks.account.username}'@'%'")
    with pytest.raises(NotAuthorised, match=r"lacks SYSTEM_USER ON \*\.\*") as raised:
        hooks.introduce()
    server.execute(raised.value.next)
    hooks.target.close()
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])


def test_privileges_that_the_server_lists_without_a_space_are_found(server: MysqlServer) -> None:
    _, rich = rotator(
        server, "CREATE USER, PROCESS ON *.*", "SELECT ON mysql.user", "SYSTEM_USER, CONNECTION_ADMIN ON *.*"
    )
    hooks = Hooks(server.account(), {"admin": rich, "close_sessions": True})
    assert hooks.findings("refuse") == []
    server.execute(f"GRANT SYSTEM_USER, APPLICATION_PASSWORD_ADMIN ON *.* TO '{hooks.account.username}'@'%'")
    own = Hooks(hooks.account, {"admin": "self"})
    assert [one.text for one in own.findings("warn") if "APPLICATION_PASSWORD_ADMIN" in one.text] == []


def test_an_account_changes_itself_with_two_privileges_side_by_side_and_without_them_at_once(
    server: MysqlServer,
) -> None:
    hooks = Hooks(server.account(), {"admin": "self"})
    me = f"'{hooks.account.username}'@'%'"
    grants = [f"GRANT {what} TO {me}" for what in ("APPLICATION_PASSWORD_ADMIN ON *.*", "SELECT ON mysql.user")]
    assert [one.next for one in hooks.findings("warn")] == grants
    refused = hooks.introduce()
    assert isinstance(refused, Refused)
    assert (refused.why, all(grant in refused.detail for grant in grants)) == (No.PRIVILEGE, True)
    for _ in range(2):
        assert (hooks.retire(), hooks.logins()) == (Done(), [R, A])
    hooks.old, hooks.new = hooks.new, hooks.version(3)
    for grant in grants:
        server.execute(grant)
    hooks.target.close()
    for _ in range(2):
        assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])
    assert (hooks.set([hooks.old], [hooks.new]), hooks.logins()) == (Done(), [A, R])
    assert (hooks.introduce(), hooks.retire(), hooks.logins()) == (Done(), Done(), [R, A])


def test_an_account_that_must_say_its_current_password_is_told_how_not_to(server: MysqlServer) -> None:
    hooks = Hooks(server.account(), {"admin": "self"})
    account = f"'{hooks.account.username}'@'%'"
    server.execute(f"ALTER USER {account} PASSWORD REQUIRE CURRENT")
    refused = hooks.retire()
    assert isinstance(refused, Refused)
    assert (refused.why, "PASSWORD REQUIRE CURRENT OPTIONAL" in refused.detail) == (No.UNSUPPORTED, True)
    by_admin = Hooks(hooks.account)
    assert (by_admin.introduce(), by_admin.logins()) == (Done(), [A, A])
    server.execute(f"ALTER USER {account} PASSWORD REQUIRE CURRENT OPTIONAL")
    by_admin.set([by_admin.old], [by_admin.new])
    assert (hooks.retire(), hooks.logins()) == (Done(), [R, A])


def test_a_read_only_server_is_refused_though_connection_admin_could_change_it(simulated: Start) -> None:
    server = simulated()
    _, mortal = rotator(server, "CREATE USER, PROCESS ON *.*", "SELECT ON mysql.user")
    hooks, other = Hooks(server.account()), Hooks(server.account(), {"admin": mortal})
    of(server).state.globals["read_only"] = 1
    for one in (hooks, other):
        assert [finding.next for finding in one.findings("refuse")] == ["name the primary in `host`"]
    assert hooks.introduce() == Done()
    assert isinstance(other.introduce(), Refused)


def test_a_wrong_password_of_the_admin_is_told_as_that(server: MysqlServer) -> None:
    hooks = Hooks(server.account(), {"admin": admin(server.rotator, "wrong")})
    assert f"rejected the password of {server.rotator}" in hooks.findings("refuse")[0].text
    with pytest.raises(NotAuthorised):
        hooks.introduce()


# ---------------------------------------------------------------------------------------- accounts, sessions, lock-outs


@pytest.mark.parametrize(
    ("state", "level", "following"),
    [
        ("ACCOUNT LOCK", "refuse", "ALTER USER {} ACCOUNT UNLOCK"),
        ("IDENTIFIED BY ''", "refuse", "ALTER USER {} IDENTIFIED BY …"),
        ("REQUIRE SSL", "refuse", "say tls: {{ca: PATH}}"),
        ("PASSWORD EXPIRE", "warn", ""),
        ("FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 1", "refuse",
         "ALTER USER {} FAILED_LOGIN_ATTEMPTS 4, or more"),
    ],
)  # fmt: skip
def test_an_account_that_nobody_can_use_or_anybody_is_told_before_anything_changes(
    server: MysqlServer, state: str, level: str, following: str
) -> None:
    hooks = Hooks(server.account())
    account = f"'{hooks.account.username}'@'%'"
    server.execute(f"ALTER USER {account} {state}")
    assert [one.next for one in hooks.findings(level)] == [following.format(account)]
    if state.startswith(("ACCOUNT", "IDENTIFIED")):
        assert isinstance(hooks.introduce(), Refused)


def test_locked_expired_and_blocked_accounts_are_told_apart_from_a_wrong_password(server: MysqlServer) -> None:
    hooks = Hooks(server.account())
    account = f"'{hooks.account.username}'@'%'"
    server.execute(f"ALTER USER {account} ACCOUNT LOCK")
    assert (hooks.logins(hooks.old), list(hooks.seen().answers.values())) == ([R], [R, R])
    server.execute(f"ALTER USER {account} PASSWORD EXPIRE ACCOUNT UNLOCK")
    with pytest.raises(LoginFailed, match="the password has expired"):
        hooks.logins(hooks.old)
    assert (hooks.introduce(), hooks.logins()) == (Done(), [A, A])
    server.execute(f"ALTER USER {account} FAILED_LOGIN_ATTEMPTS 2 PASSWORD_LOCK_TIME 1")
    wrong = hooks.version(3, "wrong", hooks.account.username)
    assert hooks.logins(wrong, wrong, hooks.old) == [R, Login.THROTTLED, Login.THROTTLED]
    server.execute(f"ALTER USER {account} IDENTIFIED BY '{value(hooks.new)}'")
    assert hooks.logins(hooks.new) == [Login.THROTTLED]  # a new password ends no lock-out
    server.execute(f"ALTER USER {account} FAILED_LOGIN_ATTEMPTS 2")
    assert hooks.logins(hooks.new, wrong, wrong) == [A, R, Login.THROTTLED]
    server.execute(f"ALTER USER {account} ACCOUNT UNLOCK")
    assert hooks.logins(hooks.new) == [A]


def test_sessions_are_seen_with_process_and_ended_with_connection_admin(server: MysqlServer) -> None:
    me, blind = rotator(server, "CREATE USER ON *.*", "SELECT ON mysql.user")
    hooks = Hooks(server.alternating(), {"admin": blind})
    name = hooks.account.username
    now = datetime.now(UTC)
    session = connected(server, hooks)
    with session:
        assert hooks.target.usage(hooks.old, now, hooks.context()) == Usage(in_use=None)
        for privilege in ("PROCESS", "CONNECTION_ADMIN"):
            refused = hooks.target.disconnect(hooks.old, hooks.context())
            assert isinstance(refused, Refused)
            assert f"GRANT {privilege} ON *.* TO {me}" in refused.detail
            server.execute(f"GRANT {privilege} ON *.* TO {me}")
            hooks.target.close()
        used = hooks.target.usage(hooks.old, now, hooks.context())
        origins = ("127.0.0.1", "localhost")  # by its name where the server looks names up
        assert used in [
            Usage(in_use=True, holders=(f"1 session of {name} from {origin} (id {session.thread_id()})",))
            for origin in origins
        ]
        assert hooks.target.disconnect(hooks.old, hooks.context()) == Done()
        with pytest.raises(pymysql.MySQLError):
            session.ping(reconnect=False)
    assert hooks.target.usage(hooks.old, now, hooks.context()) == Usage(in_use=False)


def test_sessions_of_an_account_with_system_user_are_ended_by_who_has_it_too(server: MysqlServer) -> None:
    me, mortal = rotator(server, "CREATE USER, PROCESS ON *.*", "SELECT ON mysql.user", "CONNECTION_ADMIN ON *.*")
    hooks = Hooks(server.account(), {"admin": mortal})
    server.execute(f"GRANT SYSTEM_USER ON *.* TO '{hooks.account.username}'@'%'")
    with connected(server, hooks):
        refused = hooks.target.disconnect(hooks.old, hooks.context())
        assert isinstance(refused, Refused)
        assert refused.detail.endswith(f": GRANT SYSTEM_USER ON *.* TO {me}")
        server.execute(f"GRANT SYSTEM_USER ON *.* TO {me}")
        hooks.target.close()
        assert hooks.target.disconnect(hooks.old, hooks.context()) == Done()


def connected(server: MysqlServer, hooks: Hooks) -> Any:
    """A consumer's session."""
    name, password = hooks.account.username, hooks.account.password
    return pymysql.connect(host=server.host, port=server.port, user=name, password=password, ssl_disabled=True)
