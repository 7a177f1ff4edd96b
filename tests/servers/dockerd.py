"""A dockerd of our own: its own folders, socket, addresses and process namespace, so that ending it ends everything.

It lives in a mount and a process namespace whose first process is a plain `sleep`: dockerd can be killed and started
again beside it, as a crash would. The end of that first process takes containerd, shims, containers and mounts with it;
it ends, at the latest, with the thread that started it. The network stays the machine's, so that consumers reach the
tests' PostgreSQL on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import httpx2

from tests.servers import ServerMissing

PROGRAMS = {
    "dockerd": "docker.io", "containerd": "docker.io", "docker-init": "docker.io", "ip": "iproute2", "nsenter": "",
    "unshare": "", "setpriv": "",
}  # fmt: skip
START_S = 120  # ends what hangs; nothing is judged by it
LOG_TAIL = 20


class Daemon:
    """One dockerd and one swarm of one node, on the machine's network but for its bridge."""

    def __init__(self) -> None:
        """Start it. Raises ServerMissing without root or Debian's docker.io; RuntimeError with the log's tail."""
        if os.geteuid() != 0:
            raise ServerMissing("a dockerd of our own needs root; VAULTKEEPER_TEST_DOCKER_HOST names another one")
        for program, package in PROGRAMS.items():
            if shutil.which(program) is None:
                raise ServerMissing(f"{program} is not installed: apt-get install {package or 'util-linux'}")
        self.base = Path(tempfile.mkdtemp(prefix="vk-docker-", dir="/tmp"))  # a socket's path may have 107 bytes
        self.name = "vk" + secrets.token_hex(4)
        self.address = ".".join(["127", *(str(1 + secrets.randbelow(250)) for _ in range(3))])  # 7946 is fixed
        self.log = self.base / "log"
        self.socket = self.base / "s"
        self.url = f"unix://{self.socket}"
        self._dockerd: subprocess.Popen[bytes] | None = None
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._namespace = subprocess.Popen(  # dies with the thread that made it, should pytest be killed
            ["setpriv", "--pdeathsig", "KILL", *own, "docker-init", "sleep", "inf"],
            stdin=subprocess.DEVNULL,
            stderr=self.log.open("ab"),
        )
        try:
            self._first = self._child_of(self._namespace)
            self.start()
            self._join()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start dockerd and wait until it answers. A second start finds what the first one kept."""
        argv = [
            "dockerd", f"--data-root={self.base / 'data'}", f"--exec-root={self.base / 'exec'}", f"--host={self.url}",
            f"--pidfile={self.base / 'pid'}", "--config-file=", "--bridge=none", "--iptables=false",
            "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", f"--cgroup-parent=/{self.name}",
            "--shutdown-timeout=5",
        ]  # fmt: skip
        (self.base / "pid").unlink(missing_ok=True)
        enter = ["nsenter", f"--target={self._first}", "--mount", "--pid"]
        with self.log.open("ab") as log:
            self._dockerd = subprocess.Popen([*enter, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._await("/_ping")
        if (self.base / "data/swarm/docker-state.json").exists():
            self._await("/services")

    def _join(self) -> None:
        """Begin a swarm. Its bridge has a name of its own: another engine's `docker_gwbridge` stays as it is."""
        name = {"com.docker.network.bridge.name": self.name, "com.docker.network.bridge.enable_ip_masquerade": "false"}
        port = _free_port(socket.SOCK_STREAM)
        begin = {
            "ListenAddr": f"{self.address}:{port}",
            "AdvertiseAddr": f"{self.address}:{port}",
            "DataPathPort": _free_port(socket.SOCK_DGRAM),
        }
        bridge = {"Name": "docker_gwbridge", "CheckDuplicate": True, "Options": name}
        with client(self.url) as engine:
            for path, body in (("/networks/create", bridge), ("/swarm/init", begin)):
                answer = engine.post(path, json=body)
                if answer.is_error:
                    raise RuntimeError(f"{path}: {answer.text}\n{self.log_tail()}")

    def kill(self) -> None:
        """End dockerd by SIGKILL, as the kernel would; its containers lose their parent. `start` brings it back."""
        if self._dockerd is None or self._dockerd.poll() is not None:
            return
        os.kill(self._child_of(self._dockerd), signal.SIGKILL)
        self._dockerd.wait(START_S)

    def stop(self) -> None:
        """End everything that runs in the namespace and remove its folder. Idempotent."""
        for process in (self._namespace, self._dockerd):
            if process is not None:
                process.kill()
                process.wait()
        subprocess.run(["ip", "link", "delete", self.name], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.base, ignore_errors=True)
        mounts = Path("/sys/fs/cgroup")
        for group in (mounts / self.name, *(mount / self.name for mount in mounts.glob("*/"))):  # version 2, version 1
            with contextlib.suppress(OSError):
                for below in (*group.iterdir(), group):
                    if below.is_dir():
                        below.rmdir()

    def log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:])

    def _await(self, path: str) -> None:
        until = time.monotonic() + START_S
        with client(self.url) as engine:
            while True:
                assert self._dockerd is not None
                if self._dockerd.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"dockerd does not answer {path}; its log ends with:\n{self.log_tail()}")
                with contextlib.suppress(httpx2.TransportError):
                    if not engine.get(path).is_error:
                        return
                time.sleep(0.05)

    def _child_of(self, parent: subprocess.Popen[bytes]) -> int:
        until = time.monotonic() + START_S
        while parent.poll() is None and time.monotonic() < until:
            if children := Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split():
                return int(children[0])
            time.sleep(0.01)
        raise RuntimeError(f"{parent.args!r} did not start:\n{self.log_tail()}")


def client(url: str) -> httpx2.Client:
    """Speak to the Engine at `unix:///…` or `tcp://…`, at the newest API version that it has."""
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        return httpx2.Client(
            transport=httpx2.HTTPTransport(uds=rest), base_url="http://docker", timeout=60, trust_env=False
        )
    return httpx2.Client(base_url=f"http://{rest}", timeout=60, trust_env=False)


def _free_port(kind: socket.SocketKind) -> int:
    """Below 32768: swarm wants data ports under 49152, and the kernel gives those above away."""
    for _ in range(100):
        port = 20000 + secrets.randbelow(12000)
        with socket.socket(socket.AF_INET, kind) as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise RuntimeError("no free port for a swarm")
