"""The application of `http_service.py` in a process of its own: accounts that are changed by requests."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.servers import TestAccount
from tests.servers.http_service import ROOT
from vaultkeeper.testing.port import kept

FAULTS = ("unreachable", "silent", "lost-reply", "throttled", "busy", "failing", "redirecting", "dripping", "huge")


class ApplicationServer:
    """One process for one test after the other."""

    kind = "http"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vk-application-"))
        self.key = self.folder / "root"
        self.key.write_text(ROOT[1])
        self.port = 0
        self.process: subprocess.Popen[str]
        self._start()

    def _start(self) -> None:
        program = Path(__file__).with_name("http_service.py")
        argv = [sys.executable, "-P", str(program), str(self.folder), str(self.port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> dict[str, object]:
        return {"username": ROOT[0], "password": {"file": str(self.key)}}

    @property
    def access_log(self) -> str:
        log = self.folder / "access.log"
        return log.read_text() if log.exists() else ""

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        """An account that accepts several passwords, which log in by a body."""
        name, password = self.user(name)
        at = f"{self.url}/users/{{username}}"
        gone = {"body": "password={password|url}", "content_type": "application/x-www-form-urlencoded"}
        settings = {
            "strategy": "overlap",
            "user": name,
            "admin": self.admin,
            "set": {"http": f"{at}/passwords", "body": {"password": "{password}"}},
            "refuse": {"method": "POST", "http": f"{at}/revoke", **gone},
            "test": {
                "method": "POST", "http": f"{self.url}/login", "body": {"user": "{username}", "password": "{value}"},
            },
        }  # fmt: skip
        return TestAccount(name, password, {**settings, **options})

    def user(self, name: str | None = None) -> tuple[str, str]:
        """One more account: its name and password."""
        name, password = name or f"app_{secrets.token_hex(4)}", secrets.token_urlsafe(24)
        assert self.ask("PUT", f"/users/{quote(name, safe='')}", {"password": password}) == 201
        return name, password

    def one_password(self, *names: str) -> dict[str, object]:
        """Settings for accounts that have one password each, and log in with it at every request."""
        turns: dict[str, object] = {"strategy": "alternating_users", "users": list(names)}
        return {
            **(turns if len(names) > 1 else {"strategy": "single", "user": names[0]}),
            "admin": {"token": {"file": str(self.key)}},
            "set": {
                "method": "PUT", "http": f"{self.url}/users/{{username}}/password", "body": {"password": "{value}"},
            },
            "test": {"http": f"{self.url}/whoami", "login": "basic"},
            "check": {"method": "GET", "http": f"{self.url}/health"},
        }  # fmt: skip

    def foreign(self, account: TestAccount) -> tuple[str, str]:
        """A value beside the account's own, where it may have several; else another account."""
        password, told = secrets.token_urlsafe(24), quote(account.username, safe="")
        if account.username and "refuse" not in account.settings:
            return self.user()
        if account.username:
            assert self.ask("POST", f"/users/{told}/passwords", {"password": password}) == 204
        else:
            assert self.ask("PUT", f"/tokens/{secrets.token_hex(8)}", {"token": password}) == 204
        return account.username, password

    def login(self, username: str, password: str) -> bool:
        """As any client would."""
        spelt = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        status = self.ask("GET", "/whoami", header=spelt if username else f"Bearer {password}")
        if status not in (200, 401):
            raise OSError(f"the application answered {status}")
        return status == 200

    def state(self) -> dict[str, Any]:
        """What it keeps."""
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    def ask(self, method: str, path: str, told: object = None, *, header: str = f"Bearer {ROOT[1]}") -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        try:
            connection.request(method, path, body, {"Authorization": header})
            return connection.getresponse().status
        finally:
            connection.close()

    @contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        if name == "unreachable":
            self._end()
            with kept(self.port):
                yield
                self._start()
            return
        self.ask("PUT", "/-/fault", name)
        try:
            yield
        finally:
            self.ask("PUT", "/-/fault", "")

    def stop(self) -> None:
        if self.process.poll() is None:
            self._end()
        shutil.rmtree(self.folder, ignore_errors=True)


def start() -> ApplicationServer:
    return ApplicationServer()


def _single(server: ApplicationServer) -> TestAccount:
    name, password = server.user()
    return TestAccount(name, password, server.one_password(name))


def _taking_turns(server: ApplicationServer) -> TestAccount:
    (first, password), (second, _) = server.user(), server.user()
    return TestAccount(first, password, server.one_password(first, second))


def _token(server: ApplicationServer) -> TestAccount:
    """No account at all: a list of tokens, the newest known by the id of its version."""
    _, token = server.foreign(TestAccount("", ""))
    settings = {
        "strategy": "overlap",
        "admin": server.admin,
        "set": {"method": "PUT", "http": f"{server.url}/tokens/{{version_id}}", "body": {"token": "{value}"}},
        "refuse": {"method": "POST", "http": f"{server.url}/tokens/revoke", "body": {"token": "{value}"}},
        "test": {"http": f"{server.url}/whoami", "login": "token"},
    }
    return TestAccount("", token, settings)


VARIANTS: Mapping[str, Callable[[ApplicationServer], TestAccount] | None] = {
    "overlap": None,
    "single": _single,
    "alternating": _taking_turns,
    "token": _token,
}
UNSWEPT = ("single", "token")  # the requests of the others, or fewer
