"""The test servers themselves: a fault that does not happen would make every test that relies on it worthless."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.conftest import StartPostgres
from tests.servers.postgres import PostgresServer, every_postgres


@every_postgres
def test_a_scram_login_is_accepted_with_the_right_password_and_refused_with_a_wrong_one(
    postgres: PostgresServer,
) -> None:
    account = postgres.account()
    assert postgres.login(account.username, account.password)
    assert not postgres.login(account.username, account.password + "x")
    for host in (postgres.host, str(postgres.cluster.socket_dir)):
        with postgres.connect(account.username, account.password, host=host, require_auth="scram-sha-256") as session:
            assert session.info.server_version // 10000 == int(postgres.version)
    assert postgres.execute("SHOW fsync") == [("on",)]


def test_the_first_alternating_user_acts_as_the_owner(postgres: PostgresServer) -> None:
    account = postgres.alternating()
    database = str(account.settings["database"])
    with postgres.connect(account.username, account.password, database=database) as session:
        assert session.execute("SELECT current_user").fetchone() == (account.settings["owner_role"],)


def test_a_trust_server_accepts_anything_but_proves_nothing(new_postgres: StartPostgres) -> None:
    server = new_postgres(hba="trust")
    account = server.account()
    assert server.login(account.username, "wrong")
    with pytest.raises(psycopg.OperationalError, match="require"):
        server.connect(account.username, "wrong", require_auth="scram-sha-256")


def test_a_lost_reply_leaves_the_statement_done(postgres: PostgresServer) -> None:
    account = postgres.account()
    change = sql.SQL("ALTER ROLE {} PASSWORD 'changed'").format(sql.Identifier(account.username))
    with (
        postgres.fault("lost-reply", statement="alter role"),
        postgres.connect(port=postgres.proxy.port) as session,
        pytest.raises(psycopg.OperationalError),
    ):
        session.execute(change)
    assert postgres.login(account.username, "changed")


def test_a_lost_request_leaves_the_statement_undone_and_the_second_try_gets_through(postgres: PostgresServer) -> None:
    account = postgres.account()
    change = sql.SQL("ALTER ROLE {} PASSWORD 'changed'").format(sql.Identifier(account.username))
    with postgres.fault("lost-request", statement="alter role"):
        with postgres.connect(port=postgres.proxy.port) as session, pytest.raises(psycopg.OperationalError):
            session.execute(change)
        assert postgres.login(account.username, account.password)
        with postgres.connect(port=postgres.proxy.port) as session:
            session.execute(change)
    assert postgres.login(account.username, "changed")


def test_an_unreachable_server_refuses_and_a_silent_one_times_out_and_both_come_back(postgres: PostgresServer) -> None:
    port = postgres.proxy.port
    with postgres.fault("unreachable"), pytest.raises(psycopg.OperationalError, match="refused"):
        postgres.connect(port=port)
    with postgres.fault("silent"), pytest.raises(psycopg.OperationalError, match="timeout"):
        postgres.connect(port=port, connect_timeout=2)
    postgres.connect(port=port).close()


def test_no_outgoing_connection_is_given_a_servers_port_while_it_restarts(postgres: PostgresServer) -> None:
    given_away_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert postgres.port < given_away_from


def test_a_restored_server_knows_the_old_password_again(new_postgres: StartPostgres) -> None:
    server = new_postgres()
    account = server.account()
    server.cluster.snapshot("before")
    server.execute(sql.SQL("ALTER ROLE {} PASSWORD 'changed'").format(sql.Identifier(account.username)))
    assert not server.login(account.username, account.password)
    server.cluster.restore("before")
    assert server.login(account.username, account.password)


def test_a_crash_loses_no_committed_password(new_postgres: StartPostgres) -> None:
    server = new_postgres()
    account = server.account()
    with server.fault("crash"), pytest.raises(psycopg.OperationalError):
        server.login(account.username, account.password)
    assert server.login(account.username, account.password)


def test_postgres_15_logs_statements_counts_them_and_speaks_tls(new_postgres: StartPostgres) -> None:
    server = new_postgres(
        "15", ssl=True, hba="ssl-only",
        settings={"log_statement": "all", "shared_preload_libraries": "pg_stat_statements"},
    )  # fmt: skip
    tls = {"sslmode": "verify-full", "sslrootcert": str(server.ca)}
    with server.connect(**tls) as session:
        session.execute("CREATE EXTENSION pg_stat_statements")
        session.execute("SELECT 'canary'")
        rows = session.execute("SELECT query FROM pg_stat_statements").fetchall()
    assert any("SELECT $1" in str(row[0]) for row in rows)
    assert "SELECT 'canary'" in server.log_text()
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        server.connect(sslmode="disable")
    other = new_postgres("15", ssl=True)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        server.connect(sslmode="verify-full", sslrootcert=str(other.ca))
