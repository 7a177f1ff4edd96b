"""The simulated Dokploy answers as the recorded real one did: other ids, other values, each in a world of its own.

`tests/data/dokploy-shapes.json` was made from 159 exchanges with a real v0.30.2. It holds names and types of fields,
status codes and error texts, and no value; what the simulator answers must be of these shapes, and hold all that our
client reads.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.servers.dokploy import simulated
from vaultkeeper.testing.dokploy import Service, SimulatedDokploy, User
from vaultkeeper.testing.dokploy.state import SERVICES

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/dokploy-shapes.json").read_text())
SITUATIONS: dict[str, dict[str, Any]] = RECORDED["situations"]
SERVICE = {"name", "appName", "env", "environment"}
READ_BY_US: Mapping[str, set[str]] = {
    "project.all": {"projectId", "name", "environments"},
    "project.one": {"projectId", "env", "environments"},
    "environment.one": {"environmentId", "env", "applications", "compose", "postgres"},
    "application.one": {*SERVICE, "applicationId", "buildArgs", "buildSecrets", "createEnvFile", "applicationStatus"},
    "compose.one": {*SERVICE, "composeId", "createEnvFile", "composeStatus"},
    "deployment.all": {"deploymentId", "title", "status"},
    "deployment.allByCompose": {"deploymentId", "title", "status"},
    "docker.getServiceContainersByAppName": {"containerId", "name", "state", "currentState"},
    "docker.getContainersByAppNameMatch": {"containerId", "name", "state", "status"},
    "docker.getConfig": {"State", "Config"},
    "user.get": {"organizationId", "user"},
    "user.createApiKey": {"id", "key", "rateLimitEnabled"},
}


@dataclass
class World:
    """An owner, a member with access to one application, one without, and one service of each kind."""

    dokploy: SimulatedDokploy
    services: dict[str, Service] = field(default_factory=dict)

    def __post_init__(self) -> None:
        state = self.dokploy.state
        self.project = state.project("warehouse", "SHARED='p one'\n")
        self.environment = state.environment(self.project, "staging", "STAGE=s\n")
        for kind in SERVICES:
            self.services[kind] = state.service(kind, self.environment, f"a-{kind}", "A=1\n")
        self.users: dict[str, User] = {"owner": state.user(), "member": state.user(owner=False)}
        self.users["stranger"] = state.user(owner=False)
        self.users["member"].services.add(self.services["application"].id)
        self.keys = {name: state.key(user).value for name, user in self.users.items()}

    def ask(
        self, asked: str, body: object = None, *, who: str = "owner", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """As any client would."""
        method, _, path = asked.partition(" ")
        sent = {"Content-Type": "application/json", "x-api-key": self.keys.get(who, who), **(headers or {})}
        content = body if isinstance(body, str) else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.dokploy.port, timeout=60)
        connection.request(method, f"/api/{path}", content if method == "POST" else None, sent)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        try:
            return reply.status, json.loads(text) if text else None
        except ValueError:
            return reply.status, text.decode()

    def one(self, kind: str = "application", **how: Any) -> tuple[int, Any]:
        return self.ask(f"GET {kind}.one?{kind}Id={self.services[kind].id}", **how)

    def save(self, kind: str = "application", env: str | None = "B='2'\r\n", **how: Any) -> tuple[int, Any]:
        body: dict[str, object] = {f"{kind}Id": self.services[kind].id, "env": env}
        if kind == "application":
            body |= {"buildArgs": None, "buildSecrets": "", "createEnvFile": True}
        return self.ask(f"POST {kind}.saveEnvironment", body, **how)

    def do(self, verb: str, kind: str = "application", *, who: str = "owner", **more: object) -> tuple[int, Any]:
        return self.ask(f"POST {kind}.{verb}", {f"{kind}Id": self.services[kind].id, **more}, who=who)

    def reload(self, env: str | None = None, **how: Any) -> tuple[int, Any]:
        if env is not None:
            self.services["application"].row["env"] = env
        return self.do("reload", appName="ignored", **how)

    def containers(self, what: str, **how: Any) -> tuple[int, Any]:
        return self.ask(f"GET docker.{what}?appName={self.services['application'].row['appName']}", **how)

    def config(self, **how: Any) -> tuple[int, Any]:
        return self.ask(f"GET docker.getConfig?containerId={self.services['application'].tasks[0].container}", **how)

    def deployed(self, kind: str = "application", env: str | None = None) -> tuple[int, Any]:
        if env is not None:
            self.services[kind].row["env"] = env
        self.do("redeploy", kind, title="ours")
        self.dokploy.state.advance(20)
        listed = "allByCompose?composeId" if kind == "compose" else "all?applicationId"
        return self.ask(f"GET deployment.{listed}={self.services[kind].id}")

    def make_key(self, **body: object) -> tuple[int, Any]:
        metadata = {"organizationId": self.users["owner"].organization}
        return self.ask("POST user.createApiKey", {"name": "k", "metadata": metadata, **body})

    def spend(self) -> tuple[int, Any]:
        """A key with the default limit, at its sixth call."""
        limited = self.dokploy.state.key(self.users["owner"], limited=True).value
        answers = [self.ask("GET settings.getDokployVersion", who=limited) for _ in range(6)]
        assert [status for status, _ in answers[:5]] == [200] * 5
        return answers[5]

    def delete(self, key: str = "") -> tuple[int, Any]:
        ids = {known.value: known.id for known in self.dokploy.state.keys.values()}
        return self.ask("POST user.deleteApiKey", {"apiKeyId": ids.get(key, "nothing")})

    def gone(self) -> tuple[int, Any]:
        """A key that was deleted."""
        key = self.make_key()[1]["key"]
        self.delete(key)
        return self.ask("GET settings.getDokployVersion", who=key)

    def crash(self) -> tuple[int, Any]:
        self.services["application"].breaks_on = lambda env: env.get("A") == "broken"
        answer = self.reload("A=broken\n")
        self.dokploy.state.advance(20)
        return answer


def _all_of(kind: str) -> dict[str, Callable[[World], tuple[int, Any]]]:
    return {
        f"{kind}-02-saveEnvironment-ok": lambda w: w.save(kind),
        f"{kind}-03-one": lambda w: w.one(kind),
        f"{kind}-04-one-unknown": lambda w: w.ask(f"GET {kind}.one?{kind}Id=nowhere"),
    }


def _first(*steps: Callable[[World], Any]) -> Callable[[World], tuple[int, Any]]:
    """The last step's answer."""

    def run(world: World) -> tuple[int, Any]:
        answers = [step(world) for step in steps]
        found: tuple[int, Any] = answers[-1]
        return found

    return run


