"""Users and permissions of a RabbitMQ server, over its management interface.

What was said no to is told apart: a wrong password, an account without the tag that this needs, a thing that is not
there. The texts of 3.10 are known; later releases say less, and then both causes are named.
https://www.rabbitmq.com/docs/management#http-api (`/api/` of a server documents its own release)
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vaultkeeper.access.answer import Answered, refused, unknown
from vaultkeeper.access.settings import host_of
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Login, No, Refused, Unknown
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.ports import Deadline

if TYPE_CHECKING:
    from vaultkeeper.access.http import Channel

SHA256 = "rabbit_password_hashing_sha256"
NOBODY = ""
"""The hash of an account that no password opens; everything else of it stays."""

_DIGESTS = {SHA256: "sha256", "rabbit_password_hashing_sha512": "sha512", "rabbit_password_hashing_md5": "md5"}
_SALT_BYTES = 4
_LIMIT_BYTES = 4 << 20  # some thirty thousand connections


class LoginRefused(Answered):
    """The management interface does not take this login."""


def hashed(password: str, salt: bytes | None = None) -> str:
    """As the server stores it, so that it never sees the password. https://www.rabbitmq.com/docs/passwords"""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


@dataclass(frozen=True)
class User:
    """An account as the server has it."""

    name: str
    tags: tuple[str, ...]
    hash: str = field(repr=False)
    algorithm: str = SHA256

    @property
    def usable(self) -> bool:
        """Can it log in with a password at all?"""
        return self.hash != NOBODY

    def holds(self, password: str) -> bool | None:
        """None: hashed in a way that is not known here."""
        digest = _DIGESTS.get(self.algorithm)
        if digest is None:
            return None if self.usable else False
        try:
            raw = base64.b64decode(self.hash, validate=True)
        except ValueError:
            return None
        salt, rest = raw[:_SALT_BYTES], raw[_SALT_BYTES:]
        return secrets.compare_digest(rest, hashlib.new(digest, salt + password.encode()).digest())


Permission = Mapping[str, str]
"""vhost, configure, write, read; of a topic: vhost, exchange, write, read."""


class Channels:
    """Connections between the calls of a rotation; whoever borrows one has it alone."""

    def __init__(self, *, plain_ok: bool, ca: str | None) -> None:
        self._plain_ok, self._ca = plain_ok, ca
        self._lock = threading.Lock()
        self._idle: list[Channel] = []

    @contextmanager
    def borrow(self) -> Iterator[Channel]:
        from vaultkeeper.access.http import Channel

        with self._lock:
            channel = self._idle.pop() if self._idle else Channel(plain_ok=self._plain_ok, ca_file=self._ca)
        try:
            yield channel
        except BaseException:
            channel.close()
            raise
        with self._lock:
            self._idle.append(channel)

    def end(self) -> None:
        """Idempotent."""
        with self._lock:
            idle, self._idle = self._idle, []
        for channel in idle:
            channel.close()


