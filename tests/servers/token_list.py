"""A checker with a list of bearer tokens in a file, behaving like an OpenTelemetry Collector's OTLP/HTTP receiver.

As tried on contrib 0.162: the first word of a line is a token, the rest a comment; an empty or vanished file keeps the
last tokens; authentication comes before method and path; GET answers 405 with a good token and 401 with a wrong one.
It looks at the file on every request, where the collector takes milliseconds.
"""

from __future__ import annotations

import http.client
import json
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = ("unreachable", "silent", "deaf", "accepts-all")
_SIGNALS = {"deaf": signal.SIGUSR1, "accepts-all": signal.SIGUSR2}
_REFUSED = json.dumps(
    {"code": 16, "message": "provided authorization does not match expected scheme or token"}
).encode()


class Checker(ThreadingHTTPServer):
    """The process that checks."""

    daemon_threads = True

    def __init__(self, path: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.path = path
        self.seen: tuple[int, ...] = ()
        self.tokens: frozenset[str] = frozenset()
        self.deaf = self.accepts_all = False

    def accepts(self, header: str) -> bool:
        with suppress(OSError):
            found = self.path.stat()
            identity = (found.st_ino, found.st_mtime_ns, found.st_size)
            if identity != self.seen and not self.deaf:
                lines = self.path.read_text().strip().splitlines()
                self.seen = identity
                self.tokens = frozenset(line.split()[0] for line in lines if line.split()) or self.tokens
        return self.accepts_all or any(secrets.compare_digest(header, f"Bearer {token}") for token in self.tokens)


class _Handler(BaseHTTPRequestHandler):
    server: Checker
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        good = self.server.accepts(self.headers.get("Authorization", ""))
        body = b"" if good else _REFUSED
        self.send_response(405 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """A collector's log shows neither accepted nor refused tokens."""


class TokenListServer:
    """A checker process and its list. Every account is one more line."""

    kind = "token_list"

    def __init__(self, folder: Path | None = None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="vk-tokens-") if folder is None else None
        self.path = (Path(self._own.name) if self._own else folder or Path()) / "tokens"
        self.path.touch(mode=0o600)
        self.port = 0
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.path), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

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
        beside = self.path.with_name("operator")
        beside.write_text("\n".join(line for line in lines if line))
        beside.chmod(self.path.stat().st_mode & 0o777)
        beside.rename(self.path)

    def login(self, username: str, password: str) -> bool:
        """Ask as any client would; raises OSError where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/v1/traces", headers={"Authorization": f"Bearer {password}"})
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
            yield
            self.process.send_signal(signal.SIGCONT)
        elif name == "unreachable":
            self._end()
            yield
            self._start()
        else:
            self._switch(name)
            yield
            self._switch(name)

    def _switch(self, name: str) -> None:
        """Toggle, and wait for the word that it has happened."""
        assert self.process.stdout is not None
        self.process.send_signal(_SIGNALS[name])
        assert select.select([self.process.stdout], [], [], 10)[0], f"the checker did not turn {name}"
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


def start(folder: Path | None = None) -> TokenListServer:
    return TokenListServer(folder)


def main(path: str, port: str) -> None:
    """Check tokens until killed."""
    checker = Checker(Path(path), int(port))

    def toggle(number: int, _frame: object) -> None:
        if number == signal.SIGUSR1:
            checker.deaf = not checker.deaf
        else:
            checker.accepts_all = not checker.accepts_all
        print("switched", flush=True)

    signal.signal(signal.SIGUSR1, toggle)
    signal.signal(signal.SIGUSR2, toggle)
    print(checker.server_port, flush=True)
    threading.Thread(target=checker.serve_forever, daemon=True).start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
else:
    from tests.servers import TestAccount
