"""`postgres` when something goes wrong: lost replies, other writers, servers that check nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import sql

from tests.conftest import StartPostgres
from tests.integration.postgres_kit import (
    INSTALLATION,
    PATIENCE_S,
    adopted,
    alter,
    comment,
    comment_on,
    context,
    drawn,
    logins,
    open_target,
    seen,
    settings_of,
    stored,
)
from tests.servers.postgres import PostgresServer, every_postgres
from vaultkeeper.access.address import Address
from vaultkeeper.access.postgres import Denial, LoginFailed, ReplyLost, Session, connect
from vaultkeeper.access.postgres import roles as postgres_roles
from vaultkeeper.errors import BackendError, ChecksNothing, NotAuthorised
from vaultkeeper.model.outcome import Done, Login, No, Observation, Refused, Tag, Unknown
from vaultkeeper.model.secret import SecretVersion
from vaultkeeper.targets.postgres import PostgresTarget

WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vaultkeeper' AND wait_event_type = 'Lock'"""
A, R = Login.ACCEPTED, Login.REJECTED
Prepared = tuple[PostgresTarget, SecretVersion, SecretVersion]


def prepared(server: PostgresServer, *, through_proxy: bool = False, **more: object) -> Prepared:
    account = server.account(through_proxy=through_proxy)
    target = open_target(account, **more)
    old = adopted(target, account.username, account.password)
    return target, old, drawn(target, 2, old)


def why(answer: object) -> No | None:
    return answer.why if isinstance(answer, Refused) else None


# ------------------------------------------------------------------------------------------------------- lost replies


@every_postgres
@pytest.mark.parametrize("admin", ["superuser", "self"])
@pytest.mark.parametrize(("fault", "truth"), [("lost-reply", [R, A]), ("lost-request", [A, R])])
def test_after_a_lost_commit_the_outcome_is_unknown_and_observing_tells_it(
    postgres: PostgresServer, admin: str, fault: str, truth: list[Login]
) -> None:
    target, old, new = prepared(postgres, through_proxy=True, **({"admin": "self"} if admin == "self" else {}))
    with postgres.fault(fault) as loss:
        answer = target.set([new], [old], context(current=old, pending=new))
    assert isinstance(answer, Unknown)
    assert getattr(loss, "hits") == 1  # noqa: B009 - typed as object
    assert logins(target, old, new) == truth
    if admin == "superuser":
        assert list(seen(target, old, new).answers.values()) == truth
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert logins(target, old, new) == [R, A]


def test_a_reply_lost_before_the_commit_leaves_everything_as_it_was(postgres: PostgresServer) -> None:
    target, old, new = prepared(postgres, through_proxy=True)
    with postgres.fault("lost-reply", statement="ALTER ROLE"):
        assert isinstance(target.set([new], [old], context(current=old, pending=new)), Unknown)
    assert seen(target, old, new).answers == {1: A, 2: R}


@pytest.mark.parametrize("fault", ["unreachable", "silent"])
def test_no_answer_concludes_nothing_and_ends_with_the_deadline(postgres: PostgresServer, fault: str) -> None:
    target, old, new = prepared(postgres, through_proxy=True, timeout=600)
    with postgres.fault(fault):
        short: dict[str, Any] = {"current": old, "pending": new, "seconds": 0.2}
        started = time.monotonic()
        assert isinstance(target.set([new], [old], context(**short)), Unknown)
        assert isinstance(target.observe([old, new], context(**short)), Unknown)
        assert isinstance(target.usage(old, old.created_at, context(**short)), Unknown) is False
        assert isinstance(target.disconnect(old, context(**short)), Unknown)
        assert target.test(old, context(**short)) is Login.UNREACHABLE
        assert [finding.level for finding in target.check(context(**short))] == ["unchecked"]
        assert time.monotonic() - started < 300  # five calls of 0.2 s, not of 600 s
    assert logins(target, old) == [A]


def test_a_reply_that_never_comes_and_a_session_that_is_ended_are_both_lost(postgres: PostgresServer) -> None:
    address = Address(postgres.host, postgres.port, tls=False)
    for statement, seconds in (("SELECT pg_sleep(600)", 0.5), ("SELECT pg_terminate_backend(pg_backend_pid())", 300)):
        session = connect(
            address,
            username=postgres.superuser,
            password=postgres.superuser_password,
            database="postgres",
            until_s=time.monotonic() + PATIENCE_S,
        )
        [[row]] = session.run("SELECT pg_backend_pid() AS pid")
        started = time.monotonic()
        session.renew(started + seconds)
        with session, pytest.raises(ReplyLost):
            session.run(statement)
        assert time.monotonic() - started < 200
        postgres.execute("SELECT pg_terminate_backend(%s::int)", [row["pid"]])


