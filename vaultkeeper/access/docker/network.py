"""Connections to a Docker Engine, wherever its endpoint says: a Unix socket, TCP, or ssh."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from vaultkeeper.access import process
from vaultkeeper.access.docker.context import Endpoint
from vaultkeeper.access.http import Timed
from vaultkeeper.ports import Deadline


class Network(httpcore2.NetworkBackend):
    """`deadline` is that of the call under way."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.deadline = Deadline(0.0)
        self.inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        return Timed(self.inner.connect_tcp(host, port, self._left(), local_address, socket_options), self)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        """Also for ssh: whatever is no TCP is reached through one local socket."""
        parts = urlsplit(self.endpoint.url)
        if parts.scheme == "ssh":
            return Timed(_SshStream(self.endpoint), self)
        return Timed(self.inner.connect_unix_socket(parts.path, self._left(), socket_options), self)

    def _left(self) -> float:
        return self.deadline.left_s(time.monotonic())


class _SshStream(httpcore2.NetworkStream):
    """`ssh HOST docker system dial-stdio`, as the `docker` command does it; its stdin and stdout are one socket.

    ssh asks nothing (BatchMode): keys come from the agent or the user's configuration, hosts from known_hosts.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        program = shutil.which("ssh", path=process.ENVIRONMENT["PATH"])
        if program is None:
            raise httpcore2.ConnectError("the program `ssh` is not installed here")
        parts = urlsplit(endpoint.url)
        user = ["-l", parts.username] if parts.username else []
        port = ["-p", str(parts.port)] if parts.port else []
        argv = [program, "-T", "-o", "BatchMode=yes", *user, *port, "--", parts.hostname or "", "docker"]
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [*argv, "system", "dial-stdio"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env={**process.ENVIRONMENT, **endpoint.ssh_environment},
                cwd="/",
                start_new_session=True,
            )
        self._socket = ours

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(max_bytes)
        except TimeoutError:
            raise httpcore2.ReadTimeout("deadline") from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(buffer)
        except TimeoutError:
            raise httpcore2.WriteTimeout("deadline") from None

    def close(self) -> None:
        self._socket.close()
        self._child.kill()
        self._child.wait()

    def get_extra_info(self, info: str) -> Any:
        return self._child.poll() is not None if info == "is_readable" else None
