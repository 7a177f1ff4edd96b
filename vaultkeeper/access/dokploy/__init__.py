"""Requests to a Dokploy server over its REST interface (tried: v0.30.2), each failure an error of its own.

`https://host/api/<router>.<procedure>` with the header `x-api-key`; GET takes plain query parameters, POST a JSON
object. A reply of `<service>.one` holds every secret of that service, so no body ever reaches an exception, a log or a
`repr`: errors say what Dokploy's answers mean, never what they hold. No redirect is followed, because it would carry
the key along; one deadline bounds the whole call, and every reply is bounded in size.

Dokploy refuses a wrong, a deleted and an exhausted key in the same words (401 without a code). A key made without
`rateLimitEnabled: false` allows 10 verifications in 24 hours and spends two per call, so its sixth call is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlencode

from pydantic import Field

from vaultkeeper.access import http
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.settings import OFF, PolicyPath, Reference, Shape, Url, host_of
from vaultkeeper.errors import ConfigurationInvalid, NotFound
from vaultkeeper.model.outcome import Login, No, Refused, Unknown
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.ports import Credentials, Deadline

MAX_REPLY_BYTES = 8 << 20  # a tree of a thousand services, or one environment of 1 MiB with all that stands beside it

TRAP = (
    "a key that was made without `rateLimitEnabled: false` allows 10 verifications in 24 hours, two per call: "
    "its sixth call is refused in the same words as a wrong or deleted key"
)


class DokployError(Answered):
    """Dokploy did not do what was asked. `definite`: it certainly changed nothing."""

    @property
    def definite(self) -> bool:
        return isinstance(self.result, Refused)


class KeyRefused(DokployError):
    """401 without a code: the key itself."""


class RightMissing(DokployError):
    """401 with a code, or 403: the key works, and its user may not do this."""


class NotThere(DokployError):
    """404, or one of the 400s that mean it: no such thing, or not to be seen by this key's user."""


class ProcedureMissing(NotThere):
    """404 that names no path: this Dokploy is too old or too new for that call."""


class Misunderstood(DokployError):
    """400 and 415: the request was refused for its form."""


class ServerFailed(DokployError):
    """500: the call was begun and failed somewhere; a reference that resolves to nothing is told like this too."""


class TooOften(DokployError):
    """429: something before Dokploy, which itself never says so."""


class Elsewhere(DokployError):
    """A redirect, which is never followed with a key."""


class NotDokploy(DokployError):
    """Something else answered: a proxy's page, a reply cut short."""


class NoAnswer(DokployError):
    """Nothing came in time. What was asked may have been done."""


class Connection(Shape):
    """How a policy says where Dokploy is."""

    url: Url = Field(description="of Dokploy itself, https://dokploy.example.com")
    tls: Annotated[Literal["off"] | None, OFF] = Field(
        default=None, description="off: plain http beyond this machine is meant"
    )
    ca: PolicyPath | None = Field(default=None, description="CA certificates to trust instead of the system's, PEM")


class Dokploy:
    """One key's way to one server, for the length of one hook. Close it, or use it in a `with` block."""

    def __init__(self, where: Connection, key: SecretBytes, deadline: Deadline) -> None:
        self.host = host_of(where.url)
        self.key = key  #: with which this is asked
        self._base = where.url.rstrip("/").removesuffix("/api") + "/api/"
        self._deadline = deadline
        self._channel = http.Channel(plain_ok=where.tls == "off", ca_file=where.ca)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def get(self, procedure: str, **query: str) -> Any:
        """The reply, parsed. None: an empty one. Raises DokployError, ConfigurationInvalid."""
        asked = f"?{urlencode(query)}" if query else ""
        return self._call("GET", procedure, procedure + asked, None)

    def post(self, procedure: str, body: Mapping[str, object]) -> Any:
        """As `get`. An empty reply says nothing of what was done: read it back."""
        return self._call("POST", procedure, procedure, json.dumps(body).encode())

    def _call(self, method: str, procedure: str, path: str, content: bytes | None) -> Any:
        try:
            headers = {"x-api-key": self.key.reveal().decode("ascii"), "Accept": "application/json"}
        except UnicodeDecodeError:
            raise _key_refused(self.host) from None
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            reply = self._channel.call(
                method, self._base + path, self._deadline, headers=headers, content=content, limit_bytes=MAX_REPLY_BYTES
            )
        except http.HttpError as error:
            told = f"{error.what} ({procedure})"
            raise NoAnswer(
                Unknown(Login.UNREACHABLE, told), told, next="see that Dokploy runs and `url` is right"
            ) from None
        if 300 <= reply.status < 400:
            raise _elsewhere(self.host, reply.status)
        if reply.body.lstrip()[:1] == b"<":
            raise _not_dokploy(self.host, reply.status, "a web page, as proxies answer")
        if len(reply.body) >= MAX_REPLY_BYTES:
            raise _not_dokploy(self.host, reply.status, f"more than {MAX_REPLY_BYTES >> 20} MiB")
        document = _parsed(reply.body)
        if reply.status == 200:
            if document is _BROKEN:
                raise _not_dokploy(self.host, 200, "something that is no JSON")
            return document
        raise _failed(self.host, procedure, reply, document if isinstance(document, dict) else {})


