"""Real Redis from Debian's package: with an ACL file, a configuration file or neither; replicas and Sentinels.

Clients here speak the protocol themselves, so that nothing is shared with vaultkeeper but the bytes on the wire.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tests.servers import ServerMissing, TestAccount, tls
from tests.servers.proxy import Proxy
from vaultkeeper.testing.port import kept, number

FAULTS = ("unreachable", "silent", "lost-reply", "lost-request")
HOST = "127.0.0.1"
ROTATOR = "vk_rotator"
RIGHTS = ("acl|getuser", "acl|setuser", "acl|dryrun", "info", "client|list", "client|kill", "config|get")
KEEPS: Mapping[str, Sequence[str]] = {
    "acl_file": ("acl|save",),
    "config_file": ("acl|list", "config|rewrite"),
    "sentinel": ("acl|save", "acl|list", "sentinel|flushconfig"),
    "nothing": ("acl|save",),
}
"""How a node keeps its accounts over a restart, and what the rotator may do there beside `RIGHTS`."""

SETUSER = r"SETUSER\r\n\$\d+\r\n\S+\r\n\$65\r\n"
"""One that changes a password; not the one that `check` only asks about."""


class Refused(Exception):
    """A server's error, as it said it."""


class Client:
    """One connection of somebody who knows nothing of vaultkeeper. Replies are bytes, numbers, lists or None."""

    def __init__(self, address: tuple[str, int] | str, timeout: float = 60) -> None:
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout)
            self._socket.connect(address)
        else:
            self._socket = socket.create_connection(address, timeout)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, *words: str | bytes) -> None:
        raw = [word.encode() if isinstance(word, str) else word for word in words]
        parts = [b"*%d\r\n" % len(raw), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw)]
        self._socket.sendall(b"".join(parts))

    def read(self) -> Any:
        line = self._file.readline().rstrip(b"\r\n")
        if not line:
            raise OSError("the server hung up")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise Refused(rest.decode(errors="replace"))
        if kind == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def __call__(self, *words: str | bytes) -> Any:
        """One command and its answer. Raises Refused."""
        self.send(*words)
        return self.read()


def logs_in(address: tuple[str, int] | str, username: str, password: str | bytes) -> bool:
    """True accepted, False refused for sure; anything else raises."""
    with Client(address) as client:
        try:
            client("AUTH", username, password)
        except Refused as refused:
            if str(refused).startswith("WRONGPASS"):
                return False
            raise
    return True


def hashed(password: str | bytes) -> str:
    return hashlib.sha256(password.encode() if isinstance(password, str) else password).hexdigest()


