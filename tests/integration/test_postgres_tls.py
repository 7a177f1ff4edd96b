"""`postgres` over TLS: verify-full, no fallback. Only Debian's PostgreSQL 15 is built with OpenSSL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartPostgres
from tests.integration.postgres_kit import adopted, context, drawn, logins, open_target
from tests.servers import tls
from tests.servers.postgres import PostgresServer
from vaultkeeper.access.postgres import Denial, LoginFailed
from vaultkeeper.model.outcome import Done, Login


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    from tests.servers import postgres

    started = postgres.start("15", ssl=True, hba="ssl-only")
    yield started
    started.stop()


def test_a_rotation_over_tls_with_an_authority_of_ones_own(server: PostgresServer) -> None:
    account = server.account()
    target = open_target(account, tls={"ca": str(server.ca)})
    old = adopted(target, account.username, account.password)
    new = drawn(target, 2, old)
    assert target.set([new], [old], context(current=old, pending=new)) == Done()
    assert logins(target, old, new) == [Login.REJECTED, Login.ACCEPTED]
    assert "TLS" in target.check(context())[0].text


@pytest.mark.parametrize("wrong", ["another authority", "no such file", "the system's"])
def test_a_certificate_that_does_not_verify_ends_the_login(server: PostgresServer, tmp_path: Path, wrong: str) -> None:
    account = server.account()
    (tmp_path / "other.pem").write_text(tls.issue().ca)
    more: dict[str, object] = {
        "another authority": {"tls": {"ca": str(tmp_path / "other.pem")}},
        "no such file": {"tls": {"ca": str(tmp_path / "missing.pem")}},
        "the system's": {"host": "127.1"},  # 127.0.0.1, but not spelled as a loopback address
    }[wrong]  # type: ignore[assignment]
    target = open_target(account, **more)
    old = adopted(target, account.username, account.password)
    with pytest.raises(LoginFailed) as caught:
        target.test(old, context())
    assert caught.value.denial is Denial.CONFIGURATION
    assert [finding.level for finding in target.check(context())] == ["refuse"]


def test_a_certificate_for_another_name_ends_the_login(new_postgres: StartPostgres) -> None:
    server = new_postgres("15", ssl=True)
    account = server.account()
    target = open_target(account, host="localhost", tls={"ca": str(server.ca)})
    old = adopted(target, account.username, account.password)
    assert target.test(old, context()) is Login.ACCEPTED
    made = tls.issue(host="db.internal")
    for name, text in (("server.crt", made.certificate), ("server.key", made.key)):
        server.cluster.write(server.cluster.base / name, text)
    server.ca.write_text(made.ca)
    server.cluster.reload()
    with pytest.raises(LoginFailed) as caught:
        target.test(old, context())
    assert caught.value.denial is Denial.CONFIGURATION


def test_a_server_without_tls_is_not_spoken_to_in_the_clear(new_postgres: StartPostgres, tmp_path: Path) -> None:
    server = new_postgres("15")
    account = server.account()
    (tmp_path / "ca.pem").write_text(tls.issue().ca)
    target = open_target(account, tls={"ca": str(tmp_path / "ca.pem")})
    old = adopted(target, account.username, account.password)
    with pytest.raises(LoginFailed) as caught:
        target.test(old, context())
    assert caught.value.denial is Denial.CONFIGURATION
    assert account.username not in server.log_text().split("database system is ready")[-1]


def test_a_server_that_wants_tls_and_a_policy_without_is_no_rejection(server: PostgresServer) -> None:
    account = server.account()
    target = open_target(account)
    old = adopted(target, account.username, account.password)
    with pytest.raises(LoginFailed) as caught:
        target.test(old, context())
    assert caught.value.denial is Denial.CONFIGURATION
    assert "pg_hba.conf" in caught.value.why
