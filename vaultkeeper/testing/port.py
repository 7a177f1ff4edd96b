"""A port of this machine that is ours while nobody listens on it."""

from __future__ import annotations

import socket


def kept(port: int) -> socket.socket:
    """Until it is closed connections to `port` are refused, and nobody else is given it. Our own server may bind it."""
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers: two may be bound while none listens
    keeper.bind(("127.0.0.1", port))
    return keeper
