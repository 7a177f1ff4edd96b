"""The simulated Dokploy on loopback, and how it can go wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from vaultkeeper.testing.dokploy import containers, keys, services
from vaultkeeper.testing.dokploy.calls import EMPTY, Answer, Call, answer
from vaultkeeper.testing.dokploy.state import Key, Parse, Resolve, State
from vaultkeeper.testing.port import kept

ANSWERED_BY = (containers, keys, services)  # importing them fills the tables
_VERIFICATIONS_PER_CALL, _LIMIT = 2, 10


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    method: str
    procedure: str
    given: dict[str, Any]


class SimulatedDokploy:
    """`state` is the world behind it. `seen` keeps every request; `faults` answer in its place, newest first.

    `parse` and `resolve` read environments: dotenv 16.4.5's rules and Dokploy's references.
    """

    def __init__(self, parse: Parse, resolve: Resolve, *, speed: float = 1.0) -> None:
        self.state = State(parse, resolve, speed=speed)
        self.seen: list[Seen] = []
        self.faults: list[Callable[[Seen], str | None]] = []
        self.before: list[Callable[[Seen], None]] = []  #: run before a request is answered: another editor, say
        self._server: _Server | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """On the same port as before. Idempotent."""
        if self._server is None:
            self._server = _Server(self, self.port)
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
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def fault(self, what: str, procedure: str = "", *, times: int | None = None) -> Iterator[None]:
        """For a block, and only so many `times`, requests whose name begins with `procedure` meet a fault.

        `lost-reply` (done, and nobody hears of it), `silent`, `dripping`, `redirect`, `html`, `empty`, `429`, `500`,
        `unreachable` (all of them: the port is closed).
        """
        if what == "unreachable":
            self.stop()
            with kept(self.port):
                yield
                self.start()
            return
        left = [times]

        def strike(seen: Seen) -> str | None:
            if not seen.procedure.startswith(procedure) or left[0] == 0:
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

    def answer(self, method: str, path: str, key: str | None, content: bytes, kind: str) -> tuple[int, bytes]:
        """Status and body."""
        address = urlsplit(path)
        procedure = address.path.removeprefix("/api/")
        if procedure == "health":
            return 200, b'{"ok":true}'
        try:
            given = dict(parse_qsl(address.query, keep_blank_values=True)) if method == "GET" else json.loads(content)
        except ValueError:
            return 400, b"Invalid JSON"
        seen = Seen(method, procedure, given)
        with self.state.lock:
            self.state.settle()
            for act in self.before:
                act(seen)
            self.seen.append(seen)
            known = self._verified(key)
            if known is None:
                return 401, b'{"message":"Unauthorized"}'
            user = self.state.users[known.user]
            try:
                if method == "POST" and kind != "application/json":
                    raise Answer(415, f'Unsupported content-type "{kind}', "UNSUPPORTED_MEDIA_TYPE")
                told = answer(Call(self.state, procedure, user, known, given), reads=method == "GET")
            except Answer as other:
                return other.status, json.dumps(_problem(procedure, other)).encode()
        return 200, b"" if told is EMPTY else json.dumps(told).encode()

    def _verified(self, value: str | None) -> Key | None:
        """A wrong, a deleted, an expired and an exhausted key are refused alike."""
        found = next((key for key in self.state.keys.values() if key.value == value), None)
        if found is None or not found.enabled or (found.expires_at and found.expires_at <= datetime.now(UTC)):
            return None
        if found.limited:
            found.spent += _VERIFICATIONS_PER_CALL
            if found.spent > _LIMIT:
                return None
        return found


def _problem(procedure: str, other: Answer) -> dict[str, Any]:
    data: dict[str, Any] = {"code": other.code, "httpStatus": other.status, "zodError": None}
    if other.message != "Not found":
        data["path"] = procedure
    shown: dict[str, Any] = {"message": other.message, "code": other.code, "data": data}
    if other.issues is not None:
        complaints = {i["path"][0]: f"Invalid input: expected {i.get('expected', 'less')}" for i in other.issues}
        fields = {name: [text] for name, text in complaints.items()}
        data["zodError"] = {"formErrors": [], "fieldErrors": fields}
        shown["issues"] = [{**i, "message": complaints[i["path"][0]]} for i in other.issues]
    return shown


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, simulated: SimulatedDokploy, port: int) -> None:
        self.simulated = simulated
        self.released = threading.Event()  #: whoever is kept waiting may go
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked may be killed before it has its answer."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _handle(self, content: bytes) -> None:
        simulated, procedure = self.server.simulated, urlsplit(self.path).path.removeprefix("/api/")
        fault = next((f for strike in list(simulated.faults) if (f := strike(Seen(self.command, procedure, {})))), None)
        if fault == "silent":
            self.server.released.wait()
            self.close_connection = True
        elif fault == "redirect":
            self._send(302, b"", location=f"{simulated.url}/elsewhere")
        elif fault == "html":
            self._send(200, b"<!DOCTYPE html><title>Sign in</title>")
        elif fault == "empty":
            self._send(200, b"")
        elif fault == "429":
            self._send(429, b"slow down", retry_after="7")
        elif fault == "500":
            self._send(500, b'{"message":"failed","code":"INTERNAL_SERVER_ERROR"}')
        else:
            key, kind = self.headers.get("x-api-key"), self.headers.get("Content-Type", "")
            status, body = simulated.answer(self.command, self.path, key, content, kind)
            if fault == "lost-reply":
                self.close_connection = True
            else:
                self._send(status, body, dripping=fault == "dripping")

    def _send(self, status: int, body: bytes, *, dripping: bool = False, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if not dripping:
            self.wfile.write(body)
            return
        for byte in body:
            if self.server.released.is_set():
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Addresses hold ids, and bodies hold secrets."""
