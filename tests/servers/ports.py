"""Ports for servers that must be told theirs.

A port that was only looked up may be somebody else's before its server binds it, or while that server is away: workers
start servers at once. Bound by us and not listened to it is given to nobody, and its server binds it too
(SO_REUSEADDR, which all of them say).
"""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def hold(port: int = 0) -> socket.socket:
    """A free port of 127.0.0.1, or this one, ours until the socket is closed; connections to it are refused."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((HOST, port))
    return held


def number(held: socket.socket) -> int:
    port: int = held.getsockname()[1]
    return port
