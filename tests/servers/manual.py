"""A vendor's API whose keys only people make and revoke, on a page of their own; a real process that keeps them.

A customer has any number of keys. `GET /v1/account` answers 200 to a good key and 401 to any other, as
`Authorization: Bearer KEY` or, where the customer's id belongs to the credential, as Basic; 429 while it throttles.
The page is another address of the same process with a login that no policy knows.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FAULTS = ("unreachable", "silent", "throttled", "accepts-all")
PREFIX = "vk_live_"
PAGE = "/dashboard/apikeys"
ACCOUNT = "/v1/account"
_SIGNALS = {"throttled": signal.SIGUSR1, "accepts-all": signal.SIGUSR2}


class Vendor(ThreadingHTTPServer):
    """The process. Keys are on disk, so that it may be stopped and started."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients are killed here all the time."""

    def __init__(self, keys: Path, login: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.path, self.login_of_people = keys, login
        self.lock = threading.Lock()
        self.keys: dict[str, str] = json.loads(keys.read_text())  #: key → customer
        self.throttled = self.accepts_all = False

    def change(self, key: str, customer: str | None) -> None:
        with self.lock:
            if customer is None:
                self.keys.pop(key, None)
            else:
                self.keys[key] = customer
            self.path.write_text(json.dumps(self.keys))

    def accepts(self, header: str) -> bool:
        scheme, _, credential = header.partition(" ")
        customer = None
        if scheme == "Basic":
            customer, _, credential = base64.b64decode(credential).decode().partition(":")
        owner = self.keys.get(credential)
        return self.accepts_all or (owner is not None and customer in (None, owner))


class _Handler(BaseHTTPRequestHandler):
    server: Vendor
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.server.throttled:
            self._answer(429, {"error": "too many requests"})
        elif self.path == ACCOUNT and self.server.accepts(self.headers.get("Authorization", "")):
            self._answer(200, {"object": "account"})
        else:
            self._answer(401 if self.path == ACCOUNT else 404, {"error": "no such key"})

    def do_POST(self) -> None:
        """What the page does for whoever is logged in there: {"key": …, "customer": … or null}."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        known = self.headers.get("Cookie") == f"session={self.server.login_of_people}"
        if known and self.path == PAGE:
            self.server.change(**json.loads(body))
        self._answer(200 if known else 403, {})

    def _answer(self, status: int, document: Mapping[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """An access log: user agent and status, as vendors keep one. Never a header that holds a key."""
        with self.server.path.with_name("access.log").open("a") as log:
            log.write(f"{self.command} {self.path} {args[1]} {self.headers.get('User-Agent', '')}\n")


class VendorServer:
    """The process, and the people who have a login to its page."""

    kind = "manual"

    def __init__(self, folder: Path | None = None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="vk-vendor-") if folder is None else None
        self.folder = Path(self._own.name) if self._own else folder or Path()
        self.login_of_people = secrets.token_hex(16)
        self.customers: dict[str, str] = {}  #: by the first key of each
        self.port = 0
        (self.folder / "keys").write_text("{}")
        self._start()

    def _start(self) -> None:
        argv = [sys.executable, "-P", __file__, str(self.folder / "keys"), self.login_of_people, str(self.port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        """A customer with a key that works, asked by a request."""
        probe = {"http": f"{self.url}{ACCOUNT}", "accepted": [200], "rejected": [401]}
        rules = {"prefix": PREFIX, "min_length": 40}
        key = self._first_key(name or f"customer-{len(self.customers)}")
        return TestAccount("", key, {"link": f"{self.url}{PAGE}", "probe": probe, **rules, **options})

    def pair(self, customer: str) -> TestAccount:
        """A customer whose id belongs to the credential, asked by a program that is given both."""
        program = self.folder / "probe.py"
        program.write_text(_PROGRAM.format(port=self.port, path=ACCOUNT))
        probe = {"command": [sys.executable, str(program)]}
        rules = {"prefix": {"password": PREFIX}, "min_length": {"password": 40}}
        key = self._first_key(customer)
        return TestAccount(customer, key, {"link": f"{self.url}{PAGE}", "probe": probe, **rules})

    def _first_key(self, customer: str) -> str:
        key = self._make(customer)
        self.customers[key] = customer
        return key

    def _make(self, customer: str) -> str:
        key = PREFIX + secrets.token_hex(24)
        self._click({"key": key, "customer": customer})
        return key

    def make(self, account: Any) -> str:
        """What its owner does on the page: one more key beside those that work."""
        return self._make(self.customers[account.password])

    def revoke(self, account: Any, value: str) -> None:
        self._click({"key": value, "customer": None})

    def foreign(self, account: Any) -> tuple[str, str]:
        """A key that a colleague made for himself."""
        return account.username, self.make(account)

    def _click(self, form: Mapping[str, object]) -> None:
        headers = {"Cookie": f"session={self.login_of_people}"}
        assert self._ask("POST", PAGE, headers, json.dumps(form)) == 200

    def login(self, username: str, password: str) -> bool:
        """Use a key as any client would; raises OSError where nobody answers."""
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        status = self._ask("GET", ACCOUNT, {"Authorization": f"Basic {pair}" if username else f"Bearer {password}"})
        if status not in (200, 401):
            raise OSError(f"the vendor answered {status}")
        return status == 200

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: str | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            return connection.getresponse().status
        finally:
            connection.close()

    def log(self) -> list[str]:
        """Its access log."""
        path = self.folder / "access.log"
        return path.read_text().splitlines() if path.exists() else []

    def refused_logins(self) -> int:
        """As its access log tells."""
        return sum(f"{ACCOUNT} 401" in line for line in self.log())

    @contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        if name == "silent":
            self.process.send_signal(signal.SIGSTOP)
            yield
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

    def _switch(self, name: str) -> None:
        """Toggle, and wait for the word that it has happened."""
        assert self.process.stdout is not None
        self.process.send_signal(_SIGNALS[name])
        assert select.select([self.process.stdout], [], [], 60)[0], f"the vendor did not turn {name}"
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


_PROGRAM = """\
import base64, http.client, json, sys

given = json.load(sys.stdin)
pair = base64.b64encode((given["username"] + ":" + given["password"]).encode()).decode()
try:
    connection = http.client.HTTPConnection("127.0.0.1", {port}, timeout=30)
    connection.request("GET", "{path}", headers={{"Authorization": "Basic " + pair, "User-Agent": "vaultkeeper"}})
    status = connection.getresponse().status
except OSError:
    status = 0
sys.exit({{200: 0, 401: 1, 429: 75}}.get(status, 2))
"""


def start(folder: Path | None = None) -> VendorServer:
    return VendorServer(folder)


def main(keys: str, login: str, port: str) -> None:
    """Serve until killed."""
    vendor, switches = Vendor(Path(keys), login, int(port)), {signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, switches)  # one that comes before it is waited for is kept
    threading.Thread(target=vendor.serve_forever, daemon=True).start()
    print(vendor.server_port, flush=True)
    while True:
        if signal.sigwait(switches) == signal.SIGUSR1:
            vendor.throttled = not vendor.throttled
        else:
            vendor.accepts_all = not vendor.accepts_all
        print("switched", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
else:
    from tests.servers import TestAccount
    from vaultkeeper.testing.port import kept