ASK: dict[str, Callable[[World], tuple[int, Any]]] = {
    "application-04-one": World.one,
    "application-05-saveEnvironment-ok": World.save,
    "application-06-one-after-save": _first(World.save, World.one),
    "application-07-saveEnvironment-missing-fields": lambda w: w.do("saveEnvironment", env="A=1"),
    "application-08-saveEnvironment-nulls": lambda w: w.save(env=None),
    "application-09-one-after-nulls": _first(lambda w: w.save(env=None), World.one),
    "application-10-update-env-only": lambda w: w.do("update", env="C=3"),
    "application-11-one-after-update": _first(lambda w: w.do("update", env="C=3"), World.one),
    "application-12-one-unknown-id": lambda w: w.ask("GET application.one?applicationId=nowhere"),
    "application-13-one-missing-param": lambda w: w.ask("GET application.one"),
    "application-14-saveEnvironment-unknown-id": lambda w: w.ask(
        "POST application.saveEnvironment",
        {"applicationId": "nowhere", "env": "", "buildArgs": "", "buildSecrets": "", "createEnvFile": False},
    ),
    "application-15-bad-json": lambda w: w.ask("POST application.saveEnvironment", "{"),
    "application-16-wrong-content-type": lambda w: w.ask(
        "POST application.saveEnvironment", {}, headers={"Content-Type": "text/plain"}
    ),
    "application-17-redeploy-unknown-id": lambda w: w.ask("POST application.redeploy", {"applicationId": "nowhere"}),
    "application-17b-update-unknown-id": lambda w: w.ask(
        "POST application.update", {"applicationId": "nowhere", "env": ""}
    ),
    "auth-01-ok-project-all-empty": lambda w: w.ask("GET project.all", who="stranger"),
    "auth-02-bad-key": lambda w: w.ask("GET project.all", who="not-a-key"),
    "auth-03-no-key": lambda w: w.ask("GET project.all", who=""),
    "auth-04-bearer-not-accepted": lambda w: w.ask(
        "GET project.all", who="", headers={"Authorization": f"Bearer {w.keys['owner']}"}
    ),
    "auth-05-rate-limited-default-key": World.spend,
    "auth-06-createApiKey-missing-metadata": lambda w: w.ask("POST user.createApiKey", {"name": "k"}),
    "auth-07-createApiKey-name-too-long": lambda w: w.make_key(name="k" * 33),
    "auth-08-createApiKey-foreign-org": lambda w: w.make_key(metadata={"organizationId": "another"}),
    "auth-09-createApiKey-ok": lambda w: w.make_key(prefix="p_", expiresIn=90_000, rateLimitEnabled=False),
    "auth-10-new-key-works": lambda w: w.ask("GET settings.getDokployVersion", who=w.make_key()[1]["key"]),
    "auth-11-deleteApiKey": lambda w: w.delete(w.make_key()[1]["key"]),
    "auth-12-deleted-key-refused": World.gone,
    "auth-13-deleteApiKey-unknown": World.delete,
    "auth-14-user-get": lambda w: w.ask("GET user.get"),
    "auth-15-createApiKey-expiresIn-too-small": lambda w: w.make_key(expiresIn=59),
    "compose-02-saveEnvironment-ok": lambda w: w.save("compose"),
    "compose-03-saveEnvironment-unknown-id": lambda w: w.ask(
        "POST compose.saveEnvironment", {"composeId": "nowhere", "env": ""}
    ),
    "compose-04-saveEnvironment-missing-env": lambda w: w.do("saveEnvironment", "compose"),
    "compose-05-one": lambda w: w.one("compose"),
    "compose-06-redeploy": lambda w: w.do("redeploy", "compose", title="ours"),
    "compose-07-deployment-allByCompose": lambda w: w.deployed("compose"),
    "compose-09-deployment-allByCompose": _first(lambda w: w.deployed("compose"), lambda w: w.deployed("compose")),
    "compose-10-one-after": _first(lambda w: w.deployed("compose"), lambda w: w.one("compose")),
    "compose-11-redeploy-unknown": lambda w: w.ask("POST compose.redeploy", {"composeId": "nowhere"}),
    "compose-12-update-env": lambda w: w.do("update", "compose", env="C=3"),
    "compose-13-one-not-found": lambda w: w.ask("GET compose.one?composeId=nowhere"),
    "deploy-01-redeploy-queued": lambda w: w.do("redeploy", title="ours", description="d"),
    "deploy-02-application-one-after-redeploy": _first(World.deployed, World.one),
    "deploy-03-deployment-all": World.deployed,
    "deploy-06-queueList": lambda w: w.ask("GET deployment.queueList"),
    "deploy-07-reload": World.reload,
    "deploy-08-reload-missing-appName": lambda w: w.do("reload"),
    "deploy-09-update-env": lambda w: w.do("update", env="R=${{project.SHARED}}"),
    "deploy-10-reload-applies-env": lambda w: w.reload("R=${{project.SHARED}}"),
    "deploy-11-update-bad-ref": lambda w: w.do("update", env="R=${{project.MISSING}}"),
    "deploy-12-reload-bad-ref-500": lambda w: w.reload("R=${{project.MISSING}}"),
    "deploy-14-deployment-all-after-error": lambda w: w.deployed(env="R=${{project.MISSING}}"),
    "deploy-18-deployment-all-unknown": lambda w: w.ask("GET deployment.all?applicationId=nowhere"),
    "deploy-19-reload-unclosed-ref": lambda w: w.reload("R=x${{y"),
    "deploy-20-reload-literal-ref-in-quotes": lambda w: w.reload("R='x${{y}}'"),
    "environment-02-one": lambda w: w.ask(f"GET environment.one?environmentId={w.environment['environmentId']}"),
    "environment-03-update-env": lambda w: w.ask(
        "POST environment.update", {"environmentId": w.environment["environmentId"], "env": "S=t"}
    ),
    "environment-04-update-unknown": lambda w: w.ask(
        "POST environment.update", {"environmentId": "nowhere", "env": "S=t"}
    ),
    "meta-01-version": lambda w: w.ask("GET settings.getDokployVersion"),
    "meta-06-unknown-procedure": lambda w: w.ask("GET application.nope"),
    "meta-07-wrong-method": lambda w: w.ask("POST project.all", {}),
    "perm-01-member-no-access-project-all": lambda w: w.ask("GET project.all", who="stranger"),
    "perm-02-member-no-access-application-one": lambda w: w.one(who="stranger"),
    "perm-03-member-no-access-saveEnvironment": lambda w: w.save(who="stranger"),
    "perm-05-member-access-application-one": lambda w: w.one(who="member"),
    "perm-06-member-access-saveEnvironment": lambda w: w.save(who="member"),
    "perm-07-member-access-application-update-refused": lambda w: w.do("update", who="member", env="A=2"),
    "perm-08-member-reload": lambda w: w.reload(who="member"),
    "perm-09-member-redeploy": lambda w: w.do("redeploy", who="member"),
    "perm-10-member-docker-containers": lambda w: w.containers("getServiceContainersByAppName", who="member"),
    "perm-10b-member-docker-getContainersByAppNameMatch": lambda w: w.containers(
        "getContainersByAppNameMatch", who="member"
    ),
    "perm-11-member-project-update-env": lambda w: w.ask(
        "POST project.update", {"projectId": w.project["projectId"], "env": "SHARED=q"}, who="member"
    ),
    "perm-12-member-environment-update-env": lambda w: w.ask(
        "POST environment.update", {"environmentId": w.environment["environmentId"], "env": ""}, who="member"
    ),
    "perm-14-member-docker-getConfig": lambda w: w.config(who="member"),
    "project-02-all": lambda w: w.ask("GET project.all"),
    "project-03-one": lambda w: w.ask(f"GET project.one?projectId={w.project['projectId']}"),
    "project-04-one-unknown": lambda w: w.ask("GET project.one?projectId=nowhere"),
    "project-05-update-env": lambda w: w.ask(
        "POST project.update", {"projectId": w.project["projectId"], "env": "SHARED=q"}
    ),
    "project-06-update-unknown": lambda w: w.ask("POST project.update", {"projectId": "nowhere", "env": ""}),
    "verify-01-docker-getServiceContainersByAppName": _first(
        World.reload, lambda w: w.containers("getServiceContainersByAppName")
    ),
    "verify-02-docker-getContainersByAppNameMatch": _first(
        World.reload, lambda w: w.containers("getContainersByAppNameMatch")
    ),
    "verify-04-docker-getConfig": World.config,
    "verify-05-reload-crashing-app": World.crash,
    "verify-06-containers-after-rollback": _first(World.crash, lambda w: w.containers("getServiceContainersByAppName")),
    "verify-07-application-one-after-rollback": _first(World.crash, World.one),
} | {name: ask for kind in SERVICES[2:] for name, ask in _all_of(kind).items()}


