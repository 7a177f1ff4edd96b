"""Logins of administrators that were refused: not tried again for a minute, however many secrets of a command need one.

fail2ban bans an address at its fifth failed login within a minute, and one wrong password in a connection that ten
secrets share would be ten. Another password is another login, and is tried at once.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from vaultkeeper.errors import NotAuthorised

T = TypeVar("T")
FOR_S = 60.0
TURN_S = 2.0
"""How long others wait for the first answer about a login; a server that is silent must not make them queue."""


@dataclass
class _Login:
    turn: threading.Lock = field(default_factory=threading.Lock)
    accepted: bool = False  #: the last time; then nobody has to wait for his turn
    refused: NotAuthorised | None = None
    until_s: float = 0.0  #: on the monotonic clock


_logins: dict[bytes, _Login] = {}  # by a digest of address, name and password


def once(address: object, username: str, password: bytes, log_in: Callable[[], T]) -> T:
    """What `log_in` returns. Raises what it raises, or the NotAuthorised of less than a minute ago."""
    key = hashlib.sha256(repr((str(address), username, password)).encode()).digest()
    login = _logins.setdefault(key, _Login())
    if login.accepted:
        return _tried(login, log_in)
    mine = login.turn.acquire(timeout=TURN_S)
    try:
        return _tried(login, log_in)
    finally:
        if mine:
            login.turn.release()


def _tried(login: _Login, log_in: Callable[[], T]) -> T:
    told = login.refused
    if told is not None and time.monotonic() < login.until_s:
        raise NotAuthorised(told.what, why=told.why, next=told.next)
    try:
        found = log_in()
    except NotAuthorised as error:
        told = NotAuthorised(error.what, why=error.why, next=error.next)  # without the frames, which hold the password
        login.accepted, login.refused, login.until_s = False, told, time.monotonic() + FOR_S
        raise
    login.accepted, login.refused = True, None
    return found
