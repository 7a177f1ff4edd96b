"""Real RabbitMQ from Debian's package, with the management interface, on 127.0.0.1 and in a folder of its own.

It runs as the user that runs the tests, with its own epmd, node name, ports and cookie. It takes six seconds of a core
to start: one for a worker, started when first asked for. Accounts lead through proxies, for faults; `login` does not.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
from pika.exceptions import AMQPError, ProbableAccessDeniedError, ProbableAuthenticationError

from tests.servers import ServerMissing, TestAccount, tls
from tests.servers.proxy import Proxy
from vaultkeeper.testing.port import kept, number

GROUP = "rabbitmq"
FAULTS = ("unreachable", "silent", "lost-reply")
BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on PATH changes the user
ADMIN = "boss"
PATIENCE_S = 180  # for a start on a busy machine
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}

_CONF = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
listeners.ssl.1 = 127.0.0.1:{amqps}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.crt
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_none
management.tcp.ip = 127.0.0.1
management.tcp.port = {http}
management.ssl.ip = 127.0.0.1
management.ssl.port = {https}
management.ssl.cacertfile = {folder}/ca.pem
management.ssl.certfile = {folder}/server.crt
management.ssl.keyfile = {folder}/server.key
default_user = {admin}
default_pass = {password}
log.dir = {folder}/log
log.file.level = debug
disk_free_limit.absolute = 1MB
handshake_timeout = 60000
"""


