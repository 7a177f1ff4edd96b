"""`postgres` and its privileges: each missing one is named before anything happens, and `doctor_sql` gives them all."""

from __future__ import annotations

import re
import secrets
import subprocess
from pathlib import Path

import pytest
from psycopg import sql

from tests.conftest import StartPostgres
from tests.integration.postgres_kit import (
    ODD_NAMES,
    adopted,
    alter,
    comment,
    comment_on,
    context,
    drawn,
    logins,
    open_target,
    rotator,
    run,
    seen,
    settings_of,
    stored,
    users_of,
)
from tests.servers import TestAccount
from tests.servers.docker_image import PSQL
from tests.servers.postgres import PostgresServer, every_postgres
from vaultkeeper.access.postgres.roles import UNLISTED
from vaultkeeper.model.outcome import Basis, Done, Login, No, Refused, Usage
from vaultkeeper.targets.postgres import PostgresTarget

A, R = Login.ACCEPTED, Login.REJECTED


def refusals(target: PostgresTarget) -> list[tuple[str, str]]:
    return [(finding.text, finding.next) for finding in target.check(context()) if finding.level == "refuse"]


def warnings(target: PostgresTarget) -> list[str]:
    return [finding.text for finding in target.check(context()) if finding.level == "warn"]


def refused_set(target: PostgresTarget) -> No | None:
    answer = target.set([drawn(target, 2)], [], context())
    return answer.why if isinstance(answer, Refused) else None


def has_admin_option(server: PostgresServer) -> bool:
    return server.version >= "16"


@every_postgres
def test_an_admin_without_privileges_is_told_each_one_it_lacks(postgres: PostgresServer, tmp_path: Path) -> None:
    account = postgres.account()
    target = open_target(account, admin=(admin := rotator(postgres, tmp_path)))
    before = stored(postgres, account.username)
    name = admin["username"]
    expected = [(f"{name} lacks CREATEROLE", f'ALTER ROLE "{name}" CREATEROLE')]
    if has_admin_option(postgres):
        grant = f'GRANT "{account.username}" TO "{name}" WITH ADMIN OPTION, INHERIT FALSE, SET FALSE'
        expected.append((f"{name} lacks ADMIN OPTION on {account.username}", grant))
    assert refusals(target) == expected
    assert refused_set(target) is No.PRIVILEGE
    for _, statement in expected:
        run(postgres, statement)
    assert refusals(target) == []
    assert stored(postgres, account.username) == before
    assert refused_set(target) is None
    assert seen(target).basis is Basis.LOGIN


def test_either_of_the_two_privileges_alone_is_not_enough_from_16_on(postgres: PostgresServer, tmp_path: Path) -> None:
    account = postgres.account()
    createrole = open_target(account, admin=rotator(postgres, tmp_path, "ALTER ROLE {} CREATEROLE"))
    option = f'GRANT "{account.username}" TO {{}} WITH ADMIN OPTION'
    admin_option = open_target(account, admin=rotator(postgres, tmp_path, option))
    for target, lacking in ((createrole, "ADMIN OPTION"), (admin_option, "CREATEROLE")):
        assert [lacking in text for text, _ in refusals(target)] == [True]
        assert refused_set(target) is No.PRIVILEGE


