"""Requests to Grafana's HTTP API (written after 12.4.0). What its answers mean: `access/grafana/errors.py`.

Credentials go along unasked, because a 401 of Grafana asks for none. Where anonymous access is on, a refused one is
served as the anonymous viewer, with 200, and with 403 for what that one may not do: only `/api/user` tells who somebody
is, and a 403 counts after that alone. Basic auth acts in whatever organisation its user looked at last, so the
organisation is always named. No redirect is followed, one deadline bounds each call, every reply is bounded, and none
reaches an exception, a log or a `repr`. https://grafana.com/docs/grafana/latest/developers/http_api/
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlencode, urlsplit

from pydantic import Field

from vaultkeeper.access import http
from vaultkeeper.access.answer import refused
from vaultkeeper.access.grafana import errors
from vaultkeeper.access.grafana.errors import GrafanaError, RightMissing, Unsaid
from vaultkeeper.access.settings import OFF, PolicyPath, Shape, Url, host_of
from vaultkeeper.model.outcome import No
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.ports import Deadline

MAX_REPLY_BYTES = 4 << 20  # 300 tokens, or one data source with its certificates


class Connection(Shape):
    """How a policy says where Grafana is."""

    url: Url = Field(description="of Grafana as browsers reach it, with its sub-path: https://example.com/grafana")
    tls: Annotated[Literal["off"] | None, OFF] = Field(
        default=None, description="off: plain http beyond this machine is meant"
    )
    ca: PolicyPath | None = Field(default=None, description="CA certificates to trust instead of the system's, PEM")

    @property
    def base(self) -> str:
        """Proxies need the configured prefix, and `//api` is not `/api`."""
        return self.url.rstrip("/").removesuffix("/api")

    @property
    def host(self) -> str:
        """For people, and for names of what is there."""
        return host_of(self.base) + urlsplit(self.base).path


@dataclass(frozen=True)
class Credential:
    """What a request carries. `name` is for people; None: a service account's token."""

    header: str = field(repr=False)
    name: str | None


def by_password(name: str, password: SecretBytes) -> Credential:
    """In UTF-8, as Grafana reads it: latin-1 would be a failed login. Raises Answered for what is no text."""
    if not password.is_text():
        raise refused(No.VALUE, "the password is no text, and Grafana takes nothing else")
    pair = name.encode() + b":" + password.reveal()
    return Credential(f"Basic {base64.b64encode(pair).decode()}", name)


def by_token(token: SecretBytes) -> Credential:
    """Raises LoginRefused for what no header can carry."""
    if not token.is_text() or not re.fullmatch(r"[!-~]+", token.text()):
        raise errors.token_refused("this is no token of Grafana: a header cannot carry it")
    return Credential(f"Bearer {token.text()}", None)


@dataclass(frozen=True)
class Answer:
    """A reply that was understood. `document` is its JSON; None: it was empty."""

    status: int
    document: Any = field(repr=False)


