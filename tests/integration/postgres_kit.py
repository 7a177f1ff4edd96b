"""What the PostgreSQL tests have in common: hooks called directly, with a hand-made context."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from psycopg import sql

from tests.servers import TestAccount
from tests.servers.postgres import PostgresServer
from vaultkeeper.model.outcome import Login, Observation
from vaultkeeper.model.secret import Binding, Fields, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Context, Deadline
from vaultkeeper.targets.postgres import PostgresTarget

INSTALLATION = "11111111-2222-3333-4444-555555555555"
PATIENCE_S = 60  # for one call; a machine that stands still for some seconds changes no answer
ODD_NAMES = ('a"b', "a'b c", "ünï", "per%cent", "back\\slash", "$vaultkeeper$")


class Credentials:
    """Knows only `{file: PATH}`."""

    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        return {"value": SecretBytes(Path(reference["file"]).read_bytes())}


def context(
    *,
    current: SecretVersion | None = None,
    pending: SecretVersion | None = None,
    epoch: int = 1,
    seconds: float = PATIENCE_S,
    secret: str = "shop/db",
    installation: str = INSTALLATION,
) -> Context:
    deadline = Deadline(time.monotonic() + seconds)
    return Context(installation, secret, epoch, deadline, Credentials(), current, pending)


def settings_of(account: TestAccount, **more: object) -> dict[str, object]:
    """What policyfile hands to a kind: without `kind` and `strategy`."""
    settings = {"timeout": PATIENCE_S, **account.settings, **more}
    return {name: value for name, value in settings.items() if name not in {"kind", "strategy"}}


def open_target(account: TestAccount, **more: object) -> PostgresTarget:
    return PostgresTarget.open(settings_of(account, **more), 1)


def adopted(target: PostgresTarget, username: str, password: str, number: int = 1) -> SecretVersion:
    given = {"username": SecretBytes(username.encode()), "password": SecretBytes(password.encode())}
    return _version(number, target.complete(given, context(), adopting=True))


def drawn(
    target: PostgresTarget, number: int, current: SecretVersion | None = None, password: str | None = None
) -> SecretVersion:
    given = {"password": SecretBytes((password or secrets.token_urlsafe(24)).encode())}
    return _version(number, target.complete(given, context(current=current), adopting=False))


def _version(number: int, fields: Fields) -> SecretVersion:
    binding = Binding(Strategy.SINGLE, "postgres", {}, 1)
    return SecretVersion("shop/db", number, secrets.token_hex(8), fields, binding, datetime.now(UTC))


def seen(target: PostgresTarget, *candidates: SecretVersion, **more: Any) -> Observation:
    answer = target.observe(candidates, context(**more))
    assert isinstance(answer, Observation), answer
    return answer


def logins(target: PostgresTarget, *versions: SecretVersion) -> list[Login]:
    return [target.test(version, context()) for version in versions]


def users_of(account: TestAccount) -> tuple[str, str]:
    first, second = cast("list[str]", account.settings["users"])
    return first, second


def stored(server: PostgresServer, name: str) -> str | None:
    rows = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])
    return str(rows[0][0]) if rows and rows[0][0] is not None else None


def comment_on(server: PostgresServer, name: str) -> str:
    rows = server.execute("SELECT shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname = %s", [name])
    return str(rows[0][0] or "")


def alter(server: PostgresServer, name: str, what: str) -> None:
    server.execute(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(name), sql.SQL(what)))


def comment(server: PostgresServer, name: str, text: str) -> None:
    server.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(text)))


def run(server: PostgresServer, statements: str, *, database: str = "postgres") -> None:
    """Statements as a person would paste them, for a superuser."""
    server.execute(sql.Composed([sql.SQL(statements)]), database=database)


def rotator(server: PostgresServer, tmp_path: Path, *statements: str) -> dict[str, object]:
    """An admin without privileges but those of `statements`, where {} stands for its name."""
    password = secrets.token_urlsafe(18)
    account = server.account(f"rot_{secrets.token_hex(4)}", password=password)
    file = tmp_path / account.username
    file.write_text(password)
    for statement in statements:
        text = sql.SQL(statement)
        server.execute(text.format(sql.Identifier(account.username)))
    return {"username": account.username, "password": {"file": str(file)}}
