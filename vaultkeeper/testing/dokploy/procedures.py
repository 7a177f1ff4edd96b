"""What each procedure of the simulated Dokploy answers, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vaultkeeper.testing.dokploy.state import LIST_OF, SERVICES, Key, Row, Service, State, Task, User

DATABASES = SERVICES[2:]
VERSION = "v0.30.2"
_CALLED = {"mysql": "MySql"}
EMPTY = object()  # 200 without a body


class Answer(Exception):
    """A reply that is not the usual one."""

    def __init__(self, status: int, message: str, code: str = "", *, issues: list[Row] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.issues = status, message, code, issues


@dataclass(frozen=True)
class Call:
    """One request, authenticated."""

    state: State
    procedure: str
    user: User
    key: Key
    given: Mapping[str, Any]

    def text(self, name: str) -> str:
        return str(self.given[name])


Procedure = Callable[[Call], Any]
GETS: dict[str, tuple[Procedure, Mapping[str, str]]] = {}
POSTS: dict[str, tuple[Procedure, Mapping[str, str]]] = {}
"""Name → what it does, and its required fields with the word by which a missing one is complained of."""

_STRING, _NOT_OPTIONAL = "string", "nonoptional"


def _procedure(
    table: dict[str, tuple[Procedure, Mapping[str, str]]], procedure_name: str, /, **required: str
) -> Callable[[Procedure], Procedure]:
    def put(procedure: Procedure) -> Procedure:
        table[procedure_name] = (procedure, required)
        return procedure

    return put


def answer(call: Call, *, reads: bool) -> Any:
    """Raises Answer."""
    table = GETS if reads else POSTS
    if call.procedure not in table:
        raise Answer(404, "Not found", "NOT_FOUND")
    procedure, required = table[call.procedure]
    missing = {name: expected for name, expected in required.items() if name not in call.given}
    if missing:
        raise Answer(
            400,
            "Input validation failed",
            "BAD_REQUEST",
            issues=[
                {"expected": expected, "code": "invalid_type", "path": [name]} for name, expected in missing.items()
            ],
        )
    return procedure(call)


# --------------------------------------------------------------------------------------------------------------- rights


def _service(call: Call, kind: str, *, unknown: tuple[int, str, str] | None = None) -> Service:
    found = call.state.services.get(call.text(f"{kind}Id"))
    if found is None or found.kind != kind:
        raise Answer(*(unknown or (404, f"{_CALLED.get(kind, kind.title())} not found", "NOT_FOUND")))
    if not call.user.owner and found.id not in call.user.services:
        raise Answer(401, "You don't have access to this service", "UNAUTHORIZED")
    return found


def _needs(call: Call, *, allowed: bool, resource: str) -> None:
    if not (call.user.owner or allowed):
        raise Answer(401, f'unauthorized to access resource "{resource}"', "UNAUTHORIZED")


def _shared(call: Call, table: Mapping[str, Row], name: str, unknown: tuple[int, str, str]) -> Row:
    """A project or environment; a member needs access to something in it."""
    row = table.get(call.text(name))
    if row is None:
        raise Answer(*unknown)
    environments = {e["environmentId"] for e in call.state.environments.values() if e[name] == row[name]}
    inside = (s for s in call.state.services.values() if s.row["environmentId"] in environments)
    if not (call.user.owner or any(_seen(call, service) for service in inside)):
        raise Answer(401, "You don't have access to this project", "UNAUTHORIZED")
    return row


def _seen(call: Call, service: Service) -> bool:
    return call.user.owner or service.id in call.user.services


# ---------------------------------------------------------------------------------------------------------- the tree


def _environment(call: Call, row: Row, *, brief: bool) -> Row:
    shown = {name: row[name] for name in ("name", "environmentId", "isDefault")} if brief else dict(row)
    for kind in SERVICES:
        status = "composeStatus" if kind == "compose" else "applicationStatus"
        names = (
            (f"{kind}Id", "name", status)
            if brief
            else (f"{kind}Id", "name", "appName", "createdAt", "serverId", status)
        )
        inside = [s for s in call.state.services.values() if s.kind == kind and _seen(call, s)]
        shown[LIST_OF[kind]] = [
            {name: s.row[name] for name in names} for s in inside if s.row["environmentId"] == row["environmentId"]
        ]
    return {**shown, "libsql": []}


def _project(call: Call, row: Row, *, brief: bool) -> Row:
    inside = [e for e in call.state.environments.values() if e["projectId"] == row["projectId"]]
    return {**row, "environments": [_environment(call, e, brief=brief) for e in inside], "projectTags": []}


@_procedure(GETS, "project.all")
def _project_all(call: Call) -> Any:
    shown = [_project(call, row, brief=True) for row in call.state.projects.values()]
    if call.user.owner:
        return shown
    return [p for p in shown if any(e[LIST_OF[kind]] for e in p["environments"] for kind in SERVICES)]


@_procedure(GETS, "project.one", projectId=_STRING)
def _project_one(call: Call) -> Any:
    row = _shared(call, call.state.projects, "projectId", (404, "Project not found", "NOT_FOUND"))
    return _project(call, row, brief=False)


@_procedure(GETS, "environment.one", environmentId=_STRING)
def _environment_one(call: Call) -> Any:
    row = _shared(call, call.state.environments, "environmentId", (404, "Environment not found", "NOT_FOUND"))
    shown = _environment(call, row, brief=False)
    del shown["createdAt"]
    for kind in SERVICES:
        for inside in shown[LIST_OF[kind]]:
            del inside["appName"]
    return {**shown, "project": dict(call.state.projects[row["projectId"]])}


@_procedure(POSTS, "project.update", projectId=_STRING)
def _project_update(call: Call) -> Any:
    row = _shared(call, call.state.projects, "projectId", (404, "Project not found", "NOT_FOUND"))
    row["env"] = call.given.get("env", row["env"])
    return dict(row)


@_procedure(POSTS, "environment.update", environmentId=_STRING)
def _environment_update(call: Call) -> Any:
    unknown = (400, "Error updating the environment: Environment not found", "BAD_REQUEST")
    row = _shared(call, call.state.environments, "environmentId", unknown)
    row["env"] = call.given.get("env", row["env"])
    return dict(row)


# ----------------------------------------------------------------------------------------------------------- services


def _one(kind: str) -> Procedure:
    def one(call: Call) -> Any:
        service = _service(call, kind)
        environment = call.state.environments[service.row["environmentId"]]
        project = call.state.projects[environment["projectId"]]
        shown: Row = {**service.row, "environment": {**environment, "project": dict(project)}}
        if kind in ("application", "compose"):
            shown["deployments"] = [_record(r) for r in reversed(service.deployments)]
        return shown

    return one


def _save(kind: str, fields: tuple[str, ...]) -> Procedure:
    unknown = (400, "Error adding environment variables", "BAD_REQUEST") if kind == "compose" else None

    def save(call: Call) -> Any:
        service = _service(call, kind, unknown=unknown)
        service.row |= {name: call.given[name] for name in fields if name in call.given}
        return True

    return save


def _reload(call: Call) -> Any:
    service = _service(call, "application")
    _needs(call, allowed=call.user.may_deploy, resource="deployment")
    try:
        call.state.roll(service)
    except ValueError:
        service.row["applicationStatus"] = "error"
        raise Answer(500, "Error reloading application", "INTERNAL_SERVER_ERROR") from None
    service.row["applicationStatus"] = "done"
    return True


def _queued(kind: str, verb: str) -> Procedure:
    said = {"redeploy": "Redeployment queued", "deploy": "Deployment queued"}[verb]

    def queue(call: Call) -> Any:
        service = _service(call, kind)
        _needs(call, allowed=call.user.may_deploy, resource="deployment")
        call.state.enqueue(service, str(call.given.get("title", "Rebuild deployment")))
        return {"success": True, "message": said, "composeId": service.id} if kind == "compose" else EMPTY

    return queue


def _deploy_database(kind: str) -> Procedure:
    def deploy(call: Call) -> Any:
        service = _service(call, kind)
        try:
            call.state.roll(service)
        except ValueError:
            service.row["applicationStatus"] = "error"
            raise Answer(500, f"Error on deploy {kind}", "INTERNAL_SERVER_ERROR") from None
        service.row["applicationStatus"] = "done"
        return {name: value for name, value in service.row.items() if not name.startswith("_")}

    return deploy


def _update(kind: str) -> Procedure:
    unknown = (400, "Error updating application", "BAD_REQUEST") if kind == "application" else None

    def update(call: Call) -> Any:
        service = _service(call, kind, unknown=unknown)
        _needs(call, allowed=call.user.may_create, resource="service")
        service.row |= {name: value for name, value in call.given.items() if name != f"{kind}Id"}
        return dict(service.row) if kind == "compose" else True

    return update


_SAVED = {"application": ("env", "buildArgs", "buildSecrets", "createEnvFile"), "compose": ("env", "createEnvFile")}
for _kind in SERVICES:
    _id = {f"{_kind}Id": _STRING}
    _procedure(GETS, f"{_kind}.one", **_id)(_one(_kind))
    _required = {
        name: _NOT_OPTIONAL for name in _SAVED.get(_kind, ("env",)) if not (_kind == "compose" and name != "env")
    }
    _procedure(POSTS, f"{_kind}.saveEnvironment", **_id, **_required)(_save(_kind, _SAVED.get(_kind, ("env",))))
    _procedure(POSTS, f"{_kind}.update", **_id)(_update(_kind))
    if _kind in DATABASES:
        _procedure(POSTS, f"{_kind}.deploy", **_id)(_deploy_database(_kind))
    else:
        for _verb in ("redeploy", "deploy"):
            _procedure(POSTS, f"{_kind}.{_verb}", **_id)(_queued(_kind, _verb))
_procedure(POSTS, "application.reload", applicationId=_STRING, appName=_NOT_OPTIONAL)(_reload)


def _record(record: Row) -> Row:
    return {name: value for name, value in record.items() if not name.startswith("_")}


def _records(kind: str) -> Procedure:
    def records(call: Call) -> Any:
        service = call.state.services.get(call.text(f"{kind}Id"))
        return [_record(r) for r in service.deployments] if service else []

    return records


_procedure(GETS, "deployment.all", applicationId=_STRING)(_records("application"))
_procedure(GETS, "deployment.allByCompose", composeId=_STRING)(_records("compose"))


@_procedure(GETS, "deployment.queueList")
def _queue_list(call: Call) -> Any:
    return [{"id": str(n), "name": "deployments", "state": "waiting"} for n, _ in enumerate(call.state.jobs)]


# ------------------------------------------------------------------------------------------------------------- docker


def _ago(seconds: float) -> str:
    """As Docker says it."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return f"{int(seconds)} second{'s' if seconds >= 2 else ''}"
    if seconds < 120:
        return "About a minute"
    return f"{int(seconds // 60)} minutes" if seconds < 7200 else f"{int(seconds // 3600)} hours"


