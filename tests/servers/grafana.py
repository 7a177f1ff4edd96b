"""A Grafana for tests, set up by its own API: the simulator, or the real server of `VAULTKEEPER_TEST_GRAFANA_URL`.

For a real one `VAULTKEEPER_TEST_GRAFANA_USER` is a server admin (default: admin) and
`VAULTKEEPER_TEST_GRAFANA_PASSWORD_FILE` holds its password. What tests make there is removed at the end. A proxy stands
in front of both, so that both can fail alike. A stub plays the Prometheus that data sources log in at.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tests.servers.proxy import Proxy
from vaultkeeper.testing.grafana import SimulatedGrafana, State

URL, USER, PASSWORD_FILE = (f"VAULTKEEPER_TEST_GRAFANA_{name}" for name in ("URL", "USER", "PASSWORD_FILE"))
WRITES = r"(PUT|POST|DELETE) \S*/api/\S*(password|tokens|datasources)"
FAULTS = ("unreachable", "silent", "lost-reply")
MAIN_ORG = 1


class Refusal(Exception):
    """The server said no."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


class Grafanas:
    """One running server with a server admin of our own (`admin`), whose password is in a file."""

    def __init__(self, *, speed: float = 1.0) -> None:
        self.simulator: SimulatedGrafana | None = None
        address, self._root = os.environ.get(URL), basic(os.environ.get(USER, "admin"), _password())
        if address is None:
            self.simulator = SimulatedGrafana(speed=speed, log_in=log_in_by_http)
            address = self.simulator.url
            self._root = basic("admin", self.simulator.state.admin.password)
        parts = urlsplit(address)
        self._direct, self.prefix = (parts.hostname or "", parts.port or 3000), parts.path.rstrip("/")
        self.proxy = Proxy(self._direct[1], self._direct[0])
        self.url = f"http://127.0.0.1:{self.proxy.port}{self.prefix}"
        self.folder = Path(tempfile.mkdtemp(prefix="vk-grafana-"))
        self._made: list[str] = []  #: paths to delete at the end
        self.admin = f"vk-ops-{secrets.token_hex(4)}"
        self.admin_password = secrets.token_urlsafe(24)
        made = self.user(self.admin, self.admin_password)
        self.api("PUT", f"/api/admin/users/{made}/permissions", {"isGrafanaAdmin": True})
        self.api("PATCH", f"/api/org/users/{made}", {"role": "Admin"})
        self.admin_file = self.file("admin", self.admin_password)

    @property
    def state(self) -> State:
        """Of the simulator alone."""
        assert self.simulator is not None
        return self.simulator.state

    @property
    def by_password(self) -> dict[str, Any]:
        """As `admin` or `auth` of a policy."""
        return {"username": self.admin, "password": {"file": str(self.admin_file)}}

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content + "\n")
        path.chmod(0o600)
        return path

    def user(self, login: str, password: str, email: str = "") -> int:
        """Its id."""
        body = {"name": login, "login": login, "email": email or f"{secrets.token_hex(6)}@example.test"}
        made = self.api("POST", "/api/admin/users", {**body, "password": password})
        self._made.append(f"/api/admin/users/{made['id']}")
        return int(made["id"])

    def service_account(self, role: str = "None", *, edits_itself: bool = False) -> tuple[int, str]:
        """(id, name)."""
        name = f"vk-app-{secrets.token_hex(4)}"
        made = self.api("POST", "/api/serviceaccounts", {"name": name, "role": role, "isDisabled": False})
        self._made.append(f"/api/serviceaccounts/{made['id']}")
        if edits_itself:
            grant = f"/api/access-control/serviceaccounts/{made['id']}/users/{made['id']}"
            self.api("POST", grant, {"permission": "Edit"})
        return int(made["id"]), name

    def token(self, account: int, name: str) -> str:
        return str(self.api("POST", f"/api/serviceaccounts/{account}/tokens", {"name": name})["key"])

    def source(self, **body: object) -> str:
        """Its uid."""
        given = {"name": f"vk-source-{secrets.token_hex(4)}", "access": "proxy", "isDefault": False, **body}
        made = self.api("POST", "/api/datasources", given)
        self._made.append(f"/api/datasources/uid/{made['datasource']['uid']}")
        return str(made["datasource"]["uid"])

    def is_let_in(self, login: Mapping[str, str]) -> bool:
        """By the headers of a client that knows nothing of vaultkeeper."""
        try:
            self.api("GET", "/api/user", headers=login)
        except Refusal as refused:
            if refused.status == 401:
                return False
            raise
        return True

    def api(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> Any:
        """As any client asks, past the proxy; as the server's own admin where no `headers` say who. Raises Refusal."""
        connection = http.client.HTTPConnection(*self._direct, timeout=60)
        plain = {"Content-Type": "application/json", "X-Grafana-Org-Id": str(MAIN_ORG)}
        sent = {**plain, **(headers or self._root), **({"X-Grafana-NoCache": "true"} if fresh else {})}
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, quote(f"{self.prefix}{path}", safe="/?=&"), content, sent)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        document = json.loads(raw) if raw[:1] in (b"{", b"[") else None
        if answer.status >= 300:
            raise Refusal(answer.status, document)
        return document

    @contextmanager
    def fault(self, name: str, losing: str = WRITES) -> Iterator[None]:
        """`losing`: whose reply gets lost."""
        if name == "unreachable":
            with self.proxy.refusing():
                yield
        elif name == "silent":
            with self.proxy.blackhole():
                yield
        else:
            with self.proxy.losing(losing):
                yield

    def stop(self) -> None:
        self.proxy.close()
        if self.simulator is not None:
            self.simulator.stop()
        else:
            for path in reversed(self._made):
                self.api("DELETE", path)
        self._made.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def _password() -> str:
    path = os.environ.get(PASSWORD_FILE)
    return Path(path).read_text().strip() if path else ""


