"""What PyMySQL is given to work with: a socket with a limit, a TLS context, and answers to every method of a server.

PyMySQL leaves three things to its user, and does one that must not happen: a limit for a whole exchange rather than
for each read, a bound for what a server may send, and servers that ask for one method after the other (MariaDB's
`IDENTIFIED VIA … OR …`); and it would send a password readable to any server that asks for it so.
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from vaultkeeper.access.address import Address
from vaultkeeper.access.mysql import hashes

MAX_REPLY_BYTES = 16 << 20


class Limit:
    """What one connection may still take: time, and bytes of an exchange."""

    def __init__(self, until_s: float) -> None:
        self.renew(until_s)

    def renew(self, until_s: float) -> None:
        self.until_s = until_s
        self._left_bytes = MAX_REPLY_BYTES

    def left_s(self) -> float:
        """Raises TimeoutError where nothing is left."""
        left = self.until_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left

    def took(self, size: int) -> int:
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise ConnectionError("the server sends without end")
        return size


def reached(address: Address, limit: Limit) -> socket.socket:
    """A connected socket, each of whose waits ends with the limit. Raises OSError."""
    if address.is_socket:
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.settimeout(limit.left_s())
        try:
            plain.connect(address.host)
        except OSError:
            plain.close()
            raise
    else:
        plain = socket.create_connection((address.host, address.port), limit.left_s())
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    class Bounded(socket.socket):
        def settimeout(self, _value: float | None) -> None:
            super().settimeout(limit.left_s())

        def recv_into(self, *given: Any) -> int:
            self.settimeout(None)
            return limit.took(super().recv_into(*given))

        def sendall(self, *given: Any) -> None:
            self.settimeout(None)
            super().sendall(*given)

    return Bounded(plain.family, plain.type, plain.proto, fileno=plain.detach())


def trust(address: Address, limit: Limit) -> ssl.SSLContext:
    """Verifies chain and name, on sockets with the same limit. Raises OSError for an unreadable `ca`."""

    class Bounded(ssl.SSLSocket):
        def settimeout(self, _value: float | None) -> None:
            super().settimeout(limit.left_s())

        def recv_into(self, *given: Any) -> int:
            self.settimeout(None)
            return limit.took(super().recv_into(*given))

        def sendall(self, *given: Any) -> None:
            self.settimeout(None)
            super().sendall(*given)

    context = ssl.create_default_context(cafile=address.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = Bounded
    return context


class Methods(dict[str | bytes, object]):
    """How to answer a server that asks for another method than it began with: PyMySQL looks here for a class."""

    OWN = ("caching_sha2_password", "sha256_password")  # PyMySQL's: they encrypt, or have TLS

    def __init__(self, password: bytes) -> None:
        super().__init__({"": ""})  # an empty mapping would be taken for none
        self._password = password

    def get(self, plugin: str | bytes, _default: Any = None) -> Callable[[Any], _Method] | None:
        name = plugin.decode("ascii", "replace") if isinstance(plugin, bytes) else plugin
        return None if name in self.OWN or not name else lambda connection: _Method(connection, name, self._password)


class _Method:
    """Answers one method after the other, as long as the server asks: PyMySQL, like Go's driver, follows one change.

    A method that we do not know, or that wants the password readable (PAM, LDAP), gets an empty answer: the server
    then goes on to the next one or says no.
    """

    def __init__(self, connection: Any, plugin: str, password: bytes) -> None:
        self._connection, self._plugin, self._password = connection, plugin, password

    def authenticate(self, packet: Any) -> Any:
        while True:  # the limit ends it
            self._connection.write_packet(self._reply(packet.read_all()))
            packet = self._connection._read_packet()  # noqa: SLF001 - how every such class of PyMySQL's users reads
            if not packet.is_auth_switch_request():
                return packet
            packet.read_uint8()
            self._plugin = packet.read_string().decode("ascii", "replace")

    def _reply(self, scramble: bytes) -> bytes:
        if self._plugin == hashes.NATIVE:
            return hashes.native_reply(self._password, scramble)
        if self._plugin == "client_ed25519":
            return hashes.ed25519_reply(self._password, scramble[:32])
        return b""