def _current(task: Task, now: float) -> str:
    if now < task.runs_from:
        return "Starting less than a second ago"
    if task.ended_at is not None and task.ended_at <= now:
        return f"{task.ended} {_ago(now - task.ended_at).lower()} ago"
    return f"Running {_ago(now - task.runs_from).lower()} ago"


def _named(call: Call) -> list[Service]:
    """Docker lists by a prefix of the name."""
    prefix = call.text("appName")
    return [s for s in call.state.services.values() if s.row["appName"].startswith(prefix)]


@_procedure(GETS, "docker.getServiceContainersByAppName", appName=_STRING)
def _tasks(call: Call) -> Any:
    _needs(call, allowed=call.user.sees_docker, resource="docker")
    now = call.state.now()
    rows = []
    for service in (s for s in _named(call) if s.row["appName"] == call.text("appName")):
        for task in (t for t in service.tasks if t.runs_from <= now + 1):
            wanted = task.wanted_until is None or task.wanted_until > now
            error = '"task: non-zero exit (1)"' if task.ended == "Failed" else ""
            rows.append(
                {
                    "containerId": task.id,
                    "name": f"{service.row['appName']}.1",
                    "state": "running" if wanted else "shutdown",
                    "currentState": _current(task, now),
                    "node": "vm",
                    "error": error,
                }
            )
    return rows


