"""The Docker Engine API over a Unix socket, TCP or ssh: raw JSON in the newest version that the Engine speaks.

Nothing is typed here on purpose. Who reads a spec, changes two leaves and writes it back in an older version, or
through a model that does not know a field, erases that field (tried). So the version is the server's own, never a
pinned one, and documents stay as they came. Each call ends by its deadline, and no reply is read beyond its limit.

Where the policy names no `host` and no `context`, it is what the `docker` command would use: DOCKER_HOST with
DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, else DOCKER_CONTEXT, else the current context.
API: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlencode, urlsplit

import httpcore2
from pydantic import Field

from vaultkeeper.access.answer import Answered
from vaultkeeper.access.docker import context as docker_context
from vaultkeeper.access.docker.answers import SAID, EngineTrouble, judged, message, no_connection, trouble, unreachable
from vaultkeeper.access.docker.context import Endpoint
from vaultkeeper.access.docker.network import Network
from vaultkeeper.access.settings import OFF, PolicyPath, Shape
from vaultkeeper.model.outcome import Login, No, Unknown
from vaultkeeper.ports import Credentials, Deadline

OLDEST = (1, 41)  # Engine 20.10: jobs, and how many tasks a service wants
MAX_REPLY_BYTES = 4 << 20
MAX_LIST_BYTES = 64 << 20
_LOG_BYTES = 64 << 10


class Tls(Shape):
    """Files for TLS with the Engine, PEM."""

    ca: PolicyPath | None = Field(default=None, description="CA certificates to trust; default: the system's")
    cert: PolicyPath | None = Field(default=None, description="our client certificate")
    key: PolicyPath | None = Field(default=None, description="its key")


class EngineSettings(Shape):
    """How a policy says which Engine. None of them: what the `docker` command would use."""

    host: str | None = Field(
        default=None,
        pattern=r"^(unix:///[^\s]+|tcp://[^\s/@]+|ssh://[^\s]+)$",
        description="unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST",
    )
    context: str | None = Field(default=None, description="a context of the `docker` command")
    tls: Annotated[Tls | Literal["off"] | None, OFF] = Field(
        default=None, description="{ca, cert, key} for tcp://; `off` must be said, except on loopback"
    )

    def endpoint_name(self) -> str:
        """How people call the Engine, the same whatever it resolves to: "" for the default one. No I/O."""
        return self.host or self.context or ""


def engine(settings: EngineSettings, credentials: Credentials) -> Engine:
    """The Engine that a policy means. No call is made yet. Raises EngineTrouble where the settings lead nowhere."""
    tls = settings.tls
    files = None if tls == "off" or tls is None else (tls.ca, tls.cert, tls.key)
    found = docker_context.find(settings.host, settings.context, files, credentials)
    parts = urlsplit(found.url)
    if parts.scheme == "tcp" and found.tls is None and tls != "off" and not _is_loopback(parts.hostname or ""):
        raise trouble(
            No.UNSUPPORTED,
            f"{found.url} would be spoken to in clear text",
            "secret values travel on this connection",
            "give `tls: {ca, cert, key}`, or say `tls: off` where the network is yours alone",
        )
    return Engine(found)


@dataclass
class Engine:
    """One Engine, for the calls of one hook. Not for several threads at once.

    Every call raises EngineTrouble or Declined, and quotes neither what was sent nor a header.
    """

    endpoint: Endpoint
    now_s: float = field(
        default=0.0, init=False
    )  #: the Engine's clock at its last reply, whole seconds since the epoch
    _pool: httpcore2.ConnectionPool | None = field(default=None, init=False, repr=False)
    _version: str = field(default="", init=False)
    _network: Network = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._network = Network(self.endpoint)

    def get(
        self,
        path: str,
        deadline: Deadline,
        *,
        query: Mapping[str, str] | None = None,
        absent_ok: bool = False,
        limit_bytes: int = MAX_REPLY_BYTES,
    ) -> Any:
        """The decoded JSON. None where it is absent and that is `absent_ok`."""
        return self._call("GET", path, deadline, query=query, absent_ok=absent_ok, limit_bytes=limit_bytes)

    def post(
        self, path: str, deadline: Deadline, body: object = None, *, query: Mapping[str, str] | None = None
    ) -> Any:
        return self._call("POST", path, deadline, query=query, body=body)

    def delete(self, path: str, deadline: Deadline, *, absent_ok: bool = True) -> None:
        self._call("DELETE", path, deadline, absent_ok=absent_ok)

    def last_line(self, path: str, deadline: Deadline) -> str:
        """The last line of a log (`/tasks/ID/logs`), as it is; empty where none can be had. Never raises Answered.

        It may hold anything that a program prints: whoever shows it removes the values that it knows.
        """
        query = {"stdout": "1", "stderr": "1", "tail": "1"}
        near = Deadline(min(deadline.at_monotonic_s, time.monotonic() + 5))  # a node that is gone never answers
        try:
            status, raw = self._exchange("GET", self._versioned(path, near), near, query, None, _LOG_BYTES)
        except Answered:
            return ""
        if status >= 400:
            return ""
        said = _unframed(raw).decode(errors="replace").splitlines()
        lines = [line for line in said if not line.startswith("Error grabbing logs")]  # the Engine's words, not theirs
        return "".join(c if c.isprintable() else " " for c in lines[-1]).strip()[:SAID] if lines else ""

    @property
    def environment(self) -> Mapping[str, str]:
        """What leads the `docker` command to this Engine."""
        return self.endpoint.environment

    def close(self) -> None:
        """Idempotent; a later call opens it again."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- one call

    def _call(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        absent_ok: bool = False,
        limit_bytes: int = MAX_REPLY_BYTES,
    ) -> Any:
        versioned = self._versioned(path, deadline)
        status, raw = self._exchange(method, versioned, deadline, query, body, limit_bytes)
        if status == 404 and absent_ok:
            return None
        if status >= 400:
            raise judged(self.endpoint.url, status, message(raw), f"{method} {path}")
        return _decoded(raw, f"{self.endpoint.url} {path}")

    def _versioned(self, path: str, deadline: Deadline) -> str:
        """Asked anew for each hook: an upgraded Engine must not be spoken to in its old version."""
        if not self._version:
            status, raw = self._exchange("GET", "/version", deadline, None, None, MAX_REPLY_BYTES)
            if status >= 400:
                raise judged(self.endpoint.url, status, message(raw), "GET /version")
            told = str((_decoded(raw, self.endpoint.url) or {}).get("ApiVersion", ""))
            major, _, minor = told.partition(".")
            if not (major.isdigit() and minor.isdigit()):
                raise trouble(No.UNSUPPORTED, f"{self.endpoint.url} is no Docker Engine", "it tells no API version")
            if (int(major), int(minor)) < OLDEST:
                oldest = ".".join(map(str, OLDEST))
                raise trouble(
                    No.UNSUPPORTED,
                    f"the Docker Engine at {self.endpoint.url} is too old",
                    f"its API is {told}, and {oldest} is needed",
                    "install Docker Engine 20.10 or newer",
                )
            self._version = told
        return f"/v{self._version}{path}"

    def _exchange(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        query: Mapping[str, str] | None,
        body: object,
        limit_bytes: int,
    ) -> tuple[int, bytes]:
        self._network.deadline = deadline
        sent = b"" if body is None else json.dumps(body).encode()
        headers = [(b"Host", b"docker"), (b"User-Agent", b"vaultkeeper")]
        if method == "POST":
            headers += [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(sent)).encode())]
        target = path + (f"?{urlencode(query)}" if query else "")
        origin = "https" if self.endpoint.tls is not None else "http"
        parts = urlsplit(self.endpoint.url)
        at = f"{parts.hostname}:{parts.port or 2376}" if parts.scheme == "tcp" else "docker"
        try:
            with self._connections().stream(method, f"{origin}://{at}{target}", headers=headers, content=sent) as reply:
                raw = self._bounded(reply.iter_stream(), limit_bytes)
                self.now_s = _date(reply.headers) or self.now_s or time.time()
                return reply.status, raw
        except httpcore2.TimeoutException:
            self.close()
            raise unreachable(self.endpoint.url, "it did not answer in time") from None
        except ssl.SSLError as error:
            self.close()
            raise unreachable(self.endpoint.url, f"TLS: {error.reason or 'failed'}") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            self.close()
            raise no_connection(self.endpoint.url, error) from None

    def _connections(self) -> httpcore2.ConnectionPool:
        if self._pool is None:
            tls = _trust(self.endpoint) if self.endpoint.tls is not None else None
            local = "docker" if urlsplit(self.endpoint.url).scheme != "tcp" else None
            self._pool = httpcore2.ConnectionPool(ssl_context=tls, uds=local, network_backend=self._network)
        return self._pool

    def _bounded(self, chunks: Iterable[bytes], limit_bytes: int) -> bytes:
        raw = bytearray()
        for chunk in chunks:
            raw += chunk
            if len(raw) > limit_bytes:
                raise unreachable(self.endpoint.url, f"it answered more than {limit_bytes >> 20} MiB")
        return bytes(raw)


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _trust(endpoint: Endpoint) -> ssl.SSLContext:
    ca, cert, key = endpoint.tls or (None, None, None)
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        text = f"the TLS files for {endpoint.url} cannot be used"
        raise trouble(No.UNSUPPORTED, text, error.strerror or "they are no PEM") from None
    return context


def _date(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        if name.lower() == b"date":
            try:
                return parsedate_to_datetime(value.decode("ascii")).timestamp()
            except ValueError:
                return None
    return None


def _decoded(raw: bytes, where: str) -> Any:
    if not raw.strip():
        return None
    try:
        return json.loads(raw)
    except ValueError:
        text = f"{where} answered what is no JSON"
        raise EngineTrouble(Unknown(Login.UNREACHABLE, text), text) from None


def _unframed(stream: bytes) -> bytes:
    """A log without a terminal comes in frames: eight bytes before each, the last four its length.

    Those of kind 3 are the Engine's own words (a task that never ran has no log), not the program's.
    """
    out, at = bytearray(), 0
    while at + 8 <= len(stream) and stream[at] in (0, 1, 2, 3) and stream[at + 1 : at + 4] == b"\0\0\0":
        size = int.from_bytes(stream[at + 4 : at + 8], "big")
        out += stream[at + 8 : at + 8 + size] if stream[at] != 3 else b""
        at += 8 + size
    return bytes(out) if at else stream
