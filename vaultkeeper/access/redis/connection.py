"""A connection to a Redis node before anything is said: TCP, TLS verified in full or a Unix socket, one deadline.

https://redis.io/docs/latest/operate/oss_and_stack/management/security/encryption/
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from vaultkeeper.access.address import SocketAddress
from vaultkeeper.errors import BackendError, ConfigurationInvalid

MOST_BYTES = 16 << 20  # of everything that one connection answers: a list of 40,000 clients


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


@dataclass(frozen=True)
class Tls:
    """How a server is verified, always in full. PEM files."""

    ca: str | None = None  #: None: the system's authorities
    certificate: str | None = None  #: ours, for a server that asks for one (`tls-auth-clients`, on by default)
    key: str | None = None


@dataclass(frozen=True)
class Address(SocketAddress):
    """Where one node is."""

    tls: Tls | None = None

    def __str__(self) -> str:
        return self.host if self.is_socket else super().__str__()


def opened(address: Address, until_s: float) -> socket.socket:
    """Raises LoginFailed, and ConfigurationInvalid where a PEM file cannot be read."""
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
    try:
        plain.settimeout(_left_s(until_s))
        return _trust(tls).wrap_socket(plain, server_hostname=address.host)
    except TimeoutError:
        plain.close()
        why = "a server without TLS there is silent too"
        raise LoginFailed(Denial.UNREACHABLE, f"{address} did not answer in time", why=why) from None
    except ssl.SSLError:
        plain.close()
        raise unverified(address) from None
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


def unverified(address: Address) -> LoginFailed:
    """There is no fallback."""
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


class Timed:
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
