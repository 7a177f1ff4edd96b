"""Requests to the simulated Grafana: who makes them, what they may do, and the table of what answers them."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vaultkeeper.testing.grafana.state import USE_GRAIN, ServiceAccount, State, Token, User, well_formed

SERVER_ADMIN = frozenset(
    {
        "users:read",
        "users:create",
        "users.password:write",
        "users.permissions:write",
        "users.authtoken:read",
        "users:logout",
        "settings:read",
        "server.stats:read",
        "provisioning:reload",
    }
)
ORG_ADMIN = frozenset(
    {
        "serviceaccounts:create",
        "serviceaccounts:read",
        "serviceaccounts:write",
        "serviceaccounts:delete",
        "serviceaccounts.permissions:write",
        "datasources:create",
        "datasources:write",
        "datasources:delete",
    }
)
VIEWER = frozenset({"datasources:read", "datasources:query", "orgs:read"})


class Answer(Exception):
    """A reply that is not the usual one."""

    def __init__(self, status: int, body: object, **headers: str) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers


def told(status: int, message: str, message_id: str = "") -> Answer:
    """An error in Grafana's own words, with its name for it where it has one."""
    if not message_id:
        return Answer(status, {"message": message})
    return Answer(status, {"statusCode": status, "messageId": message_id, "message": message})


def unauthorized(message: str, message_id: str = "", *, traced: bool = True) -> Answer:
    """What the authentication itself says."""
    trace = {"traceID": ""} if traced else {}
    if not message_id:
        return Answer(401, {"message": message, **trace})
    return Answer(401, {"extra": None, "message": message, "messageId": message_id, "statusCode": 401, **trace})


@dataclass(frozen=True)
class Caller:
    """`user` or `account`; neither: the anonymous viewer, who may be somebody whose login was refused."""

    org: int
    user: User | None = None
    account: ServiceAccount | None = None

    @property
    def role(self) -> str:
        if self.account is not None:
            return self.account.role
        if self.user is not None:
            return self.user.roles.get(self.org, "Admin" if self.user.is_admin else "None")
        return "Viewer"


@dataclass(frozen=True)
class Call:
    """One request, authenticated."""

    state: State
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    given: Mapping[str, Any] = field(repr=False)
    caller: Caller
    parts: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """A part of the path; 0 where it is no number."""
        return int(self.parts[name]) if self.parts[name].isdecimal() else 0

    def needs(self, action: str, account: int | None = None) -> None:
        """Raises Answer where the caller may not do that."""
        if not self.may(action, account):
            code = f"ACE{secrets.randbelow(10**10):010d}"
            anonymous = self.caller.user is None and self.caller.account is None
            named = "" if anonymous and self.method != "GET" else action
            text = f"You'll need additional permissions to perform this action. Permissions needed: {named}"
            raise Answer(403, {"accessErrorId": code, "message": text, "title": "Access denied"})

    def may(self, action: str, account: int | None = None) -> bool:
        caller = self.caller
        if caller.user is not None and caller.user.is_admin and action in SERVER_ADMIN:
            return True
        if caller.role == "Admin" and action in ORG_ADMIN | VIEWER:
            return True
        if action in VIEWER and caller.role in ("Viewer", "Editor"):
            return True
        own = caller.account is not None and account is not None and action.startswith("serviceaccounts:")
        return own and account in self.state.edits_of(caller.account) if caller.account else False


Handler = Callable[[Call], Any]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """`{name}` in a path is a part of it, `{rest}` all that is left."""
    parts = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path)).replace("(?P<rest>[^/]+)", "(?P<rest>.+)")
    pattern = re.compile(parts + "/?")

    def put(handler: Handler) -> Handler:
        ROUTES.append((method, pattern, handler))
        return handler

    return put


# -------------------------------------------------------------------------------------------------------- who is asking


def caller(state: State, headers: Mapping[str, str], path: str) -> Caller:
    """Raises Answer."""
    org = headers.get("x-grafana-org-id", "")
    wanted = int(org) if org.isdecimal() else None
    anonymous = state.says("auth.anonymous", "enabled")
    try:
        return _known(state, headers, wanted)
    except Answer:
        if not anonymous:
            raise
        if path == "/api/user":
            raise unauthorized("Unauthorized", traced=False) from None
        return Caller(1)


def _known(state: State, headers: Mapping[str, str], org: int | None) -> Caller:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    session = re.search(r"grafana_session=([^;]+)", headers.get("cookie", ""))
    if state.database_fails and (value or session):
        raise unauthorized("Unauthorized")
    if scheme == "Basic":
        name, _, password = _decoded(value).partition(":")
        if name == "api_key":
            return _by_token(state, password, org)
        if state.says("auth.basic", "enabled"):
            return _in(state, by_password(state, name, password), org)
    elif scheme == "Bearer":
        return _by_token(state, value, org)
    elif session:
        found = next((user for user in state.users.values() if session[1] in user.sessions), None)
        if found is None:
            raise unauthorized("Unauthorized")
        return _in(state, found, org)
    raise unauthorized("Unauthorized", "auth.unauthorized")


def _decoded(value: str) -> str:
    """A password in latin-1 is another one than in UTF-8."""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        return ""


def by_password(state: State, name: str, password: str) -> User:
    """A wrong password, an unknown user and a locked name are told alike. Success forgives nothing. Raises Answer."""
    refused = unauthorized("Invalid username or password", "password-auth.failed")
    if state.address_blocked():
        raise unauthorized("Login temporarily blocked", "passwordless.invalid.login-attempt")
    if not password or state.locked(name):
        raise refused  # and not counted
    found = state.called(name)
    if found is None or found.external or found.password != password:
        state.fail(name)
        raise refused
    if found.disabled:
        raise unauthorized("Unauthorized", "identity.disabled")
    return found


def _in(state: State, user: User, org: int | None) -> Caller:
    if org is not None and (org not in state.orgs or (org not in user.roles and not user.is_admin)):
        raise told(403, "You do not have access to this organization")
    return Caller(org if org is not None else user.using, user)


def _by_token(state: State, value: str, org: int | None) -> Caller:
    if not well_formed(value):
        raise unauthorized("Invalid API key", "api-key.invalid")
    token: Token | None = next((t for t in state.tokens.values() if t.value == value), None)
    if token is None:
        raise unauthorized("Unauthorized")
    account, now = state.accounts[token.account], state.now()
    if token.expires is not None and token.expires <= now:
        raise unauthorized("Expired API key", "api-key.expired")
    if account.disabled:
        raise unauthorized("Unauthorized", "identity.disabled")
    if org is not None and org != account.org:
        text = "API key does not belong to the requested organization"
        raise unauthorized(text, "api-key.organization-mismatch")
    if token.used_at is None or now - token.used_at > USE_GRAIN:
        token.used_at = now
    return Caller(account.org, account=account)
