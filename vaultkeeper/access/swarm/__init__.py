"""Services and tasks of one swarm, as the Engine tells them, and the one way in which a service is changed.

Changed means: read raw, alter what must be altered, write raw with the version that was read. Whoever wrote in between
is noticed by that version ("update out of sequence", which the Engine answers with 500), and nothing of theirs is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vaultkeeper.access.answer import Answered
from vaultkeeper.access.docker import MAX_LIST_BYTES, Engine
from vaultkeeper.access.docker.answers import Declined
from vaultkeeper.access.swarm.spec import Json, moment, references
from vaultkeeper.access.swarm.tasks import Task
from vaultkeeper.model.outcome import No, Refused
from vaultkeeper.ports import Deadline

MOVING = frozenset({"updating", "rollback_started"})
"""States in which the Engine replaces tasks. A paused update replaces none."""


class OutOfSequence(Answered):
    """Somebody else wrote since it was read. Nothing was changed; read again."""

    def __init__(self, name: str) -> None:
        text = f"{name} was changed by somebody else in between"
        super().__init__(Refused(No.CONFLICT, text), text)


@dataclass(frozen=True)
class Service:
    """One service at one moment. Specs are raw."""

    id: str
    name: str
    index: int
    spec: Json
    previous: Json | None  #: what `docker service rollback` would bring back
    update_state: str  #: "" where nothing was rolled out
    update_said: str
    started_at: datetime  #: of the update under way or of the last one; where there was none, the last change

    @property
    def moving(self) -> bool:
        return self.update_state in MOVING

    def names(self, object_id: str) -> bool:
        """Could it still be started with this object?"""
        found = [*references(self.spec), *references(self.previous)]
        return any(reference.get("SecretID") == object_id for reference in found)


def read_service(raw: Mapping[str, Any]) -> Service:
    """From the Engine's JSON."""
    status = raw.get("UpdateStatus") or {}
    return Service(
        id=str(raw["ID"]),
        name=str(raw["Spec"]["Name"]),
        index=int(raw["Version"]["Index"]),
        spec=raw["Spec"],
        previous=raw.get("PreviousSpec"),
        update_state=str(status.get("State") or ""),
        update_said=str(status.get("Message") or ""),
        started_at=moment(status.get("StartedAt") or raw.get("UpdatedAt")),
    )


@dataclass(frozen=True)
class Swarm:
    """The swarm behind one Engine, for one hook. Every call raises Answered."""

    engine: Engine
    deadline: Deadline

    def service(self, name: str) -> Service | None:
        """By its exact name; the Engine itself would also take the beginning of an id."""
        raw = self.engine.get(f"/services/{name}", self.deadline, absent_ok=True)
        return read_service(raw) if raw and raw["Spec"]["Name"] == name else None

    def services(self) -> list[Service]:
        raw = self.engine.get("/services", self.deadline, limit_bytes=MAX_LIST_BYTES)
        return [read_service(each) for each in raw or []]

    def tasks(self, service: Service | None = None) -> list[Task]:
        """Of one service, or all there are."""
        query = {"filters": json.dumps({"service": [service.id]})} if service else None
        found = self.engine.get("/tasks", self.deadline, query=query, limit_bytes=MAX_LIST_BYTES)
        return [each for each in found or [] if service is None or each.get("ServiceID") == service.id]

    def update(self, service: Service, spec: Json) -> None:
        """Write a whole spec over the version that was read. Raises OutOfSequence."""
        query = {"version": str(service.index)}
        try:
            self.engine.post(f"/services/{service.id}/update", self.deadline, spec, query=query)
        except Declined as error:
            if "out of sequence" in error.said:
                raise OutOfSequence(service.name) from None
            raise

    def last_words(self, tasks: Sequence[Task]) -> str:
        """The last line that the first of these tasks printed."""
        return self.engine.last_line(f"/tasks/{tasks[0]['ID']}/logs", self.deadline) if tasks else ""

    @property
    def now(self) -> datetime:
        """By the Engine's clock, at its last answer."""
        return datetime.fromtimestamp(self.engine.now_s, UTC)
