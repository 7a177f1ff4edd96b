"""The simulated server's face to the network: TCP on loopback and a Unix socket, a thread for each connection."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import socket
import ssl
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from vaultkeeper.testing.mysql.hashes import SHA2, stored_form
from vaultkeeper.testing.mysql.state import EVERYTHING, Account, Connection, SqlError, State
from vaultkeeper.testing.mysql.statements import Statements, shown
from vaultkeeper.testing.mysql.wire import Doorman, Gone, Packets

VERSION = "8.4.3"
_QUIT, _QUERY, _PING = 1, 3, 14


class MysqlServer:
    """Runs in threads of this process. `tls`: a server's context; without one it offers none."""

    def __init__(self, version: str = VERSION, *, tls: ssl.SSLContext | None = None) -> None:
        self.root_password = f"root-{secrets.token_urlsafe(18)}"
        self.state = State(version)
        root = Account("root", "%", SHA2, stored_form(SHA2, self.root_password.encode()))
        root.grants = {EVERYTHING}
        self.state.accounts.append(root)
        self.general_log: list[str] = []
        self._statements = Statements(self.state)
        self._doorman = Doorman(self.state, tls)
        self._numbers = itertools.count(8)
        self._folder = Path(tempfile.mkdtemp(prefix="vk-mysql-"))
        self.socket_path = self._folder / "socket"
        self._listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self._listeners[1].bind(os.fspath(self.socket_path))
        self._listeners[1].listen()
        self.port: int = self._listeners[0].getsockname()[1]
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            is_socket = listener.family == socket.AF_UNIX
            threading.Thread(target=self._serve, args=(channel,), kwargs={"is_socket": is_socket}, daemon=True).start()

    def _serve(self, channel: socket.socket, *, is_socket: bool) -> None:
        packets, number, origin, port = Packets(channel), next(self._numbers), "localhost", 0
        try:
            if not is_socket:
                channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                origin, port = channel.getpeername()
            try:
                account, tls = self._doorman.let_in(packets, number, origin, is_socket=is_socket)
            except SqlError as failed:
                packets.error(failed)
                return
            seen_from = f"{origin}:{port}" if port else origin
            connection = Connection(number, account, seen_from, lambda: _shut(packets.channel), tls)
            with self.state.lock:
                self.state.connections[number] = connection
            packets.ok()
            try:
                self._commands(packets, connection)
            finally:
                self.state.end(connection)
        except (Gone, OSError, IndexError, ValueError):  # the client hung up, or speaks something else
            return
        finally:
            _shut(packets.channel)

    def _commands(self, packets: Packets, connection: Connection) -> None:
        while True:
            packet = packets.read(first=True)
            connection.since = time.monotonic()
            if packet[0] == _QUIT:
                return
            if packet[0] == _PING:
                packets.ok()
            elif packet[0] == _QUERY:
                self._query(packets, packet[1:].decode(), connection)
            else:
                packets.error(SqlError(1047, "08S01", "Unknown command"))

    def _query(self, packets: Packets, statement: str, connection: Connection) -> None:
        self.general_log.append(shown(statement, raw=bool(self.state.globals["log_raw"])))
        try:
            result = self._statements.run(statement, connection)
        except SqlError as failed:
            packets.error(failed)
            return
        if result is None:
            packets.ok()
        else:
            packets.rows(result)

    def stop(self) -> None:
        """End every connection. Idempotent."""
        for listener in self._listeners:
            _shut(listener)
        for connection in list(self.state.connections.values()):
            connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _shut(channel: socket.socket) -> None:
    """Close for real: shutdown wakes a thread that sits in recv or accept on it, close alone does not."""
    with suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)
    channel.close()
