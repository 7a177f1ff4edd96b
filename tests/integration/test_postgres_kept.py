"""The admin's session is kept between the hooks of rotations that go on now, and for nothing else."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from psycopg import sql

from tests.integration.postgres_kit import PATIENCE_S, adopted, context, drawn, open_target, seen
from tests.servers.postgres import PostgresServer
from vaultkeeper.access import kept as keeping
from vaultkeeper.model.outcome import Done, Login, Refused
from vaultkeeper.targets.postgres import PostgresTarget

OpenTarget = Callable[[], PostgresTarget]


def sessions(server: PostgresServer) -> set[int]:
    return {pid for (pid,) in server.execute("SELECT pid FROM pg_stat_activity WHERE datname ~ '^kept_'")}


@pytest.fixture(autouse=True)
def _no_stall_ends_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "KEPT_S", 600)


@pytest.fixture
def another(postgres: PostgresServer) -> Iterator[OpenTarget]:
    """Targets for accounts of their own, with a login that no other test shares."""
    database = f"kept_{secrets.token_hex(4)}"
    postgres.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    with ExitStack() as closing:

        def another() -> PostgresTarget:
            account = postgres.account()
            admin = account.settings["admin"]
            assert isinstance(admin, dict)
            opened = open_target(account, admin=admin | {"database": database})
            closing.callback(opened.close)
            return opened

        yield another
    _wait_until_gone(postgres)


@pytest.fixture
def target(another: OpenTarget) -> PostgresTarget:
    return another()


def test_check_observe_and_set_share_one_session_which_close_ends(
    postgres: PostgresServer, target: PostgresTarget
) -> None:
    target.check(context())
    [kept] = sessions(postgres)
    version = drawn(target, 2)
    seen(target, version)
    assert target.set([version], [], context(pending=version)) == Done()
    assert sessions(postgres) == {kept}
    target.close()
    target.close()
    _wait_until_gone(postgres)
    assert seen(target, version).answers == {2: Login.ACCEPTED}, "a later hook opens it again"


def test_rotations_of_one_server_share_the_session_which_the_last_of_them_ends(
    postgres: PostgresServer, another: OpenTarget
) -> None:
    one, other = another(), another()
    one.check(context())
    [kept] = sessions(postgres)
    other.check(context())
    assert sessions(postgres) == {kept}
    one.close()
    one.close()
    other.check(context())
    assert sessions(postgres) == {kept}
    other.close()
    _wait_until_gone(postgres)


def test_a_session_that_the_server_ended_meanwhile_is_replaced(
    postgres: PostgresServer, target: PostgresTarget
) -> None:
    target.check(context())
    [kept] = sessions(postgres)
    postgres.execute("SELECT pg_terminate_backend(%s, 60000)", (kept,))
    version = drawn(target, 2)
    assert target.set([version], [], context(pending=version)) == Done()
    assert kept not in sessions(postgres)


def test_a_session_is_not_kept_with_a_transaction_open(postgres: PostgresServer, target: PostgresTarget) -> None:
    account = target.settings.user or ""
    newer = adopted(target, account, "newer-than-that-one", number=9)
    assert target.set([newer], [], context(pending=newer)) == Done()
    [kept] = sessions(postgres)
    older = adopted(target, account, "some-older-password", number=2)
    assert isinstance(target.set([older], [], context(pending=older)), Refused)
    _wait_until_gone(postgres, kept)


def test_a_session_that_was_idle_for_too_long_is_not_used_again(
    postgres: PostgresServer, target: PostgresTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEPT_S", -1)
    target.check(context())
    [kept] = sessions(postgres)
    target.check(context())
    _wait_until_gone(postgres, kept)


def _wait_until_gone(server: PostgresServer, *pids: int) -> None:
    """All of them, where none is named. A backend ends a moment after it was told so."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := sessions(server)) & set(pids or left):
        assert time.monotonic() < deadline, "the session is still open"
