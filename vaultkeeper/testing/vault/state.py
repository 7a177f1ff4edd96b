"""What the simulated server knows: tokens, policies, mounts; and the paths that are about those."""

from __future__ import annotations

import base64
import fnmatch
import json
import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Body = dict[str, Any]
CAPABILITY = {"GET": "read", "POST": "update", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "LIST": "list"}
BY_DEFAULT = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/mounts/*" { capabilities = ["read"] }
"""
FORBIDDEN = "1 error occurred:\n\t* permission denied\n\n"
DEAD = "permission denied"


class Answer(Exception):
    """Ends a request. `body` None: an empty one."""

    def __init__(self, status: int, body: Body | None = None, **headers: str) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers


def failure(status: int, *texts: str) -> Answer:
    """As the server words it."""
    return Answer(status, {"errors": list(texts)})


def stamp(moment_s: float) -> str:
    """As Go prints it; nothing for never."""
    if not moment_s:
        return ""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


@dataclass
class Token:
    """A service token. `dies_at` 0: never."""

    policies: Sequence[str]
    ttl: float = 0
    dies_at: float = 0
    dies_for_good_at: float = 0
    uses: int = 0  #: 0: any number
    renewable: bool = True
    accessor: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    meta: Mapping[str, str] = field(default_factory=dict)
    wraps: Body | None = None
    wrapped_at: float = 0
    wrapped_path: str = ""


@dataclass
class Request:
    """One request, its namespace taken out of the path."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    token: Token | None = None


@dataclass
class State:
    """One server. `mounts`: path → what answers there."""

    clock: Callable[[], float] = time.time
    sealed: bool = False
    standby: bool = False  #: passes writes on by redirect
    redirects_to: str = ""  #: every request is answered by a redirect there
    drips: bool = False  #: answers come a byte at a time
    tokens: dict[str, Token] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=lambda: {"default": BY_DEFAULT})
    mounts: dict[str, Any] = field(default_factory=dict)
    namespaces: dict[str, State] = field(default_factory=dict)

    def answer(self, request: Request) -> Body | None:
        """The document of a 200, None for 204. Raises Answer for everything else."""
        name, _, _ = request.headers.get("x-vault-namespace", "").strip("/").partition("/")
        if name and name not in self.namespaces:
            raise failure(404, "namespace not found")
        here = self.namespaces[name] if name else self
        here.tokens, here.clock = self.tokens, self.clock
        if request.path.startswith("sys/health"):
            raise self.health()
        if self.sealed:
            raise failure(503, "Vault is sealed")
        if self.standby and (request.method != "GET" or request.headers.get("x-vault-no-request-forwarding")):
            raise Answer(307, None, Location=f"http://127.0.0.1:1/v1/{request.path}")
        return here.wrapped(request, here.routed(request))

    def health(self) -> Answer:
        status = 503 if self.sealed else 429 if self.standby else 200
        known = {"initialized": True, "sealed": self.sealed, "standby": self.sealed or self.standby}
        mode = "unknown" if self.sealed else "disabled"
        modes = {"replication_performance_mode": mode, "replication_dr_mode": mode}
        body = {**known, **modes, "server_time_utc": int(self.clock()), "version": "0.0.0-simulated"}
        return Answer(status, body if self.sealed else {**body, "cluster_name": "simulated", "cluster_id": new_id()})

    def routed(self, request: Request) -> Body | None:
        if request.path in _OPEN or request.path.endswith("/login"):
            pass
        else:
            self.authorise(request)
        found = _OPEN.get(request.path) or _SYSTEM.get(request.path)
        if found is not None:
            return found(self, request)
        for prefix, handler in _PREFIXES.items():
            if request.path.startswith(prefix):
                return handler(self, request)
        for mount, engine in self.mounts.items():
            if request.path.startswith(mount + "/"):
                told: Body | None = engine.answer(request, request.path.removeprefix(mount + "/"))
                return told
        raise failure(404, f'no handler for route "{request.path}". route entry not found.')

    # --------------------------------------------------------------------------------------------------------- tokens

    def authorise(self, request: Request) -> None:
        """Raises Answer: the token is dead, or its policies do not allow this."""
        token = self.alive(request.headers.get("x-vault-token", ""))
        if token is None or token.wraps is not None:
            if token is not None and request.path == "sys/wrapping/unwrap":
                return
            raise (
                failure(400, "wrapping token is not valid or does not exist")
                if request.path.startswith("sys/wrapping/unwrap")
                else failure(403, DEAD)
            )
        request.token = token
        if token.uses:
            token.uses -= 1
            if token.uses == 0:
                token.dies_at = self.clock()
        needed = {CAPABILITY[request.method]} | ({"create"} if request.method in ("POST", "PUT") else set())
        if not needed & self.allowed(token, request.path) and "root" not in token.policies:
            raise failure(403, FORBIDDEN)

    def alive(self, value: str) -> Token | None:
        token = self.tokens.get(value)
        return None if token is None or (token.dies_at and token.dies_at <= self.clock()) else token

    def allowed(self, token: Token, path: str) -> set[str]:
        """Capabilities of the most exact rule of each policy."""
        if "root" in token.policies:
            return {"root"}
        found: set[str] = set()
        for name in token.policies:
            rules = re.findall(r'path\s+"([^"]+)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]', self.policies.get(name, ""))
            matching = [(glob, caps) for glob, caps in rules if fnmatch.fnmatchcase(path, glob.replace("+", "[!/]*"))]
            for _, capabilities in sorted(matching, key=lambda rule: len(rule[0]))[-1:]:
                found |= set(re.findall(r'"(\w+)"', capabilities))
        return found

    def new_token(self, policies: Sequence[str], ttl: float, **known: Any) -> tuple[str, Token]:
        value, now = f"s.{secrets.token_urlsafe(18)}", self.clock()
        longest = known.pop("max_ttl", 0)
        token = Token(policies, ttl, now + ttl if ttl else 0, now + longest if longest else 0, **known)
        self.tokens[value] = token
        return value, token

    def auth_of(self, value: str, token: Token) -> Body:
        """What a login answers."""
        return {
            "client_token": value,
            "accessor": token.accessor,
            "policies": list(token.policies),
            "token_policies": list(token.policies),
            "metadata": dict(token.meta) or None,
            "lease_duration": int(token.ttl),
            "renewable": token.renewable,
            "entity_id": new_id(),
            "token_type": "service",
            "orphan": True,
            "mfa_requirement": None,
            "num_uses": token.uses,
        }

    def wrapped(self, request: Request, body: Body | None) -> Body | None:
        asked = request.headers.get("x-vault-wrap-ttl")
        if not asked or body is None:
            return body
        ttl = seconds(asked)
        now = self.clock()
        value, token = self.new_token((), ttl, renewable=False, wraps=body, wrapped_at=now, wrapped_path=request.path)
        told = {"token": value, "accessor": token.accessor, "ttl": int(ttl), "creation_time": stamp(now)}
        told["creation_path"] = request.path
        if "secret_id_accessor" in (body.get("data") or {}):
            told["wrapped_accessor"] = body["data"]["secret_id_accessor"]
        return {**envelope(None), "request_id": "", "wrap_info": told}


def envelope(data: Any, **more: Any) -> Body:
    """What every logical answer looks like."""
    whole = {"request_id": new_id(), "lease_id": "", "renewable": False, "lease_duration": 0, "data": data}
    return {**whole, "wrap_info": None, "warnings": None, "auth": None, **more}


def new_id() -> str:
    """Of a request, a role, an accessor."""
    return str(uuid.uuid4())


def seconds(text: object) -> float:
    """30, "30", "30s", "5m", "24h"."""
    found = re.fullmatch(r"(\d+)([smh]?)", str(text or 0))
    if found is None:
        raise failure(400, "error parsing duration")
    return int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


# --------------------------------------------------------------------------------------------------------- token paths


def _create(state: State, request: Request) -> Body:
    asked = request.body
    named = asked.get("policies", ["root"])
    policies = named if "default" in named or asked.get("no_default_policy") else [*named, "default"]
    known = {"uses": int(asked.get("num_uses", 0)), "renewable": bool(asked.get("renewable", True))}
    ttl = seconds(asked.get("ttl"))
    value, token = state.new_token(policies, ttl, max_ttl=seconds(asked.get("explicit_max_ttl")), **known)
    return envelope(None, auth=state.auth_of(value, token))


def _lookup_self(state: State, request: Request) -> Body:
    token = request.token or Token(())
    left = int(token.dies_at - state.clock()) if token.dies_at else 0
    known = {"accessor": token.accessor, "creation_ttl": int(token.ttl), "num_uses": token.uses, "ttl": left}
    return envelope({**known, "policies": list(token.policies), "renewable": token.renewable and bool(token.dies_at)})


def _renew_self(state: State, request: Request) -> Body:
    token = request.token or Token(())
    if not (token.renewable and token.dies_at):
        raise failure(400, "lease is not renewable")
    now = state.clock()
    until = min(now + token.ttl, token.dies_for_good_at or float("inf"))
    token.dies_at = until
    value = request.headers["x-vault-token"]
    return envelope(None, auth={**state.auth_of(value, token), "lease_duration": int(until - now)})


def _revoke_self(state: State, request: Request) -> None:
    state.tokens.pop(request.headers["x-vault-token"], None)


# -------------------------------------------------------------------------------------------------------- system paths


def _lookup_wrapping(state: State, request: Request) -> Body:
    token = state.alive(str(request.body.get("token", "")))
    if token is None or token.wraps is None:
        raise failure(400, "wrapping token is not valid or does not exist")
    known = {"creation_path": token.wrapped_path, "creation_time": stamp(token.wrapped_at)}
    return envelope({**known, "creation_ttl": int(token.ttl)})


def _unwrap(state: State, request: Request) -> Body:
    value = request.headers.get("x-vault-token", "")
    token = state.alive(value)
    if token is None or token.wraps is None:
        raise failure(400, "wrapping token is not valid or does not exist")
    del state.tokens[value]
    return token.wraps


def _capabilities(state: State, request: Request) -> Body:
    token = request.token or Token(())
    told = {path: sorted(state.allowed(token, path)) or ["deny"] for path in request.body["paths"]}
    return {**told, **envelope(told)}


def _random(_state: State, request: Request) -> Body:
    size, form = int(request.path.rpartition("/")[2]), request.body.get("format", "base64")
    raw = secrets.token_bytes(size)
    if form not in ("hex", "base64"):
        raise failure(400, 'unsupported encoding format "…"; must be "hex" or "base64"')
    return envelope({"random_bytes": raw.hex() if form == "hex" else base64.b64encode(raw).decode()})


def _policy(state: State, request: Request) -> None:
    state.policies[request.path.rpartition("/")[2]] = request.body["policy"]


def _mount(state: State, request: Request) -> None:
    from vaultkeeper.testing.vault.kv import KvVersion1, KvVersion2

    old = (request.body.get("options") or {}).get("version") == "1"
    state.mounts[request.path.removeprefix("sys/mounts/")] = KvVersion1() if old else KvVersion2(state)


def _enable(state: State, request: Request) -> None:
    from vaultkeeper.testing.vault.approle import AppRole

    state.mounts[f"auth/{request.path.removeprefix('sys/auth/')}"] = AppRole(state)


def _namespace(state: State, request: Request) -> Body:
    state.namespaces[request.path.rpartition("/")[2]] = State(state.clock)
    return envelope({"path": request.path.rpartition("/")[2] + "/"})


def _preflight(state: State, request: Request) -> Body:
    path = request.path.removeprefix("sys/internal/ui/mounts/")
    for mount, engine in state.mounts.items():
        if path.startswith(mount + "/"):
            return envelope({"type": engine.type, "options": engine.options, "path": mount + "/"})
    raise failure(403, f'preflight capability check returned 403, please ensure … "{path}/"')


_OPEN = {"sys/wrapping/lookup": _lookup_wrapping, "sys/wrapping/unwrap": _unwrap}
_SYSTEM: Mapping[str, Callable[[State, Request], Body | None]] = {
    "auth/token/create": _create,
    "auth/token/lookup-self": _lookup_self,
    "auth/token/renew-self": _renew_self,
    "auth/token/revoke-self": _revoke_self,
    "sys/capabilities-self": _capabilities,
}
_PREFIXES: Mapping[str, Callable[[State, Request], Body | None]] = {
    "sys/tools/random/": _random,
    "sys/policies/acl/": _policy,
    "sys/mounts/": _mount,
    "sys/auth/": _enable,
    "sys/namespaces/": _namespace,
    "sys/internal/ui/mounts/": _preflight,
}


def read_json(raw: bytes) -> Body:
    """Raises Answer."""
    try:
        found = json.loads(raw or b"{}")
    except ValueError:
        raise failure(400, "failed to decode JSON input: invalid character") from None
    return found if isinstance(found, dict) else {}
