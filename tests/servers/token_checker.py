"""A checker with a list of bearer tokens in a file, behaving like an OpenTelemetry Collector's OTLP/HTTP receiver.

As tried on contrib 0.162: the first word of a line is a token, the rest a comment; an empty or vanished file keeps the
last tokens; authentication comes before method and path; GET answers 405 with a good token and 401 with a wrong one.
It looks at the file on every request, where the collector takes milliseconds.

    python token_checker.py FILE PORT     says its port; SIGUSR1 toggles "deaf", SIGUSR2 "accepts all"
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


def main(path: str, port: str) -> None:
    """Check tokens until killed."""
    checker, switches = Checker(Path(path), int(port)), {signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, switches)  # one that comes before it is waited for is kept
    threading.Thread(target=checker.serve_forever, daemon=True).start()
    print(checker.server_port, flush=True)
    while True:
        if signal.sigwait(switches) == signal.SIGUSR1:
            checker.deaf = not checker.deaf
        else:
            checker.accepts_all = not checker.accepts_all
        print("switched", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