class RabbitServer:
    """One node. `api` speaks to its management interface as the administrator, without vaultkeeper."""

    kind = "rabbitmq"

    def __init__(self) -> None:
        epmd = shutil.which("epmd")
        if not BINARY.exists() or epmd is None:
            raise ServerMissing("rabbitmq-server is not installed")
        self._own = tempfile.TemporaryDirectory(prefix="vk-rabbit-", ignore_cleanup_errors=True)
        self.folder = Path(self._own.name)
        self.admin_password = "boss-" + secrets.token_urlsafe(18)
        self._held = {name: kept() for name in ("amqp", "amqps", "http", "https", "dist", "epmd")}
        self.ports = {name: number(held) for name, held in self._held.items()}
        self._write()
        self._owner_pid = os.getpid()
        self._epmd = self._spawn([epmd, "-port", str(self.ports["epmd"]), "-address", "127.0.0.1"], "epmd")
        self._node = self._spawn([str(BINARY)], "said")
        atexit.register(self.stop)
        self._wait()
        self.proxies = {name: Proxy(self.ports[name]) for name in ("amqp", "http")}

    # -------------------------------------------------------------------------------------------------- the processes

    def _write(self) -> None:
        made = tls.issue()
        for name, text in (("ca.pem", made.ca), ("server.crt", made.certificate), ("server.key", made.key)):
            (self.folder / name).write_text(text)
        conf = _CONF.format(folder=self.folder, admin=ADMIN, password=self.admin_password, **self.ports)
        (self.folder / "rabbitmq.conf").write_text(conf)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "log").mkdir()
        self.admin_password_file.write_text(self.admin_password)

    @property
    def admin_password_file(self) -> Path:
        return self.folder / "admin-password"

    def _spawn(self, argv: list[str], said: str) -> subprocess.Popen[bytes]:
        folder = self.folder
        env = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"vk-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(self.ports["dist"]),
            "ERL_EPMD_PORT": str(self.ports["epmd"]), "ERL_EPMD_ADDRESS": "127.0.0.1",
            # one scheduler that does not spin while it waits
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
        }  # fmt: skip
        with (folder / said).open("wb") as out:
            return subprocess.Popen(
                argv, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def _wait(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            with suppress(OSError, http.client.HTTPException):
                if self.api("GET", "whoami") and all(map(self._listens, ("amqp", "amqps", "https"))):
                    return
            if self._node.poll() is not None or time.monotonic() > until:
                text = (self.folder / "said").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"RabbitMQ did not start:\n{text}")
            time.sleep(0.1)

    def _listens(self, name: str) -> bool:
        socket.create_connection(("127.0.0.1", self.ports[name]), timeout=1).close()
        return True

    def log_text(self) -> str:
        logs = [self.folder / "said", *sorted((self.folder / "log").rglob("*.log"))]
        return "\n".join(log.read_text(errors="replace") for log in logs)

    def stop(self) -> None:
        """Idempotent; a forked child does not stop its parent's server."""
        if os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        for proxy in self.__dict__.get("proxies", {}).values():
            proxy.close()
        for process in (self._node, self._epmd):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # the node is a child of the shell script that we started
            process.wait()
        for held in self._held.values():
            held.close()
        self._own.cleanup()

    # ---------------------------------------------------------------------------------------------------- the accounts

    def api(self, method: str, path: str, body: object = None, *, login: tuple[str, str] | None = None) -> Any:
        """The document of an answer; None where it is not there."""
        username, password = login or (ADMIN, self.admin_password)
        basic = base64.b64encode(f"{username}:{password}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=60)
        try:
            headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/api/{path}", text, headers)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {raw[:200]!r}")
        return json.loads(raw) if raw else {}

    def user(
        self, name: str, password: str | None, *, tags: tuple[str, ...] = (), vhosts: tuple[str, ...] = ("/",)
    ) -> None:
        """Make or change a user. `password` None: one that cannot log in."""
        salt = secrets.token_bytes(4)
        made = b"" if password is None else salt + hashlib.sha256(salt + password.encode()).digest()
        body = {"password_hash": base64.b64encode(made).decode(), "tags": list(tags)}
        self.api("PUT", f"users/{part(name)}", body)
        for vhost in vhosts:
            self.api("PUT", f"permissions/{part(vhost)}/{part(name)}", EVERYTHING)

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        """An account of `single`, rotated by the administrator."""
        name, password = name or f"app_{secrets.token_hex(4)}", secrets.token_urlsafe(18)
        self.user(name, password)
        return TestAccount(name, password, {**self.settings(), "user": name, "strategy": "single", **options})

    def alternating(self, name: str | None = None, **options: object) -> TestAccount:
        """The first of two users that take turns; the second is still to be made."""
        name, password = name or f"app_{secrets.token_hex(4)}", secrets.token_urlsafe(18)
        users = [f"{name}_a", f"{name}_b"]
        self.user(users[0], password)
        settings = {"users": users, "strategy": "alternating_users", "create_users": True}
        return TestAccount(users[0], password, {**self.settings(), **settings, **options})

    def settings(self) -> dict[str, object]:
        """What every `target:` on this server has in common."""
        return {
            "url": f"http://127.0.0.1:{self.proxies['http'].port}",
            "amqp": f"amqp://127.0.0.1:{self.proxies['amqp'].port}",
            "admin": {"username": ADMIN, "password": {"file": str(self.admin_password_file)}},
        }

    def connect(
        self, username: str, password: str, *, vhost: str = "/", secure: bool = False
    ) -> pika.BlockingConnection:
        context = ssl.create_default_context(cafile=self.folder / "ca.pem") if secure else None
        return pika.BlockingConnection(
            pika.ConnectionParameters(
                host="127.0.0.1", port=self.ports["amqps" if secure else "amqp"], virtual_host=vhost,
                credentials=pika.PlainCredentials(username, password), stack_timeout=60, connection_attempts=1,
                ssl_options=pika.SSLOptions(context, "localhost") if context else None,
            )
        )  # fmt: skip

    def login(self, username: str, password: str) -> bool:
        try:
            self.connect(username, password).close()
        except ProbableAuthenticationError as error:
            if "ACCESS_REFUSED" in str(error):
                return False
            raise OSError(str(error)) from None
        except ProbableAccessDeniedError:
            raise
        except AMQPError as error:
            raise OSError(repr(error)) from None
        return True

    @contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        with ExitStack() as stack:
            if name == "lost-reply":
                # the request that gives a user its password, not the one that makes the user
                stack.enter_context(self.proxies["http"].losing(r'"password_hash": "[^"]'))
            else:
                for proxy in self.proxies.values():
                    stack.enter_context(proxy.refusing() if name == "unreachable" else proxy.blackhole())
            yield


def part(text: str) -> str:
    return quote(text, safe="")


@cache
def shared() -> RabbitServer:
    """This process's server; it ends with the process."""
    return RabbitServer()


class _Borrowed:
    """The shared server, for whoever stops what it started."""

    def __init__(self, server: RabbitServer) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def stop(self) -> None:
        """Others use it."""


def start() -> Any:
    return _Borrowed(shared())


VARIANTS: Mapping[str, Callable[[RabbitServer], TestAccount]] = {
    "alternating": lambda server: server.alternating(),
    "single": lambda server: server.account(),
}
"""Accounts that the contract of targets is tried on."""
