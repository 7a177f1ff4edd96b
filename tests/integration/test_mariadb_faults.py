"""`mariadb`: accounts and servers that stand in the way, other writers, crashes, TLS."""

from __future__ import annotations

import tempfile

import pytest

from tests.integration.mysql_kit import A, Hooks, R
from tests.servers import ServerMissing, tls
from tests.servers.mariadb import MariadbServer, shared
from vaultkeeper.access.mysql import LoginFailed, hashes
from vaultkeeper.access.mysql import target as mysql_target
from vaultkeeper.model.outcome import Done, Login, No, Refused, Unknown


@pytest.fixture
def server() -> MariadbServer:
    try:
        return shared()
    except ServerMissing as missing:
        pytest.skip(str(missing))


def native(password: str) -> str:
    return f"mysql_native_password USING '{hashes.native(password.encode())}'"


# --------------------------------------------------------------------------------------- accounts that stand in the way


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
    (finding,) = hooks.findings("refuse")
    assert finding.text == f"the account {account} does not exist"
    assert finding.next == f"CREATE USER {account} ACCOUNT LOCK, and its GRANTs"
    refused = hooks.introduce()
    assert isinstance(refused, Refused)
    assert f"the account {account} does not exist" in refused.detail
    server.account(hooks.account.username, hosts=("localhost", "10.%"))
    assert hooks.findings("refuse")[0].next.startswith("say hosts: ['10.%', 'localhost'], or CREATE USER")


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


def test_two_writers_do_not_meet_and_one_that_waits_too_long_comes_again(
    server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_target, "_ALONE_S", 1)
    hooks = Hooks(server.account(), seconds=60)
    with hooks.target._alone(hooks.context()):
        other = Hooks(hooks.account, seconds=60)
        refused = other.introduce()
    assert isinstance(refused, Refused)
    assert refused.why is No.CONFLICT
    assert other.introduce() == Done()
    with server.root() as holder, holder.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        other.watch.seconds = 3
        assert isinstance(other.set([other.old], [other.new]), Refused | Unknown)
    other.watch.seconds = 60
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
