"""Projects, environments and services of the simulated Dokploy."""

from __future__ import annotations

from typing import Any

from vaultkeeper.testing.dokploy.calls import (
    EMPTY,
    GETS,
    NOT_OPTIONAL,
    POSTS,
    STRING,
    Answer,
    Call,
    Procedure,
    needs,
    procedure,
    seen,
    service_of,
    shared,
)
from vaultkeeper.testing.dokploy.state import LIST_OF, SERVICES, Row, Service

DATABASES = SERVICES[2:]


def _environment(call: Call, row: Row, *, brief: bool) -> Row:
    shown = {name: row[name] for name in ("name", "environmentId", "isDefault")} if brief else dict(row)
    for kind in SERVICES:
        status = "composeStatus" if kind == "compose" else "applicationStatus"
        names = (
            (f"{kind}Id", "name", status)
            if brief
            else (f"{kind}Id", "name", "appName", "createdAt", "serverId", status)
        )
        inside = [s for s in call.state.services.values() if s.kind == kind and seen(call, s)]
        shown[LIST_OF[kind]] = [
            {name: s.row[name] for name in names} for s in inside if s.row["environmentId"] == row["environmentId"]
        ]
    return {**shown, "libsql": []}


def _project(call: Call, row: Row, *, brief: bool) -> Row:
    inside = [e for e in call.state.environments.values() if e["projectId"] == row["projectId"]]
    return {**row, "environments": [_environment(call, e, brief=brief) for e in inside], "projectTags": []}


@procedure(GETS, "project.all")
def _project_all(call: Call) -> Any:
    shown = [_project(call, row, brief=True) for row in call.state.projects.values()]
    if call.user.owner:
        return shown
    return [p for p in shown if any(e[LIST_OF[kind]] for e in p["environments"] for kind in SERVICES)]


@procedure(GETS, "project.one", projectId=STRING)
def _project_one(call: Call) -> Any:
    row = shared(call, call.state.projects, "projectId", (404, "Project not found", "NOT_FOUND"))
    return _project(call, row, brief=False)


@procedure(GETS, "environment.one", environmentId=STRING)
def _environment_one(call: Call) -> Any:
    row = shared(call, call.state.environments, "environmentId", (404, "Environment not found", "NOT_FOUND"))
    shown = _environment(call, row, brief=False)
    del shown["createdAt"]
    for kind in SERVICES:
        for inside in shown[LIST_OF[kind]]:
            del inside["appName"]
    return {**shown, "project": dict(call.state.projects[row["projectId"]])}


@procedure(POSTS, "project.update", projectId=STRING)
def _project_update(call: Call) -> Any:
    row = shared(call, call.state.projects, "projectId", (404, "Project not found", "NOT_FOUND"))
    row["env"] = call.given.get("env", row["env"])
    return dict(row)


@procedure(POSTS, "environment.update", environmentId=STRING)
def _environment_update(call: Call) -> Any:
    unknown = (400, "Error updating the environment: Environment not found", "BAD_REQUEST")
    row = shared(call, call.state.environments, "environmentId", unknown)
    row["env"] = call.given.get("env", row["env"])
    return dict(row)


def _one(kind: str) -> Procedure:
    def one(call: Call) -> Any:
        service = service_of(call, kind)
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
        service = service_of(call, kind, unknown=unknown)
        service.row |= {name: call.given[name] for name in fields if name in call.given}
        return True

    return save


def _may_deploy(call: Call, service: Service) -> bool:
    return call.user.may_deploy and service.id not in call.user.not_deployed


def _reload(call: Call) -> Any:
    service = service_of(call, "application")
    needs(call, allowed=_may_deploy(call, service), resource="deployment")
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
        service = service_of(call, kind)
        needs(call, allowed=_may_deploy(call, service), resource="deployment")
        call.state.enqueue(service, str(call.given.get("title", "Rebuild deployment")))
        return {"success": True, "message": said, "composeId": service.id} if kind == "compose" else EMPTY

    return queue


def _deploy_database(kind: str) -> Procedure:
    def deploy(call: Call) -> Any:
        service = service_of(call, kind)
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
        service = service_of(call, kind, unknown=unknown)
        needs(call, allowed=call.user.may_create, resource="service")
        service.row |= {name: value for name, value in call.given.items() if name != f"{kind}Id"}
        return dict(service.row) if kind == "compose" else True

    return update


_SAVED = {"application": ("env", "buildArgs", "buildSecrets", "createEnvFile"), "compose": ("env", "createEnvFile")}
for _kind in SERVICES:
    _id = {f"{_kind}Id": STRING}
    procedure(GETS, f"{_kind}.one", **_id)(_one(_kind))
    _required = {
        name: NOT_OPTIONAL for name in _SAVED.get(_kind, ("env",)) if not (_kind == "compose" and name != "env")
    }
    procedure(POSTS, f"{_kind}.saveEnvironment", **_id, **_required)(_save(_kind, _SAVED.get(_kind, ("env",))))
    procedure(POSTS, f"{_kind}.update", **_id)(_update(_kind))
    if _kind in DATABASES:
        procedure(POSTS, f"{_kind}.deploy", **_id)(_deploy_database(_kind))
    else:
        for _verb in ("redeploy", "deploy"):
            procedure(POSTS, f"{_kind}.{_verb}", **_id)(_queued(_kind, _verb))
procedure(POSTS, "application.reload", applicationId=STRING, appName=NOT_OPTIONAL)(_reload)


def _record(record: Row) -> Row:
    return {name: value for name, value in record.items() if not name.startswith("_")}


def _records(kind: str) -> Procedure:
    def records(call: Call) -> Any:
        service = call.state.services.get(call.text(f"{kind}Id"))
        return [_record(r) for r in service.deployments] if service else []

    return records


procedure(GETS, "deployment.all", applicationId=STRING)(_records("application"))
procedure(GETS, "deployment.allByCompose", composeId=STRING)(_records("compose"))


@procedure(GETS, "deployment.queueList")
def _queue_list(call: Call) -> Any:
    return [{"id": str(n), "name": "deployments", "state": "waiting"} for n, _ in enumerate(call.state.jobs)]