def test_a_server_without_a_free_connection_rejects_nothing(postgres: PostgresServer) -> None:
    target, old, _ = prepared(postgres)
    alter(postgres, old.fields["username"].text(), "CONNECTION LIMIT 1")
    with postgres.connect(old.fields["username"].text(), old.fields["password"].text()):
        assert target.test(old, context()) is Login.UNREACHABLE
    deadline = time.monotonic() + PATIENCE_S
    while (answer := target.test(old, context())) is Login.UNREACHABLE:  # a backend ends a moment after its client
        assert time.monotonic() < deadline
    assert answer is A


def test_a_stopped_server_comes_back_as_it_was(new_postgres: StartPostgres) -> None:
    server = new_postgres()
    account = server.account()
    target = open_target(account)
    old = adopted(target, account.username, account.password)
    with server.fault("crash"):
        assert target.test(old, context()) is Login.UNREACHABLE
        assert isinstance(target.observe([old], context()), Unknown)
    assert open_target(account, port=server.port).test(old, context()) is A


# ------------------------------------------------------------------------------------------------------ other writers


@every_postgres
@pytest.mark.parametrize(
    ("generation", "epoch", "installation", "secret", "verdict"),
    [
        (3, 1, INSTALLATION, "shop/db", No.STALE),
        (2, 6, INSTALLATION, "shop/db", No.STALE),
        (3, 1, "another", "shop/other", No.STALE),
        (2, 5, INSTALLATION, "shop/db", None),
        (1, 9, "another", "shop/db", None),
        (1, 9, INSTALLATION, "shop/renamed", None),
    ],
)
def test_a_newer_generation_or_epoch_in_the_tag_refuses(
    postgres: PostgresServer, generation: int, epoch: int, installation: str, secret: str, verdict: No | None
) -> None:
    target, old, new = prepared(postgres)
    name = old.fields["username"].text()
    tag = Tag(installation, secret, generation, epoch)
    comment(postgres, name, postgres_roles.with_tag("", tag))
    before = stored(postgres, name)
    assert seen(target, old).tag == tag
    answer = target.set([new], [old], context(current=old, pending=new, epoch=5))
    assert why(answer) is verdict
    assert (stored(postgres, name) == before) is (verdict is not None)


def test_a_newer_tag_on_the_other_of_two_users_refuses_too(postgres: PostgresServer) -> None:
    account = postgres.alternating()
    target = open_target(account, create_users=True)
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    comment(postgres, account.username, postgres_roles.with_tag("", Tag(INSTALLATION, "shop/db", 7, 1)))
    assert why(target.set([new], [], context(current=old, pending=new))) is No.STALE
    assert logins(target, old, new) == [A, R]


