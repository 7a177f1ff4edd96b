"""Lists of bearer tokens: before a checker of our own, which is quick and has faults, and before a real collector."""

from __future__ import annotations

import http.client
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.servers import TestAccount, collector
from vaultkeeper.testing.port import kept

FAULTS = ("unreachable", "silent", "deaf", "accepts-all")
_SIGNALS = {"deaf": signal.SIGUSR1, "accepts-all": signal.SIGUSR2}
_SETTLES_S = 60.0  # a collector reads its file within milliseconds; a machine may stall


class _Lists:
    """A file before a process that goes by it. Every account is one more line."""

    kind = "token_list"
    path: Path
    port: int
    process: subprocess.Popen[str] | subprocess.Popen[bytes]
    _sleeps = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        """A token that works, and the settings of a target for it."""
        token = secrets.token_urlsafe(32)
        self.write([token, *self.path.read_text().split("\n")])
        settings = {"path": str(self.path), "probe": {"http": self.url, "accepted": [405], "rejected": [401]}}
        return TestAccount("", token, {**settings, **options})

    def foreign(self, account: object) -> tuple[str, str]:
        """One more line, of somebody else."""
        return "", self.account().password

    def write(self, lines: list[str]) -> None:
        """As an operator does who knows about deaf watchers."""
        beside, present = self.path.with_name("operator"), self.path.stat()
        beside.write_text("\n".join(line for line in lines if line))
        os.chown(beside, present.st_uid, present.st_gid)
        beside.chmod(present.st_mode & 0o777)
        beside.rename(self.path)

    def login(self, username: str, password: str) -> bool:
        """Ask as any client would; raises OSError where nobody answers."""
        return self._ask(password)

    def _ask(self, token: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/v1/traces", headers={"Authorization": f"Bearer {token}"})
            status = connection.getresponse().status
        finally:
            connection.close()
        if status not in (405, 401):
            raise OSError(f"the checker answered {status}")
        return status == 405

    @contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        if name == "silent":
            self.process.send_signal(signal.SIGSTOP)
            self._sleeps = True
            yield
            self._sleeps = False
            self.process.send_signal(signal.SIGCONT)
        elif name == "unreachable":
            self._end()
            with kept(self.port):
                yield
                self._start()
        else:
            self._switch(name)
            yield
            self._switch(name)

    def _start(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def _switch(self, name: str) -> None:
        raise NotImplementedError


class TokenListServer(_Lists):
    """Our own checker."""

    process: subprocess.Popen[str]

    def __init__(self, folder: Path | None = None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="vk-tokens-") if folder is None else None
        self.path = (Path(self._own.name) if self._own else folder or Path()) / "tokens"
        self.path.touch(mode=0o600)
        self.port = 0
        self._start()

    def _start(self) -> None:
        program = Path(__file__).with_name("token_checker.py")
        self.process = subprocess.Popen(
            [sys.executable, "-P", program, str(self.path), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def _switch(self, name: str) -> None:
        """Toggle, and wait for the word that it has happened."""
        assert self.process.stdout is not None
        self.process.send_signal(_SIGNALS[name])
        assert select.select([self.process.stdout], [], [], 60)[0], f"the checker did not turn {name}"
        self.process.stdout.readline()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self) -> None:
        if self.process.poll() is None:
            self._end()
        if self._own is not None:
            self._own.cleanup()


class CollectorServer(_Lists):
    """A real collector. It has the faults that a process can have."""

    def __init__(self) -> None:
        self.collector = collector.Collector()
        self.path, self.port, self.process = (
            self.collector.tokens,
            self.collector.at.ports["http"],
            self.collector.process,
        )
        self._settled = self._listed()

    def write(self, lines: list[str]) -> None:
        super().write(lines)
        self.settle()

    def login(self, username: str, password: str) -> bool:
        self.settle()
        return self._ask(password)

    def settle(self) -> None:
        """Until it goes by what was added to its list and taken off it since; one that sleeps is not asked."""
        if self._sleeps:
            return
        listed, until = self._listed(), time.monotonic() + _SETTLES_S
        changed = {token: token in listed for token in listed ^ self._settled}
        with suppress(OSError):
            while any(self._ask(t) != told for t, told in changed.items()) and time.monotonic() < until:
                time.sleep(0.002)
        self._settled = listed

    def _listed(self) -> frozenset[str]:
        return frozenset(line.split()[0] for line in self.path.read_text().splitlines() if line.split())

    def _start(self) -> None:
        self.collector.start()
        self.process = self.collector.process

    def _end(self) -> None:
        self.collector.end()

    def stop(self) -> None:
        self.collector.stop()


def start(folder: Path | None = None) -> TokenListServer:
    return TokenListServer(folder)


VARIANTS = {"plain": None, "otelcol": None}
SERVERS = {"otelcol": CollectorServer}
UNSWEPT = ("plain",)  # the kill sweep ends our own calls, and those are the same
