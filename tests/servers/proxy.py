"""A TCP proxy that loses replies, goes silent or refuses, at a chosen statement.

It understands no protocol: it looks for a pattern in the bytes that the client sends (without TLS a PostgreSQL
statement stands there in clear) and judges "the server has answered" by the first bytes that come back.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from vaultkeeper.testing.port import kept, number

CHUNK = 65536


@dataclass
class Loss:
    """A statement whose request or reply gets lost; ``hits`` counts how often it did."""

    pattern: re.Pattern[bytes]
    lose: str  # "reply": the server executes it; "request": it never arrives
    times: int
    hits: int = 0
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Listens on 127.0.0.1; ``port`` is where clients connect. Close it, or use it as a context manager."""

    def __init__(self, upstream_port: int, upstream_host: str = "127.0.0.1") -> None:
        """Start listening at once."""
        self._upstream = (upstream_host, upstream_port)
        self._lock = threading.Lock()
        self._losses: list[Loss] = []
        self._sockets: set[socket.socket] = set()
        self._flow = threading.Event()
        self._flow.set()
        self._closed = False
        self._listener = kept()
        self.port = number(self._listener)
        self.connections = 0
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._closed = True
        self._flow.set()
        _shut(self._listener)
        self.cut()

    def cut(self) -> None:
        """Cut every connection that is open now."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for entry in sockets:
            _shut(entry)

    @contextmanager
    def losing(self, pattern: str, *, lose: str = "reply", times: int = 1) -> Iterator[Loss]:
        """Cut the connection at a statement that matches ``pattern`` (case-insensitive), ``times`` times.

        ``lose="reply"``: the statement goes through, and the connection ends once the server has answered, before the
        client hears of it. ``lose="request"``: the connection ends before the statement is passed on.
        Inside a transaction, match COMMIT: a connection that ends before it rolls the statement back.
        """
        if lose not in {"reply", "request"}:
            raise ValueError(lose)
        loss = Loss(re.compile(pattern.encode(), re.IGNORECASE), lose, times)
        with self._lock:
            self._losses.append(loss)
        try:
            yield loss
        finally:
            with self._lock:
                self._losses.remove(loss)

    @contextmanager
    def blackhole(self) -> Iterator[None]:
        """Accept connections and pass on nothing, in neither direction, open connections included."""
        self._flow.clear()
        try:
            yield
        finally:
            self.cut()  # what was held back must not arrive later
            self._flow.set()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse connections and cut the open ones. The port stays ours: bound, but nobody listens."""
        _shut(self._listener)
        self._listener = kept(self.port)
        self.cut()
        try:
            yield
        finally:
            self._listen()

    def _listen(self) -> None:
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._sockets.add(client)
        self._flow.wait()
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = socket.create_connection(self._upstream, timeout=10)
        except OSError:  # cut meanwhile, or the server is down
            _shut(client)
            return
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.add(server)
        if self._closed:
            self.cut()
        link = _Link(client, server)
        threading.Thread(target=self._replies, args=(link,), daemon=True).start()
        self._requests(link)

    def _requests(self, link: _Link) -> None:
        while chunk := _receive(link.client):
            self._flow.wait()
            loss = self._matching(chunk)
            if loss is not None and loss.lose == "request":
                loss.happened.set()
                break
            link.loss = link.loss or loss  # before the request leaves: its reply may be faster than this thread
            if not _send(link.server, chunk):
                break
        link.close_unless_awaited()
        self._forget(link)

    def _replies(self, link: _Link) -> None:
        while chunk := _receive(link.server):
            self._flow.wait()
            if link.loss is not None:
                link.loss.happened.set()
                break
            if not _send(link.client, chunk):
                break
        link.close()
        self._forget(link)

    def _matching(self, chunk: bytes) -> Loss | None:
        with self._lock:
            for loss in self._losses:
                if loss.hits < loss.times and loss.pattern.search(chunk):
                    loss.hits += 1
                    return loss
        return None

    def _forget(self, link: _Link) -> None:
        with self._lock:
            self._sockets -= {link.client, link.server}


class _Link:
    """Both ends of one proxied connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.loss: Loss | None = None

    def close_unless_awaited(self) -> None:
        """A client that hung up early does not stop the server from answering a statement that is on its way."""
        if self.loss is None or self.loss.happened.is_set() or self.loss.lose == "request":
            self.close()

    def close(self) -> None:
        _shut(self.client)
        _shut(self.server)


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(CHUNK)
    except OSError:
        return b""


def _send(sink: socket.socket, chunk: bytes) -> bool:
    try:
        sink.sendall(chunk)
    except OSError:
        return False
    return True


def _shut(entry: socket.socket) -> None:
    """Close for real: shutdown wakes a thread that sits in recv or accept on it, close alone does not."""
    with suppress(OSError):
        entry.shutdown(socket.SHUT_RDWR)
    entry.close()
