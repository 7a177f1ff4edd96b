"""A port of this machine that is ours while nobody listens on it.

One that was only looked up may be somebody else's before its server binds it: tests start servers side by side.
"""

from __future__ import annotations

import socket


def kept(port: int = 0) -> socket.socket:
    """Until it is closed connections to `port` are refused, and nobody else is given it. Our own server may bind it.

    0: a free one, whose `number` the server is told.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers: two may be bound while none listens
    keeper.bind(("127.0.0.1", port))
    return keeper


def number(keeper: socket.socket) -> int:
    """Which port it keeps."""
    port: int = keeper.getsockname()[1]
    return port
