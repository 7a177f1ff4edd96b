"""A secret that nobody checks, delivered into a key-value store: the rotation, and what it cannot do without.

The server is the simulator in a process of its own, or that of VAULTKEEPER_TEST_VAULT_ADDR with
VAULTKEEPER_TEST_VAULT_TOKEN. The bare side speaks over one kept connection with http.client.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from vaultkeeper.access import http as http_access
from vaultkeeper.model.policy import DestinationSpec, Read

COMMITS = 5
"""Open it, reserve the number, begin to prepare, to deliver, to release; end it."""
RECORDS = 2
"""In the audit log: a delivery begins, it has ended."""
BLOCK = b"\0" * 4096


class Vault:
    """One server, a mount and a role at it. `folder` is its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._process = folder, None
        address, self._root = (
            os.environ.get("VAULTKEEPER_TEST_VAULT_ADDR"),
            os.environ.get("VAULTKEEPER_TEST_VAULT_TOKEN"),
        )
        if address is None:
            argv = [sys.executable, "-m", "vaultkeeper.testing.vault"]
            self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            told = self._process.stdout.readline() if self._process.stdout else ""
            address, self._root = told.split()
        self._url, parts = address, urlsplit(address)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 8200)
        self.mount = f"bench-{secrets.token_hex(4)}"
        self._set_up()

    def _set_up(self) -> None:
        rules = {f"{self.mount}/data/*": ["create", "read", "update"]}
        policy = "\n".join(f'path "{path}" {{ capabilities = {json.dumps(may)} }}' for path, may in rules.items())
        self._ask("POST", f"sys/mounts/{self.mount}", {"type": "kv", "options": {"version": "2"}}, self._root)
        self._ask("POST", f"sys/auth/{self.mount}", {"type": "approle"}, self._root)
        self._ask("POST", f"sys/policies/acl/{self.mount}", {"policy": policy}, self._root)
        role = f"auth/{self.mount}/role/bench"
        self._ask("POST", role, {"token_policies": self.mount, "token_ttl": "5m"}, self._root)
        self._role_id = self._ask("GET", f"{role}/role-id", None, self._root)["data"]["role_id"]
        self._secret_id = self._ask("POST", f"{role}/secret-id", {}, self._root)["data"]["secret_id"]
        for name, text in (("role-id", self._role_id), ("secret-id", self._secret_id)):
            (self._folder / name).write_text(text)

    def __enter__(self) -> Self:
        self._journal = os.open(self._folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._journal)
        self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        else:
            for path in (f"sys/mounts/{self.mount}", f"sys/auth/{self.mount}", f"sys/policies/acl/{self.mount}"):
                self._ask("DELETE", path, None, self._root)

    def destination(self) -> DestinationSpec:
        auth = {name.replace("-", "_"): {"file": str(self._folder / name)} for name in ("role-id", "secret-id")}
        settings = {"url": self._url, "mount": self.mount, "path": "ours", "auth": {**auth, "mount": self.mount}}
        return DestinationSpec("vault_kv", {"token": "{token}"}, Read.PER_USE, settings)

    @property
    def requests(self) -> dict[str, Callable[[], None]]:
        """In their order: a delivery by compare-and-set that is read again."""
        return {
            "a login": self.log_in,
            "a read": self.look,
            "a write": self.write,
            "a read of what was written": self.look,
            "the end of the login": self.log_out,
        }

    @property
    def fsyncs(self) -> dict[str, Callable[[], None]]:
        """Of journal and audit log."""
        return {f"{COMMITS + RECORDS} fsyncs": self.sync}

    def log_in(self) -> None:
        body = {"role_id": self._role_id, "secret_id": self._secret_id}
        self._token = self._ask("POST", f"auth/{self.mount}/login", body)["auth"]["client_token"]
        self._version = 0

    def look(self) -> None:
        found = self._ask("GET", f"{self.mount}/data/bare", None, self._token).get("data")
        self._version = found["metadata"]["version"] if found else 0

    def write(self) -> None:
        body = {"options": {"cas": self._version}, "data": {"token": secrets.token_urlsafe(32)}}
        self._ask("POST", f"{self.mount}/data/bare", body, self._token)

    def log_out(self) -> None:
        self._ask("POST", "auth/token/revoke-self", {}, self._token)

    def sync(self) -> None:
        for _ in range(COMMITS + RECORDS):
            os.write(self._journal, BLOCK)
            os.fdatasync(self._journal)

    def _ask(self, method: str, path: str, body: object, token: str | None = None) -> Mapping[str, Any]:
        headers = {"X-Vault-Token": token} if token else {}
        self._connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        if answer.status >= 300 and answer.status != 404:
            raise RuntimeError(f"{method} {path}: {answer.status}")
        found: Mapping[str, Any] = json.loads(raw) if raw else {}
        return found


def requests_of(act: Callable[[], None]) -> int:
    """How many requests of ours `act` makes."""
    call, made = http_access.Channel.call, 0

    def counted(*args: Any, **given: Any) -> http_access.Reply:
        nonlocal made
        made += 1
        return call(*args, **given)

    http_access.Channel.call = counted  # type: ignore[method-assign]
    try:
        act()
    finally:
        http_access.Channel.call = call  # type: ignore[method-assign]
    return made
