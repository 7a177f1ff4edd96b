"""What the simulated server knows: accounts, global variables, sessions and advisory locks."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from vaultkeeper.testing.mysql.hashes import SHA2

EVERYTHING = ("*.*", "ALL PRIVILEGES")


class SqlError(Exception):
    """What the server answers instead of OK: its error number, SQLSTATE and text."""

    def __init__(self, number: int, state: str, text: str) -> None:
        super().__init__(number, text)
        self.number, self.state, self.text = number, state, text


@dataclass
class Account:
    """One row of mysql.user."""

    name: str
    host: str
    plugin: str = SHA2
    primary: str = ""  #: authentication_string
    secondary: str = ""  #: User_attributes ->> '$.additional_password' (8.2.15, "Dual Password Support")
    locked: bool = False
    expired: bool = False
    ssl_type: str = ""
    most_failures: int = 0  #: FAILED_LOGIN_ATTEMPTS
    failures: int = 0
    says_current: bool = False  #: PASSWORD REQUIRE CURRENT
    history: int | None = None  #: PASSWORD HISTORY; None: `password_history`
    past: list[str] = field(default_factory=list)  #: mysql.password_history, newest first
    grants: set[tuple[str, str]] = field(default_factory=set)  #: (level, privilege)
    cached: dict[str, bytes] = field(default_factory=dict)  #: stored form → SHA256(SHA256(password)) of a full login

    def may(self, privilege: str, level: str = "*.*") -> bool:
        levels = {"*.*", level, f"{level.partition('.')[0]}.*"}
        return any((place, name) in self.grants for place in levels for name in (privilege, "ALL PRIVILEGES"))

    @property
    def spelt(self) -> str:
        return f"`{self.name}`@`{self.host}`"


@dataclass
class Connection:
    """One row of the process list."""

    id: int
    account: Account
    origin: str
    close: Callable[[], None]
    tls: bool
    since: float = field(default_factory=time.monotonic)  #: of the last statement


class State:
    """Everything, behind one lock: a statement is carried out whole before the next one."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.lock = threading.RLock()
        self.accounts: list[Account] = []
        self.connections: dict[int, Connection] = {}
        self.held: dict[str, int] = {}  #: advisory lock → id of its connection
        self.released = threading.Condition(self.lock)
        self.globals: dict[str, int] = {
            "read_only": 0, "innodb_flush_log_at_trx_commit": 1, "log_raw": 0, "password_history": 0,
            "disconnect_on_expired_password": 1, "require_secure_transport": 0, "validate_password.length": 0,
        }  # fmt: skip

    @property
    def number(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split("-")[0].split("."))

    def account(self, name: str, host: str) -> Account | None:
        return next((one for one in self.accounts if (one.name, one.host) == (name, host)), None)

    def fitting(self, name: str, origin: str) -> Account | None:
        """The most specific row for who comes from there (8.2.6, "Connection Verification")."""
        fit = [one for one in self.accounts if one.name == name and _comes_from(one.host, origin)]
        return min(fit, key=lambda one: (("%" in one.host) + (one.host == "%"), -len(one.host)), default=None)

    def end(self, connection: Connection) -> None:
        """It is gone; an advisory lock ends with its session (14.14, "Locking Functions")."""
        with self.released:
            self.connections.pop(connection.id, None)
            self.held = {name: holder for name, holder in self.held.items() if holder != connection.id}
            self.released.notify_all()


def _comes_from(host: str, origin: str) -> bool:
    if "/" in host:
        return ipaddress.ip_address(origin) in ipaddress.ip_network(host)
    local = host == "localhost" and origin in {"127.0.0.1", "localhost"}
    return local or fnmatchcase(origin, host.replace("%", "*").replace("_", "?"))
