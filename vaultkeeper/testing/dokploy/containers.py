"""What the simulated Dokploy tells of Docker's tasks and containers."""

from __future__ import annotations

from typing import Any

from vaultkeeper.testing.dokploy.calls import EMPTY, GETS, STRING, Call, needs, procedure
from vaultkeeper.testing.dokploy.state import Service, Task


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


@procedure(GETS, "docker.getServiceContainersByAppName", appName=STRING)
def _tasks(call: Call) -> Any:
    needs(call, allowed=call.user.sees_docker, resource="docker")
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


@procedure(GETS, "docker.getContainersByAppNameMatch", appName=STRING)
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


@procedure(GETS, "docker.getConfig", containerId=STRING)
def _config(call: Call) -> Any:
    needs(call, allowed=call.user.sees_docker, resource="docker")
    for service in call.state.services.values():
        for task in service.tasks:
            if task.container == call.text("containerId") and not service.elsewhere:
                env = [f"{key}={value}" for key, value in task.env.items()]
                return {"Id": task.container * 5, "State": {"Status": "running"}, "Config": {"Env": env}}
    return EMPTY
