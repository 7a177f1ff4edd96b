"""A Vault for tests, set up by its own API: the simulator, or the real server of `VAULTKEEPER_TEST_VAULT_ADDR`.

For a real one `VAULTKEEPER_TEST_VAULT_TOKEN` is a root token; with `VAULTKEEPER_TEST_VAULT_UNSEAL_KEY` tests seal it.
Every start takes a mount, an AppRole method and policies of its own names, and removes them at the end. A proxy stands
in front of both, so that both can fail alike.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tests.servers import ServerMissing
from tests.servers.proxy import Proxy
from vaultkeeper.testing.vault import VaultServer

ADDRESS, TOKEN, UNSEAL = (f"VAULTKEEPER_TEST_VAULT_{name}" for name in ("ADDR", "TOKEN", "UNSEAL_KEY"))
WRITES = r"(POST|PUT|PATCH) /v1/\S+/(data|custom-secret-id|destroy)"
FAULTS = ("unreachable", "silent", "lost-reply")


class Refusal(Exception):
    """The server said no."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {body.get('errors')}")
        self.status, self.body = status, body


class Vaults:
    """One running server with a mount (`mount`), an AppRole method (`approle`) and a role for vaultkeeper in it."""

    def __init__(self) -> None:
        self.simulator: VaultServer | None = None
        address, self.root = os.environ.get(ADDRESS), os.environ.get(TOKEN, "")
        if address is None:
            self.simulator = VaultServer()
            address, self.root = self.simulator.url, self.simulator.root_token
        parts = urlsplit(address)
        self._direct = (parts.hostname or "", parts.port or 8200)
        self.proxy = Proxy(self._direct[1], self._direct[0])
        self.url = f"http://127.0.0.1:{self.proxy.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="vk-vault-"))
        name = f"vk-{secrets.token_hex(4)}"
        self.mount, self.approle, self._made = f"{name}-kv", f"{name}-role", 0
        self.api("POST", f"sys/mounts/{self.mount}", {"type": "kv", "options": {"version": "2"}})
        self.api("POST", f"sys/auth/{self.approle}", {"type": "approle"})
        self.policy(name, self.rules())
        self.api("POST", f"auth/{self.approle}/role/vaultkeeper", {"token_policies": name, "token_ttl": "5m"})
        self.policy_name = name
        found = self.api("GET", f"auth/{self.approle}/role/vaultkeeper/role-id")["data"]["role_id"]
        self.role_id = self.file("role-id", found)
        self.secret_id = self.file("secret-id", self.new_secret_id("vaultkeeper"))

    def rules(self) -> dict[str, list[str]]:
        """What docs/how-to/vault.md says that vaultkeeper needs, and nothing else."""
        role = f"auth/{self.approle}/role"
        return {
            f"{self.mount}/data/*": ["create", "read", "update"],
            f"{self.mount}/metadata/*": ["read", "patch"],
            f"{self.mount}/destroy/*": ["update"],
            f"{role}/+": ["read"],
            f"{role}/+/role-id": ["read"],
            f"{role}/+/secret-id": ["list"],
            f"{role}/+/custom-secret-id": ["create", "update"],
            f"{role}/+/secret-id/lookup": ["create", "update"],
            f"{role}/+/secret-id-accessor/destroy": ["create", "update"],
            "sys/tools/random/*": ["create", "update"],
        }

    def policy(self, name: str, rules: Mapping[str, list[str]]) -> None:
        text = "\n".join(f'path "{path}" {{ capabilities = {json.dumps(may)} }}' for path, may in rules.items())
        self.api("POST", f"sys/policies/acl/{name}", {"policy": text})

    def new_role(self, **settings: object) -> str:
        """A fresh role, with no secret id yet; its name."""
        self._made += 1
        name = f"app{self._made}-{secrets.token_hex(3)}"
        self.api("POST", f"auth/{self.approle}/role/{name}", {"token_policies": "default", **settings})
        return name

    def new_secret_id(self, role: str) -> str:
        told = self.api("POST", f"auth/{self.approle}/role/{role}/secret-id", {})
        return str(told["data"]["secret_id"])

    def new_token(self, **settings: object) -> str:
        told = self.api("POST", "auth/token/create", {"policies": [self.policy_name], "ttl": "10m", **settings})
        return str(told["auth"]["client_token"])

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content + "\n")
        path.chmod(0o600)
        return path

    def connection(self, **more: object) -> dict[str, Any]:
        """`url` and `auth` of a policy."""
        auth = {"role_id": {"file": str(self.role_id)}, "secret_id": {"file": str(self.secret_id)}}
        return {"url": self.url, "auth": {**auth, "mount": self.approle}, **more}

    def by_token(self, token: str | None = None) -> dict[str, Any]:
        path = self.file(f"token-{secrets.token_hex(3)}", token or self.new_token())
        return {"url": self.url, "auth": {"token": {"file": str(path)}}}

    def api(
        self, method: str, path: str, body: object = None, *, token: str | None = None, **headers: str
    ) -> dict[str, Any]:
        """As any client asks, past the proxy. Raises Refusal."""
        connection = http.client.HTTPConnection(*self._direct, timeout=60)
        sent = {"X-Vault-Token": self.root if token is None else token, **headers}
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{quote(path, safe='/?=&')}", content, sent)
            answer = connection.getresponse()
            document = json.loads(answer.read() or b"{}")
        finally:
            connection.close()
        if answer.status >= 300:
            raise Refusal(answer.status, document)
        return dict(document)

    def put(self, path: str, keys: Mapping[str, object]) -> int:
        return int(self.api("POST", f"{self.mount}/data/{path}", {"data": keys})["data"]["version"])

    def get(self, path: str, version: int = 0) -> dict[str, Any] | None:
        try:
            told = self.api("GET", f"{self.mount}/data/{path}" + (f"?version={version}" if version else ""))
        except Refusal as refused:
            if refused.status == 404:
                return None
            raise
        return dict(told["data"]["data"])

    def seal(self) -> None:
        """Raises ServerMissing where nobody could unseal it again."""
        if self.simulator is not None:
            self.simulator.state.sealed = True
        elif UNSEAL not in os.environ:
            raise ServerMissing(f"{UNSEAL} is not given")
        else:
            self.api("PUT", "sys/seal", {})

    def unseal(self) -> None:
        """Idempotent; it answers again then."""
        if self.simulator is not None:
            self.simulator.state.sealed = False
            return
        self.api("PUT", "sys/unseal", {"key": os.environ[UNSEAL]})
        for _ in range(10_000):
            try:
                self.api("GET", "sys/health", token="")
                return
            except Refusal:
                continue

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        if name == "unreachable":
            with self.proxy.refusing():
                yield
        elif name == "silent":
            with self.proxy.blackhole():
                yield
        else:
            with self.proxy.losing(WRITES):
                yield

    def stop(self) -> None:
        self.proxy.close()
        if self.simulator is not None:
            self.simulator.stop()
        else:
            self.api("DELETE", f"sys/mounts/{self.mount}")
            self.api("DELETE", f"sys/auth/{self.approle}")
            self.api("DELETE", f"sys/policies/acl/{self.policy_name}")
        shutil.rmtree(self.folder, ignore_errors=True)
