"""Redis and Valkey: log in, run commands, tell a refusal from silence. Packing and parsing are redis-py's.

One level below its client class, because three things are out of its reach: one deadline over a whole exchange
however slowly the other side drips, a bounded reply, and a login that is one AUTH and nothing else (the client adds
HELLO and CLIENT SETINFO, and sends the password alone to a server older than 6, which would be another account's).
redis is imported on first use. https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from vaultkeeper.errors import BackendError, ConfigurationInvalid

MOST_BYTES = 16 << 20  # of everything that one connection answers: a list of 40,000 clients
_CODE = re.compile(r"[A-Z]+")
_SAID = 160  # characters of a server's own words that are passed on

Command = Sequence[str | bytes]


class Denial(Enum):
    """Why a login did not come about."""

    REJECTED = "rejected"  #: this name with this password, definitely; or the account is off
    UNREACHABLE = "unreachable"  #: also full, or loading its data
    CONFIGURATION = "configuration"  #: TLS, protected mode, a server without ACLs: waiting will not help


class LoginFailed(BackendError):
    """A connection could not be made."""

    def __init__(self, denial: Denial, what: str, *, why: str = "", next: str = "") -> None:  # noqa: A002
        super().__init__(what, why=why, next=next)
        self.denial = denial


class ReplyLost(BackendError):
    """The connection ended or the deadline passed before the answer came: it may have been done or not."""


@dataclass(frozen=True)
class Refusal:
    """A server's error. `code`: NOPERM, ERR, …; `text`: its words, cut, printable."""

    code: str
    text: str


Reply = bytes | int | list[Any] | Refusal | None


@dataclass(frozen=True)
class Tls:
    """How a server is verified, always in full. PEM files."""

    ca: str | None = None  #: None: the system's authorities
    certificate: str | None = None  #: ours, for a server that asks for one (`tls-auth-clients`, on by default)
    key: str | None = None


@dataclass(frozen=True)
class Address:
    """Where one node is. `host`: a name, an IP address, or the absolute path of a Unix socket."""

    host: str
    port: int
    tls: Tls | None = None

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def is_local(self) -> bool:
        """A Unix socket or loopback: nothing to overhear."""
        if self.is_socket or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return self.host if self.is_socket else f"{self.host}:{self.port}"


