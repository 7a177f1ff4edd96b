"""The simulator's face to the network: HTTP on loopback, with ways to fail that a real server has."""

from __future__ import annotations

import json
import secrets
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from vaultkeeper.testing.vault.kv import KvVersion2
from vaultkeeper.testing.vault.state import Answer, Body, Request, State, Token, failure, read_json

MOST_BYTES = 32 << 20
DRIP_S = 0.05


class VaultServer:
    """Runs in a thread. `log`: method, path, headers but for credentials, and status, a line for each request."""

    def __init__(self, port: int = 0) -> None:
        self.root_token = f"s.{secrets.token_urlsafe(18)}"
        self.state = State(tokens={self.root_token: Token(("root",))})
        self.state.mounts["secret"] = KvVersion2(self.state)
        self.log: list[str] = []
        self._requests = 0
        self._losing: set[int] = set()
        self._lock = threading.Lock()
        self._http = _Listener(("127.0.0.1", port), _Handler)
        self._http.vault = self
        self.port: int = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lose_reply_of(self, *numbers: int) -> None:
        """Of the next request 1, of the one after it 2, …: it is carried out, and its answer never arrives."""
        with self._lock:
            self._losing = {self._requests + number for number in numbers}

    @property
    def requests(self) -> int:
        """How many were asked so far."""
        return self._requests

    def respond(self, request: Request) -> tuple[Answer, bool]:
        """The answer, and whether it gets lost. One request at a time."""
        with self._lock:
            self._requests += 1
            lost = self._requests in self._losing
            try:
                if self.state.redirects_to:
                    raise Answer(307, None, Location=f"{self.state.redirects_to}/v1/{request.path}")
                body = self.state.answer(request)
                answer = Answer(204 if body is None else 200, body)
            except Answer as told:
                answer = told
            except (KeyError, ValueError, TypeError, AttributeError):
                answer = failure(400, "the simulator cannot read this")
            shown = {name: value for name, value in request.headers.items() if name != "x-vault-token"}
            self.log.append(f"{request.method} {request.path} {dict(request.query)} {shown} {answer.status}")
            return answer, lost

    def stop(self) -> None:
        """Idempotent."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    vault: VaultServer


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _respond(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > MOST_BYTES:
            self.close_connection = True
            self._send(failure(413, "http: request body too large"))
            return
        raw = self.rfile.read(size)
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(parts.query))
        method = "LIST" if query.pop("list", "") == "true" else self.command
        try:
            request = Request(method, unquote(parts.path).removeprefix("/v1/"), query, headers, read_json(raw))
            answer, lost = self.server.vault.respond(request)
        except Answer as told:
            answer, lost = told, False
        if lost:
            self.close_connection = True
            return
        with suppress(OSError):
            self._send(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_LIST = _respond  # noqa: N815 - http.server's names

    def _send(self, answer: Answer) -> None:
        body: Body | None = answer.body
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        if not self.server.vault.state.drips:
            self._headers_buffer.append(b"\r\n" + content)  # type: ignore[attr-defined]  # one packet
            self.flush_headers()
            return
        self.end_headers()
        for byte in content:
            self.wfile.write(bytes([byte]))
            time.sleep(DRIP_S)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """`VaultServer.log` is the log."""
