"""What a rotation of one MariaDB account cannot do without: PyMySQL alone, no journal, no judgement of errors."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import pymysql
from bench_target import COMMITS, RECORDS, Durable

from tests.servers.mariadb import MariadbServer
from tests.servers.mariadb import start as start_server
from vaultkeeper.model.policy import TargetSpec
from vaultkeeper.model.secret import Fields, SecretBytes, Strategy


class Subject:
    """One server, an account for vaultkeeper and another for the bare side."""

    def __init__(self, server: MariadbServer, folder: Path) -> None:
        self._server = server
        account = server.account()
        settings = {name: value for name, value in account.settings.items() if name not in ("kind", "strategy")}
        self.target = TargetSpec("mariadb", Strategy.OVERLAP, settings)
        self.works_today: Fields = {"password": SecretBytes(account.password.encode())}
        bare = server.account()
        self._name, self._password, self._old = bare.username, bare.password, bare.password
        self._disk = Durable(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()
        self._server.stop()

    @property
    def parts(self) -> Mapping[str, Callable[[], None]]:
        """In their order. The sum of them is a rotation."""
        return {
            "the admin's login": self.log_admin_in,
            "what the account accepts": self.look,
            "ALTER USER, both": self.add,
            "one login": self.log_in,
            "one refused login": self.be_refused,
            "ALTER USER, the new one": self.take,
            "the old one refused": self.be_refused,
            f"{COMMITS + RECORDS} fsyncs, a file": self.sync,
        }

    def log_admin_in(self) -> None:
        self._old, self._password = self._password, secrets.token_urlsafe(24)
        self._admin = self._connected(self._server.rotator, self._server.rotator_password)

    def look(self) -> None:
        self._say(f"SELECT Priv FROM mysql.global_priv WHERE User = '{self._name}'")  # noqa: S608 - a name of ours

    def add(self) -> None:
        self._say(f"ALTER USER '{self._name}'@'%' IDENTIFIED VIA {_method(self._password)} OR {_method(self._old)}")

    def take(self) -> None:
        self._say(f"ALTER USER '{self._name}'@'%' IDENTIFIED VIA {_method(self._password)}")
        self._admin.close()

    def log_in(self) -> None:
        self._connected(self._name, self._password).close()

    def be_refused(self) -> None:
        try:
            self._connected(self._name, "wrong")
        except pymysql.OperationalError:
            return
        raise RuntimeError("a wrong password was accepted")

    def sync(self) -> None:
        self._disk.sync(self._password.encode())

    def _say(self, statement: str) -> None:
        with self._admin.cursor() as cursor:
            cursor.execute(statement)
            cursor.fetchall()

    def _connected(self, name: str, password: str) -> Any:
        server = self._server
        return pymysql.connect(
            host=server.host, port=server.port, user=name, password=password, autocommit=True, ssl_disabled=True
        )


def _method(password: str) -> str:
    once = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return f"mysql_native_password USING '*{hashlib.sha1(once, usedforsecurity=False).hexdigest().upper()}'"


def start(folder: Path) -> Subject:
    """Raises ServerMissing where MariaDB is not installed."""
    return Subject(start_server(), folder)
