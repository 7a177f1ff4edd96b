"""Data sources, as the simulated Grafana answers about them, with their cache, their pool and their instances.

What runs is told apart by the second in which it was updated: two updates within one may leave the first one running.
"""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from vaultkeeper.testing.grafana.calls import Answer, Call, route, told
from vaultkeeper.testing.grafana.state import Row, Source, State

CACHED_FOR = timedelta(seconds=5)
POSTGRES = "grafana-postgresql-datasource"
_LOGO = "public/plugins/{0}/img/logo.svg"
_SETTABLE = ("name", "type", "access", "url", "user", "database", "basicAuthUser", "jsonData")
_FLAGS = ("basicAuth", "withCredentials", "isDefault")


def _source(call: Call, action: str) -> Source:
    """Raises Answer."""
    call.needs(action)
    found = call.state.sources.get(call.parts["uid"])
    if found is None or found.org != call.caller.org:
        raise told(404, "Data source not found")
    return found


def shown(source: Source) -> Row:
    """What can be read of it."""
    kept = {key: bool(value) for key, value in source.secure.items() if value}
    row = copy.deepcopy(source.row)
    return {**row, "typeLogoUrl": _LOGO.format(row["type"]), "secureJsonFields": kept, "apiVersion": ""}


@route("GET", "/api/datasources/uid/{uid}")
def _get(call: Call) -> Any:
    return shown(_source(call, "datasources:read"))


@route("POST", "/api/datasources")
def _create(call: Call) -> Any:
    call.needs("datasources:create")
    given = dict(call.given)
    secure = given.pop("secureJsonData", {})
    made = call.state.source(given.pop("name"), given.pop("type"), secure, org=call.caller.org, **given)
    return _told(made, "Datasource added")


@route("DELETE", "/api/datasources/uid/{uid}")
def _delete(call: Call) -> Any:
    source = _source(call, "datasources:delete")
    del call.state.sources[source.row["uid"]]
    return {"message": "Data source deleted", "id": source.row["id"]}


def _told(source: Source, message: str) -> Any:
    return {"datasource": shown(source), "id": source.row["id"], "message": message, "name": source.row["name"]}


@route("PUT", "/api/datasources/uid/{uid}")
def _put(call: Call) -> Any:
    """Replaces: what is left out goes to its default, but secrets stay. A `version` that is too old is refused."""
    source, given = _source(call, "datasources:write"), call.given
    if source.row["readOnly"]:
        raise told(403, "Cannot update read-only data source")
    if not given.get("name") or not given.get("type"):
        raise told(400, "bad request data")
    if given["type"] == POSTGRES and not given.get("url"):
        raise told(400, "Validation error, invalid URL")
    version = int(given.get("version") or 0)
    if 0 < version < source.row["version"]:
        raise told(409, "Datasource has already been updated by someone else. Please reload and try again")
    defaults: Row = {**dict.fromkeys(_SETTABLE, ""), "jsonData": {}, "basicAuthUser": source.row["basicAuthUser"]}
    row = {key: copy.deepcopy(given.get(key) or default) for key, default in defaults.items()}
    source.row |= row | {flag: bool(given.get(flag)) for flag in _FLAGS} | {"version": version + 1}
    secure = {**source.secure, **(given.get("secureJsonData") or {})}
    source.secure = {key: str(value) for key, value in secure.items() if value}
    source.updated = int(call.state.now().timestamp())
    return _told(source, "Datasource updated")


# --------------------------------------------------------------------------------------------------------- in use


@route("GET", "/api/datasources/uid/{uid}/health")
def _health(call: Call) -> Any:
    source = _source(call, "datasources:query")
    error = use(call.state, source, fresh=call.headers.get("x-grafana-nocache") == "true")
    if error is not None:
        details = {"details": {"errorDetailsLink": "", "verboseMessage": error}} if _pools(source) else {}
        raise Answer(400, {**details, "message": error, "status": "ERROR"})
    if _pools(source):
        return {"message": "Database Connection OK", "status": "OK"}
    return {"message": "Successfully queried the Prometheus API.", "status": "OK"}


@route("POST", "/api/ds/query")
def _query(call: Call) -> Any:
    call.needs("datasources:query")
    (query,) = call.given["queries"]
    source = call.state.sources[query["datasource"]["uid"]]
    error = use(call.state, source, fresh=call.headers.get("x-grafana-nocache") == "true")
    if error is not None:
        failed = {"error": f"db query error: {error}", "errorSource": "downstream", "status": 500, "frames": []}
        raise Answer(400, {"results": {"A": failed}})
    return {"results": {"A": {"status": 200, "frames": [{"data": {"values": [[source.instance[0]["user"]]]}}]}}}  # type: ignore[index]


@route("GET", "/api/datasources/proxy/uid/{uid}/{rest}")
def _proxy(call: Call) -> Any:
    source = _source(call, "datasources:query")
    if use(call.state, source, fresh=False) is not None:
        raise Answer(400, "Authentication to data source failed")
    return {"status": "success"}


def _pools(source: Source) -> bool:
    return bool(source.row["type"] != "prometheus")


def use(state: State, source: Source, *, fresh: bool) -> str | None:
    """What a panel or a health check meets: None where it is let in."""
    now = state.now()
    if fresh or source.cached is None or now - source.cached[0] >= CACHED_FOR:
        source.cached = now, copy.deepcopy(source.row), dict(source.secure), source.updated
    _, row, secure, updated = source.cached
    if source.instance is None or source.instance[2] != updated:
        source.instance, source.pooled, source.dropped = (row, secure, updated), False, False
    if source.dropped:
        source.pooled = source.dropped = False
        return "FATAL: terminating connection due to administrator command (SQLSTATE 57P01)"
    if source.pooled and _pools(source):
        return None
    error = state.log_in(source.instance[0], source.instance[1])
    source.pooled = error is None
    return error
