"""Servers that mean no good: one asks for the password readable, one drips, one never stops."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from vaultkeeper.access.address import Address
from vaultkeeper.access.mysql import Denial, LoginFailed, ReplyLost, connect
from vaultkeeper.access.mysql import wire as mysql_wire
from vaultkeeper.testing.mysql.state import SqlError
from vaultkeeper.testing.mysql.wire import Gone, Packets

PATIENCE_S = 120
SCRAMBLE = b"12345678901234567890"
GREETING = (
    b"\x0a8.4.3\0\x01\0\0\0" + SCRAMBLE[:8] + b"\0\x0f\xa2\xff\x02\0\x3a\0\x15" + b"\0" * 10 + SCRAMBLE[8:] + b"\0"
    b"mysql_native_password\0"
)  # fmt: skip


@contextmanager
def serving(serve: Callable[[Packets], None]) -> Iterator[Address]:
    """One connection, talked to by `serve`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        channel, _ = listener.accept()
        with channel, suppress(Gone, OSError):
            serve(Packets(channel))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield Address("127.0.0.1", listener.getsockname()[1], tls=False)
    finally:
        thread.join(PATIENCE_S)
        listener.close()


def log_in(address: Address, seconds: float = 60, *, runs: bool = False) -> str:
    """How a login ends, by a watch that does not wait for ever."""
    ended: list[str] = []

    def run() -> None:
        prepare = (lambda _is_mariadb: "SELECT 1") if runs else None
        until_s = time.monotonic() + seconds
        try:
            connect(address, username="shop", password="canary-value", until_s=until_s, prepare=prepare).end()
            ended.append("in")
        except LoginFailed as error:
            ended.append(error.denial.value)
        except ReplyLost:
            ended.append("lost")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert ended, "it waits for ever"
    return ended[0]


@pytest.mark.parametrize("method", ["mysql_clear_password", "dialog", "mysql_old_password", "authentication_ldap_sasl"])
def test_a_server_that_wants_the_password_readable_gets_nothing(method: str) -> None:
    heard: list[bytes] = []

    def serve(packets: Packets) -> None:
        packets.send(GREETING)
        heard.append(packets.read())
        packets.send(b"\xfe" + method.encode() + b"\0" + SCRAMBLE + b"\0")
        heard.append(packets.read())
        packets.error(SqlError(1045, "28000", "no"))

    with serving(serve) as address:
        assert log_in(address) == Denial.REJECTED.value
    assert heard[1] == b""
    assert b"canary" not in b"".join(heard)


def test_a_server_that_asks_for_methods_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_wire, "MAX_REPLY_BYTES", 100_000)

    def serve(packets: Packets) -> None:
        packets.send(GREETING)
        packets.read()
        while True:
            packets.send(b"\xfemysql_native_password\0" + SCRAMBLE + b"\0")
            packets.read()

    with serving(serve) as address:
        assert log_in(address) == Denial.UNREACHABLE.value


def test_a_server_that_drips_is_left_when_the_time_is_over() -> None:
    over = threading.Event()

    def serve(packets: Packets) -> None:
        packets.channel.sendall((1 << 16).to_bytes(3, "little") + b"\0")
        while not over.wait(0.02):
            packets.channel.sendall(b"\x0a")

    with serving(serve) as address:
        try:
            assert log_in(address, seconds=0.3) == Denial.UNREACHABLE.value
        finally:
            over.set()


def test_a_server_that_sends_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_wire, "MAX_REPLY_BYTES", 100_000)

    def serve(packets: Packets) -> None:
        packets.send(GREETING)
        packets.read()
        packets.ok()
        packets.read(first=True)  # SET NAMES
        packets.ok()
        packets.read(first=True)
        packets.send(b"\x01")
        packets.send(b"\x03def\0\0\0\x01a\0\x0c\x3f\0\x01\0\0\0\xfd\0\0\0\0\0")
        packets.send(b"\xfe\0\0\x02\0")
        while True:
            packets.send(b"\xfb" * 1000)

    with serving(serve) as address:
        assert log_in(address, seconds=60, runs=True) == Denial.UNREACHABLE.value


def test_noise_instead_of_a_greeting_is_nobody() -> None:
    for noise in (b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 40, b"\x05\0\0\0\xff\x15\x04no"):
        with serving(lambda packets, noise=noise: packets.channel.sendall(noise)) as address:  # type: ignore[misc]
            assert log_in(address, seconds=2) in {Denial.UNREACHABLE.value, Denial.REJECTED.value}


@pytest.mark.parametrize(
    ("number", "denial"),
    [
        (1129, Denial.THROTTLED), (1226, Denial.THROTTLED), (1040, Denial.UNREACHABLE), (1203, Denial.UNREACHABLE),
        (1053, Denial.UNREACHABLE), (4151, Denial.UNREACHABLE), (1130, Denial.CONFIGURATION),
        (3159, Denial.CONFIGURATION),
    ],
)  # fmt: skip
def test_only_a_refusal_of_this_very_login_counts_as_one(number: int, denial: Denial) -> None:
    """max_connect_errors, limits, a full or stopping server, no such host, TLS wanted; MariaDB's number at a MySQL."""

    def serve(packets: Packets) -> None:
        packets.send(GREETING)
        packets.read()
        packets.error(SqlError(number, "HY000", "canary"))

    with serving(serve) as address:
        assert log_in(address) == denial.value
