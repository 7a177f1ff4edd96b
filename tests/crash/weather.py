"""What goes wrong in a simulated run, and the store through which its writes pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

from vaultkeeper.errors import AuditUnwritable, BackendError, StoreFull
from vaultkeeper.model.outcome import No
from vaultkeeper.model.rotation import Rotation
from vaultkeeper.ports import Change, Store
from vaultkeeper.testing.faults import Fault, Faults, Goes, SimulatedKill, possible

_Answer = TypeVar("_Answer")

STORE_WRITES = ("open_rotation", "take", "commit", "amend", "audit")
REASONS = (No.PRIVILEGE, No.CAPACITY, No.UNSUPPORTED, No.CONFLICT)
MOST_CALLS = 10_000
RARE = frozenset({Goes.RESTORED})


class RestlessRun(BaseException):
    """The engine never comes to rest. No Exception, so that the guard lets it through."""


class DriverError(Exception):
    """What a careless driver raises: with the value in its text."""


class Weather(Faults):
    """Chooses a fault for a call as the run goes; `look` judges the world before every call."""

    def __init__(self, rng: Random, look: Callable[[str], None], told: Callable[[str], None]) -> None:
        super().__init__()
        self.rng = rng
        self.look = look
        self.told = told
        self.rate = 0.0
        self.calm = False  #: a whole run without a fault
        self.strikes = 0
        self.forced: dict[int, str] = {}  #: the n-th call of the whole run goes wrong, in a way chosen then
        self.number = 0
        self.calls_left = MOST_CALLS
        self.restored: Callable[[str], None] = lambda _system: None
        self.a_value: Callable[[], str] = lambda: ""

    def strike(self, hook: str) -> Fault | None:
        self.look(hook)
        self.number += 1
        self.calls_left -= 1
        if self.calls_left < 0:
            raise RestlessRun(f"more than {MOST_CALLS} calls: something is tried for ever, last {hook}")
        self.calls.update((hook, hook.rpartition(".")[2]))
        if self.calm or (self.number not in self.forced and self.rng.random() >= self.rate):
            return None
        fault = self._chosen(hook)
        if fault is not None:
            self.strikes += 1
            self.told(
                f"    ! {hook} {fault.goes.value}{'' if fault.goes is not Goes.REFUSED else ' ' + fault.no.value}"
            )
            if fault.goes is Goes.RESTORED:
                self.restored(hook.partition(".")[0])
        return fault

    def _chosen(self, hook: str) -> Fault | None:
        system, _, name = hook.rpartition(".")
        if system == "store":
            goes = self.rng.choice((Goes.KILLED_BEFORE, Goes.KILLED_AFTER, Goes.KILLED_AFTER, Goes.REFUSED))
            return Fault(hook, goes)
        if self.rng.random() < 0.08:
            self.told(f"    ! {hook} raises")
            error = BackendError if self.rng.random() < 0.3 and name not in {"test", "observe"} else DriverError
            raise error(f"connection to {self.a_value()} failed")
        goes = self.rng.choice(possible(hook))
        if goes in RARE and self.rng.random() < 0.7:
            return None
        no = No.VALUE if name == "set" and self.rng.random() < 0.3 else self.rng.choice(REASONS)
        return Fault(hook, goes, no=no)


class StruckStore:
    """A store whose writes may be struck, whichever it is. `seen` hears of every write that became durable."""

    def __init__(self, inner: Store, faults: Faults, seen: Callable[[str, str], None]) -> None:
        self.inner = inner
        self.faults = faults
        self.seen = seen
        self.audit_unwritable = False
        self.audited: list[Mapping[str, object]] = []
        self.held: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        with self.inner.hold(name):
            self.held.add(name)
            try:
                yield
            finally:
                self.held.discard(name)

    def open_rotation(self, rotation: Rotation, change: Change) -> Rotation:
        return self._write("open_rotation", rotation.secret, lambda: self.inner.open_rotation(rotation, change))

    def take(self, rotation_id: str) -> Rotation:
        secret = self.inner.rotation(rotation_id).secret
        return self._write("take", secret, lambda: self.inner.take(rotation_id))

    def commit(self, change: Change) -> None:
        secret = change.rotation.secret if change.rotation else ""
        self._write("commit", secret, lambda: self.inner.commit(change))

    def amend(self, secret: str, change: Change) -> None:
        self._write("amend", secret, lambda: self.inner.amend(secret, change))

    def audit(self, record: Mapping[str, object]) -> None:
        if self.audit_unwritable:
            raise AuditUnwritable("the audit log cannot be written")
        self._write("audit", str(record["secret"]), lambda: self.inner.audit(record))
        self.audited.append(record)

    def _write(self, name: str, secret: str, act: Callable[[], _Answer]) -> _Answer:
        fault = self.faults.strike(f"store.{name}")
        if fault is not None and fault.goes is Goes.KILLED_BEFORE:
            raise SimulatedKill(f"store.{name}")
        if fault is not None and fault.goes is Goes.REFUSED:
            raise AuditUnwritable("simulated") if name == "audit" else StoreFull("simulated: the disk is full")
        answer = act()
        self.seen(name, secret)
        if fault is not None and fault.goes is Goes.KILLED_AFTER:
            raise SimulatedKill(f"store.{name}")
        return answer
