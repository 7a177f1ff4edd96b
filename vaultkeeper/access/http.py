"""One HTTP request to an address that a policy names, carrying a credential to nobody else.

No redirects, no proxies and no credentials from the environment (netrc), the host resolved once and the connection
made to that very address, link-local and cloud metadata addresses refused (CWE-918), TLS verified, one deadline over
the whole exchange however slowly the other side drips, a bounded reply.

Uses httpcore2, the transport beneath httpx2: only there can the address be pinned and each read be given what is left
of the deadline (https://www.encode.io/httpcore/network-backends/).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpcore2

from vaultkeeper.access.settings import host_of, judge_url
from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.ports import Deadline

MAX_REPLY_BYTES = 64 << 10
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "fd00:ec2::254", "fd00:ec2::23",  # AWS over IPv6: instances, EKS
        "fd20:ce::254",  # Google over IPv6
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
    )  # the others are link-local
)  # fmt: skip
_NAT64 = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_LAST_32_BITS = (1 << 32) - 1


class HttpError(BackendError):
    """No answer: unreachable, too slow, or not allowed to be asked."""


@dataclass(frozen=True)
class Reply:
    """What came back. `body` is cut at the limit."""

    status: int
    body: bytes = field(repr=False)
    retry_after_s: float | None = None
    date: datetime | None = None  #: by the server's own clock, to the second


class Channel:
    """Requests to one system over a connection that is kept between them. One request at a time."""

    def __init__(self, *, plain_ok: bool = False, ca_file: str | None = None, kept: bool = True) -> None:
        self._plain_ok, self._ca_file, self._kept = plain_ok, ca_file, kept
        self._network = _Pinned()
        self._pool: httpcore2.ConnectionPool | None = None

    def call(
        self,
        method: str,
        url: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        limit_bytes: int = MAX_REPLY_BYTES,
    ) -> Reply:
        """One request. Plain http carries `headers` to loopback only, unless `plain_ok`.

        Raises HttpError where no answer came and ConfigurationInvalid where none may be asked for; neither quotes a
        header or the content.
        """
        try:
            judge_url(url)
        except ValueError as error:
            raise ConfigurationInvalid(f"{url!r} cannot be used: {error}") from None
        secure = urlsplit(url).scheme == "https"
        self._network.deadline = deadline
        self._network.loopback_only = bool(headers) and not secure and not self._plain_ok
        sent = [(b"Host", urlsplit(url).netloc.encode("ascii"))]
        sent += [(name.encode("ascii"), value.encode()) for name, value in (headers or {}).items()]
        sent += [(b"User-Agent", b"vaultkeeper"), (b"Connection", b"keep-alive" if self._kept else b"close")]
        if content is not None:
            sent.append((b"Content-Length", str(len(content)).encode()))
        try:
            with self._opened(secure=secure).stream(method, url, headers=sent, content=content) as answer:
                body, told = _body(answer.iter_stream(), limit_bytes), answer.headers
                return Reply(answer.status, body, _retry_after(told), _date(told))
        except _NotAllowed as error:
            raise ConfigurationInvalid(str(error)) from None
        except httpcore2.TimeoutException:
            raise HttpError(f"{host_of(url)} did not answer in time") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, OSError) as error:
            raise HttpError(f"{host_of(url)} cannot be reached: {_why(error)}") from None

    def _opened(self, *, secure: bool) -> httpcore2.ConnectionPool:
        if self._pool is None:
            context = _trust(self._ca_file) if secure else None
            self._pool = httpcore2.ConnectionPool(ssl_context=context, network_backend=self._network, max_connections=1)
        return self._pool

    def close(self) -> None:
        """Let go of the connection. Idempotent; the next call makes a new one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


def call(  # noqa: PLR0913 - everything that one request may need
    method: str,
    url: str,
    deadline: Deadline,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    plain_ok: bool = False,
    ca_file: str | None = None,
    limit_bytes: int = MAX_REPLY_BYTES,
) -> Reply:
    """One request over a connection of its own; otherwise as `Channel.call`."""
    channel = Channel(plain_ok=plain_ok, ca_file=ca_file, kept=False)
    try:
        return channel.call(method, url, deadline, headers=headers, content=content, limit_bytes=limit_bytes)
    finally:
        channel.close()


