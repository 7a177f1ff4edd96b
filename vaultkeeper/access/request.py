"""Requests that a policy describes: what stands in their address and body, who sends them, what their answers mean.

A value travels in the body, or in the credential header of a login; never in an address, which every proxy and server
on the way writes into its log. A body that is a mapping or a list is sent as JSON and its texts are templates, so no
value can break out of its string. A body that is text is a template whose every insert is escaped, unless the insert is
all of it. Of a reply nothing is quoted but its status: it may repeat what was sent.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from vaultkeeper.access.answer import refused, unknown
from vaultkeeper.access.settings import Codes, PolicyPath, Reference, Shape, Verbatim, host_of, judge_url
from vaultkeeper.model.outcome import Login, No, Refused, Unknown
from vaultkeeper.model.secret import Fields, SecretBytes
from vaultkeeper.model.template import Template
from vaultkeeper.ports import Credentials, Deadline

if TYPE_CHECKING:
    from vaultkeeper.access.http import Reply

MAX_REPLY_BYTES = 256 << 10

_OURS = frozenset({"authorization", "host", "connection", "content-length", "content-type", "transfer-encoding"})
_MOVED = (301, 302, 303, 307, 308)
_NOT_FOLLOWED = "redirects are not followed: give the address that answers itself"


def off(value: object) -> object:
    """What YAML 1.1 makes of an unquoted `off`."""
    return "off" if value is False else value


Off = Annotated[Literal["off"] | None, BeforeValidator(off)]
"""`tls: off`: plain http beyond this machine is meant."""


def _address(text: str) -> str:
    template = Template.parse(text)
    first = template.parts[0] if template.parts else None
    if not isinstance(first, str) or not urlsplit(first).path.startswith("/"):
        raise ValueError("expected http://… or https://… with a host; only what follows the host may be filled in")
    if any(insert.field is None or insert.previous or insert.filters for insert in template.inserts()):
        raise ValueError("an address takes plain names, which are percent-encoded: {username} for example")
    judge_url("".join(part if isinstance(part, str) else "x" for part in template.parts))
    if "#" in text:
        raise ValueError("an address that is asked has no `#`")
    return text


def _body(body: JsonValue) -> JsonValue:
    if isinstance(body, str):
        template = Template.parse(body)
        if len(template.parts) > 1 and any(insert.raw for insert in template.inserts()):
            raise ValueError("a value could break out of this text: write {value|url}, {value|json} or {value|base64}")
        for before, part in pairwise(template.parts):
            quoted = isinstance(before, str) and before.endswith('"')
            if quoted and not isinstance(part, str) and "json" in part.filters:
                raise ValueError("`|json` brings its own quotes: leave out those around it")
    elif isinstance(body, dict | list):
        _texts(body)
    elif body is not None:
        raise ValueError("expected a mapping or a list, sent as JSON, or text")
    return body


def _texts(body: JsonValue) -> list[Template]:
    """Every template in a body. Raises ValueError."""
    match body:
        case str():
            return [Template.parse(body)]
        case dict():
            return [template for inner in body.values() for template in _texts(inner)]
        case list():
            return [template for inner in body for template in _texts(inner)]
    return []


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not name.isascii() or not name.replace("-", "").isalnum() or not value.isascii() or not value.isprintable():
            raise ValueError("a header is printable ASCII")
        if name.lower() in _OURS:
            raise ValueError(f"`{name}` is no header to give here: credentials and lengths have places of their own")
    return headers


class Request(Shape):
    """One request, but for who sends it."""

    http: Annotated[str, AfterValidator(_address)] = Field(description="its address; {username} is percent-encoded")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    body: Annotated[JsonValue, AfterValidator(_body), Verbatim()] = Field(
        default=None, description="a mapping or list: JSON whose texts are templates; text: a template"
    )
    content_type: str | None = Field(
        default=None, pattern=r"^[!-~]+( [!-~]+)*$", description="default: JSON, or text/plain for a text"
    )
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(
        default_factory=dict, description="further headers, with nothing secret in them"
    )

    def in_address(self) -> frozenset[str]:
        """Names that its address fills in."""
        return Template.parse(self.http).fields()

    def in_body(self) -> frozenset[str]:
        """Names that its body fills in."""
        return frozenset[str]().union(*(template.fields() for template in _texts(self.body)))

    def address(self, names: Mapping[str, str]) -> str:
        """With `names` filled in. Raises Answered for one that would lead elsewhere."""
        out = []
        for part in Template.parse(self.http).parts:
            if isinstance(part, str):
                out.append(part)
                continue
            text = names.get(part.field or "", "")
            if text in ("", ".", ".."):  # a path with these leads to another address
                raise refused(No.UNSUPPORTED, f"{host_of(self.http)}: no address can be made with this {part.field}")
            out.append(quote(text, safe=""))
        return "".join(out)

    def content(self, fields: Fields) -> bytes | None:
        """The body with `fields` filled in. Raises Answered where one is missing or is no text."""
        if self.body is None:
            return None
        try:
            if isinstance(self.body, str):
                return Template.parse(self.body).render(fields).reveal()
            return json.dumps(_filled(self.body, fields), ensure_ascii=False).encode()
        except ValueError as error:
            raise refused(No.VALUE, f"the body for {host_of(self.http)} cannot be made: {error}") from None


def _filled(body: JsonValue, fields: Fields) -> JsonValue:
    match body:
        case str():
            return Template.parse(body).render(fields).text()
        case dict():
            return {key: _filled(inner, fields) for key, inner in body.items()}
        case list():
            return [_filled(inner, fields) for inner in body]
    return body


class Changing(Request):
    """A request that changes something."""

    done: Codes = Field(default=(200, 201, 204), description="it is so now")
    refused: Codes = Field(default=(400, 422), description="this value is not accepted; nothing was changed")


class Removing(Request):
    """A request that ends something; that it is gone already is as good."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "DELETE"
    done: Codes = Field(default=(200, 204, 404, 410), description="it is so now, or was before")
    refused: Codes = Field(default=(400, 422), description="this is not accepted; nothing was changed")


