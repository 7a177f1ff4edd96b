"""Real MariaDB from Debian's package, in a folder of its own, as a user without privileges."""

from __future__ import annotations

import atexit
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pymysql

from tests.servers import ServerMissing, TestAccount, libmariadb, tls
from tests.servers.proxy import Proxy
from vaultkeeper.testing.port import kept, number

FAULTS = ("unreachable", "silent", "lost-request", "lost-reply", "crash")
PATIENCE_S = 60
SMALL = {
    "innodb_buffer_pool_size": "8M", "innodb_log_file_size": "4M", "aria_pagecache_buffer_size": "1M",
    "key_buffer_size": "1M", "performance_schema": "OFF", "skip_name_resolve": "ON", "skip_log_bin": "",
    "innodb_flush_log_at_trx_commit": "2", "plugin_load_add": "auth_ed25519", "connect_timeout": "60",
}  # fmt: skip


def start(*, settings: Mapping[str, str] | None = None, ssl: bool = False) -> MariadbServer:
    """Start a server of its own on a free port. ``settings``: lines of its option file, such as ``general_log: ON``.

    Raises ServerMissing where the package is not installed.
    """
    if shutil.which("mariadbd", path=_path()) is None:
        raise ServerMissing("mariadbd is not installed (Debian: mariadb-server)")
    server = MariadbServer(settings or {}, ssl=ssl)
    try:
        server.begin()
    except BaseException:
        server.stop()
        raise
    return server


@cache
def shared() -> MariadbServer:
    """One for all tests of a process that leave its settings as they are; with TLS. Raises ServerMissing."""
    return start(ssl=True)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def _as_somebody() -> dict[str, Any]:
    """It does not run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    someone = pwd.getpwnam("mysql" if "mysql" in names else "nobody")
    return {"user": someone.pw_uid, "group": someone.pw_gid, "extra_groups": []}


def _given(path: Path) -> Path:
    """To whoever the server runs as."""
    someone = _as_somebody()
    if someone:
        os.chown(path, someone["user"], someone["group"])
    return path


@cache
def _template() -> Path:
    """System tables take seconds to make: once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="vk-mariadb-template-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o711)
    data, own = folder / "data", folder / "tmp"
    for made in (data, own):
        made.mkdir()
        _given(made)
    options = folder / "options.cnf"
    small = {k: v for k, v in SMALL.items() if k.startswith("innodb")}
    small["tmpdir"] = str(own)  # a server that starts sweeps away temporary tables of others in one folder
    options.write_text("[mysqld]\n" + "\n".join(f"{k}={v}" for k, v in small.items()))
    argv = ["mariadb-install-db", f"--defaults-file={options}", f"--datadir={data}", "--skip-test-db"]
    done = subprocess.run(
        [*argv, "--auth-root-authentication-method=normal", "--skip-name-resolve"],
        env={"PATH": _path()}, capture_output=True, text=True, check=False, **_as_somebody(),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"mariadb-install-db failed: {done.stdout[-800:]} {done.stderr[-800:]}")
    return data


