"""A service's raw spec: which of its secret references are ours, how they are changed, and nothing else with them.

Pure. A spec is the Engine's own JSON; whoever does not know a field hands it on. A reference is one entry of
`TaskTemplate.ContainerSpec.Secrets`: SecretID, SecretName and File (Name, UID, GID, Mode).
API: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Service
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]
Reference = Mapping[str, Any]

NS = 1_000_000_000  # the Engine counts in nanoseconds
MONITOR_S = 5.0  # the Engine's default
STOP_GRACE_S = 10.0
START_S = 30.0  # to place a task, pull its image and start it; nothing tells how long that takes here
SLACK_S = 30.0
_FOLDER = "/run/secrets/"
_SECRETS = "TaskTemplate.ContainerSpec.Secrets"


@dataclass(frozen=True)
class Mount:
    """Where a service reads one logical secret. None: as the reference has it; a new one: `base`, 0, 0, 0444."""

    base: str
    target: str | None = None
    uid: str | None = None
    gid: str | None = None
    mode: int | None = None

    @property
    def file(self) -> str:
        return _file(self.target or self.base)

    @property
    def path(self) -> str:
        """Inside the container, unless the service has it elsewhere already."""
        return self.file if self.file.startswith("/") else _FOLDER + self.file

    def dressed(self, file: Mapping[str, Any] | None) -> Json:
        """The `File` of a reference: what the policy says, else what was there."""
        was = file or {"Name": self.base, "UID": "0", "GID": "0", "Mode": 0o444}
        said = {"Name": self.target, "UID": self.uid, "GID": self.gid, "Mode": self.mode}
        return {**was, **{key: value for key, value in said.items() if value is not None}}


def references(spec: Mapping[str, Any] | None) -> list[Json]:
    """Of a service's spec, or of none."""
    return list((_container(spec) or {}).get("Secrets") or []) if spec else []


def task_secrets(task: Mapping[str, Any]) -> set[str]:
    """Ids of the objects that a task was made with, by its own spec."""
    container = (task.get("Spec") or {}).get("ContainerSpec") or {}
    return {str(reference.get("SecretID")) for reference in container.get("Secrets") or []}


def at(mount: Mount, found: Sequence[Reference], ours: Collection[str]) -> list[Json]:
    """The references that stand for this logical secret.

    By id among `ours`, by the exact name of a hand-made object, or by the file that the service reads; never by a
    prefix, because `db` is not `db_admin`.
    """
    return [dict(each) for each in found if _is_at(mount, each, ours)]


def _is_at(mount: Mount, each: Reference, ours: Collection[str]) -> bool:
    file = _file(str((each.get("File") or {}).get("Name", "")))
    return each.get("SecretID") in ours or each.get("SecretName") == mount.base or file == mount.file


def _file(name: str) -> str:
    return name.removeprefix(_FOLDER)


@dataclass(frozen=True)
class Wanted:
    """What one mount shall carry: an object, or (object None) exactly these references, perhaps none."""

    mount: Mount
    ours: frozenset[str]  #: ids of every object of this logical secret
    object_id: str | None = None
    object_name: str = ""
    put_back: tuple[Reference, ...] = ()

    @property
    def ids(self) -> set[str]:
        """What a task must have."""
        return {self.object_id} if self.object_id else {str(each["SecretID"]) for each in self.put_back}

    def met(self, spec: Mapping[str, Any] | None) -> bool:
        """Does a spec carry this already?"""
        return references(self.applied(spec)) == references(spec) if spec else False

    def applied(self, spec: Mapping[str, Any]) -> Json:
        """A copy of the spec that carries it; every other reference stays, and stays in its place."""
        made: Json = copy.deepcopy(dict(spec))
        present, written, placed = references(spec), list[Json](), False
        dressed = self._dressed([each for each in present if self._stands(each)])
        for each in present:
            if not self._stands(each):
                written.append(each)
            elif self.object_id is not None:
                written.append(self._pointing(each, dress=each is dressed))
            elif not placed:
                written += [dict(old) for old in self.put_back]
            placed = placed or self._stands(each)
        if not placed:
            written += (
                [self._pointing(None, dress=True)]
                if self.object_id is not None
                else [dict(old) for old in self.put_back]
            )
        written = _once_per_file(written)
        if written != present:
            _container(made)["Secrets"] = written
        return made

    def _stands(self, each: Reference) -> bool:
        return _is_at(self.mount, each, self.ours) or each.get("SecretID") in self.ids

    def _dressed(self, standing: Sequence[Json]) -> Json | None:
        """What the policy says of the mount is said of one file; whoever reads the same secret elsewhere still does."""
        there = [each for each in standing if _file(str((each.get("File") or {}).get("Name", ""))) == self.mount.file]
        return next(iter([*there, *standing]), None)

    def _pointing(self, each: Json | None, *, dress: bool) -> Json:
        was = (each or {}).get("File")
        file = self.mount.dressed(was) if dress else was
        return {**(each or {}), "File": file, "SecretID": self.object_id, "SecretName": self.object_name}