class Grafana:
    """One credential's way to one server, for the length of one hook. Close it, or use it in a `with` block."""

    def __init__(self, where: Connection, who: Credential, deadline: Deadline, org: int | None = None) -> None:
        self.host, self.who = where.host, who
        self.date: datetime | None = None  #: of the last reply, by the server's own clock
        self._base, self._deadline, self._org = where.base, deadline, org
        self._channel = http.Channel(plain_ok=where.tls == "off", ca_file=where.ca)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def get(self, path: str, **query: object) -> Any:
        """The reply's document. Raises GrafanaError, ConfigurationInvalid."""
        return self.call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """As `get`. A reply that is lost says nothing of what was done."""
        answer = self.exchange(method, path, body)
        if answer.status in (200, 201):
            return answer.document
        raise self.error(answer, method, path)

    def error(self, answer: Answer, method: str, path: str) -> GrafanaError:
        """What an answer means that is none of those hoped for."""
        told = f"{method} {path.partition('?')[0]}"
        error = errors.meaning(self.host, self.who.name, told, answer.status, answer.document)
        if isinstance(error, Unsaid):
            return self._asked_further(error)
        if isinstance(error, RightMissing) and path != "/api/user":
            try:
                self.me()
            except GrafanaError as other:  # the viewer's 403: it is the login, not its rights
                return other
        return error

    def me(self) -> Mapping[str, Any]:
        """Whose credential this is. Raises LoginRefused."""
        found = self.get("/api/user")
        if not isinstance(found, dict) or not isinstance(found.get("login"), str):
            raise errors.not_grafana(self.host, "/api/user names nobody")
        return found

    def exchange(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        unnamed: bool = False,
        fresh: bool = False,
    ) -> Answer:
        """One request, whatever its status. `unnamed`: without the credential; `fresh`: past Grafana's caches.

        Raises NoAnswer, NotGrafana, ConfigurationInvalid.
        """
        headers = {"Accept": "application/json"}
        if not unnamed:
            headers["Authorization"] = self.who.header
            headers |= {} if self._org is None else {"X-Grafana-Org-Id": str(self._org)}
        if fresh:
            headers["X-Grafana-NoCache"] = "true"
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            reply = self._channel.call(
                method,
                self._base + path,
                self._deadline,
                headers=headers,
                content=content,
                limit_bytes=MAX_REPLY_BYTES,
            )
        except http.HttpError as error:
            raise errors.no_answer(error.what) from None
        self.date = reply.date or self.date
        return self._understood(reply)

    def _understood(self, reply: http.Reply) -> Answer:
        if 300 <= reply.status < 400 and reply.status != 304:
            told = f"a redirect ({reply.status}), which is never followed with a credential"
            raise errors.not_grafana(self.host, told)
        if len(reply.body) >= MAX_REPLY_BYTES:
            raise errors.not_grafana(self.host, f"more than {MAX_REPLY_BYTES >> 20} MiB")
        if reply.body.lstrip()[:1] == b"<":
            raise errors.not_grafana(self.host, f"a web page ({reply.status}), as proxies answer")
        try:
            return Answer(reply.status, json.loads(reply.body) if reply.body.strip() else None)
        except (ValueError, RecursionError):
            if reply.status == 400:  # that a token would live too long is said in plain text
                return Answer(400, {"message": reply.body[:200].decode("utf-8", "replace")})
            raise errors.not_grafana(self.host, f"something that is no JSON ({reply.status})") from None

    def _asked_further(self, unsaid: Unsaid) -> GrafanaError:
        """Is it this credential, or does Grafana let nobody in?"""
        health = self.exchange("GET", "/api/health", unnamed=True)
        told = health.document if isinstance(health.document, dict) else {}
        if health.status != 200 or told.get("database") != "ok":
            return unsaid
        open_to_anybody = self.who.name is not None and self.exchange("GET", "/api/org", unnamed=True).status == 200
        if self.who.name is not None and not open_to_anybody:
            return unsaid
        refusal = errors.login_refused(self.host, self.who.name)
        refusal.unsaid = True
        return refusal


def path_of(*parts: object) -> str:
    """`/api/…` of parts that people may have named."""
    return "/api/" + "/".join(quote(str(part), safe="") for part in parts)


def refuse_without(server: Grafana, action: str, scope: str) -> None:
    """Raises RightMissing, naming action and scope, where this credential may not do that.

    Asked past the cache, in which a right that was just given takes a minute to show.
    """
    found = server.get("/api/access-control/user/permissions", reloadcache="true")
    scopes = set(found.get(action, [])) if isinstance(found, dict) else set()
    wide = {scope[: at + 1] + "*" for at, character in enumerate(scope) if character == ":"}
    if not {scope, "*", *wide} & scopes:
        raise errors.lacking(server.host, server.who.name, action, scope)
