"""Whether a service's tasks run on what its spec says: the only proof there is. Pure.

The Engine's own verdict is not asked: `completed` appears while a task crash-loops (FailureAction continue) or before
it crashes, and `rollback_completed` with nothing running (both measured).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vaultkeeper.access.swarm.spec import moment, task_secrets

Task = Mapping[str, Any]

ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
"""States that a task never leaves; in all others it runs, or may come to."""

STOPPED_BY_ITSELF = frozenset({"failed", "rejected"})


@dataclass(frozen=True)
class Rollout:
    """A service at one moment. `wanted`: ids that each task needs; `avoided`: older ones of the same secrets."""

    tasks: Sequence[Task]
    replicas: int | None  #: None: global
    wanted: Collection[str]
    avoided: Collection[str]
    started_at: datetime  #: of the update under way or of the last one
    now: datetime  #: by the Engine's clock
    window: timedelta  #: older failures belong to something else
    restarts_done: bool = True  #: a task that ends well is started again, so ending is failing

    def carries(self, task: Task) -> bool:
        """Was this task made with what is wanted?"""
        has = task_secrets(task)
        return has.issuperset(self.wanted) and has.isdisjoint(self.avoided)

    @property
    def current(self) -> list[Task]:
        """Tasks that shall run."""
        return [task for task in self.tasks if task.get("DesiredState") == "running"]

    @property
    def running(self) -> list[Task]:
        """Of those, the ones that do, and on what is wanted."""
        return [task for task in self.current if state(task) == "running" and self.carries(task)]

    @property
    def desired(self) -> int:
        """Of a global service also those that wait out a restart's delay, wanted `ready` until then."""
        if self.replicas is not None:
            return self.replicas
        return sum(task.get("DesiredState") in {"ready", "running"} for task in self.tasks)

    @property
    def stale(self) -> list[Task]:
        """Tasks that shall run on, but not on what is wanted: their turn is still to come."""
        return [task for task in self.current if not self.carries(task)]

    def failed(self) -> list[Task]:
        """New failures of tasks that have what is wanted, newest first."""
        since = max(self.started_at, self.now - self.window)
        ends = STOPPED_BY_ITSELF | ({"complete"} if self.restarts_done else frozenset())
        found = [t for t in self.tasks if state(t) in ends and self.carries(t) and changed_at(t) >= since]
        return sorted(found, key=changed_at, reverse=True)

    def pending(self) -> list[Task]:
        """Tasks with what is wanted that are not up yet, newest first."""
        waiting = [t for t in self.current if self.carries(t) and state(t) != "running"]
        return sorted(waiting, key=changed_at, reverse=True)

    def leaving(self) -> list[Task]:
        """Tasks that shall end, still run, and do so on something else."""
        return [t for t in self.tasks if t.get("DesiredState") == "shutdown" and alive(t) and not self.carries(t)]

    def settled_for(self) -> timedelta:
        """How long all of them have been running. Only of use where `running` is not empty."""
        return self.now - max(changed_at(task) for task in self.running)


def state(task: Task) -> str:
    """`new` to `running`, or how it ended."""
    return str((task.get("Status") or {}).get("State", ""))


def changed_at(task: Task) -> datetime:
    """When it came into its present state, by its node's clock; never before it was made, by the manager's."""
    return max(moment((task.get("Status") or {}).get("Timestamp")), moment(task.get("CreatedAt")))


def told_at(task: Task) -> datetime:
    """When it was last written; where it shall end and has not, that is not before it was told so."""
    return max(changed_at(task), moment(task.get("UpdatedAt")))


def error(task: Task) -> str:
    """The Engine's words: "task: non-zero exit (1)", "no suitable node (…)". Empty where it has none."""
    status = task.get("Status") or {}
    return str(status.get("Err") or "")


def alive(task: Task) -> bool:
    """May it still run?"""
    return state(task) not in ENDED