@pytest.fixture
def world() -> Iterator[World]:
    dokploy = simulated()
    yield World(dokploy)
    dokploy.stop()


def test_every_recorded_situation_is_tried() -> None:
    assert set(ASK) == set(SITUATIONS)


@pytest.mark.parametrize("name", sorted(ASK))
def test_it_answers_as_the_real_one_was_recorded(world: World, name: str) -> None:
    recorded = SITUATIONS[name]
    status, told = ASK[name](world)
    assert status == recorded["status"]
    procedure = recorded["asked"].partition(" ")[2]
    if "problem" in recorded:
        assert _problem(told, recorded["problem"]) == recorded["problem"]
    elif recorded.get("empty"):
        assert told is None
    else:
        assert _strange(told, RECORDED["shapes"][procedure], procedure) == []
        rows = told if isinstance(told, list) else [told]
        for row in rows if isinstance(told, dict | list) else ():
            assert set(row) >= READ_BY_US.get(procedure, set()) or procedure not in READ_BY_US


def _problem(told: Any, recorded: Any) -> Any:
    """As the table writes it: of a validation error the fields, else all of it."""
    if not isinstance(recorded, dict) or "fields" not in recorded:
        return told
    fields = sorted(told["data"]["zodError"]["fieldErrors"])
    assert sorted({issue["path"][0] for issue in told["issues"]}) == fields
    return {"message": told["message"], "code": told["code"], "path": told["data"]["path"], "fields": fields}


