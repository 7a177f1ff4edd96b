"""What really runs: Dokploy says `true` and `done` once Docker Swarm has accepted a change, not once it works.

With a crashing application Swarm goes back to the old environment within seconds, while Dokploy keeps showing the new
one. Proof is the environment of the containers themselves, seen through `docker.getConfig` (the right docker:read).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from vaultkeeper.access.answer import Answered
from vaultkeeper.access.dokploy import Dokploy
from vaultkeeper.access.dokploy.service import Holder
from vaultkeeper.model.outcome import Confirmation, Confirmed, Failed, Login, NotYet, Proof, Unknown

AGAIN = timedelta(seconds=1)
MONITOR_S = 5.0  # how long Swarm watches a new task where the service says nothing
SHAKY_S = 60.0  # how long a task must run where one before it failed on the same environment
JUST_BEFORE_S = 120.0
_MAX_INSPECTED = 60  # containers of one service; beyond them a probe must do
_UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000, "year": 31536000}


class CannotSee(Answered):
    """The containers of a service are not all within Dokploy's sight."""


Wanted = Mapping[str, str | None]
"""Key → value that containers shall have. None: they shall not have that key."""


@dataclass(frozen=True)
class _Task:
    name: str  #: "shop-web-abc.1": the place that successive tasks take
    wanted: bool  #: Swarm wants it to run
    state: str  #: "Running 11 seconds ago"
    container: str | None
    env: Mapping[str, str] | None = field(default=None, repr=False)  #: None: could not be inspected
    health: str = ""

    @property
    def runs(self) -> bool:
        return self.state.startswith("Running")

    @property
    def broke(self) -> bool:
        return self.state.startswith(("Failed", "Rejected"))

    def has(self, wanted: Wanted) -> bool:
        return self.env is not None and all(self.env.get(key) == value for key, value in wanted.items())


def effective(server: Dokploy, holder: Holder, wanted: Wanted, healthy_s: float) -> Confirmation:
    """Do all tasks of a service run on these values, longer than Swarm watches them, and none failed on them?

    Raises RightMissing without docker:read, CannotSee where a container runs on another machine.
    """
    tasks = _tasks(server, holder)
    desired = [task for task in tasks if task.wanted]
    settle_s = max(healthy_s, settles_s(holder))
    if not desired:
        return NotYet(f"{holder.name} runs nowhere", AGAIN)
    for task in desired:
        if not task.runs:
            return NotYet(f"{task.name} does not run yet: {task.state.partition(' ')[0].lower() or 'unknown'}", AGAIN)
    if any(task.env is None for task in desired):
        what = f"a container of {holder.name} runs where Dokploy cannot inspect it"
        raise CannotSee(Unknown(Login.UNREACHABLE, what), what)
    broken = {task.name for task in desired if _broke_before(task, tasks, wanted)}
    for task in desired:
        if not task.has(wanted):
            if task.name in broken:
                return Failed(holder.name, "a task failed on the new value, and Docker Swarm went back to the old one")
            return NotYet(f"{task.name} still runs on another value", AGAIN)
        if task.health not in ("", "none", "healthy"):
            return NotYet(f"{task.name} is {task.health}", AGAIN)
        needed_s = max(settle_s, SHAKY_S) if task.name in broken else settle_s
        if age_s(task.state) < needed_s:
            left_s = max(needed_s - age_s(task.state), 1)
            return NotYet(
                f"{task.name} runs on it for less than {needed_s:.0f} s", min(timedelta(seconds=left_s), AGAIN * 10)
            )
    if any(task.runs and not task.wanted for task in tasks):
        return NotYet(f"an earlier task of {holder.name} has not ended", AGAIN)
    return Confirmed(Proof.DEMONSTRATED)


def runs_on(server: Dokploy, holder: Holder, wanted: Wanted) -> bool:
    """Was this environment applied already? However long ago. Raises as `effective`."""
    desired = [task for task in _tasks(server, holder) if task.wanted]
    return bool(desired) and all(task.has(wanted) for task in desired)


def holds(server: Dokploy, holder: Holder, key: str) -> list[str]:
    """The values of `key` in containers that run. Raises as `effective`."""
    return [task.env[key] for task in _tasks(server, holder) if task.runs and task.env is not None and key in task.env]