class Session:
    """One open connection. Not for several threads."""

    def __init__(self, address: Address, opened: socket.socket, until_s: float) -> None:
        self.address = address
        self._timed = _Timed(opened, until_s)
        self._wire = _wire_class()(self._timed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Idempotent."""
        self._wire.disconnect()
        self._timed.close()

    @property
    def ours(self) -> str:
        """Our end, as CLIENT LIST writes it; empty on a Unix socket, where all ends have one name."""
        return self._timed.our_end()

    def ask(self, command: Command) -> Reply:
        return self.run(command)[0]

    def run(self, *commands: Command) -> list[Reply]:
        """All commands in one write; their replies in order, a refused one as a Refusal. Raises ReplyLost."""
        from redis.exceptions import RedisError

        try:
            self._wire.send_packed_command(self._wire.pack_commands(commands), check_health=False)
            return [self._read() for _ in commands]
        except (RedisError, OSError, ValueError):
            if self._timed.tls_failed:
                raise _unverified(self.address) from None
            raise ReplyLost(f"{self.address} ended the connection or took too long before it answered") from None

    def _read(self) -> Reply:
        from redis.exceptions import AuthenticationError, ResponseError

        try:
            reply: Reply = self._wire.read_response(disable_decoding=True, disconnect_on_error=False)
        except (ResponseError, AuthenticationError) as error:
            return _refusal(error)
        return reply


def connect(address: Address, *, username: str, password: bytes, until_s: float) -> Session:
    """Log in once. `until_s`: on the monotonic clock, also for every later command. Raises LoginFailed."""
    session = Session(address, _opened(address, until_s), until_s)
    try:
        reply = session.ask(("AUTH", username.encode(), password))
        if reply != b"OK":
            raise _denied(reply, address, username)
    except ReplyLost:
        session.end()
        raise LoginFailed(
            Denial.UNREACHABLE,
            f"{address} did not answer a login",
            why="it is too slow, full, or speaks TLS there" if address.tls is None else "",
        ) from None
    except BaseException:
        session.end()
        raise
    return session


def _denied(reply: Reply, address: Address, username: str) -> LoginFailed:
    """What an answer to AUTH means. https://redis.io/docs/latest/commands/auth/"""
    refusal = reply if isinstance(reply, Refusal) else Refusal("", "no answer that this protocol knows")
    if refusal.code == "WRONGPASS":
        return LoginFailed(Denial.REJECTED, f"{address} rejected the password of {username}, or the account is off")
    if refusal.code == "DENIED":
        return LoginFailed(
            Denial.CONFIGURATION,
            f"{address} is in protected mode",
            why="its default user needs no password, so it talks to its own machine only",
            next="give the default user a password, or turn it off",
        )
    if "wrong number of arguments" in refusal.text or "unknown command" in refusal.text:
        return LoginFailed(Denial.CONFIGURATION, f"{address} knows no accounts", why="ACLs came with Redis 6")
    return LoginFailed(Denial.UNREACHABLE, f"{address} takes no login now", why=f"{refusal.code} {refusal.text}")


def _refusal(error: Exception) -> Refusal:
    """redis-py takes the code off the text for the codes that it knows."""
    text = "".join(c if c.isprintable() else " " for c in str(error))[:_SAID]
    code = getattr(error, "status_code", None)
    if code is None:
        first, _, rest = text.partition(" ")
        code, text = (first, rest) if _CODE.fullmatch(first) else ("ERR", text)
    return Refusal(str(code), text)


# ------------------------------------------------------------------------------------------------------------- sockets


def _opened(address: Address, until_s: float) -> socket.socket:
    try:
        if address.is_socket:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                plain.settimeout(_left_s(until_s))
                plain.connect(address.host)
            except BaseException:
                plain.close()
                raise
            return plain
        plain = socket.create_connection((address.host, address.port), timeout=_left_s(until_s))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError:
        raise LoginFailed(Denial.UNREACHABLE, f"{address} did not answer in time") from None
    except (OSError, UnicodeError):
        raise LoginFailed(Denial.UNREACHABLE, f"{address} cannot be reached") from None
    return plain if address.tls is None else _secured(plain, address, address.tls, until_s)


def _secured(plain: socket.socket, address: Address, tls: Tls, until_s: float) -> socket.socket:
    """Raises LoginFailed; there is no fallback."""
    try:
        plain.settimeout(_left_s(until_s))
        return _trust(tls).wrap_socket(plain, server_hostname=address.host)
    except TimeoutError:
        plain.close()
        why = "a server without TLS there is silent too"
        raise LoginFailed(Denial.UNREACHABLE, f"{address} did not answer in time", why=why) from None
    except ssl.SSLError:
        plain.close()
        raise _unverified(address) from None
    except OSError:
        plain.close()
        raise LoginFailed(Denial.UNREACHABLE, f"{address} ended the connection") from None
    except BaseException:
        plain.close()
        raise


def _trust(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError:  # ssl.SSLError is one: a file is missing, or no PEM
        named = ", ".join(path for path in (tls.ca, tls.certificate, tls.key) if path)
        raise ConfigurationInvalid(f"tls: {named} cannot be read as PEM") from None
    return context


def _unverified(address: Address) -> LoginFailed:
    return LoginFailed(
        Denial.CONFIGURATION,
        f"no verified TLS connection to {address}",
        why="it offers no TLS there, its certificate is not for this name, expired or of another authority, "
        "or it asks for a certificate of ours",
        next="name its authority with tls: {ca: PATH}, ours with certificate: and key: there; there is no fallback",
    )


def _left_s(until_s: float) -> float:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


class _Timed:
    """A socket, as far as redis-py uses one: what is left of one deadline for each operation, and a bounded reply."""

    def __init__(self, inner: socket.socket, until_s: float) -> None:
        self._inner = inner
        self._until_s = until_s
        self._room = MOST_BYTES
        self.tls_failed = False

    def recv(self, size: int) -> bytes:
        self._inner.settimeout(_left_s(self._until_s))
        data = self._received(size)
        self._room -= len(data)
        if self._room < 0:
            raise OSError("the reply is too long")
        return data

    def our_end(self) -> str:
        name = self._inner.getsockname()
        if not isinstance(name, tuple):
            return ""
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    def recv_into(self, buffer: bytearray) -> int:
        """What redis-py's parser in C calls, where somebody has installed it."""
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes) -> None:
        self._inner.settimeout(_left_s(self._until_s))
        try:
            self._inner.sendall(data)
        except OSError:
            with suppress(OSError):
                self._received(1)  # why it hung up, where it said so
            raise

    def _received(self, size: int) -> bytes:
        try:
            return self._inner.recv(size)
        except ssl.SSLError as error:  # with TLS 1.3 a server asks for a certificate of ours only after the handshake
            self.tls_failed = "ALERT" in (error.reason or "")
            raise

    def settimeout(self, _seconds: float | None) -> None:
        """The deadline decides."""

    def gettimeout(self) -> float | None:
        return self._inner.gettimeout()

    def shutdown(self, how: int) -> None:
        self._inner.shutdown(how)

    def close(self) -> None:
        with suppress(OSError):
            self._inner.close()


@functools.cache
def _wire_class() -> type[Any]:
    """redis-py's connection on a socket of ours. Without credentials and driver information it says nothing itself."""
    from redis.connection import AbstractConnection

    class Wire(AbstractConnection):
        def __init__(self, opened: _Timed) -> None:
            super().__init__(protocol=2, driver_info=None, socket_timeout=None)
            self._ready = opened

        def _connect(self) -> _Timed:
            return self._ready

        def _host_error(self) -> str:
            return "the server"

        def repr_pieces(self) -> list[tuple[str, object]]:
            return []

    return Wire