def forbids(url: str, *, plain_ok: bool = False) -> str:
    """Why nothing with a credential would be sent there; empty where it would, or where the name does not resolve.

    Asks the resolver only.
    """
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
        for entry in found:
            _permitted(str(entry[4][0]), loopback_only=parts.scheme != "https" and not plain_ok)
    except _NotAllowed as error:
        return str(error)
    except (OSError, UnicodeError):
        pass
    return ""


def _why(error: Exception) -> str:
    """As far as it can be told without what was sent."""
    inner = error.__cause__ or error.__context__  # httpcore2 wraps what TLS says
    for cause in (error, inner):
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {getattr(cause, 'verify_message', None) or cause.reason or 'failed'}"
    return type(error).__name__


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = "holds no certificate in PEM" if isinstance(error, ssl.SSLError) else os.strerror(error.errno or 0)
        raise HttpError(f"nothing can be sent: ca: {ca_file}: {why}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _body(chunks: Iterable[bytes], limit_bytes: int) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) >= limit_bytes:
            break
    return bytes(body[:limit_bytes])


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return min(float(value), 86400.0)
    return None


def _date(headers: Iterable[tuple[bytes, bytes]]) -> datetime | None:
    for name, value in headers:
        if name.lower() == b"date":
            try:
                found = parsedate_to_datetime(value.decode("ascii"))
            except (ValueError, OverflowError):
                return None
            return found if found.tzinfo else None
    return None


class _NotAllowed(Exception):
    """An address that is never connected to."""


def _permitted(address: str, *, loopback_only: bool) -> str:
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    inside = _ipv4_inside(ip)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if any(one.is_link_local or one.is_multicast or one in _METADATA for one in (ip, *inside)) or ip.is_unspecified:
        raise _NotAllowed(f"{address} is a link-local, metadata or multicast address; nothing is sent there")
    if loopback_only and not ip.is_loopback:
        raise _NotAllowed(f"a credential goes over plain http to this machine only, not to {address}; use https")
    return address


def _ipv4_inside(ip: Any) -> Sequence[ipaddress.IPv4Address]:
    """Where an IPv6 address may lead by a gateway: NAT64, 6to4, Teredo, and the old IPv4-compatible form."""
    if ip.version == 4:
        return ()
    last = ipaddress.IPv4Address(int(ip) & _LAST_32_BITS)
    found = [ip.sixtofour, *(ip.teredo or ())[1:]]
    if int(ip) >> 32 == 0 or any(ip in network for network in _NAT64):
        found.append(last)
    return [one for one in found if one is not None]


class _Pinned(httpcore2.NetworkBackend):
    """Connects to the address that was judged, and gives every operation what is left of the deadline."""

    def __init__(self) -> None:
        self.deadline = Deadline(0.0)  #: of the request under way
        self.loopback_only = True
        self.inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        error: httpcore2.ConnectError | httpcore2.ConnectTimeout | None = None
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError("the name does not resolve") from None
        addresses = [_permitted(str(entry[4][0]), loopback_only=self.loopback_only) for entry in found]
        for address in addresses:
            try:
                left = _left(self.deadline, httpcore2.ConnectTimeout)
                stream = self.inner.connect_tcp(address, port, left, local_address, socket_options)
                return Timed(stream, self)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failed:
                error = failed
        raise error or httpcore2.ConnectError("no address")


class HasDeadline(Protocol):
    """A network whose connections may outlive a request: the deadline of the one under way."""

    deadline: Deadline


class Timed(httpcore2.NetworkStream):
    """Each operation is given what is left of `network.deadline`, however slowly the other side drips."""

    def __init__(self, inner: httpcore2.NetworkStream, network: HasDeadline) -> None:
        self.inner = inner
        self.network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.inner.read(max_bytes, _left(self.network.deadline, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, _left(self.network.deadline, httpcore2.WriteTimeout))

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(self.network.deadline, httpcore2.ConnectTimeout)
        return Timed(self.inner.start_tls(ssl_context, server_hostname, left), self.network)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


def _left(deadline: Deadline, error: type[httpcore2.TimeoutException]) -> float:
    now = time.monotonic()
    if now >= deadline.at_monotonic_s:
        raise error("deadline")
    return deadline.left_s(now)
