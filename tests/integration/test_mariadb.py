"""`mariadb`: methods that are not ours, names, hosts, an account that changes itself. The contract: tests/contract."""

from __future__ import annotations

from datetime import UTC, datetime

import pymysql
import pytest

from tests.integration.mysql_kit import ODD_NAMES, A, Hooks, R, value
from tests.servers import ServerMissing, TestAccount
from tests.servers.mariadb import MariadbServer, shared
from vaultkeeper.access.mysql import hashes
from vaultkeeper.model.outcome import Done, No, Refused, Usage


@pytest.fixture
def server() -> MariadbServer:
    try:
        return shared()
    except ServerMissing as missing:
        pytest.skip(str(missing))


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