@_procedure(GETS, "docker.getContainersByAppNameMatch", appName=_STRING)
def _containers(call: Call) -> Any:
    now, rows = call.state.now(), []
    for service in _named(call):
        for task in (t for t in service.tasks if t.runs_from <= now and not service.elsewhere):
            ended = task.ended_at is not None and task.ended_at <= now
            code = 1 if task.ended == "Failed" else 137
            up = (
                f"Exited ({code}) {_ago(now - (task.ended_at or 0))} ago"
                if ended
                else f"Up {_ago(now - task.runs_from)}"
            )
            name = f"{service.row['appName']}.1.{task.id}"
            state = "exited" if ended else "running"
            rows.append({"containerId": task.container, "name": name, "state": state, "status": up})
    return rows


@_procedure(GETS, "docker.getConfig", containerId=_STRING)
def _config(call: Call) -> Any:
    _needs(call, allowed=call.user.sees_docker, resource="docker")
    for service in call.state.services.values():
        for task in service.tasks:
            if task.container == call.text("containerId") and not service.elsewhere:
                env = [f"{key}={value}" for key, value in task.env.items()]
                return {"Id": task.container * 5, "State": {"Status": "running"}, "Config": {"Env": env}}
    return EMPTY


# ------------------------------------------------------------------------------------------------------ keys, settings


