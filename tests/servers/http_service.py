"""An application with accounts and a place for values, over HTTP, as one with no target of its own in vaultkeeper.

    python -P http_service.py FOLDER PORT     says its port; its state and its access log are files in FOLDER

Accounts: `PUT /users/NAME` makes one, `PUT /users/NAME/password` sets its only password, `POST /users/NAME/passwords`
adds one, `POST /users/NAME/revoke` takes one away; `PUT /tokens/ID` and `POST /tokens/revoke` do so with a token. All
of these as the administrator. `GET /whoami` takes a Basic login or a bearer token, `POST /login` a login in its body.
Values: `GET`, `PUT` and `DELETE /values/DRAWER/NAME`, and `GET /hashes/…`. `PUT /-/fault` breaks it. The access log has
what a proxy would write: method, address and status.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

Answer = tuple[int, Any]
LEAST = 8  # characters of a password
ROOT = ("root", "vk-root-of-the-application")


class Service(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder, self.file = folder, folder / "state.json"
        self.state: dict[str, Any] = {"users": {}, "tokens": {}, "values": {}}
        if self.file.exists():
            self.state = json.loads(self.file.read_text())
        self.alone = threading.RLock()
        self.fault = ""
        self.mended = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients are killed in the middle of a request; that is no news."""

    def keep(self) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(self.state))
        beside.rename(self.file)

    def note(self, line: str) -> None:
        with self.alone, (self.folder / "access.log").open("a") as log:
            log.write(line + "\n")

    def lets_in(self, header: str) -> bool:
        scheme, _, said = header.partition(" ")
        if scheme == "Bearer":
            return said in self.state["tokens"].values()
        with suppress(ValueError):
            name, _, password = base64.b64decode(said).decode().partition(":")
            return password in self.state["users"].get(name, [])
        return False


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = [unquote(part) for part in self.path.split("/")[1:]]
        if path[0] == "-":
            self.server.fault = body.decode()
            self.server.mended.clear() if body else self.server.mended.set()
            self._say(204, None)
            return
        fault = self.server.fault
        if fault == "silent":
            self.server.mended.wait(600)
        if fault in _BROKEN:
            _BROKEN[fault](self)
            return
        with self.server.alone:
            status, answer = self._answer(path, body)
        self.server.note(f"{self.command} {self.path} {status}")
        if fault == "lost-reply":
            self.close_connection = True
            return
        self._say(status, answer)

    do_GET = do_PUT = do_POST = do_DELETE = _any  # noqa: N815 - names of the base class

    def _answer(self, path: list[str], body: bytes) -> Answer:
        header = self.headers.get("Authorization", "")
        if path == ["whoami"]:
            return (200, {"welcome": True}) if self.server.lets_in(header) else (401, None)
        if path == ["login"]:
            return self._login(body)
        root = base64.b64encode(":".join(ROOT).encode()).decode()
        if header not in (f"Basic {root}", f"Bearer {ROOT[1]}"):
            return (403, None) if self.server.lets_in(header) else (401, None)
        return (200, None) if path == ["health"] else self._as_root(path, body)

    def _as_root(self, path: list[str], body: bytes) -> Answer:
        match path:
            case ["users", name]:
                self.server.state["users"][name] = [self._told(body)["password"]]
                self.server.keep()
                return 201, None
            case ["users", name, how]:
                return self._user(name, how, self._told(body))
            case ["tokens", identity]:
                return self._token(identity, body)
            case ["values" | "hashes" as how, drawer, name]:
                return self._value(how, f"{drawer}/{name}", body)
        return 404, None

    def _told(self, body: bytes) -> dict[str, Any]:
        """JSON or a form. Whatever breaks out of its string is a key too many."""
        if self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            return {key: values[0] for key, values in parse_qs(body.decode(), strict_parsing=True).items()}
        found = json.loads(body)
        assert isinstance(found, dict)
        return found

    def _login(self, body: bytes) -> Answer:
        told = self._told(body)
        good = told["password"] in self.server.state["users"].get(told["user"], [])
        return (200, None) if good and told.keys() == {"user", "password"} else (401, None)

    def _user(self, name: str, how: str, told: dict[str, Any]) -> Answer:
        held = self.server.state["users"].get(name)
        if held is None:
            return 404, None
        password = told.get("password")
        if told.keys() != {"password"} or not isinstance(password, str) or len(password) < LEAST:
            return 422, {"error": "no password", "was": told}
        kept = [] if how == "password" else [other for other in held if other != password]
        self.server.state["users"][name] = kept if how == "revoke" else [password, *kept]
        self.server.keep()
        return 204, None

    def _token(self, identity: str, body: bytes) -> Answer:
        tokens, token = self.server.state["tokens"], self._told(body)["token"]
        known = [name for name, held in tokens.items() if held == token]
        if identity == "revoke":
            for name in known:
                del tokens[name]
        else:
            tokens[identity] = token
        self.server.keep()
        return 404 if identity == "revoke" and not known else 204, None

    def _value(self, how: str, key: str, body: bytes) -> Answer:
        values = self.server.state["values"]
        if self.command == "PUT":
            values[key] = {"data": {"value": self._told(body)["value"]}, "changed_at": time.time()}
            self.server.keep()
            return 201, None
        found = values.get(key)
        if found is None:
            return 404, None
        if self.command == "DELETE":
            del values[key]
            self.server.keep()
            return 204, None
        return 200, found if how == "values" else {
            "sha256": hashlib.sha256(found["data"]["value"].encode()).hexdigest()
        }

    def _say(self, status: int, answer: Any, **headers: str) -> None:
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _redirect(self) -> None:
        self.server.note(f"{self.command} {self.path} 307")
        self._say(307, None, Location="/stolen")

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            while not self.server.mended.wait(0.05):
                self.wfile.write(b" ")

    def _flood(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            for _ in range(1 << 12):
                self.wfile.write(b'"' + b"x" * (1 << 16))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Its own log is enough."""


_BROKEN = {
    "throttled": lambda handler: handler._say(429, None, Retry_After="7"),
    "busy": lambda handler: handler._say(503, None, Retry_After="8"),
    "failing": lambda handler: handler._say(503, None),
    "redirecting": _Handler._redirect,
    "dripping": _Handler._drip,
    "huge": _Handler._flood,
}

if __name__ == "__main__":
    service = Service(Path(sys.argv[1]), int(sys.argv[2]))
    print(service.server_port, flush=True)
    service.serve_forever()