class Management:
    """The interface, as one administrator. Every method raises Answered, and ConfigurationInvalid for its address."""

    def __init__(self, channel: Channel, url: str, login: tuple[str, SecretBytes], deadline: Deadline) -> None:
        self._channel, self._url, self._deadline = channel, url, deadline
        self.username = login[0]
        basic = base64.b64encode(f"{login[0]}:{login[1].text()}".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}

    def user(self, name: str) -> User | None:
        found = self._ask("GET", f"users/{_part(name)}")
        if found is None:
            return None
        return User(name, tuple(found["tags"]), found["password_hash"], found["hashing_algorithm"])

    def put_user(self, name: str, tags: Sequence[str], stored: str) -> None:
        """Make or change it. The server wants tags with every change, and forgets what it is not told."""
        body = {"password_hash": stored, "hashing_algorithm": SHA256, "tags": list(tags)}
        self._ask("PUT", f"users/{_part(name)}", body)

    def permissions(self, name: str) -> list[Permission]:
        return self._ask("GET", f"users/{_part(name)}/permissions") or []

    def topic_permissions(self, name: str) -> list[Permission]:
        return self._ask("GET", f"users/{_part(name)}/topic-permissions") or []

    def permit(self, name: str, what: Permission) -> None:
        """As `permissions` and `topic_permissions` tell it."""
        kind = "topic-permissions" if "exchange" in what else "permissions"
        body = {key: value for key, value in what.items() if key not in ("user", "vhost")}
        self._ask("PUT", f"{kind}/{_part(what['vhost'])}/{_part(name)}", body)

    def connections(self, name: str) -> list[Mapping[str, Any]]:
        """Open ones of a user, on all nodes and virtual hosts."""
        return self._ask("GET", f"connections/username/{_part(name)}") or []

    def close_connections(self, name: str) -> None:
        """Where one of them ends by itself meanwhile, 3.10 answers 500 (tried): what is left tells."""
        try:
            self._ask("DELETE", f"connections/username/{_part(name)}")
        except Answered as error:
            if isinstance(error.result, Refused) or self.connections(name):
                raise

    def config_files(self) -> list[str]:
        """Of the nodes, as they name them. A node that has only just started names none."""
        nodes = self._ask("GET", "nodes?columns=config_files") or []
        return sorted({path for node in nodes if isinstance(node, dict) for path in node.get("config_files") or ()})

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        """None: it is not there, or nothing was said."""
        where, content = host_of(self._url), None if body is None else json.dumps(body).encode()
        try:
            reply = self._channel.call(
                method, f"{self._url}/api/{path}", self._deadline, headers=self._headers, content=content,
                limit_bytes=_LIMIT_BYTES,
            )  # fmt: skip
        except BackendError as error:
            raise unknown(error.what) from None
        told = _document(reply.body)
        match reply.status:
            case 200 | 201 | 204:
                if reply.status == 200 and told is None:
                    raise unknown(f"{where} answered without a document: is it the management interface?")
                return told
            case 404 if method != "PUT":
                if not isinstance(told, dict) or "error" not in told:
                    raise unknown(f"{where} answered 404 in other words than RabbitMQ's")
                return None
            case 401 | 403:
                raise self._refusal(_reason(told))
            case 400:
                raise refused(No.UNSUPPORTED, f"{where} refused {method} /api/{path}: {_reason(told)}")
            case 429:
                raise _throttled(where)
        raise unknown(f"{where} answered {reply.status}")

    def _refusal(self, reason: str) -> Answered:
        """Three causes, one status."""
        name = self.username
        grant = f"rabbitmqctl set_user_tags {name} administrator"
        if reason in ("Not administrator user", "Not management user"):
            what = f"{name} lacks the tag `administrator`, which changing users needs"
            return refused(No.PRIVILEGE, what, next=grant)
        if reason == "Login failed":
            what, further = (
                f"{name}: the management interface refused this password",
                "put right what `admin` refers to",
            )
        else:
            what = f"{name} was refused ({reason}): its password is wrong, or it lacks the tag `administrator`"
            further = f"put right what `admin` refers to, or {grant}"
        answer = refused(No.PRIVILEGE, what, next=further)
        return LoginRefused(answer.result, what, next=further)


def _throttled(where: str) -> Answered:
    what = f"{where} wants fewer requests"
    return Answered(Unknown(Login.THROTTLED, what), what)


def _part(text: str) -> str:
    return quote(text, safe="")


def _document(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


def _reason(told: Any) -> str:
    found = told.get("reason") if isinstance(told, dict) else None
    return str(found)[:200] if found else "without a reason"


def brings_users_back(path: str) -> bool:
    """Does a configuration file of this machine load definitions at each start? https://www.rabbitmq.com/docs/definitions"""
    from vaultkeeper.access import files

    try:
        text = (files.read(path).content or b"").decode(errors="replace")
    except BackendError:
        return False
    keys = {
        line.partition("=")[0].strip() for line in text.splitlines() if "=" in line and not line.strip().startswith("#")
    }
    return bool(keys & {"load_definitions", "management.load_definitions"}) or any(
        key.startswith("definitions.") for key in keys
    )