@_procedure(GETS, "settings.getDokployVersion")
def _version(_call: Call) -> Any:
    return VERSION


@_procedure(GETS, "user.get")
def _user(call: Call) -> Any:
    keys = [
        {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "enabled": key.enabled,
            "expiresAt": _stamp(key.expires_at),
            "createdAt": call.state.stamp(),
        }
        for key in call.state.keys.values()
        if key.user == call.user.id
    ]
    role = "owner" if call.user.owner else "member"
    shown = {"organizationId": call.user.organization, "userId": call.user.id, "role": role}
    return {**shown, "user": {"id": call.user.id, "apiKeys": keys}}


def _stamp(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


@_procedure(POSTS, "user.createApiKey", name=_STRING, metadata="object")
def _create_key(call: Call) -> Any:
    given, name = call.given, call.text("name")
    if len(name) > 32:
        raise Answer(400, "Input validation failed", "BAD_REQUEST", issues=[{"code": "too_big", "path": ["name"]}])
    if given["metadata"].get("organizationId") != call.user.organization:
        raise Answer(403, "You are not a member of this organization", "FORBIDDEN")
    seconds = given.get("expiresIn")
    if seconds is not None and seconds < 86400:
        text = "The expiresIn is smaller than the predefined minimum value."
        raise Answer(500, text, "INTERNAL_SERVER_ERROR")
    if seconds is not None and seconds > 365 * 86400:
        text = "The expiresIn is larger than the predefined maximum value."
        raise Answer(500, text, "INTERNAL_SERVER_ERROR")
    limited = bool(given.get("rateLimitEnabled", True))
    made = call.state.key(call.user, name, limited=limited, prefix=given.get("prefix"))
    made.expires_at = datetime.now(UTC) + timedelta(seconds=seconds) if seconds is not None else None
    return {
        "id": made.id,
        "name": made.name,
        "start": made.value[:6],
        "referenceId": made.user,
        "prefix": made.prefix,
        "key": made.value,
        "enabled": True,
        "rateLimitEnabled": limited,
        "rateLimitMax": 10,
        "requestCount": 0,
        "expiresAt": _stamp(made.expires_at),
        "createdAt": call.state.stamp(),
    }


@_procedure(POSTS, "user.deleteApiKey", apiKeyId=_STRING)
def _delete_key(call: Call) -> Any:
    found = call.state.keys.get(call.text("apiKeyId"))
    if found is None or found.user != call.user.id:
        raise Answer(404, "API key not found", "NOT_FOUND")
    del call.state.keys[found.id]
    return True
