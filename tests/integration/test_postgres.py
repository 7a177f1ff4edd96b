"""The hooks of `postgres` on real servers: one account, two that take turns, an account that is its own admin."""

from __future__ import annotations

import secrets

import psycopg
import pytest
from psycopg import sql

from tests.conftest import StartPostgres
from tests.integration.postgres_kit import (
    INSTALLATION,
    ODD_NAMES,
    adopted,
    alter,
    comment,
    comment_on,
    context,
    drawn,
    logins,
    open_target,
    seen,
    stored,
    users_of,
)
from tests.servers.postgres import PostgresServer, every_postgres
from vaultkeeper.model.outcome import Basis, Done, Login, No, Refused, Tag, Usage

A, R = Login.ACCEPTED, Login.REJECTED


@every_postgres
def test_a_single_account_goes_to_the_new_password_and_back(postgres: PostgresServer) -> None:
    account = postgres.account()
    comment(postgres, account.username, "the shop; ask Ada")
    target = open_target(account)
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    observed = seen(target, old, new, current=old)
    assert (observed.answers, observed.basis) == ({1: A, 2: R}, Basis.VERIFIER)
    assert (observed.tag, observed.account_usable, observed.foreign) == (None, True, 0)

    assert target.set([new], [old], context(current=old, pending=new, epoch=3)) == Done()
    assert logins(target, old, new) == [R, A]
    assert postgres.login(account.username, new.fields["password"].text())
    assert stored(postgres, account.username) == new.fields["verifier"].text()
    assert seen(target, old, new).tag == Tag(INSTALLATION, "shop/db", 2, 3)
    assert comment_on(postgres, account.username).startswith("the shop; ask Ada [vaultkeeper ")

    assert target.set([new], [old], context(current=old, pending=new, epoch=3)) == Done()
    assert stored(postgres, account.username) == new.fields["verifier"].text()
    assert target.set([old], [new], context(current=old, pending=new, epoch=4)) == Done()
    assert logins(target, old, new) == [A, R]
    assert comment_on(postgres, account.username).count("[vaultkeeper") == 1


@every_postgres
def test_two_users_take_turns_and_the_second_is_made_with_the_owners_rights(postgres: PostgresServer) -> None:
    account = postgres.alternating()
    first, second = users_of(account)
    target = open_target(account, create_users=True)
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    assert new.fields["username"].text() == second
    assert seen(target, old, new, current=old).account_usable is False

    context_ = context(current=old, pending=new)
    assert target.set([new, old], [], context_) == Done()
    assert logins(target, old, new) == [A, A]
    with postgres.connect(second, new.fields["password"].text(), database=str(account.settings["database"])) as session:
        session.execute("CREATE TABLE made_by_second (n int)")
        assert session.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'made_by_second'").fetchone() == (
            account.settings["owner_role"],
        )

    assert target.set([new], [old], context_) == Done()
    assert logins(target, old, new) == [R, A]
    assert postgres.execute("SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = %s", [first]) == [
        (False, None)
    ]
    assert seen(target, old, new).answers == {1: R, 2: A}
    third = drawn(target, 3, new)
    assert third.fields["username"].text() == first
    assert target.set([third, new], [], context(current=new, pending=third)) == Done()
    assert logins(target, new, third) == [A, A]
    assert seen(target, new).tag == Tag(INSTALLATION, "shop/db", 3, 1)


@every_postgres
def test_an_account_that_is_its_own_admin_changes_and_goes_back(postgres: PostgresServer) -> None:
    account = postgres.account()
    target = open_target(account, admin="self")
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    context_ = context(current=old, pending=new)
    assert seen(target, old, new).basis is Basis.LOGIN
    for _ in range(2):  # the second time it logs in as PENDING
        assert target.set([new], [old], context_) == Done()
        assert logins(target, old, new) == [R, A]
        assert stored(postgres, account.username) == new.fields["verifier"].text()
    assert target.set([old], [new], context_) == Done()
    assert logins(target, old, new) == [A, R]
    assert comment_on(postgres, account.username) == ""


