"""Did a service's rollout succeed, and what still holds an old object? Judged by tasks, and pure but for a log line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vaultkeeper.access.swarm import Service
from vaultkeeper.access.swarm import advice as swarm_advice
from vaultkeeper.access.swarm import spec as swarm_spec
from vaultkeeper.access.swarm.spec import Wanted, task_secrets
from vaultkeeper.access.swarm.tasks import Rollout, Task, alive, changed_at, error, state, told_at
from vaultkeeper.model.outcome import Confirmation, Confirmed, Failed, Holds, NotYet, Proof

LastWords = Callable[[Sequence[Task]], str]
"""The last line that the first of these tasks printed; empty where none can be had."""

_SOONEST, _LATEST = timedelta(seconds=0.5), timedelta(seconds=5)
_LATE = timedelta(seconds=15)  # beyond its grace period, for a busy node to end a task; a lost one never does
_STUCK = timedelta(seconds=5)  # a task that is not up by then has something to tell


@dataclass(frozen=True)
class Case:
    """One service at one moment, and what is wanted of it."""

    service: Service
    tasks: Sequence[Task]
    wanted: Sequence[Wanted]
    now: datetime  #: by the Engine's clock
    healthy_for: timedelta
    window: timedelta  #: failures longer ago belong to something else
    going_back: bool = False  #: a failing task is then waited for: there is nothing further to go back to

    def rollout(self, since: datetime) -> Rollout:
        ids = {object_id for each in self.wanted for object_id in each.ids}
        restart = ((self.service.spec.get("TaskTemplate") or {}).get("RestartPolicy") or {}).get("Condition")
        return Rollout(
            tasks=self.tasks,
            replicas=swarm_spec.replicas(self.service.spec),
            wanted=ids,
            avoided={object_id for each in self.wanted for object_id in each.ours} - ids,
            started_at=since,
            now=self.now,
            window=self.window,
            restarts_done=restart in (None, "", "any"),
        )


def judge(case: Case, last_words: LastWords) -> Confirmation:
    """Confirmed needs all of it: the spec is ours, every desired task runs on it, for long enough, and none has failed.

    A failure is told at once, even where the Engine would tolerate or repeat it: a consumer that crashes on the new
    value must not have the old one taken away. Old tasks are given their stop grace period to leave; one on a node that
    is lost never does, and does not hold up the others.
    """
    service = case.service
    if not all(each.met(service.spec) for each in case.wanted):
        return Failed(service.name, _reverted(case, last_words))
    rollout = case.rollout(service.started_at)
    failures, paused = rollout.failed(), swarm_advice.paused(service)
    if (failures and not case.going_back) or paused:
        said = [service.update_said] if paused else []
        return Failed(service.name, _told([*said, *_words(failures or rollout.pending(), last_words)]))
    if service.moving or rollout.stale or len(rollout.running) < rollout.desired:
        return _still_moving(case, rollout, last_words)
    if rollout.desired == 0:
        return Confirmed(Proof.WRITTEN)
    settled = rollout.settled_for()
    left = max(case.healthy_for, timedelta(seconds=swarm_spec.monitor_s(service.spec))) - settled
    if left > timedelta(0):
        return NotYet(
            f"{service.name}: all run on it, watched a little longer",
            max(min(left, _LATEST), _SOONEST),
            (service.name,),
        )
    grace = timedelta(seconds=swarm_spec.stop_grace_s(service.spec)) + _LATE
    if any(min(settled, case.now - told_at(task)) < grace for task in rollout.leaving()):
        return NotYet(f"{service.name}: old tasks are on their way out", _SOONEST, (service.name,))
    return Confirmed(Proof.DEMONSTRATED)


def _still_moving(case: Case, rollout: Rollout, last_words: LastWords) -> NotYet:
    service, late = case.service, rollout.pending() or rollout.stale
    reason = f"{service.name}: {len(rollout.running)} of {rollout.desired} tasks run on it"
    if late and case.now - changed_at(late[0]) > _STUCK and rollout.carries(late[0]):
        reason += f"; {_told([state(late[0]), *_words(late, last_words)])}"
    again = min(max((case.now - service.started_at) / 10, _SOONEST), _LATEST)
    return NotYet(reason, again, (service.name,))


def _reverted(case: Case, last_words: LastWords) -> str:
    """The Engine rolled it back, or somebody did, or wrote another spec over ours."""
    service = case.service
    failures = case.rollout(case.now - case.window).failed()
    if service.update_state.startswith("rollback"):
        return _told([service.update_said or "it was rolled back", *_words(failures, last_words)])
    return _told(["somebody updated it meanwhile, and it no longer refers to what was delivered"])


def _words(tasks: Sequence[Task], last_words: LastWords) -> list[str]:
    if not tasks:
        return []
    line = last_words(tasks)
    return [error(tasks[0]) or f"a task ended ({state(tasks[0])})", *([f"its last line: {line}"] if line else [])]


def _told(parts: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(part for part in parts if part))


def current(tasks: Sequence[Task]) -> list[Task]:
    """Tasks that shall run."""
    return [task for task in tasks if task.get("DesiredState") == "running"]


def named(spec: Mapping[str, Any] | None, ids: Collection[str]) -> bool:
    """Does a spec refer to one of these objects?"""
    return any(reference.get("SecretID") in ids for reference in swarm_spec.references(spec))


def holds(service: Service, tasks: Sequence[Task], ids: Collection[str]) -> Holds:
    """RUNNING: a task that shall run has it. A task on its way out, or a spec that names it, is a way back."""
    using = [task for task in tasks if alive(task) and not task_secrets(task).isdisjoint(ids)]
    if any(task.get("DesiredState") not in ("shutdown", "remove") for task in using):
        return Holds.RUNNING
    if using or named(service.spec, ids) or named(service.previous, ids):
        return Holds.ROLLBACK_PATH
    return Holds.NOTHING
