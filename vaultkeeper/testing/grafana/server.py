"""The simulated Grafana on loopback, and how it can go wrong."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from vaultkeeper.testing.grafana import people, robots, sources
from vaultkeeper.testing.grafana.calls import ROUTES, Answer, Call, caller, told
from vaultkeeper.testing.grafana.state import LogIn, State
from vaultkeeper.testing.port import kept

ANSWERED_BY = (people, robots, sources)  # importing them fills the table


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    given: Any = field(repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class SimulatedGrafana:
    """`state` is the world behind it. `seen` keeps every request, `log` what a server's log would show of it.

    `log_in` is how its data sources log in, for their health check. `tls` makes it speak https.
    """

    def __init__(self, *, speed: float = 1.0, log_in: LogIn | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.state = State(speed=speed, log_in=log_in)
        self.seen: list[Seen] = []
        self.log: list[str] = []
        self.faults: list[Callable[[Seen], str | None]] = []  #: answer in its place, newest first
        self.before: list[Callable[[Seen], None]] = []  #: run before a request is answered: another editor, say
        self._server: _Server | None = None
        self._tls = tls
        self.port = 0
        self.start()

    def start(self) -> None:
        """On the same port as before. Idempotent."""
        if self._server is None:
            self._server = _Server(self, self.port)
            if self._tls is not None:
                self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
            self.port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Nobody answers any more. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.released.set()
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @contextmanager
    def fault(self, what: str, asked: str = "", *, times: int | None = None) -> Iterator[None]:
        """For a block, and only so many `times`, requests that begin with `asked` ("PUT /api/user") meet a fault.

        `lost-reply` (done, and nobody hears of it), `silent`, `redirect`, `html`, `429`, `500`, `unreachable` (all of
        them: the port is closed).
        """
        if what == "unreachable":
            self.stop()
            with kept(self.port):
                yield
                self.start()
            return
        left = [times]

        def strike(seen: Seen) -> str | None:
            if not str(seen).startswith(asked) or left[0] == 0:
                return None
            left[0] = None if left[0] is None else left[0] - 1
            return what

        self.faults.insert(0, strike)
        try:
            yield
        finally:
            self.faults.remove(strike)
            if self._server is not None:
                self._server.released.set()
                self._server.released = threading.Event()

    # ---------------------------------------------------------------------------------------------------------- answers

    def answer(self, method: str, target: str, headers: dict[str, str], content: bytes) -> Answer:
        """One request at a time."""
        address = urlsplit(target)
        path = unquote(address.path.removeprefix(self.state.prefix))
        try:
            given = json.loads(content) if content else {}
        except ValueError:
            return told(400, "bad request data")
        seen = Seen(method, path, given)
        with self.state.lock:
            for act in self.before:
                act(seen)
            self.seen.append(seen)
            try:
                found = Answer(200, self._answered(method, path, dict(parse_qsl(address.query)), headers, given))
            except Answer as other:
                found = other
            self.log.append(f"{self.state.stamp()} {method} {address.path} status={found.status}")
        return found

    def _answered(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], given: Any) -> Any:
        """Raises Answer."""
        state = self.state
        if path == "/api/health":
            well = "failing" if state.database_fails else "ok"
            raise Answer(503 if state.database_fails else 200, {"database": well, "version": "12.4.0", "commit": "sim"})
        if (method, path) == ("POST", "/login"):
            return people.log_in_by_form(state, given)
        who = caller(state, headers, path)
        for known, pattern, handler in ROUTES:
            match = pattern.fullmatch(path)
            if match and known == method:
                return handler(Call(state, method, path, query, headers, given, who, match.groupdict()))
        raise told(404, "Not found")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, simulated: SimulatedGrafana, port: int) -> None:
        self.simulated = simulated
        self.released = threading.Event()  #: whoever is kept waiting may go
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked may be killed before it has its answer."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        simulated, path = self.server.simulated, urlsplit(self.path).path
        seen = Seen(self.command, path.removeprefix(simulated.state.prefix), None)
        fault = next((f for strike in list(simulated.faults) if (f := strike(seen))), None)
        if fault == "silent":
            self.server.released.wait()
            self.close_connection = True
        elif fault == "redirect":
            self._send(Answer(302, None, location=f"{simulated.url}/login"))
        elif fault == "html":
            self._send(Answer(200, "<!DOCTYPE html><title>Sign in</title>"))
        elif fault in ("429", "500"):
            self._send(Answer(int(fault), {"message": "failed"}))
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = simulated.answer(self.command, self.path, headers, content)
            if fault == "lost-reply":
                self.close_connection = True
            else:
                self._send(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - http.server's names

    def _send(self, answer: Answer) -> None:
        plain = isinstance(answer.body, str)
        body = b"" if answer.body is None else str(answer.body).encode() if plain else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/plain; charset=utf-8" if plain else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in answer.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if answer.status != 304:
            self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """By the simulated clock, as the Date header tells it."""
        return format_datetime(self.server.simulated.state.now(), usegmt=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """`SimulatedGrafana.log` is the log."""
