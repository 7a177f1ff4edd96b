"""What a policy says of a Swarm destination, and what it means for its groups, mounts and rollouts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from vaultkeeper.access.docker import EngineSettings
from vaultkeeper.access.settings import Mode, Shape
from vaultkeeper.access.swarm.spec import NS, Mount
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model import duration
from vaultkeeper.model.secret import GroupKey

_BASE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_GROUP = "swarm:"


def _span(text: str) -> str:
    duration.parse(text)
    return text


Span = Annotated[str, AfterValidator(_span)]
Names = Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], ...], Field(strict=False)]


class MountSettings(Shape):
    """How the service sees it. What is not said stays as it is; new: the object's name, 0, 0, 0444."""

    target: str | None = Field(default=None, min_length=1, description="file name below /run/secrets, or absolute path")
    uid: str | int | None = Field(default=None, description="a number; names are not looked up in the image")
    gid: str | int | None = None
    mode: Mode | None = Field(default=None, description="octal, in quotes")

    @model_validator(mode="after")
    def _numbers(self) -> MountSettings:
        for said in (self.uid, self.gid):
            if said is not None and not str(said).isdecimal():
                raise ValueError("uid and gid are numbers: an image's names are not known to the Engine")
        return self


class UpdateSettings(Shape):
    """The UpdateConfig of our rollouts; the service's own is restored afterwards. What is not said is the service's."""

    parallelism: int | None = Field(default=None, ge=0)
    delay: Span | None = None
    failure_action: Literal["pause", "continue", "rollback"] | None = None
    monitor: Span | None = None
    max_failure_ratio: float | None = Field(default=None, ge=0, le=1, strict=False)
    order: Literal["start-first", "stop-first"] | None = None

    def over(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """A service's UpdateConfig with what is said here. A service without one updates one task after the other."""
        return {**(own or {"Parallelism": 1}), **self._said()}

    def in_force(self, config: Mapping[str, Any]) -> bool:
        """Does an UpdateConfig say all of this already? The Engine leaves out what is zero."""
        return all((config.get(key) or 0) == (value or 0) for key, value in self._said().items())

    def taken_back(self, config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any] | None:
        """An UpdateConfig with what is said here as it was; what others changed since stays. None: none at all."""
        rest = {key: value for key, value in config.items() if value and key not in self._said()}
        if not own and rest.items() <= {"Parallelism": 1, "Order": "stop-first"}.items():
            return None
        return {**rest, **{key: own[key] for key in self._said() if key in own}}

    def _said(self) -> dict[str, Any]:
        said = {
            "Parallelism": self.parallelism,
            "Delay": _nanoseconds(self.delay),
            "FailureAction": self.failure_action,
            "Monitor": _nanoseconds(self.monitor),
            "MaxFailureRatio": self.max_failure_ratio,
            "Order": self.order,
        }
        return {key: value for key, value in said.items() if value is not None}


def _nanoseconds(text: str | None) -> int | None:
    return None if text is None else int(duration.parse(text).total_seconds() * NS)


class SwarmSettings(EngineSettings):
    """What a policy may say beside `kind: swarm` and `secret` with `value`, or `secrets: {object: template}`."""

    secret: str | None = Field(default=None, description="the object's name without its version; with `value`")
    services: Names = Field(default=(), description="which services read it")
    discover: bool = Field(
        default=False, description="all that refer to an object of it, by id, or to one of exactly this name"
    )
    mount: MountSettings = MountSettings()
    update_config: UpdateSettings | None = None
    keep: int = Field(default=2, ge=2, description="how many objects of it stay in the swarm")
    order: Names = Field(
        default=(), description="services that go first, one after the other: each when the one before runs on it"
    )

    @model_validator(mode="after")
    def _which(self) -> SwarmSettings:
        if bool(self.services) == self.discover:
            raise ValueError("expected `services: [NAME]` or `discover: true`, one of the two")
        strange = [name for name in self.order if self.services and name not in self.services]
        if strange:
            raise ValueError(f"`order` names {', '.join(strange)}, which `services` does not")
        return self

    def bases(self, values: Mapping[str, str]) -> dict[str, str]:
        """Logical object name → name in `values`. Raises PolicyInvalid."""
        lone = set(values) == {""}
        if lone != (self.secret is not None):
            raise PolicyInvalid(
                "a swarm destination names its objects once",
                next="`secret: NAME` with `value`, or `secrets: {NAME: …}`",
            )
        found = {self.secret or "": ""} if lone else {name: name for name in values}
        for name in found:
            if not _BASE.fullmatch(name):
                raise PolicyInvalid(f"{name!r} cannot name a Swarm secret", next="use letters, digits, `.`, `_`, `-`")
        if self.mount.target is not None and len(found) > 1:
            raise PolicyInvalid("several objects cannot share one `mount.target`", next="write one destination each")
        return found

    def group(self, service: str) -> GroupKey:
        """One service of one engine."""
        at = self.endpoint_name()
        return GroupKey(f"{_GROUP}{at}/{service}" if at else f"{_GROUP}{service}")

    def ordered(self, services: Sequence[str]) -> list[str]:
        first = [name for name in self.order if name in services]
        return [*first, *(name for name in dict.fromkeys(services) if name not in first)]

    def mount_of(self, base: str) -> Mount:
        said = self.mount
        mode = int(said.mode, 8) if said.mode else None
        uid, gid = (None if number is None else str(number) for number in (said.uid, said.gid))
        return Mount(base, said.target, uid, gid, mode)


def service_of(group: GroupKey) -> str:
    """The service's name, of what `group` made."""
    return group.removeprefix(_GROUP).rpartition("/")[2]
