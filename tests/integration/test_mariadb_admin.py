"""`mariadb`: what the admin may do, and who is connected."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
import pytest

from tests.integration.mysql_kit import A, Hooks, admin, value
from tests.servers import ServerMissing, TestAccount
from tests.servers.mariadb import MariadbServer, shared
from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Done, Refused, Usage


@pytest.fixture
def server() -> MariadbServer:
    try:
        return shared()
    except ServerMissing as missing:
        pytest.skip(str(missing))


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
