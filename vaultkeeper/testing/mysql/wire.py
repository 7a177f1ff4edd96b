"""The client/server protocol: packets, handshake, logins, result sets.

https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import ssl
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from vaultkeeper.testing.mysql.hashes import NATIVE, SHA2, fits, sha1
from vaultkeeper.testing.mysql.state import Account, SqlError, State
from vaultkeeper.testing.mysql.statements import Rows

MOST_BYTES = 1 << 20
CONNECT_WITH_DB, PLUGIN_AUTH, CONNECT_ATTRS, LENENC_AUTH = 0x8, 0x80000, 0x100000, 0x200000
SSL, HANDLES_EXPIRED = 0x800, 0x400000
_CAPABILITIES = 0x1 | 0x4 | CONNECT_WITH_DB | 0x200 | 0x2000 | 0x8000 | PLUGIN_AUTH | CONNECT_ATTRS | LENENC_AUTH
_AUTOCOMMIT = 2
_UTF8MB4, _LONGLONG, _VAR_STRING = 255, 8, 0xFD


class Gone(Exception):
    """The client hung up, or says what no client says."""


class Packets:
    """Numbered packets over one socket."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._number = 0

    def read(self, *, first: bool = False) -> bytes:
        """`first`: of a new command."""
        header = self._exactly(4)
        size = int.from_bytes(header[:3], "little")
        if size > MOST_BYTES or (not first and header[3] != self._number):
            raise Gone
        self._number = (header[3] + 1) % 256
        return self._exactly(size)

    def send(self, payload: bytes) -> None:
        try:
            self.channel.sendall(len(payload).to_bytes(3, "little") + bytes([self._number]) + payload)
        except OSError:
            raise Gone from None
        self._number = (self._number + 1) % 256

    def ok(self) -> None:
        self.send(b"\x00\x00\x00" + struct.pack("<HH", _AUTOCOMMIT, 0))

    def error(self, failed: SqlError) -> None:
        self.send(b"\xff" + struct.pack("<H", failed.number) + b"#" + failed.state.encode() + failed.text.encode())

    def rows(self, result: Rows) -> None:
        """A text result set (page_protocol_com_query_response_text_resultset)."""
        end = b"\xfe" + struct.pack("<HH", 0, _AUTOCOMMIT)
        self.send(bytes([len(result.columns)]))
        for at, name in enumerate(result.columns):
            kind = _LONGLONG if any(isinstance(row[at], int) for row in result.rows) else _VAR_STRING
            texts = b"".join(map(_text, (b"def", b"", b"", b"", name.encode(), b"")))
            self.send(texts + b"\x0c" + struct.pack("<HIBHB", _UTF8MB4, 1024, kind, 0, 0) + b"\0\0")
        self.send(end)
        for row in result.rows:
            self.send(b"".join(b"\xfb" if value is None else _text(str(value).encode()) for value in row))
        self.send(end)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self.channel.recv(size - len(data))
            except OSError:
                raise Gone from None
            if not more:
                raise Gone
            data += more
        return data


def _text(value: bytes) -> bytes:
    if len(value) < 251:
        return bytes([len(value)]) + value
    return b"\xfc" + struct.pack("<H", len(value)) + value


@dataclass(frozen=True)
class Client:
    """What the handshake response says."""

    name: str
    reply: bytes
    plugin: str
    handles_expired: bool


