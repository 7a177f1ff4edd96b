"""Redis and Valkey: log in, run commands, tell a refusal from silence. Packing and parsing are redis-py's.

One level below its client class, because three things are out of its reach: one deadline over a whole exchange
however slowly the other side drips, a bounded reply, and a login that is one AUTH and nothing else (the client adds
HELLO and CLIENT SETINFO, and sends the password alone to a server older than 6, which would be another account's).
redis is imported on first use. https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from vaultkeeper.access.redis.connection import Address, Denial, LoginFailed, Timed, opened, unverified
from vaultkeeper.errors import BackendError

_CODE = re.compile(r"[A-Z]+")
_SAID = 160  # characters of a server's own words that are passed on

Command = Sequence[str | bytes]


class ReplyLost(BackendError):
    """The connection ended or the deadline passed before the answer came: it may have been done or not."""


@dataclass(frozen=True)
class Refusal:
    """A server's error. `code`: NOPERM, ERR, …; `text`: its words, cut, printable."""

    code: str
    text: str


Reply = bytes | int | list[Any] | Refusal | None


class Session:
    """One open connection. Not for several threads."""

    def __init__(self, address: Address, link: socket.socket, until_s: float) -> None:
        self.address = address
        self._timed = Timed(link, until_s)
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
                raise unverified(self.address) from None
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
    session = Session(address, opened(address, until_s), until_s)
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
    return LoginFailed(Denial.UNREACHABLE, f"{address} takes no login now", why=refusal.code)  # words may quote


def _refusal(error: Exception) -> Refusal:
    """redis-py takes the code off the text for the codes that it knows."""
    text = "".join(c if c.isprintable() else " " for c in str(error))[:_SAID]
    code = getattr(error, "status_code", None)
    if code is None:
        first, _, rest = text.partition(" ")
        code, text = (first, rest) if _CODE.fullmatch(first) else ("ERR", text)
    return Refusal(str(code), text)


@functools.cache
def _wire_class() -> type[Any]:
    """redis-py's connection on a socket of ours. Without credentials and driver information it says nothing itself."""
    from redis.connection import AbstractConnection

    class Wire(AbstractConnection):
        def __init__(self, timed: Timed) -> None:
            super().__init__(protocol=2, driver_info=None, socket_timeout=None)
            self._ready = timed

        def _connect(self) -> Timed:
            return self._ready

        def _host_error(self) -> str:
            return "the server"

        def repr_pieces(self) -> list[tuple[str, object]]:
            return []

    return Wire
