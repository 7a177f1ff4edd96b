"""The fault switchboard of the simulated systems: what goes wrong, at which hook, on which call.

Every hook of a simulated system asks `Faults.strike` once per call. A hook is named "<system>.<hook>" ("db.set",
"store.commit"); a script may also say only "set", which counts the calls of that hook at all systems together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any

from vaultkeeper.model.outcome import Failed, Finding, Login, No, Refused, Unknown


class SimulatedKill(BaseException):
    """The process dies here. A BaseException, so that no `except Exception` of the engine survives its own death."""


class Goes(Enum):
    """How a call goes wrong."""

    KILLED_BEFORE = "killed_before"  #: the process dies before the system hears of it
    KILLED_AFTER = "killed_after"  #: the system did it; the process dies before it learns so
    LOST_REPLY = "lost_reply"  #: the system did it; the answer is Unknown
    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"
    REFUSED = "refused"  #: for certain, and nothing changed; `Fault.no` says why
    RESTORED = "restored"  #: the system goes back to its last `World.backup` first, then the call goes well


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. `call` counts from 1; 0 means every call."""

    hook: str
    goes: Goes
    call: int = 1
    no: No = No.PRIVILEGE
    retry_after: timedelta | None = None


CHANGES = frozenset({"set", "mint", "drop", "disconnect", "prepare", "deliver", "release"})
"""The hooks that change the remote world."""

READS = frozenset({"check", "observe", "test", "find", "usage", "spots", "confirm", "holds", "read"})
"""The hooks that only look."""


def possible(hook: str) -> tuple[Goes, ...]:
    """The faults that mean something at a hook; a search walks through them."""
    name = hook.rpartition(".")[2]
    if name in CHANGES:
        return tuple(Goes)
    if name == "confirm":
        return (Goes.KILLED_BEFORE, Goes.KILLED_AFTER, Goes.UNREACHABLE, Goes.THROTTLED, Goes.REFUSED, Goes.RESTORED)
    if name in READS:
        return (Goes.KILLED_BEFORE, Goes.KILLED_AFTER, Goes.UNREACHABLE, Goes.THROTTLED, Goes.RESTORED)
    return (Goes.KILLED_BEFORE, Goes.KILLED_AFTER)


@dataclass
class Faults:
    """A script of faults and a record of all calls. Override `strike` to choose as the run goes."""

    script: Iterable[Fault] = ()
    calls: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    def strike(self, hook: str) -> Fault | None:
        """The fault of this call of `hook`, if any."""
        name = hook.rpartition(".")[2]
        self.log.append(hook)
        self.calls.update((hook, name))
        return next(
            (f for f in self.script if f.hook in (hook, name) and f.call in (0, self.calls[f.hook])),
            None,
        )


def answer(fault: Fault, hook: str) -> Any:
    """What a hook of that name answers under a fault that lets it answer at all."""
    if fault.goes is Goes.REFUSED and hook == "confirm":
        return Failed("simulated", "refused by the fault script")
    if fault.goes is Goes.REFUSED and hook in CHANGES:
        return Refused(fault.no, "refused by the fault script")
    reason = Login.THROTTLED if fault.goes is Goes.THROTTLED else Login.UNREACHABLE
    if hook == "test":
        return reason
    if hook == "check":
        return [Finding("unchecked", f"simulated: {reason.value}")]
    return Unknown(reason, f"simulated: {fault.goes.value}", fault.retry_after)


def call(faults: Faults, hook: str, act: Callable[[], Any], restore: Callable[[], None]) -> Any:
    """Let one hook call happen as the switchboard says. `restore` puts the system back to its backup."""
    fault = faults.strike(hook)
    if fault is None:
        return act()
    if fault.goes is Goes.KILLED_BEFORE:
        raise SimulatedKill(hook)
    if fault.goes is Goes.RESTORED:
        restore()
        return act()
    if fault.goes in (Goes.KILLED_AFTER, Goes.LOST_REPLY):
        act()
        if fault.goes is Goes.KILLED_AFTER:
            raise SimulatedKill(hook)
    return answer(fault, hook.rpartition(".")[2])