def test_an_images_superuser_rotates_itself(postgres: PostgresServer) -> None:
    account = postgres.account(attributes=sql.SQL("SUPERUSER"))
    target = open_target(account, admin="self")
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert logins(target, old, new) == [R, A]


@every_postgres
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_with_quotes_spaces_or_unicode_is_only_a_name(postgres: PostgresServer, name: str) -> None:
    name = f"{name}{secrets.token_hex(3)}"
    account = postgres.account(name)
    comment(postgres, name, 'it\'s \\ "quoted"')
    target = open_target(account)
    old = adopted(target, name, account.password)
    new = drawn(target, 2, old)
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert logins(target, old, new) == [R, A]
    assert comment_on(postgres, name).startswith('it\'s \\ "quoted" [vaultkeeper ')
    assert all(finding.level == "ok" for finding in target.check(context(current=new)))


@pytest.mark.parametrize("password", ["pässwörd-ﬁ-２０", 'it\'s \\ 100% "quoted"'])
def test_a_password_beyond_plain_ascii_is_prepared_as_the_server_does(postgres: PostgresServer, password: str) -> None:
    account = postgres.account()
    target = open_target(account)
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old, password=password)
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert logins(target, new) == [A]
    assert postgres.login(account.username, password)


def test_an_adopted_password_is_known_by_the_servers_own_salt_and_by_md5(postgres: PostgresServer) -> None:
    account = postgres.account()
    target = open_target(account)
    old, other = adopted(target, account.username, account.password), adopted(target, account.username, "other", 2)
    assert stored(postgres, account.username) != old.fields["verifier"].text()
    assert seen(target, old, other).answers == {1: A, 2: R}
    name = sql.Identifier(account.username)
    with postgres.connect() as session:
        session.execute("SET password_encryption = md5")
        session.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(account.password)))
    assert (stored(postgres, account.username) or "").startswith("md5")
    assert seen(target, old, other).answers == {1: A, 2: R}


@pytest.mark.parametrize("state", ["NOLOGIN", "PASSWORD NULL", "VALID UNTIL '2001-01-01'"])
def test_an_account_that_cannot_log_in_accepts_nothing_and_is_free_to_take(
    postgres: PostgresServer, state: str
) -> None:
    account = postgres.account()
    target = open_target(account)
    old = adopted(target, account.username, account.password)
    assert seen(target, old).account_usable is True
    alter(postgres, account.username, state)
    observed = seen(target, old)
    assert (observed.answers, observed.account_usable) == ({1: R}, False)
    assert logins(target, old) == [R]


def test_a_password_set_by_somebody_else_is_reported_and_not_taken_away(postgres: PostgresServer) -> None:
    account = postgres.alternating()
    target = open_target(account, create_users=True)
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    assert target.set([new, old], [], context(current=old, pending=new)) == Done()
    alter(postgres, account.username, "PASSWORD 'by hand'")
    observed = seen(target, old, new)
    assert (observed.answers, observed.foreign) == ({1: R, 2: A}, 1)
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert postgres.login(account.username, "by hand")


def test_going_back_without_an_earlier_version_leaves_no_password(postgres: PostgresServer) -> None:
    account = postgres.account()
    target = open_target(account)
    new = drawn(target, 1)
    assert target.set([new], [], context(pending=new)) == Done()
    for _ in range(2):
        assert target.set([], [new], context(pending=new)) == Done()
        assert stored(postgres, account.username) is None
    assert postgres.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [account.username]) == [(True,)]