@every_postgres
def test_a_superuser_account_and_a_lesser_admin_are_told_before_anything_happens(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    account = postgres.account(attributes=sql.SQL("SUPERUSER"))
    target = open_target(account, admin=rotator(postgres, tmp_path, "ALTER ROLE {} CREATEROLE"))
    assert [text for text, _ in refusals(target)] == [
        f"{account.username} is a superuser, which only a superuser may change"
    ]
    assert "admin: self" in refusals(target)[0][1]
    assert refused_set(target) is No.PRIVILEGE


@every_postgres
def test_making_the_second_user_needs_the_admin_option_on_the_owner(postgres: PostgresServer, tmp_path: Path) -> None:
    account = postgres.alternating()
    owner, first = account.settings["owner_role"], account.username
    statements = ["ALTER ROLE {} CREATEROLE", "GRANT pg_monitor TO {}"]
    if has_admin_option(postgres):
        statements.append(f'GRANT "{first}" TO {{}} WITH ADMIN OPTION, INHERIT FALSE, SET FALSE')
    admin = rotator(postgres, tmp_path, *statements)
    target = open_target(account, admin=admin, create_users=True)
    if has_admin_option(postgres):
        assert [text for text, _ in refusals(target)] == [f"{admin['username']} lacks ADMIN OPTION on {owner}"]
        run(postgres, refusals(target)[0][1])
    assert refusals(target) == []
    assert warnings(target) == []
    old = adopted(target, first, account.password)
    new = drawn(target, 2, old)
    assert target.set([new, old], [], context(current=old, pending=new)) == Done()
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert logins(target, old, new) == [R, A]
    with postgres.connect(users_of(account)[1], new.fields["password"].text()) as session:
        assert session.execute("SELECT current_user").fetchone() == (owner,)


def test_an_admin_without_pg_monitor_counts_sessions_whose_origin_it_cannot_see(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    account = postgres.alternating()
    admin = rotator(postgres, tmp_path)
    target = open_target(account, admin=admin, close_sessions=True, create_users=True)
    assert warnings(target) == ["sessions can be counted, but not told where they come from"]
    assert (
        f"{admin['username']} may not close sessions",
        f'GRANT pg_signal_backend TO "{admin["username"]}"',
    ) in refusals(target)
    old = adopted(target, account.username, account.password)
    with postgres.connect(account.username, account.password) as session:
        pid = session.info.backend_pid
        holder = f"1 session of {account.username} from an address that needs pg_monitor to see (pid {pid})"
        assert target.usage(old, old.created_at, context()) == Usage(in_use=True, holders=[holder])
        answer = target.disconnect(old, context())
        assert isinstance(answer, Refused)
        assert answer.why is No.PRIVILEGE


@every_postgres
@pytest.mark.parametrize("way", ["attribute", "functions"])
@pytest.mark.parametrize("odd", ODD_NAMES[:4])
def test_the_statements_of_doctor_are_all_that_a_rotator_needs(
    postgres: PostgresServer, tmp_path: Path, way: str, odd: str
) -> None:
    account = postgres.account(f"{odd}{secrets.token_hex(3)}")
    target, file = rotated_by(account, postgres, tmp_path, way)
    assert refusals(target) == []
    comment(postgres, account.username, "the shop's")
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert logins(target, old, new) == [R, A]
    observed = seen(target, old, new)
    assert observed.tag is not None
    assert (observed.tag.generation, comment_on(postgres, account.username)[:10]) == (2, "the shop's")
    if way == "functions":
        assert (observed.basis, observed.answers) == (Basis.VERIFIER, {1: R, 2: A})
    else:
        assert (observed.basis, observed.answers) == (Basis.LOGIN, {})
    assert file.read_text() not in postgres.log_text()


def rotated_by(account: TestAccount, server: PostgresServer, tmp_path: Path, way: str) -> tuple[PostgresTarget, Path]:
    """A target whose admin was made by one of the two ways that `doctor_sql` prints."""
    file = tmp_path / "rotator"
    file.write_text(secrets.token_urlsafe(18))
    username = f'rot"{secrets.token_hex(4)}'
    admin = {"username": username, "password": {"file": str(file)}}
    script = PostgresTarget.doctor_sql(settings_of(account, admin=admin))
    start, either, functions = re.split(r"-- EITHER|-- OR", script)
    part = "--" + (either if way == "attribute" else functions)
    if not has_admin_option(server):
        part = re.sub(r"GRANT [^;]* WITH ADMIN OPTION[^;]*;", "", part)
    for text in (start, part):
        run(server, re.sub(r"(?m)^(.*\\(?:gset|if|else|password|endif).*)$", r"-- \1", text))
    alter(server, username, f"PASSWORD '{file.read_text()}'")
    return open_target(account, admin=admin), file


@pytest.mark.skipif(not PSQL.exists(), reason="Debian's postgresql-client-15 is not installed")
def test_the_statements_of_doctor_leave_an_admin_that_exists_its_password(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Several policies have one admin, and each prints all of it."""
    account, admin = postgres.account(), rotator(postgres, tmp_path)
    password = (tmp_path / str(admin["username"])).read_text()
    script = PostgresTarget.doctor_sql(settings_of(account, admin=admin))
    if not has_admin_option(postgres):
        script = re.sub(r"GRANT [^;]* WITH ADMIN OPTION[^;]*;", "", script)
    place = account.settings
    at = ["-h", str(place["host"]), "-p", str(place["port"]), "-U", postgres.superuser, "postgres"]
    around = {"PGPASSFILE": str(tmp_path / "pass"), "PATH": "/usr/bin"}
    (tmp_path / "pass").write_text(f"*:*:*:*:{postgres.superuser_password}\n")
    (tmp_path / "pass").chmod(0o600)
    command = [str(PSQL), "-X", "-q", "-v", "ON_ERROR_STOP=1", *at]
    ran = subprocess.run(command, input=script, env=around, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert postgres.login(str(admin["username"]), password)


@every_postgres
def test_the_functions_of_doctor_reach_no_other_account_and_take_no_plain_password(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    account, other = postgres.account(), postgres.account()
    target, file = rotated_by(account, postgres, tmp_path, "functions")
    admin = target.settings.admin
    assert admin != "self"
    calls = {
        "SELECT vaultkeeper.set_login(%s, %s, true)": ["x", None],
        "SELECT vaultkeeper.set_comment(%s, 'x')": [],
    }
    with postgres.connect(admin.username, file.read_text()) as session:
        for call, values in calls.items():
            for value in values or [""]:
                arguments = [other.username, *([value] if values else [])]
                with pytest.raises(Exception, match="insufficient_privilege"):
                    session.execute(sql.SQL(call), arguments)
        with pytest.raises(Exception, match="permission denied"):
            session.execute("INSERT INTO vaultkeeper.accounts VALUES (%s)", [other.username])
        assert session.execute("SELECT vaultkeeper.verifier(%s)", [other.username]).fetchone() == (UNLISTED,)
        with pytest.raises(Exception, match="invalid_parameter_value"):
            session.execute("SELECT vaultkeeper.set_login(%s, 'plain', true)", [account.username])
    with (
        postgres.connect(other.username, other.password) as session,
        pytest.raises(Exception, match="permission denied"),
    ):
        session.execute("SELECT vaultkeeper.verifier(%s)", [account.username])
    elsewhere = open_target(other, admin=admin)
    assert [text for text, _ in refusals(elsewhere)] == [
        f"the functions of schema vaultkeeper do not reach {other.username}"
    ]
    assert refused_set(elsewhere) is No.PRIVILEGE
    assert seen(elsewhere, adopted(elsewhere, other.username, other.password)).basis is Basis.LOGIN
    run(postgres, refusals(elsewhere)[0][1])
    assert refusals(elsewhere) == []
    assert refused_set(elsewhere) is None
    assert seen(elsewhere).basis is Basis.VERIFIER


def test_functions_that_no_superuser_owns_are_not_given_anything(postgres: PostgresServer, tmp_path: Path) -> None:
    account = postgres.account()
    stranger = postgres.account()
    admin = rotator(postgres, tmp_path)
    database = f"strange_{secrets.token_hex(3)}"
    run(postgres, f"CREATE DATABASE {database}")
    for statement in (
        "CREATE SCHEMA vaultkeeper",
        "CREATE FUNCTION vaultkeeper.verifier(name) RETURNS text SECURITY DEFINER LANGUAGE sql AS $$SELECT NULL$$",
        "GRANT USAGE ON SCHEMA vaultkeeper TO PUBLIC",
        f"ALTER FUNCTION vaultkeeper.verifier OWNER TO {stranger.username}",
    ):
        run(postgres, statement, database=database)
    target = open_target(account, admin={**admin, "database": database})
    assert seen(target, adopted(target, account.username, account.password)).basis is Basis.LOGIN


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("VALID UNTIL '2001-01-01'", "which is past"),
        ("CONNECTION LIMIT 0", "CONNECTION LIMIT 0"),
        ("NOLOGIN", "has NOLOGIN"),
    ],
)
def test_an_account_that_could_not_log_in_with_any_password_is_refused(
    postgres: PostgresServer, what: str, complaint: str
) -> None:
    account = postgres.account()
    target = open_target(account)
    assert refusals(target) == []
    alter(postgres, account.username, what)
    [(text, statement)] = refusals(target)
    assert complaint in text
    run(postgres, statement)
    assert refusals(target) == []


def test_a_user_outside_the_owner_role_is_refused_and_one_that_does_not_act_as_it_warned_of(
    postgres: PostgresServer,
) -> None:
    account = postgres.alternating()
    postgres.account(users_of(account)[1])
    target = open_target(account)
    [(text, statement)] = refusals(target)
    assert "is no member of" in text
    run(postgres, statement)
    assert refusals(target) == []
    assert [text for text in warnings(target) if "will belong to it" in text]
    missing = open_target(account, owner_role="no_such_owner")
    assert [text for text, _ in refusals(missing)] == ["the owner role no_such_owner does not exist"]


def test_a_server_that_may_forget_is_warned_of(new_postgres: StartPostgres) -> None:
    careless = {"fsync": "off", "synchronous_commit": "off", "password_encryption": "md5"}
    server = new_postgres(settings=careless)
    target = open_target(server.account())
    assert [text.split(":")[0].split(";")[0] for text in warnings(target)] == [
        "fsync is off",
        "synchronous_commit is off",
        "password_encryption is md5",
    ]
