"""Secret objects of a swarm: made once, never changed, found again by their labels and by an equality check.

An object's content cannot be read back, but `POST /secrets/ID/update` with data answers 200 where it is equal and 400
where it is not (measured); its labels are sent as they are, so nothing changes but its version counter.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vaultkeeper.access.answer import refused
from vaultkeeper.access.docker import MAX_LIST_BYTES
from vaultkeeper.access.docker.answers import Declined
from vaultkeeper.access.swarm import Swarm
from vaultkeeper.access.swarm.spec import moment
from vaultkeeper.model.outcome import No
from vaultkeeper.model.secret import SecretVersion

MAX_BYTES = 511_999  # one more is refused (tried)
MAX_NAME = 64
LABEL = "vaultkeeper."
_TRIES = 8
_MOST_NAMES = 100


@dataclass(frozen=True)
class Logical:
    """What several objects are generations of: one named value of one secret of one installation."""

    installation: str
    secret: str
    base: str

    def labels(self, version: SecretVersion | None = None) -> dict[str, str]:
        """Never `com.docker.stack.namespace`: `docker stack rm` would delete what carries it."""
        said = {"installation": self.installation, "secret": self.secret, "object": self.base}
        if version is not None:
            said |= {"version": str(version.number), "version-id": version.id}
        return {LABEL + key: value for key, value in said.items()}


@dataclass(frozen=True)
class Object:
    """One secret object: everything but its content."""

    id: str
    raw: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.raw["Spec"]["Name"])

    @property
    def labels(self) -> Mapping[str, str]:
        return self.raw["Spec"].get("Labels") or {}

    @property
    def ours(self) -> bool:
        """Did some vaultkeeper make it?"""
        return LABEL + "version-id" in self.labels

    @property
    def version_id(self) -> str:
        return self.labels.get(LABEL + "version-id", "")

    @property
    def age(self) -> tuple[int, float]:
        """Sorts by generation, then by when it was made."""
        number = self.labels.get(LABEL + "version", "0")
        return int(number) if number.isdigit() else 0, moment(self.raw.get("CreatedAt")).timestamp()

    def is_of(self, logical: Logical, version: SecretVersion | None = None) -> bool:
        return logical.labels(version).items() <= self.labels.items()


def name_of(base: str, number: int, attempt: int = 1) -> str:
    """`<base>_v<number>`, then `…-2`, `…-3`; a base too long for 64 characters ends in a part of its own hash."""
    tail = f"_v{number}" + (f"-{attempt}" if attempt > 1 else "")
    if len(base) + len(tail) > MAX_NAME:
        digest = hashlib.sha256(base.encode()).hexdigest()[:10]
        base = f"{base[: MAX_NAME - len(tail) - len(digest) - 1]}-{digest}"
    return base + tail


@dataclass
class Memory:
    """Answers of equality checks. An object's content never changes, so an answer is true for ever.

    Kept as keyed digests under a key of this process: no value is held longer than its hook.
    """

    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _answers: dict[tuple[str, bytes], bool] = field(default_factory=dict, repr=False)

    def equal(self, object_id: str, content: bytes, ask: Callable[[], bool | None]) -> bool | None:
        at = (object_id, hmac.digest(self._key, content, "sha256"))
        if at not in self._answers:
            told = ask()
            if told is None:
                return None
            self._answers[at] = told
        return self._answers[at]


@dataclass(frozen=True)
class Objects:
    """The objects of one swarm, for one hook. Every call raises Answered."""

    swarm: Swarm
    memory: Memory

    def all_of(self, labels: Mapping[str, str]) -> list[Object]:
        """Every object that has these labels, oldest first."""
        query = {"filters": json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})}
        found = self.swarm.engine.get("/secrets", self.swarm.deadline, query=query, limit_bytes=MAX_LIST_BYTES)
        return sorted((Object(str(raw["ID"]), raw) for raw in found or []), key=lambda each: each.age)

    def by_id(self, object_id: str) -> Object | None:
        raw = self.swarm.engine.get(f"/secrets/{object_id}", self.swarm.deadline, absent_ok=True)
        return Object(str(raw["ID"]), raw) if raw and raw["ID"] == object_id else None

    def named(self, name: str) -> Object | None:
        """By its name, in whatever case: the Engine takes two spellings for one name."""
        query = {"filters": json.dumps({"name": [name]})}
        found = self.swarm.engine.get("/secrets", self.swarm.deadline, query=query, limit_bytes=MAX_LIST_BYTES)
        same = [raw for raw in found or [] if raw["Spec"]["Name"].lower() == name.lower()]
        return Object(str(same[0]["ID"]), same[0]) if same else None

    def equal(self, found: Object, content: bytes) -> bool:
        """Does the object hold exactly this? False too where it is gone."""
        return bool(self.memory.equal(found.id, content, lambda: self._ask(found.id, content)))

    def _ask(self, object_id: str, content: bytes) -> bool | None:
        if not 0 < len(content) <= MAX_BYTES:
            return False
        for _ in range(_TRIES):
            found = self.by_id(object_id)
            if found is None:
                return None
            body = {**found.raw["Spec"], "Data": base64.b64encode(content).decode()}
            query = {"version": str(found.raw["Version"]["Index"])}
            try:
                self.swarm.engine.post(f"/secrets/{object_id}/update", self.swarm.deadline, body, query=query)
            except Declined as error:
                if "out of sequence" in error.said:
                    continue
                if error.status == 400:  # "only updates to Labels are allowed", or one that is kept by a plugin
                    return False
                raise
            return True
        return None

    def find(self, logical: Logical, version: SecretVersion, content: bytes, known: Sequence[Object]) -> Object | None:
        """The object of `known` that was made for this version and holds this content."""
        made = [each for each in known if each.is_of(logical, version)]
        return next((each for each in reversed(made) if self.equal(each, content)), None)

    def make(self, logical: Logical, version: SecretVersion, content: bytes) -> Object:
        """A new object. Under a name that is taken: that one, if it is ours and equal, else the next name.

        One version may need several: an edited template, a list that carries more than one version, a restored store
        that counts the same numbers again.
        """
        for attempt in range(1, _MOST_NAMES):
            name = name_of(logical.base, version.number, attempt)
            try:
                made = self._create(name, logical.labels(version), content)
            except Declined as error:
                if error.status != 409:
                    raise
                taken = self.named(name)
                if taken is not None and taken.is_of(logical, version) and self.equal(taken, content):
                    return taken
                continue
            self.memory.equal(made.id, content, lambda: True)
            return made
        raise refused(No.CAPACITY, f"{_MOST_NAMES} names like {name_of(logical.base, version.number)} are taken")

    def _create(self, name: str, labels: Mapping[str, str], content: bytes) -> Object:
        body = {"Name": name, "Labels": dict(labels), "Data": base64.b64encode(content).decode()}
        made = self.swarm.engine.post("/secrets/create", self.swarm.deadline, body)
        return Object(str(made["ID"]), {"ID": made["ID"], "Spec": {"Name": name, "Labels": dict(labels)}})

    def delete(self, unused: Collection[Object]) -> None:
        """What has come into use again since is left: the Engine refuses that."""
        for each in unused:
            try:
                self.swarm.engine.delete(f"/secrets/{each.id}", self.swarm.deadline)
            except Declined as error:
                if error.status != 400:
                    raise