class Doorman:
    """Lets clients in, or not."""

    def __init__(self, state: State, tls: ssl.SSLContext | None) -> None:
        self._state, self._tls = state, tls
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def let_in(self, packets: Packets, number: int, origin: str, *, is_socket: bool) -> tuple[Account, bool]:
        """The account, and whether the connection has TLS. Raises SqlError or Gone."""
        scramble = bytes(secrets.choice(range(33, 127)) for _ in range(20))
        packets.send(self._greeting(number, scramble))
        answer = packets.read()
        has_tls = False
        if len(answer) == 32 and self._tls is not None and struct.unpack("<I", answer[:4])[0] & SSL:
            try:
                packets.channel = self._tls.wrap_socket(packets.channel, server_side=True)
            except (OSError, ssl.SSLError):
                raise Gone from None
            answer, has_tls = packets.read(), True
        client = _read_response(answer)
        secure = has_tls or is_socket
        if self._state.globals["require_secure_transport"] and not secure:
            text = "Connections using insecure transport are prohibited while --require_secure_transport=ON."
            raise SqlError(3159, "HY000", text)
        with self._state.lock:
            account = self._state.fitting(client.name, origin)
        if account is None:
            packets.send(b"\xfe" + SHA2.encode() + b"\0" + scramble + b"\0")  # an unknown name looks like a known one
            packets.read()
            raise _denied(client.name, origin)
        right = self._proves(packets, account, client, scramble, secure=secure)
        with self._state.lock:
            self._judge(account, client, origin, right=right, has_tls=has_tls)
        return account, has_tls

    def _greeting(self, number: int, scramble: bytes) -> bytes:
        capabilities = _CAPABILITIES | (SSL if self._tls else 0)
        return (
            b"\x0a" + self._state.version.encode() + b"\0" + struct.pack("<I", number) + scramble[:8] + b"\0"
            + struct.pack("<HBHHB", capabilities & 0xFFFF, _UTF8MB4, _AUTOCOMMIT, capabilities >> 16, 21)
            + b"\0" * 10 + scramble[8:] + b"\0" + SHA2.encode() + b"\0"
        )  # fmt: skip

    def _judge(self, account: Account, client: Client, origin: str, *, right: bool, has_tls: bool) -> None:
        """8.2.15 "Failed-Login Tracking", 8.2.20 "Account Locking", 8.2.16 expired passwords; REQUIRE of 15.7.1.3."""
        blocked = SqlError(3955, "HY000", f"Access denied for user '{client.name}'@'{origin}'. Account is blocked")
        if 0 < account.most_failures <= account.failures:
            raise blocked
        if not right:
            account.failures += 1
            raise blocked if account.failures == account.most_failures else _denied(client.name, origin)
        if account.ssl_type and not has_tls:
            raise _denied(client.name, origin)
        if account.locked:
            raise SqlError(3118, "HY000", f"Access denied for user '{client.name}'@'{origin}'. Account is locked.")
        account.failures = 0
        if account.expired and self._state.globals["disconnect_on_expired_password"] and not client.handles_expired:
            raise SqlError(1862, "HY000", "Your password has expired.")

    def _proves(self, packets: Packets, account: Account, client: Client, scramble: bytes, *, secure: bool) -> bool:
        reply = client.reply
        if client.plugin != account.plugin:
            packets.send(b"\xfe" + account.plugin.encode() + b"\0" + scramble + b"\0")
            reply = packets.read()
        forms = [form for form in (account.primary, account.secondary) if form]
        if not reply or reply == b"\0" or not forms:
            return not forms and reply in {b"", b"\0"}
        if account.plugin == NATIVE:
            return any(_native_fits(form, scramble, reply) for form in forms)
        return self._proves_sha2(packets, account, forms, scramble, reply, secure=secure)

    def _proves_sha2(
        self, packets: Packets, account: Account, forms: list[str], scramble: bytes, reply: bytes, *, secure: bool
    ) -> bool:
        """8.4.1.2: by the cache; or with the password itself, over TLS or a socket, or encrypted with our key."""
        for form in forms:
            twice = account.cached.get(form)
            if twice is not None and _sha2_reply(twice, scramble, reply):
                packets.send(b"\x01\x03")
                return True
        packets.send(b"\x01\x04")
        said = packets.read()
        if not secure:
            if said != b"\x02":
                return False
            public = self._key.public_key()
            form_of = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            packets.send(b"\x01" + public.public_bytes(*form_of))
            scheme = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - the protocol's
            try:
                masked = self._key.decrypt(packets.read(), scheme)
            except ValueError:
                return False
            said = bytes(byte ^ scramble[at % 20] for at, byte in enumerate(masked))
        password = said.removesuffix(b"\0")
        for form in forms:
            if fits(SHA2, form, password):
                account.cached[form] = hashlib.sha256(hashlib.sha256(password).digest()).digest()
                return True
        return False


def _read_response(answer: bytes) -> Client:
    """page_protocol_connection_phase_packets_protocol_handshake_response."""
    flags = struct.unpack("<I", answer[:4])[0]
    name, _, rest = answer[32:].partition(b"\0")
    size = rest[0]
    reply, rest = rest[1 : 1 + size], rest[1 + size :]
    if flags & CONNECT_WITH_DB:
        rest = rest.partition(b"\0")[2]
    plugin = rest.partition(b"\0")[0].decode("ascii", "replace") if flags & PLUGIN_AUTH else NATIVE
    return Client(name.decode("utf-8", "replace"), reply, plugin, bool(flags & HANDLES_EXPIRED))


def _denied(name: str, origin: str) -> SqlError:
    return SqlError(1045, "28000", f"Access denied for user '{name}'@'{origin}' (using password: YES)")


def _native_fits(form: str, scramble: bytes, reply: bytes) -> bool:
    twice = bytes.fromhex(form[1:])
    mask = sha1(scramble + twice)
    return len(reply) == 20 and sha1(bytes(a ^ b for a, b in zip(reply, mask, strict=True))) == twice


def _sha2_reply(twice: bytes, scramble: bytes, reply: bytes) -> bool:
    mask = hashlib.sha256(twice + scramble).digest()
    once = bytes(a ^ b for a, b in zip(reply, mask, strict=True)) if len(reply) == 32 else b""
    return hashlib.sha256(once).digest() == twice