def looks_healthy(server: Dokploy, holder: Holder, healthy_s: float, *, forward: bool) -> NotYet | Failed | None:
    """The most that a key without docker:read can see: states of containers. None: nothing speaks against it.

    `forward`: a container that ended in an error since the newest one began may be Swarm's way back to the old value.
    """
    found = _containers(server, holder)
    running = [age_s(row["status"]) for row in found if row["state"] == "running"]
    if not running:
        return NotYet(f"no container of {holder.name} runs", AGAIN)
    if any("(unhealthy)" in row["status"] or "starting" in row["status"] for row in found if row["state"] == "running"):
        return NotYet(f"a container of {holder.name} is not healthy", AGAIN)
    newest_s, needed_s = min(running), max(healthy_s, settles_s(holder))
    crashed = [row for row in found if re.match(r"Exited \((?!0\)|137\)|143\))", row["status"])]
    if forward and any(age_s(row["status"]) <= newest_s + JUST_BEFORE_S for row in crashed):
        return Failed(holder.name, "a container ended in an error after the change")
    if newest_s < needed_s:
        return NotYet(f"{holder.name} was started less than {needed_s:.0f} s ago", AGAIN)
    return None


def settles_s(holder: Holder) -> float:
    """How long Swarm may take to find a new task bad: its monitor time, and one health check. Dokploy keeps ns."""
    update, check = holder.row.get("updateConfigSwarm"), holder.row.get("healthCheckSwarm")
    monitor_ns = update.get("Monitor") if isinstance(update, dict) else None
    interval_ns = check.get("Interval") if isinstance(check, dict) else None
    monitor_s = monitor_ns / 1e9 if isinstance(monitor_ns, int | float) and monitor_ns > 0 else MONITOR_S
    return monitor_s + (interval_ns / 1e9 if isinstance(interval_ns, int | float) else 0)


def age_s(text: str) -> float:
    """Of Docker's "Running 11 seconds ago", "Up About a minute (healthy)", "Exited (1) 7 seconds ago"."""
    lowered = text.lower()
    counted = re.search(r"(\d+) (second|minute|hour|day|week|month|year)", lowered)
    if counted:
        return float(counted[1]) * _UNITS_S[counted[2]]
    about = re.search(r"\ban? (minute|hour)", lowered)
    return float(_UNITS_S[about[1]]) if about else 0.0


def _broke_before(task: _Task, tasks: Sequence[_Task], wanted: Wanted) -> bool:
    """Did a task in this one's place fail on the wanted values, shortly before this one began?"""
    same = [other for other in tasks if other.name == task.name]
    broken = next((older for older in same[same.index(task) + 1 :] if older.broke), None)
    if broken is None or (broken.env is not None and not broken.has(wanted)):
        return False
    return age_s(broken.state) <= age_s(task.state) + JUST_BEFORE_S


def _tasks(server: Dokploy, holder: Holder) -> list[_Task]:
    """In Docker's order: the newest of each place first."""
    listed = server.get("docker.getServiceContainersByAppName", appName=holder.app_name, **holder.server)
    containers = {row["name"].rpartition(".")[2]: row["containerId"] for row in _containers(server, holder)}
    found: list[_Task] = []
    inspected = 0
    for row in _rows(listed):
        container = containers.get(row["containerId"])
        telling = row["state"] == "running" or row["currentState"].startswith(("Running", "Failed", "Rejected"))
        shown: Any = None
        if container and telling and inspected < _MAX_INSPECTED:  # what ended well tells nothing
            shown, inspected = server.get("docker.getConfig", containerId=container, **holder.server), inspected + 1
        env, health = _inspected(shown)
        found.append(_Task(row["name"], row["state"] == "running", row["currentState"], container, env, health))
    return found


def _inspected(shown: Any) -> tuple[Mapping[str, str] | None, str]:
    try:
        pairs = [pair.partition("=") for pair in shown["Config"]["Env"] or ()]
        health = (shown["State"].get("Health") or {}).get("Status", "")
    except (TypeError, KeyError, AttributeError):
        return None, ""
    return {key: value for key, _, value in pairs}, str(health)


def _containers(server: Dokploy, holder: Holder) -> list[Mapping[str, str]]:
    """Dokploy lists by a prefix of the name, so another service may be among them."""
    listed = server.get("docker.getContainersByAppNameMatch", appName=holder.app_name, **holder.server)
    return [row for row in _rows(listed) if row["name"].startswith(f"{holder.app_name}.")]


def _rows(listed: object) -> list[Mapping[str, str]]:
    """Texts only; what is missing is empty."""
    names = ("containerId", "name", "state", "status", "currentState")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return [{name: str(row.get(name) or "") for name in names} for row in rows]
