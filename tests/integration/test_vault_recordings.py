"""The simulator answers as OpenBao 2.6.2 did (`tests/data/openbao`): with other ids, other values, in another order.

What is compared is the status, the shape of the body and the server's fixed texts. With `VAULTKEEPER_TEST_VAULT_ADDR`
the same steps are taken at a real server, which shows that they lead where the recordings were made.
"""

from __future__ import annotations

import http.client
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.vaults import Vaults
from vaultkeeper.testing import vault as simulator

RECORDED = Path(__file__).parents[1] / "data/openbao"
Case = Callable[["Steps"], tuple[int, Any]]


class Steps:
    """One fresh path at one server."""

    def __init__(self, vault: Vaults) -> None:
        self.vault = vault
        self.path = f"other/{random.randrange(10**9)}"
        self.data = f"{vault.mount}/data/{self.path}"
        self.role = f"auth/{vault.approle}/role"

    def ask(
        self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and document, whatever they are."""
        address = self.vault._direct
        connection = http.client.HTTPConnection(*address, timeout=60)
        content = body if isinstance(body, str) or body is None else json.dumps(body)
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if token != "":
            sent["X-Vault-Token"] = token or self.vault.root
        connection.request(method, f"/v1/{path}", content, {**sent, **headers})
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, json.loads(raw) if raw else None

    def write(self, count: int = 1) -> None:
        for number in range(count):
            self.vault.put(self.path, {"password": f"v{number}", "username": "someone"})

    def fresh_role(self, **settings: object) -> tuple[str, str]:
        name = self.vault.new_role(**settings)
        return name, self.vault.api("GET", f"{self.role}/{name}/role-id")["data"]["role_id"]

    def wrapping_token(self) -> str:
        name, _ = self.fresh_role()
        told = self.vault.api("POST", f"{self.role}/{name}/secret-id", {}, **{"X-Vault-Wrap-TTL": "90s"})
        return str(told["wrap_info"]["token"])


@pytest.fixture(scope="module")
def vault() -> Iterator[Vaults]:
    server = Vaults()
    yield server
    server.stop()


# ---------------------------------------------------------------------------------------------------- how to get there


def login(steps: Steps) -> tuple[int, Any]:
    name, role_id = steps.fresh_role(token_ttl="7s", token_policies="default,vk")
    body = {"role_id": role_id, "secret_id": steps.vault.new_secret_id(name)}
    return steps.ask("POST", f"auth/{steps.vault.approle}/login", body, token="")


def exhausted(steps: Steps) -> tuple[int, Any]:
    name, role_id = steps.fresh_role(secret_id_num_uses=1)
    body = {"role_id": role_id, "secret_id": steps.vault.new_secret_id(name)}
    assert steps.ask("POST", f"auth/{steps.vault.approle}/login", body, token="")[0] == 200
    return steps.ask("POST", f"auth/{steps.vault.approle}/login", body, token="")


def secret_id(steps: Steps) -> tuple[int, Any]:
    return steps.ask("POST", f"{steps.role}/{steps.fresh_role(secret_id_ttl='5m')[0]}/secret-id", {})


def wrapped(steps: Steps) -> tuple[int, Any]:
    headers = {"X-Vault-Wrap-TTL": "45s"}
    return steps.ask("POST", f"{steps.role}/{steps.fresh_role()[0]}/secret-id", {}, **headers)


def metadata(steps: Steps) -> tuple[int, Any]:
    steps.write(2)
    steps.vault.api("POST", f"{steps.vault.mount}/metadata/{steps.path}", {"custom_metadata": {"gen": "12"}})
    return steps.ask("GET", f"{steps.vault.mount}/metadata/{steps.path}")


def destroyed(steps: Steps) -> tuple[int, Any]:
    steps.write(3)
    for kind in ("delete", "destroy"):
        steps.vault.api("PUT", f"{steps.vault.mount}/{kind}/{steps.path}", {"versions": [2]})
    return steps.ask("GET", f"{steps.data}?version=2")


def deleted(steps: Steps) -> tuple[int, Any]:
    steps.write(2)
    steps.vault.api("POST", f"{steps.vault.mount}/delete/{steps.path}", {"versions": [2]})
    return steps.ask("GET", steps.data)


def mismatch(steps: Steps) -> tuple[int, Any]:
    steps.write(2)
    return steps.ask("POST", steps.data, {"options": {"cas": 0}, "data": {"other": "z"}})


def required(steps: Steps) -> tuple[int, Any]:
    steps.vault.api("POST", f"{steps.vault.mount}/metadata/{steps.path}", {"cas_required": True})
    return steps.ask("POST", steps.data, {"data": {"other": "z"}})


def forbidden(steps: Steps) -> tuple[int, Any]:
    return steps.ask("GET", steps.data, token=steps.vault.new_token(policies=["default"]))


def expired(steps: Steps) -> tuple[int, Any]:
    token = steps.vault.new_token()
    assert steps.ask("POST", "auth/token/revoke-self", token=token)[0] == 204
    return steps.ask("GET", steps.data, token=token)


def unwrapped(steps: Steps) -> tuple[int, Any]:
    return steps.ask("POST", "sys/wrapping/unwrap", {}, token=steps.wrapping_token())


def unwrapped_twice(steps: Steps) -> tuple[int, Any]:
    token = steps.wrapping_token()
    assert steps.ask("POST", "sys/wrapping/unwrap", {}, token=token)[0] == 200
    return steps.ask("POST", "sys/wrapping/unwrap", {}, token=token)


def version_two(steps: Steps) -> tuple[int, Any]:
    steps.write(4)
    return steps.ask("GET", f"{steps.data}?version=2")


def of_version_one(steps: Steps) -> tuple[int, Any]:
    steps.write()
    return steps.ask("GET", f"{steps.vault.mount}/{steps.path}")


CASES: dict[str, Case] = {
    "approle-login": login,
    "approle-login-exhausted-secret-id": exhausted,
    "approle-secret-id": secret_id,
    "approle-secret-id-wrapped": wrapped,
    "bad-json": lambda s: s.ask("POST", s.data, '{"data": {"x": "y", }'),
    "kv-missing-mount-write": lambda s: s.ask("POST", "nomount/data/x", {"data": {"b": "2"}}),
    "kv2-destroy": lambda s: s.ask("PUT", f"{s.vault.mount}/destroy/{s.path}", {"versions": [3]}),
    "kv2-metadata-read": metadata,
    "kv2-patch-wrong-ct": lambda s: s.ask("PATCH", s.data, {"data": {"x": "y"}}),
    "kv2-permission-denied-path": forbidden,
    "kv2-read-destroyed": destroyed,
    "kv2-read-never-written": lambda s: s.ask("GET", s.data),
    "kv2-read-soft-deleted": deleted,
    "kv2-read-version-2": version_two,
    "kv2-v1path-on-v2": of_version_one,
    "kv2-write-cas0-again-mismatch": mismatch,
    "kv2-write-cas0-create": lambda s: s.ask("POST", s.data, {"options": {"cas": 0}, "data": {"x": "y"}}),
    "kv2-write-nocas-casrequired": required,
    "ns-unknown": lambda s: s.ask("GET", s.data, **{"X-Vault-Namespace": "nobodys"}),
    "permission-denied-invalid-token": lambda s: s.ask("GET", s.data, token="s.invented"),
    "sys-health-active": lambda s: s.ask("GET", "sys/health", token=""),
    "sys-wrapping-unwrap": unwrapped,
    "sys-wrapping-unwrap-twice": unwrapped_twice,
    "token-expired-read": expired,
    "token-revoke-self": lambda s: s.ask("POST", "auth/token/revoke-self", token=s.vault.new_token()),
    "tools-random": lambda s: s.ask("POST", "sys/tools/random/16", {"format": "hex"}),
}


def sealed(server: simulator.VaultServer) -> None:
    server.state.sealed = True


def standby(server: simulator.VaultServer) -> None:
    server.state.standby = True


STATES: dict[str, tuple[Callable[[simulator.VaultServer], None], Case]] = {
    "sealed-kv-read": (sealed, lambda s: s.ask("GET", s.data)),
    "sys-health-sealed": (sealed, lambda s: s.ask("GET", "sys/health")),
    "standby-health": (standby, lambda s: s.ask("GET", "sys/health")),
    "standby-write-noforward": (standby, lambda s: s.ask("POST", s.data, {"data": {"x": "y"}})),
}
"""What only the simulator can be put into, here."""
ELSEWHERE = {"kv2-namespace-write"}
_QUOTED = re.compile(r'"[^"]*"|\'.\'.*|: invalid character$')


# ----------------------------------------------------------------------------------------------------------- compared


def shape(found: Any) -> Any:
    """Types instead of values, but for truth values and the server's own words."""
    if isinstance(found, dict):
        if found.keys() == {"errors"}:
            return {
                "errors": [re.sub(r'"[^"]*"|\'.\'.*|: invalid character$', "…", str(text)) for text in found["errors"]]
            }
        return {key: shape(value) if key != "versions" else len(value) > 0 for key, value in sorted(found.items())}
    if isinstance(found, list):
        return ["list"]
    if found is None or isinstance(found, bool):
        return found
    if isinstance(found, str):
        return "" if not found else "text"
    return "number"


def same(recorded: Any, answered: Any) -> None:
    """Free parts are made alike first: names of keys in a secret, metadata, what a version is called."""
    for document in (recorded, answered):
        data = document.get("data") if isinstance(document, dict) else None
        if isinstance(data, dict):
            if isinstance(data.get("data"), dict):
                data["data"] = {"key": "text"}
            if isinstance(data.get("metadata"), dict):
                data["metadata"]["custom_metadata"] = None
            data.pop("custom_metadata", None)
        if isinstance(document, dict):
            document.pop("cluster_id", None)
            for mode in ("replication_performance_mode", "replication_dr_mode"):
                document[mode] = "…" if mode in document else None
    assert shape(answered) == shape(recorded)


def recording(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text())["response"]


@pytest.mark.parametrize("name", random.Random(6).sample(sorted(CASES), len(CASES)))
def test_the_server_answers_as_recorded(name: str, vault: Vaults) -> None:
    expected = recording(name)
    status, body = CASES[name](Steps(vault))
    assert status == expected["status"]
    if expected["body"] is None:
        assert body is None
    else:
        same(expected["body"], body)


@pytest.mark.parametrize("name", STATES)
def test_a_server_that_is_not_in_order_answers_as_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULTKEEPER_TEST_VAULT_ADDR", raising=False)
    put, case = STATES[name]
    server = Vaults()
    assert server.simulator is not None
    put(server.simulator)
    status, body = case(Steps(server))
    server.stop()
    expected = recording(name)
    assert status == expected["status"]
    assert (body is None) == (expected["body"] is None)
    if body is not None:
        same(expected["body"], body)


def test_every_recording_is_compared() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == {*CASES, *STATES, *ELSEWHERE}


def test_a_namespace_has_a_store_of_its_own(vault: Vaults) -> None:
    steps, name = Steps(vault), f"team{random.randrange(10**9)}"
    header = {"X-Vault-Namespace": name}
    assert steps.ask("POST", f"sys/namespaces/{name}", {})[0] == 200
    mounted = steps.ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}}, **header)
    assert mounted[0] == 204
    status, body = steps.ask("POST", "secret/data/app", {"data": {"x": "y"}}, **header)
    expected = recording("kv2-namespace-write")
    assert status == expected["status"]
    same(expected["body"], body)
    assert steps.ask("GET", "secret/data/app", **header)[0] == 200


def test_the_simulator_holds_no_recorded_body() -> None:
    source = "".join(path.read_text() for path in Path(simulator.__file__).parent.glob("*.py"))
    for path in RECORDED.glob("*.json"):
        ids = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.]+Z", path.read_text())
        assert not [found for found in ids if found in source]