class Node:
    """One redis-server process with a folder of its own. `default` is off unless `requirepass` is given."""

    def __init__(
        self,
        keeps: str = "acl_file",
        *,
        requirepass: str = "",
        on_command_line: bool = False,
        lines: Sequence[str] = (),
        certificates: tls.Certificates | None = None,
    ) -> None:
        self.keeps, self.requirepass = keeps, requirepass
        self.arguments = ["--requirepass", requirepass] if on_command_line else []
        self.folder = Path(tempfile.mkdtemp(prefix="vk-redis-", dir="/tmp"))  # a Unix socket's path has 107 bytes
        self.operator = "op-" + secrets.token_urlsafe(18)
        self.rotator = "rot-" + secrets.token_urlsafe(18)
        self._held, self.process = [kept()], None
        self.port = number(self._held[0])
        self._owner_pid = os.getpid()
        atexit.register(self.stop)
        try:
            self._write(lines, certificates)
            self.start()
            with self.client() as say:
                strange = {"config|get"} if keeps == "sentinel" else set()
                rights = (f"+{name}" for name in (*RIGHTS, *KEEPS[keeps]) if name not in strange)
                say("ACL", "SETUSER", ROTATOR, "on", f"#{hashed(self.rotator)}", *rights)
            self.save()
        except BaseException:
            self.stop()
            raise

    process: subprocess.Popen[bytes] | None

    def _write(self, lines: Sequence[str], certificates: tls.Certificates | None) -> None:
        default = f"on #{hashed(self.requirepass)} ~* &* +@all" if self.requirepass else "off"
        users = [f"user default {default}", f"user operator on #{hashed(self.operator)} ~* &* +@all"]
        listens = [f"port {self.port}"]
        if certificates is not None:
            for name, pem in (("ca", certificates.ca), ("crt", certificates.certificate), ("key", certificates.key)):
                (self.folder / name).write_text(pem)
            files = {"cert-file": "crt", "key-file": "key", "ca-cert-file": "ca"}
            listens = ["port 0", f"tls-port {self.port}"]
            listens += [f"tls-{key} {self.folder / name}" for key, name in files.items()]
        text = [*listens, f"bind {HOST}", f"unixsocket {self.unix}", f"dir {self.folder}", "loglevel debug", *lines]
        if self.keeps != "sentinel":
            text.append('save ""')
        if "cluster-enabled yes" in lines:
            self._held.append(kept())
            text.append(f"cluster-port {number(self._held[-1])}")  # by itself 10,000 higher, which may be none
        if self.keeps == "acl_file":
            (self.folder / "users.acl").write_text("\n".join([*users, ""]))
            text.append(f"aclfile {self.folder / 'users.acl'}")
        else:
            text += [f"requirepass {self.requirepass}", users[1]] if self.requirepass else users
        if self.keeps == "nothing":
            self.arguments = [word.strip('"') for line in text for word in f"--{line}".split(" ")]
        else:
            told = [line for line in text if not (self.arguments and line.startswith("requirepass"))]
            self.config.write_text("\n".join([*told, ""]))

    @property
    def config(self) -> Path:
        return self.folder / "redis.conf"

    @property
    def unix(self) -> str:
        return str(self.folder / "redis.sock")

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ServerMissing("redis-server is not installed")
        config = [] if self.keeps == "nothing" else [str(self.config)]
        mode = ["--sentinel"] if self.keeps == "sentinel" else []
        with (self.folder / "log").open("ab") as log:
            argv = [program, *config, *mode, *self.arguments]
            self.process = subprocess.Popen(argv, cwd=self.folder, stdout=log, stderr=log)
        until = time.monotonic() + 30
        while True:  # until the socket is there: the server opens it last
            with suppress(OSError):
                self.client().close()
                return
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"redis-server did not start:\n{self.log_text()[-2000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """As after a crash: what was not saved is gone."""
        self.kill()
        self.start()

    def client(self) -> Client:
        """The operator's, by the Unix socket, whatever the network is like."""
        client = Client(self.unix)
        client("AUTH", "operator", self.operator)
        return client

    def save(self) -> None:
        commands = {
            "acl_file": ("ACL", "SAVE"),
            "config_file": ("CONFIG", "REWRITE"),
            "sentinel": ("SENTINEL", "FLUSHCONFIG"),
        }
        if self.keeps in commands:
            with self.client() as say:
                say(*commands[self.keeps])

    def acl(self, name: str, *rules: str) -> None:
        """Change an account, and keep that."""
        with self.client() as say:
            say("ACL", "SETUSER", name, *rules)
        self.save()

    def hashes(self, name: str) -> set[str]:
        with self.client() as say:
            told = say("ACL", "GETUSER", name)
        return {each.decode() for each in told[told.index(b"passwords") + 1]}

    def sessions(self, name: str) -> list[dict[str, str]]:
        """Lines of CLIENT LIST."""
        with self.client() as say:
            lines = say("CLIENT", "LIST").decode().splitlines()
        found = [dict(word.partition("=")[::2] for word in line.split(" ")) for line in lines]
        return [one for one in found if one["user"] == name]

    def calls(self, command: str) -> int:
        """How often it was run here ("acl|setuser"), by anybody: MONITOR and SLOWLOG leave such commands out."""
        with self.client() as say:
            lines = say("INFO", "commandstats").decode().splitlines()
        told = [line.partition("calls=")[2] for line in lines if line.startswith(f"cmdstat_{command}:")]
        return int(told[0].partition(",")[0]) if told else 0

    def log_text(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """Idempotent; a forked child does not stop its parent's server."""
        if os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        self.kill()
        for held in self._held:
            held.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer:
    """A node with an ACL file behind a proxy; a replica that keeps accounts in its configuration, and a Sentinel."""

    kind = "redis"

    def __init__(self, **options: Any) -> None:
        self.node = Node(**options)

    @cached_property
    def proxy(self) -> Proxy:
        return Proxy(self.node.port)

    @cached_property
    def others(self) -> list[Node]:
        """Started when first asked for."""
        self.node.acl("replication", "on", f"#{hashed('replication')}", "+psync", "+replconf", "+ping")
        source = [f"replicaof {HOST} {self.node.port}", "masteruser replication", "masterauth replication"]
        sentinel = [f"sentinel monitor cache {HOST} {self.node.port} 1"]
        made = [Node("config_file", lines=source), Node("sentinel", lines=sentinel)]
        for other in made:
            other.acl(ROTATOR, "resetpass", f"#{hashed(self.node.rotator)}")
        return made

    @cached_property
    def rotator_file(self) -> Path:
        path = self.node.folder / "rotator"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.node.rotator)
        return path

    def account(self, name: str | None = None, *, password: str | None = None, everywhere: bool = False) -> TestAccount:
        """Make an account, changed by an admin with the least privileges. `everywhere`: at the other nodes, too."""
        name = name or f"app_{secrets.token_hex(4)}"
        password = password or secrets.token_urlsafe(18)
        nodes = self.others if everywhere else []
        for node in (self.node, *nodes):
            node.acl(name, "on", f"#{hashed(password)}", "~*", "&*", "+@all")
        settings: dict[str, object] = self.settings() | {"user": name}
        if nodes:
            settings["nodes"] = [{"host": HOST, "port": node.port} for node in nodes]
        return TestAccount(name, password, settings)

    def settings(self) -> dict[str, object]:
        """What every ``target:`` on this server has in common."""
        admin = {"username": ROTATOR, "password": {"file": str(self.rotator_file)}}
        return {"kind": self.kind, "host": HOST, "port": self.proxy.port, "admin": admin}

    def foreign(self, account: TestAccount) -> tuple[str, str]:
        """One more password of the account, at every node."""
        password = secrets.token_urlsafe(18)
        for node in (self.node, *(self.others if account.settings.get("nodes") else [])):
            node.acl(account.username, f"#{hashed(password)}")
        return account.username, password

    def login(self, username: str, password: str) -> bool:
        """Past the proxy, at every node that has the account. Raises where they differ."""
        nodes = [self.node, *(self.__dict__.get("others") or [])]
        with_it = [node for node in nodes if node is self.node or _has(node, username)]
        answers = {logs_in(node.address, username, password) for node in with_it}
        assert len(answers) == 1, "nodes differ"
        return answers.pop()

    def refused_logins(self) -> int:
        """As the first node counts them."""
        with self.node.client() as say:
            found = re.search(r"errorstat_WRONGPASS:count=(\d+)", say("INFO", "errorstats").decode())
        return int(found[1]) if found else 0

    @contextmanager
    def fault(self, name: str, *, statement: str = SETUSER, times: int = 1) -> Iterator[object]:
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

    def stop(self) -> None:
        if "proxy" in self.__dict__:
            self.proxy.close()
        for node in (*self.__dict__.get("others", ()), self.node):
            node.stop()


def _has(node: Node, name: str) -> bool:
    with node.client() as say:
        return say("ACL", "GETUSER", name) is not None


def start(**options: Any) -> RedisServer:
    """A server of its own on a free port. Raises ServerMissing."""
    return RedisServer(**options)


VARIANTS: Mapping[str, Callable[[RedisServer], TestAccount]] = {"nodes": lambda server: server.account(everywhere=True)}
"""Accounts that the contract of targets and the kill sweep are tried on; one node alone is in test_redis.py."""