@every_postgres
def test_a_writer_that_commits_between_look_and_change_is_noticed(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, old, new = prepared(postgres)
    name = old.fields["username"].text()
    newer = Tag(INSTALLATION, "shop/db", 2, 9)
    read = postgres_roles.read

    def read_and_lose(*args: Any) -> postgres_roles.Roles:
        state = read(*args)
        alter(postgres, name, "PASSWORD 'of the newer epoch'")
        comment(postgres, name, postgres_roles.with_tag("", newer))
        return state

    monkeypatch.setattr(postgres_roles, "read", read_and_lose)
    answer = target.set([new], [old], context(current=old, pending=new, epoch=5))
    assert why(answer) is No.STALE
    assert postgres.login(name, "of the newer epoch")
    assert comment_on(postgres, name) == postgres_roles.with_tag("", newer)


@contextmanager
def open_change(server: PostgresServer, name: str) -> Iterator[Any]:
    """Somebody's ALTER ROLE that is not yet committed."""
    with server.connect(autocommit=False) as session:
        session.execute(sql.SQL("ALTER ROLE {} PASSWORD 'theirs'").format(sql.Identifier(name)))
        yield session


@every_postgres
def test_two_writers_at_once_end_in_a_conflict_for_one_of_them(postgres: PostgresServer) -> None:
    target, old, new = prepared(postgres)
    name = old.fields["username"].text()
    answers: list[object] = []
    with open_change(postgres, name) as session:
        ours = threading.Thread(
            target=lambda: answers.append(target.set([new], [old], context(current=old, pending=new)))
        )
        ours.start()
        deadline = time.monotonic() + PATIENCE_S
        while postgres.execute(WAITING) != [(1,)]:
            assert time.monotonic() < deadline
        session.commit()
        ours.join()
    assert [why(answer) for answer in answers] == [No.CONFLICT]
    assert postgres.login(name, "theirs")


def test_somebodys_endless_transaction_is_a_conflict_and_nothing_changes(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gives up before we do: a definite answer."""
    target, old, new = prepared(postgres)
    told: list[str] = []
    run = Session.run

    def listen(session: Session, *statements: str) -> Any:
        told.extend(statements)
        return run(session, *statements)

    monkeypatch.setattr(Session, "run", listen)
    monkeypatch.setattr(Session, "left_ms", 500)  # what the server is told; ours is far longer, for a slow machine
    with open_change(postgres, old.fields["username"].text()) as session:
        answer = target.set([new], [old], context(current=old, pending=new))
        session.rollback()
    assert why(answer) is No.CONFLICT
    assert {"SET LOCAL lock_timeout = 400", "SET LOCAL statement_timeout = 400"} <= set(told)
    assert logins(target, old, new) == [A, R]


# ------------------------------------------------------------------------------------------- servers that prove nothing


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("host all all 127.0.0.1/32 trust", ChecksNothing),
        ("host all all 127.0.0.1/32 password", ChecksNothing),
        ("host all +nobody_is_in_this 127.0.0.1/32 scram-sha-256", LoginFailed),
        ("host all all 127.0.0.1/32 reject", LoginFailed),
    ],
)
def test_a_login_that_proves_nothing_is_neither_accepted_nor_rejected(
    new_postgres: StartPostgres, line: str, error: type[BackendError]
) -> None:
    server = new_postgres()
    account = server.account()
    target = open_target(account)
    for password in (account.password, "wrong"):
        version = adopted(target, account.username, password)
        hba = server.cluster.data / "pg_hba.conf"
        hba.write_text(f"local all all scram-sha-256\n{line}\n")
        server.cluster.reload()
        with pytest.raises(error) as caught:
            target.test(version, context())
        assert caught.value.__cause__ is None
        assert password not in f"{caught.value!r}{caught.value.why}{caught.value.next}"


def test_a_database_that_does_not_exist_is_no_rejection(postgres: PostgresServer) -> None:
    target, old, _ = prepared(postgres, database="nowhere")
    with pytest.raises(LoginFailed) as caught:
        target.test(old, context())
    assert caught.value.denial is Denial.CONFIGURATION


def test_an_admin_whose_password_is_wrong_is_a_matter_of_privilege(postgres: PostgresServer, tmp_path: Any) -> None:
    (tmp_path / "wrong").write_text("wrong")
    account = postgres.account()
    admin = {"username": postgres.superuser, "password": {"file": str(tmp_path / "wrong")}}
    target = open_target(account, admin=admin)
    old = adopted(target, account.username, account.password)
    for call in (lambda: target.set([old], [], context()), lambda: target.observe([old], context())):
        with pytest.raises(NotAuthorised) as caught:
            call()
        assert "wrong" not in str(caught.value)
    assert [finding.level for finding in target.check(context())] == ["refuse"]


def test_a_self_service_account_without_a_working_version_says_so(postgres: PostgresServer) -> None:
    target, old, new = prepared(postgres, admin="self")
    alter(postgres, old.fields["username"].text(), "PASSWORD 'by hand'")
    with pytest.raises(NotAuthorised):
        target.set([new], [old], context(current=old, pending=new))
    assert postgres.login(old.fields["username"].text(), "by hand")
    answer = target.set([], [old], context(current=old))
    assert why(answer) is No.UNSUPPORTED


def test_the_environment_of_libpq_has_no_say(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    target, old, _ = prepared(postgres)
    for name, value in {
        "PGSSLMODE": "require", "PGOPTIONS": "-c no_such_setting=1", "PGHOSTADDR": "127.0.0.2", "PGREQUIREAUTH": "md5",
        "PGTARGETSESSIONATTRS": "standby", "PGCLIENTENCODING": "LATIN1", "PGPASSFILE": "/nonexistent",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert target.test(old, context()) is A
    assert isinstance(target.observe([old], context()), Observation)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"users": ["a", "b"]}, "give `user`"),
        ({"user": None, "users": ["a", "a"]}, "two different"),
        ({"user": None, "users": ["a", "b"], "admin": "self"}, "own account only"),
        ({"user": "postgres"}, "its own admin"),
        ({"user": "x" * 64}, "1 to 63 bytes"),
        ({"user": ""}, "1 to 63 bytes"),
        ({"create_users": True}, "goes with `users`"),
        ({"host": "/run/postgresql", "tls": {"ca": "/ca.pem"}}, "Unix socket"),
        ({"user": None, "users": ["a", "b"], "owner_role": "a"}, "role of its own"),
        ({"timeout": "5m"}, "5min or 5mo"),
        ({"no_such_key": 1}, "Extra inputs"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(
    postgres: PostgresServer, more: dict[str, object], complaint: str
) -> None:
    settings = settings_of(postgres.account(), **more)
    with pytest.raises(ValueError, match=complaint):
        PostgresTarget.open({k: v for k, v in settings.items() if v is not None}, 1)


def test_settings_take_a_duration_and_a_yaml_off(postgres: PostgresServer) -> None:
    target = open_target(postgres.account(), timeout="1min30s", tls=False)
    assert target.settings.timeout == 90
    assert target.settings.tls == "off"
    remote = open_target(postgres.account(), host="db.internal")
    assert remote.settings.address.tls is True
    assert open_target(postgres.account(), host="db.internal", tls="off").settings.address.tls is False