def _once_per_file(written: Sequence[Json]) -> list[Json]:
    """Two old references that now are one and the same."""
    kept: dict[str, Json] = {}
    for each in written:
        kept.setdefault(str((each.get("File") or {}).get("Name", "")), each)
    return list(kept.values())


def _container(spec: Mapping[str, Any]) -> Any:
    return (spec.get("TaskTemplate") or {}).get("ContainerSpec")


# --------------------------------------------------------------------------------------------------- what else changed


def strays(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Leaves that differ, but for secret references and the UpdateConfig: nobody asked for those."""
    return [path for path in _differences(before, after, "") if not path.startswith((_SECRETS, "UpdateConfig"))]


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from _differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _differences(a, b, f"{path}[{number}]")
    elif one != other and (one or other):  # an absent list and an empty one are the same to the Engine
        yield path


# --------------------------------------------------------------------------------------------------------- a rollout


def is_job(spec: Mapping[str, Any]) -> bool:
    """A job runs once more on each update, so it is never updated by us."""
    mode = spec.get("Mode") or {}
    return "ReplicatedJob" in mode or "GlobalJob" in mode


def replicas(spec: Mapping[str, Any]) -> int | None:
    """How many tasks shall run. None: one per node (global), so only the Engine knows."""
    mode = spec.get("Mode") or {}
    if "Global" in mode:
        return None
    said = (mode.get("Replicated") or {}).get("Replicas")
    return 1 if said is None else int(said)


def update_config(spec: Mapping[str, Any]) -> Json:
    """How the Engine rolls out; empty where the service says nothing."""
    return dict(spec.get("UpdateConfig") or {})


def monitor_s(spec: Mapping[str, Any]) -> float:
    """How long the Engine itself watches a new task. Seconds."""
    said = update_config(spec).get("Monitor")
    return float(said) / NS if said else MONITOR_S


def stop_grace_s(spec: Mapping[str, Any]) -> float:
    """How long a task is given to end. Seconds."""
    said = (_container(spec) or {}).get("StopGracePeriod")
    return STOP_GRACE_S if said is None else float(said) / NS


def healthcheck(spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The service's own; one that only the image has does not show."""
    said = (_container(spec) or {}).get("Healthcheck") or {}
    test = said.get("Test") or []
    return said if test and test[0] != "NONE" else None


def rollout_s(spec: Mapping[str, Any], tasks: int) -> float:
    """How long a rollout to `tasks` tasks may take that still goes well, without the watching afterwards. Seconds."""
    config, health = update_config(spec), healthcheck(spec)
    parallel = int(config.get("Parallelism", 1)) or max(tasks, 1)
    unhealthy_s = 0.0
    if health is not None:
        every_s = float(health.get("Interval") or 30 * NS) / NS
        unhealthy_s = float(health.get("StartPeriod") or 0) / NS + every_s * int(health.get("Retries") or 3)
    grace_s = stop_grace_s(spec)
    delay_s = float(config.get("Delay") or 0) / NS
    return math.ceil(tasks / parallel) * (START_S + unhealthy_s + grace_s + delay_s)


def moment(text: object) -> datetime:
    """An instant as the Engine writes it. What is none counts as long ago."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
