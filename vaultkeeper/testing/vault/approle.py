"""Roles and their secret ids. Five failed logins of a role lock it for a quarter of an hour, the right one too."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import ClassVar

from vaultkeeper.testing.vault.state import Body, Request, State, envelope, failure, new_id, seconds, stamp

LOCKS_AFTER = 5
LOCKED_S = 900


@dataclass
class _SecretId:
    accessor: str
    made_s: float
    metadata: dict[str, str]
    uses: int
    ttl: float


@dataclass
class _Role:
    settings: Body
    id: str = field(default_factory=new_id)
    secret_ids: dict[str, _SecretId] = field(default_factory=dict)
    failed: int = 0
    failed_s: float = 0


_DEFAULTS: Body = {
    "bind_secret_id": True,
    "local_secret_ids": False,
    "secret_id_bound_cidrs": None,
    "secret_id_num_uses": 0,
    "secret_id_ttl": 0,
    "token_bound_cidrs": [],
    "token_explicit_max_ttl": 0,
    "token_max_ttl": 0,
    "token_num_uses": 0,
    "token_period": 0,
    "token_policies": [],
    "token_ttl": 0,
    "token_type": "default",
}


@dataclass
class AppRole:
    """One mount."""

    state: State
    roles: dict[str, _Role] = field(default_factory=dict)
    type: ClassVar[str] = "approle"
    options: ClassVar[None] = None

    def answer(self, request: Request, path: str) -> Body | None:
        if path == "login":
            return self._login(request.body)
        _, name, *rest = path.split("/")
        if not rest:
            return self._role(request, name)
        role = self.roles.get(name)
        if role is None:
            status, text = (500, "1 error occurred:\n\t* {}\n\n") if "lookup" in rest else (404, "{}")
            raise failure(status, text.format(f'role "{name}" does not exist'))
        handler = getattr(self, "_" + "_".join(rest).replace("-", "_"))
        if request.method == "LIST":
            return (
                envelope({"keys": [known.accessor for known in role.secret_ids.values()]}) if role.secret_ids else _no()
            )
        told: Body | None = handler(role, request.body)
        return told

    def _role(self, request: Request, name: str) -> Body | None:
        if request.method == "GET":
            return envelope(self.roles[name].settings) if name in self.roles else _no()
        if request.method == "DELETE":
            self.roles.pop(name, None)
            return None
        given = dict(request.body)
        for key in ("secret_id_ttl", "token_ttl", "token_max_ttl"):
            given[key] = int(seconds(given.get(key)))
        if isinstance(given.get("token_policies"), str):
            given["token_policies"] = given["token_policies"].split(",")
        role = self.roles.setdefault(name, _Role(dict(_DEFAULTS)))
        role.settings |= given
        return None

    def _role_id(self, role: _Role, body: Body) -> Body:
        return envelope({"role_id": role.id})

    def _secret_id(self, role: _Role, body: Body) -> Body:
        return self._register(role, {**body, "secret_id": new_id()})

    def _custom_secret_id(self, role: _Role, body: Body) -> Body:
        return self._register(role, body)

    def _register(self, role: _Role, body: Body) -> Body:
        value, settings = str(body["secret_id"]), role.settings
        if value in role.secret_ids:
            text = "failed to store secret_id: SecretID is already registered"
            raise failure(500, f"1 error occurred:\n\t* {text}\n\n")
        ttl, uses = seconds(body.get("ttl", settings["secret_id_ttl"])), int(settings["secret_id_num_uses"])
        metadata = json.loads(body.get("metadata") or "{}")
        role.secret_ids[value] = made = _SecretId(new_id(), self.state.clock(), metadata, uses, ttl)
        known = {"secret_id_num_uses": uses, "secret_id_ttl": int(ttl)}
        return envelope({"secret_id": value, "secret_id_accessor": made.accessor, **known})

    def _secret_id_lookup(self, role: _Role, body: Body) -> Body | None:
        known = role.secret_ids.get(str(body["secret_id"]))
        if known is None:
            return None
        dies_s = known.made_s + known.ttl if known.ttl else 0
        return envelope(
            {
                "cidr_list": [],
                "creation_time": stamp(known.made_s),
                "expiration_time": stamp(dies_s) or "0001-01-01T00:00:00Z",
                "last_updated_time": stamp(known.made_s),
                "metadata": known.metadata,
                "secret_id_accessor": known.accessor,
                "secret_id_num_uses": known.uses,
                "secret_id_ttl": int(known.ttl),
                "token_bound_cidrs": [],
            }
        )

    def _secret_id_destroy(self, role: _Role, body: Body) -> None:
        role.secret_ids.pop(str(body["secret_id"]), None)

    def _secret_id_accessor_destroy(self, role: _Role, body: Body) -> None:
        accessor = body["secret_id_accessor"]
        for value, known in role.secret_ids.items():
            if known.accessor == accessor:
                del role.secret_ids[value]
                return
        text = f'failed to find accessor entry for secret_id_accessor: "{accessor}"'
        raise failure(500, f"1 error occurred:\n\t* {text}\n\n")

    def _login(self, body: Body) -> Body:
        named = [(name, role) for name, role in self.roles.items() if role.id == body.get("role_id")]
        if not named:
            raise failure(400, "invalid role or secret ID")
        if not body.get("secret_id"):
            raise failure(400, "missing secret_id")
        name, role = named[0]
        now = self.state.clock()
        if role.failed >= LOCKS_AFTER and now - role.failed_s < LOCKED_S:
            raise failure(403, "permission denied")
        known = role.secret_ids.get(str(body["secret_id"]))
        if known is None or (known.ttl and known.made_s + known.ttl <= now):
            role.failed, role.failed_s = role.failed + 1, now
            raise failure(400, "invalid role or secret ID")
        role.failed = 0
        if known.uses == 1:
            del role.secret_ids[str(body["secret_id"])]
        known.uses = max(known.uses - 1, 0)
        settings = role.settings
        ttl = float(settings["token_ttl"] or settings["token_max_ttl"] or 768 * 3600)
        policies = sorted({"default", *settings["token_policies"]})
        meta = {"role_name": name, **known.metadata}
        value, token = self.state.new_token(policies, ttl, max_ttl=settings["token_max_ttl"], meta=meta)
        return envelope(None, auth=self.state.auth_of(value, token))


def _no() -> Body:
    raise failure(404)