class MariadbServer:
    """One running MariaDB."""

    kind = "mariadb"
    host = "127.0.0.1"

    def __init__(self, settings: Mapping[str, str], *, ssl: bool) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="vk-mariadb-", dir="/tmp"))
        self.base.chmod(0o711)
        self.root_password = "root-" + secrets.token_urlsafe(18)
        self.rotator, self.rotator_password = "vk_rotator", "rotator-" + secrets.token_urlsafe(18)
        self.socket = self.base / "run/socket"
        self.ca = self.base / "ca.pem"  # exists with ``ssl``
        self.log = self.base / "run/error.log"
        self._settings = {**SMALL, **settings, **(self._certificate() if ssl else {})}
        self._held = kept()
        self.port = number(self._held)
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_pid = os.getpid()
        atexit.register(self.stop)

    def begin(self) -> None:
        """Make its data and start it."""
        shutil.copytree(_template(), self.base / "data")
        for folder in (self.base / "data", *(self.base / "data").rglob("*")):
            _given(folder)
        (self.base / "run").mkdir(exist_ok=True)
        _given(self.base / "run")
        self._write_options()
        self.launch()

    def _write_options(self) -> None:
        rotator = f"'{self.rotator}'@'%'"
        statements = [
            "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost'", "FLUSH PRIVILEGES",
            f"ALTER USER root@localhost IDENTIFIED VIA mysql_native_password USING '{_hash(self.root_password)}'",
            f"CREATE USER IF NOT EXISTS {rotator} IDENTIFIED BY PASSWORD '{_hash(self.rotator_password)}'",
            f"GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO {rotator}",
            f"GRANT SELECT ON mysql.global_priv TO {rotator}",
        ]  # fmt: skip
        first = self.base / "first.sql"
        first.write_text("".join(f"{statement};\n" for statement in statements))
        lines = {
            "datadir": self.base / "data", "socket": self.socket, "port": self.port, "bind_address": self.host,
            "pid_file": self.base / "run/pid", "log_error": self.log, "init_file": first, "tmpdir": self.base / "run",
            **self._settings,
        }  # fmt: skip
        text = "\n".join(f"{name}={value}" if str(value) else name for name, value in lines.items())
        (self.base / "options.cnf").write_text(f"[mysqld]\n{text}\n")

    def launch(self) -> None:
        """Start the process and wait until it takes logins."""
        argv = ["mariadbd", f"--defaults-file={self.base / 'options.cnf'}"]
        self._process = subprocess.Popen(
            argv, env={"PATH": _path()}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_as_somebody()
        )
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.root().close()
                return
            except pymysql.MySQLError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"mariadbd did not start: {self.log_text()[-2000:]}") from None
                time.sleep(0.03)

    def _certificate(self) -> dict[str, str]:
        made = tls.issue()
        paths = {"ssl_cert": self.base / "server.crt", "ssl_key": self.base / "server.key"}
        for path, text in zip(paths.values(), (made.certificate, made.key), strict=True):
            path.write_text(text)
            _given(path).chmod(0o600)
        self.ca.write_text(made.ca)
        return {name: str(path) for name, path in paths.items()}

    @cached_property
    def proxy(self) -> Proxy:
        return Proxy(self.port)

    @cached_property
    def rotator_password_file(self) -> Path:
        """For policy files: ``admin: {username: vk_rotator, password: {file: …}}``."""
        path = self.base / "rotator-password"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.rotator_password)
        return path

    def root(self) -> Any:
        """A connection of root's, over the Unix socket."""
        return pymysql.connect(
            unix_socket=str(self.socket), user="root", password=self.root_password, autocommit=True, charset="utf8mb4"
        )

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement as root and return its rows."""
        with self.root() as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())

    def account(
        self, name: str | None = None, *, password: str | None = None, hosts: Sequence[str] = ("%",),
        through_proxy: bool = False,
    ) -> TestAccount:  # fmt: skip
        """An account with a known password at each of ``hosts``; the settings are those of ``strategy: overlap``."""
        name = name or f"app_{secrets.token_hex(4)}"
        password = password or secrets.token_urlsafe(18)
        for host in hosts:
            self.execute(
                "CREATE USER %s@%s IDENTIFIED VIA mysql_native_password USING %s", [name, host, _hash(password)]
            )
        own = {"user": name, "hosts": list(hosts), "strategy": "overlap"}
        return TestAccount(name, password, self.settings(through_proxy=through_proxy) | own)

    def alternating(self, *, through_proxy: bool = False) -> TestAccount:
        """Two users that take turns; the second is locked and has no password yet."""
        first = self.account()
        users = [first.username, f"{first.username}_b"]
        self.execute("CREATE USER %s@'%%' ACCOUNT LOCK", [users[1]])
        own = {"users": users, "strategy": "alternating_users"}
        return TestAccount(first.username, first.password, self.settings(through_proxy=through_proxy) | own)

    def settings(self, *, through_proxy: bool = False) -> dict[str, object]:
        """Return what every ``target:`` on this server has in common."""
        admin = {"username": self.rotator, "password": {"file": str(self.rotator_password_file)}}
        port = self.proxy.port if through_proxy else self.port
        return {"kind": self.kind, "host": self.host, "port": port, "admin": admin}

    def foreign(self, account: object) -> tuple[str, str]:
        """One more method, of somebody else, behind the account's own."""
        assert isinstance(account, TestAccount)
        password = secrets.token_urlsafe(18)
        self.execute(
            "ALTER USER %s@'%%' IDENTIFIED VIA mysql_native_password USING %s OR ed25519 USING PASSWORD(%s)",
            [account.username, _hash(account.password), password],
        )
        return account.username, password

    def methods(self, name: str, host: str = "%") -> str:
        """What SHOW CREATE USER says."""
        return str(self.execute("SHOW CREATE USER %s@%s", [name, host])[0][0])

    def login(self, username: str, password: str) -> bool:
        """By MariaDB's own client library."""
        return libmariadb.login(self.port, username, password)

    @contextmanager
    def fault(self, name: str, *, statement: str = "ALTER USER|SET PASSWORD", times: int = 1) -> Iterator[object]:
        """Break it for a ``with`` block. All but ``crash`` strike accounts made with ``through_proxy=True``."""
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
                self._end(signal.SIGKILL)
                try:
                    yield None
                finally:
                    self.launch()
            case _:
                raise ValueError(f"no fault {name!r}; known: {', '.join(FAULTS)}")

    def log_text(self) -> str:
        """Return the error log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def stop(self) -> None:
        """Stop the server and remove its folder. Idempotent; a forked child does not stop its parent's server."""
        if os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        if "proxy" in self.__dict__:
            self.proxy.close()
        with suppress(subprocess.TimeoutExpired):
            self._end(signal.SIGKILL)
        self._held.close()
        shutil.rmtree(self.base, ignore_errors=True)


def _hash(password: str) -> str:
    """Of mysql_native_password."""
    once = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(once, usedforsecurity=False).hexdigest().upper()


def _own_admin(server: MariadbServer) -> TestAccount:
    account = server.account(through_proxy=True)
    own = {"admin": "self", "strategy": "single"}
    return TestAccount(account.username, account.password, {**account.settings, **own})


VARIANTS: Mapping[str, Callable[[MariadbServer], TestAccount]] = {
    "overlap": lambda server: server.account(hosts=("%", "10.%"), through_proxy=True),
    "alternating": lambda server: server.alternating(through_proxy=True),
    "self": _own_admin,
}
"""Accounts that the contract of targets is tried on."""

UNSWEPT = frozenset({"alternating", "self"})  # they differ from the other one by what the contract tries
