"""No password of `postgres` in the server's log, its statistics, an exception or a repr."""

from __future__ import annotations

import base64
import json
import logging
import traceback
import urllib.parse

import pytest

from tests.conftest import StartPostgres
from tests.integration.postgres_kit import adopted, alter, context, drawn, open_target
from tests.servers.postgres import PostgresServer
from vaultkeeper.access.settings import Authority
from vaultkeeper.model.outcome import Done
from vaultkeeper.targets.postgres import PostgresTarget


def forms(value: str) -> list[str]:
    raw = value.encode()
    return [
        value,
        base64.b64encode(raw).decode(),
        raw.hex(),
        urllib.parse.quote(value, safe=""),
        json.dumps(value)[1:-1],
    ]


def statements(server: PostgresServer) -> str:
    return str(server.execute("SELECT query FROM pg_stat_statements"))


def test_no_password_reaches_the_servers_log_or_its_statistics(
    new_postgres: StartPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = new_postgres(
        "15",
        settings={
            "shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "on",
            "log_statement": "all", "log_min_messages": "debug1", "log_connections": "on",
        },
    )  # fmt: skip
    server.execute("CREATE EXTENSION pg_stat_statements")
    account = server.account()
    old_password, new_password = account.password, "canary-'%25-\\-" + account.username
    told: list[str] = []
    target = open_target(account)
    for admin in (account.settings["admin"], "self"):
        target = open_target(account, admin=admin)
        old = adopted(target, account.username, old_password)
        new = drawn(target, 2, old, password=new_password)
        for accept, refuse in ((new, old), (old, new), (new, old)):
            assert target.set([accept], [refuse], context(current=old, pending=new)) == Done()
            told += [repr(target.test(version, context())) for version in (old, new)]
        told += [repr(x) for x in (old, new, target.observe([old, new], context()), target.check(context(current=new)))]
        old_password, new_password = new_password, new_password + "-2"
    told += failures(server, target)
    text = "".join([server.log_text(), statements(server), caplog.text, *told])
    assert "ALTER ROLE" in server.log_text()
    assert "ALTER ROLE" in statements(server)
    hunted = {old_password, new_password, new_password.removesuffix("-2")}
    assert [form for value in hunted for form in forms(value) if form in text] == []
    alter(server, account.username, "PASSWORD 'planted'")
    assert "planted" in server.log_text(), "the hunt would not have found anything"


def failures(server: PostgresServer, target: PostgresTarget) -> list[str]:
    """Texts of everything that can go wrong, tracebacks included."""
    told = []
    broken = adopted(target, target.settings.user or "", "canary of a failure")
    answer = target.set([broken], [], context(current=broken, seconds=0.001))
    told.append(repr(answer))
    for more in ({"database": "nowhere"}, {"port": 1}, {"tls": Authority(ca="/nonexistent")}):
        other = PostgresTarget(target.settings.model_copy(update=more))
        try:
            told.append(repr(other.test(broken, context())))
        except Exception:  # noqa: BLE001 - whatever it is, its text counts
            told.append(traceback.format_exc())
    return told
