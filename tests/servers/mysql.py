"""MySQL: the simulator of vaultkeeper.testing, because none can be installed here, or a real one where it is named.

``VAULTKEEPER_TEST_MYSQL_URL=mysql://root:PASSWORD@HOST:PORT`` names it: an account that may do everything, over TCP
without TLS. What tests make there has names of its own and is dropped at the end. They turn its general log on and off,
so say `-n0`.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

from tests.servers import TestAccount, libmariadb, tls
from tests.servers.proxy import Proxy
from vaultkeeper.testing.mysql import MysqlServer as Simulator

FAULTS = ("unreachable", "silent", "lost-request", "lost-reply")
URL = "VAULTKEEPER_TEST_MYSQL_URL"


def start(version: str | None = None, *, with_tls: bool = False) -> MysqlServer:
    """A simulated server of its own, or the real one; ``version`` and ``with_tls`` always simulate."""
    url = os.environ.get(URL) if version is None and not with_tls else None
    return MysqlServer(url, version, with_tls=with_tls)


class MysqlServer:
    """One running MySQL. `simulator`: None where it is a real one."""

    kind = "mysql"

    def __init__(self, url: str | None, version: str | None, *, with_tls: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vk-mysql-test-")
        self.base = Path(self._folder.name)
        self.ca = self.base / "ca.pem"  # exists with ``with_tls``
        self.simulator: Simulator | None = None
        self._made: list[tuple[str, str]] = []
        if url is None:
            context = self._context() if with_tls else None
            self.simulator = Simulator(version, tls=context) if version else Simulator(tls=context)
            self.host, self.port = "127.0.0.1", self.simulator.port
            self._root = ("root", self.simulator.root_password)
        else:
            parts = urlsplit(url)
            self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 3306
            self._root = (unquote(parts.username or "root"), unquote(parts.password or ""))
        self.rotator, self.rotator_password = f"vk_rot_{secrets.token_hex(4)}", secrets.token_urlsafe(18)
        self.user(self.rotator, self.rotator_password)
        for grant in ("CREATE USER, PROCESS ON *.*", "CONNECTION_ADMIN ON *.*", "SELECT ON mysql.user"):
            self.execute(f"GRANT {grant} TO '{self.rotator}'@'%'")

    def _context(self) -> ssl.SSLContext:
        made = tls.issue()
        self.ca.write_text(made.ca)
        chain, key = self.base / "server.crt", self.base / "server.key"
        chain.write_text(made.certificate)
        key.write_text(made.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        return context

    @cached_property
    def proxy(self) -> Proxy:
        return Proxy(self.port, self.host)

    @cached_property
    def rotator_password_file(self) -> Path:
        path = self.base / "rotator-password"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.rotator_password)
        return path

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement as root and return its rows."""
        name, password = self._root
        connection = pymysql.connect(
            host=self.host, port=self.port, user=name, password=password, autocommit=None, charset="utf8mb4",
            ssl_disabled=True,
        )  # fmt: skip
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def user(self, name: str, password: str, host: str = "%", options: str = "") -> None:
        """CREATE USER, dropped at the end."""
        account = f"{_literal(name)}@{_literal(host)}"
        self._made.append((name, host))
        said = f"IDENTIFIED BY {_literal(password)}" if password else ""
        self.execute(f"CREATE USER {account} {said} {options}")

    def account(
        self, name: str | None = None, *, password: str | None = None, hosts: Sequence[str] = ("%",),
        through_proxy: bool = False,
    ) -> TestAccount:  # fmt: skip
        """An account with a known password at each of ``hosts``; the settings are those of ``strategy: overlap``."""
        name = name or f"app_{secrets.token_hex(4)}"
        password = password or secrets.token_urlsafe(18)
        for host in hosts:
            self.user(name, password, host)
        own = {"user": name, "hosts": list(hosts), "strategy": "overlap"}
        return TestAccount(name, password, self.settings(through_proxy=through_proxy) | own)

    def alternating(self, *, through_proxy: bool = False) -> TestAccount:
        """Two users that take turns; the second is locked and has no password yet."""
        first = self.account()
        users = [first.username, f"{first.username}_b"]
        self.user(users[1], "", options="ACCOUNT LOCK")
        own = {"users": users, "strategy": "alternating_users"}
        return TestAccount(first.username, first.password, self.settings(through_proxy=through_proxy) | own)

    def settings(self, *, through_proxy: bool = False) -> dict[str, object]:
        """Return what every ``target:`` on this server has in common."""
        admin = {"username": self.rotator, "password": {"file": str(self.rotator_password_file)}}
        host, port = ("127.0.0.1", self.proxy.port) if through_proxy else (self.host, self.port)
        return {"kind": self.kind, "host": host, "port": port, "admin": admin}

    def login(self, username: str, password: str) -> bool:
        """By MariaDB's client library."""
        return libmariadb.login(self.port, username, password, host=self.host)

    @contextmanager
    def fault(self, name: str, *, statement: str = "ALTER USER", times: int = 1) -> Iterator[object]:
        """Break it for a ``with`` block, for accounts made with ``through_proxy=True``."""
        match name:
            case "unreachable":
                with self.proxy.refusing():
                    yield None
            case "silent":
                with self.proxy.blackhole():
                    yield None
            case "lost-request" | "lost-reply":
                with self.proxy.losing(statement, lose=name.removeprefix("lost-"), times=times) as loss:
                    yield loss
            case _:
                raise ValueError(f"no fault {name!r}; known: {', '.join(FAULTS)}")

    @contextmanager
    def logged(self) -> Iterator[list[str]]:
        """What the general log has of a ``with`` block, once that has ended."""
        found: list[str] = []
        if self.simulator is not None:
            before = len(self.simulator.general_log)
            yield found
            found += self.simulator.general_log[before:]
            return
        [(was_on, output)] = self.execute("SELECT @@general_log, @@log_output")
        query = "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE command_type = 'Query'"
        before = len(self.execute(query))
        self.execute("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON")
        try:
            yield found
        finally:
            self.execute(f"SET GLOBAL general_log = {was_on}, GLOBAL log_output = '{output}'")
        found += [line for (line,) in self.execute(query)[before:]]

    def stop(self) -> None:
        """Drop what was made; end a simulator. Idempotent."""
        made, self._made = self._made, []
        with suppress(pymysql.MySQLError):
            for name, host in made:
                self.execute(f"DROP USER IF EXISTS {_literal(name)}@{_literal(host)}")
        if "proxy" in self.__dict__:
            self.proxy.close()
        if self.simulator is not None:
            self.simulator.stop()
        self._folder.cleanup()


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _own_admin(server: MysqlServer) -> TestAccount:
    account = server.account(through_proxy=True)
    own = {"admin": "self", "strategy": "single"}
    return TestAccount(account.username, account.password, {**account.settings, **own})


VARIANTS: Mapping[str, Callable[[MysqlServer], TestAccount]] = {
    "overlap": lambda server: server.account(hosts=("%", "10.%"), through_proxy=True),
    "alternating": lambda server: server.alternating(through_proxy=True),
    "self": _own_admin,
}
"""Accounts that the contract of targets is tried on."""

UNSWEPT = frozenset({"alternating", "self"})  # they differ from the other one by what the contract tries
