"""What the engine is handed by `wiring`: the ports, opened, and the policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, Protocol, TypeVar, cast

from vaultkeeper.engine.guard import Redactor
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.secret import Binding
from vaultkeeper.ports import Clock, Credentials, Destination, Envelope, Generator, Store, Target

T = TypeVar("T")
HOOK_DEADLINE = timedelta(seconds=60)  # one hook call; long waits are answered with NotYet, never slept through


class Backends(Protocol):
    """The registry, as the engine sees it. Every method raises ConfigurationInvalid for an unknown kind."""

    def target_class(self, kind: str) -> type[Target]: ...
    def target(self, kind: str, settings: Mapping[str, object], codec: int) -> Target: ...
    def destination(self, kind: str) -> Destination: ...
    def generator(self, kind: str) -> Generator: ...


@dataclass(frozen=True)
class Event:
    """Progress for people; never a value."""

    secret: str
    step: str
    text: str = ""


@dataclass(frozen=True)
class Parts:
    """Everything the engine reaches for. Nothing in it is looked up elsewhere."""

    store: Store
    envelope: Envelope
    clock: Clock
    credentials: Credentials
    backends: Backends
    policies: Mapping[str, RotationPolicy]
    redactor: Redactor = field(default_factory=Redactor)
    watch: Callable[[Event], None] = lambda _event: None
    parallel: int = 4
    hook_deadline: timedelta = HOOK_DEADLINE


def power(of: object, protocol: type[T]) -> T | None:
    """An optional power of a back end (`Mints`, `ReportsUse`, …), or None where it has it not."""
    asked: Any = (type(of), protocol)
    return cast("T", of) if _has(*asked) else None


@cache
def _has(kind: type[object], protocol: type[object]) -> bool:
    """Python looks every method of a Protocol up again each time, and a rotation asks some ten times."""
    return issubclass(kind, protocol)


def present_binding(policy: RotationPolicy, parts: Parts) -> Binding:
    """What a version made now is made for."""
    spec = policy.target
    if spec is None:
        return Binding(policy.strategy, None, {}, 0)
    return Binding(spec.strategy, spec.kind, spec.settings, parts.backends.target_class(spec.kind).codec)


def open_target(parts: Parts, binding: Binding) -> Target | None:
    """The system that a version was made for. None: nobody checks it."""
    if binding.target_kind is None:
        return None
    return parts.backends.target(binding.target_kind, binding.target_settings, binding.codec)
