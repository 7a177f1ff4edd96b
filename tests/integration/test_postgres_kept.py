"""The admin's session is kept between the hooks of rotations that go on now, and for nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.integration.postgres_kit import adopted, context, drawn, open_target, seen
from tests.servers import TestAccount
from tests.servers.postgres import PostgresServer
from vaultkeeper.access import kept as keeping
from vaultkeeper.model.outcome import Done, Login, Refused
from vaultkeeper.targets.postgres import PostgresTarget

OURS = "FROM pg_stat_activity WHERE application_name = 'vaultkeeper' AND usename = 'postgres'"


def sessions(server: PostgresServer) -> set[int]:
    return {pid for (pid,) in server.execute(f"SELECT pid {OURS}")}


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[PostgresTarget]:
    opened = _open_target(postgres.account())
    yield opened
    opened.close()


def _open_target(account: TestAccount) -> PostgresTarget:
    """With a login that no other test shares."""
    admin = account.settings["admin"]
    assert isinstance(admin, dict)
    return open_target(account, admin=admin | {"database": "template1"})


def test_check_observe_and_set_share_one_session_which_close_ends(
    postgres: PostgresServer, target: PostgresTarget
) -> None:
    before = sessions(postgres)
    target.check(context())
    [kept] = sessions(postgres) - before
    version = drawn(target, 2)
    seen(target, version)
    assert target.set([version], [], context(pending=version)) == Done()
    assert sessions(postgres) - before == {kept}
    target.close()
    target.close()
    _wait_until_gone(postgres, kept)
    assert seen(target, version).answers == {2: Login.ACCEPTED}, "a later hook opens it again"


def test_rotations_of_one_server_share_the_session_which_the_last_of_them_ends(postgres: PostgresServer) -> None:
    one, other = _open_target(postgres.account()), _open_target(postgres.account())
    before = sessions(postgres)
    one.check(context())
    [kept] = sessions(postgres) - before
    other.check(context())
    assert sessions(postgres) - before == {kept}
    one.close()
    one.close()
    other.check(context())
    assert sessions(postgres) - before == {kept}
    other.close()
    _wait_until_gone(postgres, kept)


def test_a_session_that_the_server_ended_meanwhile_is_replaced(
    postgres: PostgresServer, target: PostgresTarget
) -> None:
    before = sessions(postgres)
    target.check(context())
    [kept] = sessions(postgres) - before
    postgres.execute("SELECT pg_terminate_backend(%s, 10000)", (kept,))
    version = drawn(target, 2)
    assert target.set([version], [], context(pending=version)) == Done()
    assert kept not in sessions(postgres)


def test_a_session_is_not_kept_with_a_transaction_open(postgres: PostgresServer) -> None:
    account = postgres.account()
    target, other = _open_target(account), _open_target(account)
    newer = adopted(target, account.username, "newer-than-that-one", number=9)
    assert target.set([newer], [], context(pending=newer)) == Done()
    older = adopted(other, account.username, "some-older-password", number=2)
    assert isinstance(other.set([older], [], context(pending=older)), Refused)
    assert postgres.execute(f"SELECT state {OURS} AND state LIKE 'idle in %'") == []


def test_a_session_that_was_idle_for_too_long_is_not_used_again(
    postgres: PostgresServer, target: PostgresTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEPT_S", -1)
    before = sessions(postgres)
    target.check(context())
    [kept] = sessions(postgres) - before
    target.check(context())
    _wait_until_gone(postgres, kept)


def _wait_until_gone(server: PostgresServer, pid: int) -> None:
    """A backend ends a moment after it was told so."""
    deadline = time.monotonic() + 10
    while pid in sessions(server):
        assert time.monotonic() < deadline, "the session is still open"