def opened(where: Connection, key: Reference, credentials: Credentials, deadline: Deadline) -> Dokploy:
    """With the key that a reference names. Raises NotFound, NotAuthorised or ConfigurationInvalid, never the value."""
    fields = credentials.resolve(key)
    if "value" not in fields:
        raise NotFound("the reference to Dokploy's key names no single value", next="add `field:` to it")
    if not fields["value"].reveal():
        raise ConfigurationInvalid("the reference to Dokploy's key leads to an empty value")
    return Dokploy(where, fields["value"], deadline)


# ------------------------------------------------------------------------------------------------- what replies mean

_BROKEN = object()
_UNKNOWN_IDS = frozenset({"application.update", "compose.saveEnvironment", "environment.update"})
"""Procedures that answer 400 where there is no such id, and others answer 404."""


def _parsed(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _BROKEN


def _failed(  # noqa: PLR0911 - one return a row
    host: str, procedure: str, reply: http.Reply, document: Mapping[str, Any]
) -> DokployError:
    """Only fixed texts and names of fields are taken from the reply."""
    told = document.get("data")
    data: Mapping[str, Any] = told if isinstance(told, dict) else {}
    match reply.status:
        case 401 if document.get("message") == "Unauthorized" and "code" not in document:
            return _key_refused(host)
        case 401 | 403 | 404 if not isinstance(document.get("message"), str) or "code" not in document:
            return _not_dokploy(host, reply.status, "words that are not its own, as proxies answer")
        case 401 | 403:
            what = f"{host}: the key's user may not call {procedure}"
            return RightMissing(
                Refused(No.PRIVILEGE, what), what, next="give that user access to this project, environment and service"
            )
        case 404 if "path" not in data:
            what = f"{host}: this version of Dokploy has no {procedure}"
            return ProcedureMissing(Refused(No.UNSUPPORTED, what), what, next="use Dokploy v0.30.2, or a newer one")
        case 404:
            return _not_there(host, procedure)
        case 400 if procedure in _UNKNOWN_IDS and "issues" not in document:
            return _not_there(host, procedure)
        case 429:
            what = f"{host}: too many requests, says something before Dokploy"
            after = timedelta(seconds=reply.retry_after_s or 60)
            return TooOften(Unknown(Login.THROTTLED, what, after), what, next="rotate less at once")
        case 400 | 405 | 413 | 415 | 422:
            what = f"{host}: {procedure} was refused for its form ({reply.status}{_fields(data)})"
            return Misunderstood(Refused(No.UNSUPPORTED, what), what, next="compare Dokploy's version with v0.30.2")
        case _:
            what = f"{host}: {procedure} failed with {reply.status}"
            return ServerFailed(
                Unknown(Login.UNREACHABLE, what), what, next="look at Dokploy's log; a bad ${{…}} reference does this"
            )


def _fields(data: Mapping[str, Any]) -> str:
    """Names of the fields that Dokploy complains of. They are its own, not values."""
    zod = data.get("zodError")
    found = zod.get("fieldErrors") if isinstance(zod, dict) else None
    names = [name for name in found if isinstance(name, str) and name.isidentifier()] if isinstance(found, dict) else []
    return f": {', '.join(sorted(names)[:8])}" if names else ""


def _key_refused(host: str) -> KeyRefused:
    what = f"{host}: the API key was refused, or its limit is spent: {TRAP}"
    next_ = "make a key with the rate limit off, adopt it; a spent one works again after 24 hours"
    return KeyRefused(Refused(No.PRIVILEGE, what), what, next=next_)


def _not_there(host: str, procedure: str) -> NotThere:
    what = f"{host}: {procedure} found nothing of that id"
    return NotThere(Refused(No.UNSUPPORTED, what), what, next="compare the id with the address of its page in Dokploy")


def _elsewhere(host: str, status: int) -> Elsewhere:
    what = f"{host} answers with a redirect ({status}), which is never followed with a key"
    return Elsewhere(Refused(No.UNSUPPORTED, what), what, next="give the address that it leads to as `url`")


def _not_dokploy(host: str, status: int, said: str) -> NotDokploy:
    what = f"{host}: not Dokploy answered ({status}): {said}"
    return NotDokploy(
        Unknown(Login.UNREACHABLE, what), what, next="give an address behind the proxy, or let /api through it"
    )