@pytest.mark.parametrize("choice", [None, "keep", "nologin"])
def test_the_first_owners_own_login_is_retired_only_when_asked(postgres: PostgresServer, choice: str | None) -> None:
    account = postgres.alternating()
    owner = postgres.account()
    target = open_target(account, create_users=True, retire_first_owner=choice)
    old = adopted(target, owner.username, owner.password)
    new = drawn(target, 2, old)
    asked = [f for f in target.check(context(current=old)) if "retire_first_owner" in f.next]
    assert [f.level for f in asked] == (["refuse"] if choice is None else [])
    assert target.set([new, old], [], context(current=old, pending=new)) == Done()
    assert logins(target, old, new) == [A, A]
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert target.keeps(old) is (choice != "nologin")
    assert logins(target, old, new) == [A if target.keeps(old) else R, A]
    assert target.set([old], [new], context(current=new, pending=old)) == Done()
    assert logins(target, old, new) == [A, R]


def test_a_rollback_keeps_username_and_verifier_but_not_a_verifier_of_another_password(
    postgres: PostgresServer,
) -> None:
    account = postgres.alternating()
    target = open_target(account)
    old = adopted(target, account.username, account.password)
    assert target.complete(old.fields, context(current=old), adopting=False) == old.fields
    forged = {**old.fields, "password": drawn(target, 2).fields["password"]}
    made = target.complete(forged, context(), adopting=True)
    assert made["verifier"] != old.fields["verifier"]
    assert made["username"] == old.fields["username"]


def test_an_idle_user_that_somebody_may_use_is_warned_of(postgres: PostgresServer) -> None:
    account = postgres.alternating()
    other = postgres.account(users_of(account)[1])
    target = open_target(account, owner_role=None)
    old = adopted(target, account.username, account.password)

    def warned() -> list[str]:
        return [finding.text for finding in target.check(context(current=old)) if finding.level == "warn"]

    assert warned() == [
        f"{other.username} can log in today: its password will be replaced, and whoever uses it is cut off"
    ]
    alter(postgres, other.username, "NOLOGIN")
    assert warned() == []


def test_a_missing_role_is_refused_unless_it_may_be_made(postgres: PostgresServer) -> None:
    account = postgres.alternating()
    target = open_target(account)
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    answer = target.set([new, old], [], context(current=old, pending=new))
    assert isinstance(answer, Refused)
    assert answer.why is No.UNSUPPORTED
    assert "create_users" in answer.detail
    assert logins(target, old, new) == [A, R]


def test_two_passwords_of_one_account_cannot_both_be_accepted(postgres: PostgresServer) -> None:
    account = postgres.account()
    target = open_target(account)
    answer = target.set([drawn(target, 1), drawn(target, 2)], [], context())
    assert isinstance(answer, Refused)
    assert answer.why is No.UNSUPPORTED


def test_the_change_is_committed_durably_whatever_the_server_says(new_postgres: StartPostgres) -> None:
    server = new_postgres(settings={"synchronous_commit": "off", "log_statement": "all"})
    account = server.account()
    target = open_target(account)
    new = drawn(target, 1)
    assert target.set([new], [], context(pending=new)) == Done()
    server.cluster.kill()
    server.cluster.start()
    assert open_target(account, port=server.port).test(new, context()) is A
    log = server.log_text()
    assert log.index("SET LOCAL synchronous_commit = on") < log.index("SCRAM-SHA-256$")


def test_sessions_of_the_old_user_are_seen_and_closed(postgres: PostgresServer) -> None:
    account = postgres.alternating()
    target = open_target(account, close_sessions=True)
    old = adopted(target, account.username, account.password)
    assert target.usage(old, old.created_at, context()) == Usage(in_use=False, holders=[])
    held = [postgres.connect(account.username, account.password) for _ in range(2)]
    held.append(postgres.connect(account.username, account.password, host=str(postgres.cluster.socket_dir)))
    pids = [session.info.backend_pid for session in held]
    tcp = ", ".join(map(str, sorted(pids[:2])))
    assert target.usage(old, old.created_at, context()) == Usage(
        in_use=True,
        holders=[
            f"2 sessions of {account.username} from 127.0.0.1 (pid {tcp})",
            f"1 session of {account.username} from a local socket (pid {pids[2]})",
        ],
    )
    assert target.disconnect(old, context()) == Done()
    for session in held:
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert target.disconnect(old, context()) == Done()
