"""Tokens of one service account: found, listed, made and deleted, by a login that may do that.

An account's list holds at most 300 tokens, so a full one tells nothing of what is not in it. An account that does not
exist, or is another organisation's, has an empty one: its id is looked up by name first. Names of tokens are unique in
an organisation, and stay taken by those that have expired. https://grafana.com/docs/grafana/latest/developers/http_api/serviceaccount/
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vaultkeeper.access.answer import Answered, refused, unknown
from vaultkeeper.access.grafana import Connection, Grafana, by_password, path_of
from vaultkeeper.access.grafana.errors import LoginRefused, Misunderstood, NotThere
from vaultkeeper.model.outcome import No
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.ports import Deadline

MOST_LISTED = 300
MOST_FOUND = 1000  # accounts in one reply to a search
TAKEN = "serviceaccounts.ErrTokenAlreadyExists"
GONE = "serviceaccounts.ErrTokenNotFound"


@dataclass(frozen=True)
class Token:
    """One line of the list. The value is never shown again."""

    id: int
    name: str
    lives: bool
    used_at: datetime | None  #: to five minutes: a use sooner after the one before is not written down


@dataclass(frozen=True)
class Tokens:
    """All of one account."""

    account: int
    listed: Sequence[Token]
    now: datetime  #: by Grafana's clock, as far as it tells

    def of(self, id_: int | None) -> Token | None:
        return next((token for token in self.listed if token.id == id_), None)

    def called(self, name: str) -> Token | None:
        return next((token for token in self.listed if token.name == name), None)


def account_called(server: Grafana, name: str) -> int:
    """Its id. Raises Answered where there is none, or it is disabled."""
    found = server.get("/api/serviceaccounts/search", query=name, perpage=MOST_FOUND, page=1)
    rows = found.get("serviceAccounts") if isinstance(found, dict) else None
    alike = [row for row in rows or [] if isinstance(row, dict) and row.get("name") == name]
    if not alike:
        raise refused(
            No.UNSUPPORTED,
            f"{server.host}: no service account is called {name}",
            next="create it, or see that `org` is its organisation",
        )
    if alike[0].get("isDisabled"):
        raise refused(No.UNSUPPORTED, f"{server.host}: the service account {name} is disabled", next="enable it")
    return int(alike[0]["id"])


def account_of(server: Grafana, name: str) -> int:
    """The id of the account whose token this connection has. Raises Answered where it is not the one of that name."""
    me = server.me()
    kind, _, id_ = str(me.get("uid", "")).partition(":")
    if kind != "service-account" or not id_.isdecimal() or me.get("name") != name:
        raise refused(
            No.UNSUPPORTED,
            f"{server.host}: this token is not one of the service account {name}",
            next="compare `service_account` with the account's name in Grafana",
        )
    return int(id_)


def listed(server: Grafana, account: int) -> Tokens:
    """Raises Answered. Empty for an account that is gone, and its tokens with it."""
    rows = server.get(path_of("serviceaccounts", account, "tokens"))
    if not isinstance(rows, list):
        raise unknown(f"{server.host}: the tokens of an account are no list")
    if len(rows) >= MOST_LISTED:
        raise refused(
            No.CAPACITY,
            f"{server.host}: the account has {MOST_LISTED} tokens or more, and Grafana lists no more of them",
            next="delete those that have expired",
        )
    return Tokens(account, [_token(row) for row in rows if isinstance(row, dict)], server.date or datetime.now(UTC))


def make(server: Grafana, account: int, name: str, seconds: int | None) -> tuple[int, SecretBytes]:
    """Its id and value. Raises GrafanaError: a Misunderstood with `TAKEN` where an earlier call made it."""
    lasts = {} if seconds is None else {"secondsToLive": seconds}
    try:
        made = server.call("POST", path_of("serviceaccounts", account, "tokens"), {"name": name, **lasts})
    except Misunderstood as error:
        if "expir" in error.said:
            raise refused(
                No.UNSUPPORTED,
                f"{server.host} lets no token live so long (two periods and a day)" if lasts else _NEVER,
                next="give the secret a shorter rotation_period, or raise token_expiration_day_limit",
            ) from None
        raise
    if not isinstance(made, dict) or not isinstance(made.get("key"), str) or not isinstance(made.get("id"), int):
        raise unknown(f"{server.host}: a token was made, and the answer holds none")
    return made["id"], SecretBytes(made["key"].encode())


_NEVER = "Grafana is told to let no token live for ever, and the secret has no rotation_period"


def delete(server: Grafana, account: int, id_: int) -> None:
    """Gone already is as good. Raises GrafanaError."""
    try:
        server.call("DELETE", path_of("serviceaccounts", account, "tokens", id_))
    except NotThere as error:
        if error.message_id != GONE:
            raise


def reads_its_database(where: Connection, deadline: Deadline) -> bool:
    """Grafana refuses live tokens without a reason while its database fails, and `/api/health` is five seconds late.

    A user that nobody has is refused with a reason exactly while the database answers.
    """
    nobody, anything = f"vk-probe-{secrets.token_hex(8)}", SecretBytes(secrets.token_hex(16).encode())
    try:
        with Grafana(where, by_password(nobody, anything), deadline) as server:
            server.me()
    except LoginRefused:
        return True
    except Answered:
        return False
    return False


def _token(row: Mapping[str, Any]) -> Token:
    lives = not (row.get("hasExpired") or row.get("isRevoked"))
    return Token(int(row["id"]), str(row.get("name", "")), lives, _moment(row.get("lastUsedAt")))


def _moment(told: object) -> datetime | None:
    """Raises Answered for what is no time: it must not be taken for a token that nobody uses."""
    if told is None:
        return None
    try:
        found = datetime.fromisoformat(str(told))
    except ValueError:
        raise unknown("Grafana tells the last use of a token in a form that is not known") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