# ----------------------------------------------------------------------------------------------- what sources log in at


class Prometheus:
    """A stub that remembers with which headers it was asked, and lets in who `accepts` says."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, str]] = []
        self.accepts: Any = lambda _headers: True
        handler = type("Bound", (_Asked,), {"place": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Asked(BaseHTTPRequestHandler):
    place: Prometheus

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        self.place.asked.append(headers)
        found = {"status": "success", "data": {"resultType": "scalar", "result": [0, "2"]}}
        body = json.dumps(found).encode()
        self.send_response(200 if self.place.accepts(headers) else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Headers hold values."""


def log_in_by_http(row: Mapping[str, Any], secure: Mapping[str, str]) -> str | None:
    """As Grafana's plugin for Prometheus asks: with basic auth, and with headers of its own."""
    parts = urlsplit(str(row["url"]))
    headers: dict[str, str] = {}
    if row["basicAuth"]:
        headers |= basic(str(row["basicAuthUser"]), secure.get("basicAuthPassword", ""))
    for key, name in row["jsonData"].items():
        number = key.removeprefix("httpHeaderName")
        if number != key and (value := secure.get(f"httpHeaderValue{number}")):
            headers[str(name)] = value
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("GET", "/api/v1/query?query=1%2B1", headers=headers)
        status = connection.getresponse().status
    except OSError as error:
        return f"Post {row['url']}/api/v1/query: {type(error).__name__}"
    finally:
        connection.close()
    if status == 401:
        return "401 Unauthorized - There was an error returned querying the Prometheus API."
    return None if status == 200 else f"{status} - There was an error returned querying the Prometheus API."


def log_in_at_postgres(row: Mapping[str, Any], secure: Mapping[str, str]) -> str | None:
    """As Grafana's plugin for PostgreSQL does, and in its words."""
    import psycopg

    host, _, port = str(row["url"]).partition(":")
    user, database = str(row["user"]), str(row["database"])
    login = {"user": user, "password": secure.get("password", ""), "dbname": database, "sslmode": "disable"}
    try:
        psycopg.connect(host=host, port=int(port), connect_timeout=60, **login).close()  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        said = str(error).strip().rpartition("FATAL:  ")[2]
        state = "28P01" if "authentication failed" in said else "42501" if "permission denied" in said else "08006"
        reached = f"failed to connect to `user={user} database={database}`: {host}:{port} ({host})"
        return f"{reached}: server error: FATAL: {said} (SQLSTATE {state})"
    return None