class Auth(Shape):
    """Who sends a request: a login (RFC 7617), or a token behind a scheme."""

    username: str | None = Field(default=None, pattern=r"^[^:\x00-\x1f\x7f]+$", description="with `password`: Basic")
    password: Reference | None = None
    token: Reference | None = None
    header: str = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]+$", description="that carries the token")
    scheme: str = Field(default="Bearer", pattern=r"^[!-~]*$", description="before the token; empty: the bare token")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.token is None) == (self.password is None) or (self.username is None) != (self.password is None):
            raise ValueError("expected {username: …, password: REFERENCE} or {token: REFERENCE}")
        return self

    @property
    def who(self) -> str:
        """For people."""
        return f"{self.username}" if self.username else "the token that the policy names"

    def spelt(self, credentials: Credentials) -> dict[str, str]:
        """The header that says so. Raises NotAuthorised, NotFound, and Answered where no header can carry it."""
        reference = self.password if self.token is None else self.token
        found = credentials.resolve(reference or {})
        value = next((found[name] for name in ("password", "token") if name in found), next(iter(found.values())))
        if self.username is not None:
            return basic(self.username, value)
        header = token(self.header, self.scheme, value)
        if header is None:
            raise refused(No.PRIVILEGE, f"{self.who} holds what no header can carry")
        return header


def basic(username: str, password: SecretBytes) -> dict[str, str]:
    """RFC 7617, in UTF-8."""
    spelt = base64.b64encode(username.encode() + b":" + password.reveal()).decode()
    return {"Authorization": f"Basic {spelt}"}


def token(header: str, scheme: str, value: SecretBytes) -> dict[str, str] | None:
    """None where no header can carry it."""
    try:
        spelt = f"{scheme} {value.reveal().decode('ascii')}".lstrip()
    except UnicodeDecodeError:
        return None
    return {header: spelt} if spelt.isprintable() else None


class Asked(Shape):
    """How the requests of a policy are sent."""

    tls: Off = Field(default=None, description="off: plain http beyond this machine is meant")
    ca: PolicyPath | None = Field(default=None, description="CA certificates to trust instead of the system's, PEM")

    def send(
        self, request: Request, names: Mapping[str, str], fields: Fields, who: Mapping[str, str], deadline: Deadline
    ) -> Reply:
        """One request on a connection of its own.

        Raises HttpError where no answer came, Answered where it cannot be made, and ConfigurationInvalid for an address
        that may not be asked.
        """
        from vaultkeeper.access import http

        content = request.content(fields)
        headers = {"Accept": "*/*", **request.headers, **who}
        if content is not None:
            text = "text/plain; charset=utf-8" if isinstance(request.body, str) else "application/json"
            headers["Content-Type"] = request.content_type or text
        return http.call(
            request.method, request.address(names), deadline, headers=headers, content=content,
            plain_ok=self.tls == "off", ca_file=self.ca, limit_bytes=MAX_REPLY_BYTES,
        )  # fmt: skip

    def forbids(self, request: Request) -> str:
        """Why nothing may be sent there; empty where it may, or where the name does not resolve now."""
        from vaultkeeper.access import http

        return http.forbids(request.http, plain_ok=self.tls == "off")


def failure(request: Changing | Removing, reply: Reply, who: str) -> Refused | Unknown:
    """What a status that is not in `done` says."""
    said = f"{host_of(request.http)} answered {reply.status} to {request.method}"
    if reply.status in request.refused:
        return Refused(No.VALUE, f"{said}: it does not take this value")
    match reply.status:
        case 401 | 403:
            return Refused(
                No.PRIVILEGE, f"{said}: {who} may not do this, or is not accepted; grant it, or put it right"
            )
        case 409:
            return Refused(No.CONFLICT, f"{said}: it is in conflict with what is there")
        case 507:
            return Refused(No.CAPACITY, f"{said}: it has no room")
        case 307 | 308:
            return Refused(No.UNSUPPORTED, f"{said}: {_NOT_FOLLOWED}")
        case moved if moved in _MOVED:
            return Unknown(Login.UNREACHABLE, f"{said}: {_NOT_FOLLOWED}, or name this status in `done` if it means so")
    return unanswered(request, reply)


def unanswered(request: Request, reply: Reply) -> Unknown:
    """What a status that tells nothing leaves."""
    said = f"{host_of(request.http)} answered {reply.status} to {request.method}"
    after = None if reply.retry_after_s is None else timedelta(seconds=reply.retry_after_s)
    return Unknown(Login.THROTTLED if throttles(reply) else Login.UNREACHABLE, said, after)


def throttles(reply: Reply) -> bool:
    """503 is said for that too, and then tells when to come again (RFC 9110, 15.6.4)."""
    return reply.status == 429 or (reply.status == 503 and reply.retry_after_s is not None)


def document(request: Request, reply: Reply) -> Any:
    """The JSON of a reply. Raises Answered; its text holds nothing of the reply."""
    try:
        return json.loads(whole(request, reply))
    except (ValueError, RecursionError):
        raise unknown(f"{host_of(request.http)} did not answer with JSON") from None


def whole(request: Request, reply: Reply) -> bytes:
    """A body that was not cut. Raises Answered."""
    if len(reply.body) >= MAX_REPLY_BYTES:
        raise unknown(f"{host_of(request.http)} answered with more than {MAX_REPLY_BYTES >> 10} KiB")
    return reply.body