def _strange(told: Any, shape: Any, where: str) -> list[str]:
    """Fields that the real one does not have, or has of another type."""
    if told is None or shape is None or shape == []:
        return []
    if isinstance(shape, dict):
        if not isinstance(told, dict):
            return [where]
        unknown = [f"{where}.{name}" for name in told if name not in shape]
        return unknown + [s for k, v in told.items() if k in shape for s in _strange(v, shape[k], f"{where}.{k}")]
    if isinstance(shape, list):
        return [s for one in told for s in _strange(one, shape[0], where)] if isinstance(told, list) else [where]
    return [] if type(told).__name__ == shape else [f"{where} is {type(told).__name__}, not {shape}"]


def test_after_a_crash_swarm_is_back_on_the_old_value_while_dokploy_says_done(world: World) -> None:
    before = world.config()[1]["Config"]["Env"]
    world.crash()
    _, tasks = world.containers("getServiceContainersByAppName")
    _, shown = world.one()
    assert [task["state"] for task in tasks].count("running") == 1
    assert [task["currentState"].split()[0] for task in tasks][:3] == ["Running", "Failed", "Shutdown"]
    assert shown["env"] == "A=broken\n"
    assert shown["applicationStatus"] == "done"
    assert world.config()[1]["Config"]["Env"] == before
