"""An in-memory Store and Envelope with the full meaning of their ports, for simulations.

They outlive the simulated process as a disk would: a `SimulatedKill` loses nothing that was committed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import TypeVar

from vaultkeeper.errors import (
    AlreadyOpen,
    AuditUnwritable,
    EnvelopeInvalid,
    EpochLost,
    Locked,
    NotFound,
    StoreFull,
)
from vaultkeeper.model.rotation import Rotation
from vaultkeeper.model.secret import Fields, SecretBytes, StagingLabel, VersionRecord
from vaultkeeper.ports import Change, Pause, VersionChange
from vaultkeeper.testing.faults import Faults, Goes, SimulatedKill

_Answer = TypeVar("_Answer")


@dataclass
class _Disk:
    """What is durable. Every value in it is immutable, so one level of copying is a whole copy."""

    rotations: dict[str, Rotation] = field(default_factory=dict)  #: in the order in which they were opened
    versions: dict[str, tuple[VersionRecord, ...]] = field(default_factory=dict)
    labels: dict[str, Mapping[StagingLabel, int]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    charges: dict[str, tuple[datetime, ...]] = field(default_factory=dict)
    pauses: dict[str, Pause] = field(default_factory=dict)
    audit: tuple[Mapping[str, object], ...] = ()

    def copy(self) -> _Disk:
        values = {name: dict(v) if isinstance(v, dict) else v for name, v in vars(self).items()}
        copy = _Disk()
        vars(copy).update(values)
        return copy


class MemoryStore:
    """Faults: "store.open_rotation", "store.take", "store.commit", "store.amend" and "store.audit" can be struck.

    A refused write raises StoreFull (an audit AuditUnwritable). `audit_unwritable` does the latter until switched off.
    """

    def __init__(self, installation: str = "simulated", faults: Faults | None = None) -> None:
        self.installation = installation
        self.faults = faults or Faults()
        self.audit_unwritable = False
        self.disk = _Disk()
        self._held: set[str] = set()

    def snapshot(self) -> _Disk:
        """Everything durable, for `restore`: a backup. Locks are not part of it."""
        return self.disk.copy()

    def restore(self, snapshot: _Disk) -> None:
        vars(self.disk).update(vars(snapshot.copy()))

    def reopened(self) -> MemoryStore:
        """The same disk seen by another process. Its locks are shared too: take care to end the first one's."""
        other = MemoryStore(self.installation, self.faults)
        other.disk, other._held, other.audit_unwritable = self.disk, self._held, self.audit_unwritable
        return other

    # ------------------------------------------------------------------------------------ locks

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        if name in self._held:
            raise Locked(f"{name} is held by somebody else")
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)

    # ------------------------------------------------------------------------------------ rotations

    def open_rotation(self, rotation: Rotation, change: Change) -> Rotation:
        def act(disk: _Disk) -> Rotation:
            self._apply(disk, rotation.secret, change)
            self._none_open(disk, rotation.secret)
            opened = replace(rotation, epoch=_next(disk.epochs, rotation.secret))
            disk.rotations[opened.id] = opened
            return opened

        return self._write("open_rotation", act)

    def take(self, rotation_id: str) -> Rotation:
        def act(disk: _Disk) -> Rotation:
            known = disk.rotations.get(rotation_id)
            if known is None or not known.open:
                raise NotFound(f"no open rotation {rotation_id}")
            taken = replace(known, epoch=_next(disk.epochs, known.secret))
            disk.rotations[rotation_id] = taken
            return taken

        return self._write("take", act)

    def commit(self, change: Change) -> None:
        if change.rotation is None:
            raise ValueError("a commit is of a rotation; use amend")
        secret = change.rotation.secret
        self._write("commit", lambda disk: self._apply(disk, secret, change))

    def amend(self, secret: str, change: Change) -> None:
        def act(disk: _Disk) -> None:
            self._none_open(disk, secret)
            self._apply(disk, secret, change)

        self._write("amend", act)

    def rotation(self, rotation_id: str) -> Rotation:
        if rotation_id not in self.disk.rotations:
            raise NotFound(f"no rotation {rotation_id}")
        return self.disk.rotations[rotation_id]

    def open_rotations(self) -> Sequence[Rotation]:
        return [r for r in self.disk.rotations.values() if r.open]

    def rotations(self, secret: str, limit: int = 50) -> Sequence[Rotation]:
        return [r for r in reversed(self.disk.rotations.values()) if r.secret == secret][:limit]

    # ------------------------------------------------------------------------------------ versions

    def next_number(self, secret: str, at_least: int = 1) -> int:
        return max(self.disk.numbers.get(secret, 0) + 1, at_least)

    def versions(self, secret: str) -> Sequence[VersionRecord]:
        return self.disk.versions.get(secret, ())

    def labels(self, secret: str) -> Mapping[StagingLabel, int]:
        return dict(self.disk.labels.get(secret, {}))

    def secrets(self) -> Sequence[str]:
        return sorted({*self.disk.versions, *(r.secret for r in self.disk.rotations.values())})

    def discard_sealed(self, secret: str, numbers: Sequence[int]) -> None:
        """Values of labelled versions stay, whoever asks."""
        gone = set(numbers) - set(self.labels(secret).values())
        self.disk.versions[secret] = tuple(
            replace(v, sealed=None) if v.number in gone else v for v in self.versions(secret)
        )

    def forget(self, secret: str) -> None:
        """Numbers and epochs stay: a secret of the same name never reuses them. Raises AlreadyOpen."""
        self._none_open(self.disk, secret)
        for kept in (self.disk.versions, self.disk.labels, self.disk.pauses):
            kept.pop(secret, None)
        self.disk.rotations = {i: r for i, r in self.disk.rotations.items() if r.secret != secret}

    # ------------------------------------------------------------------------------------ login budget

    def spend_login(self, account: str, address: str, budget: tuple[int, timedelta], now: datetime) -> timedelta | None:
        most, window = budget
        waits = [
            charges[-most] + window - now
            for charges in (self._charges(key, window, now) for key in _charged(account, address))
            if len(charges) >= most
        ]
        if waits:
            return max(waits)
        for key in _charged(account, address):
            self.disk.charges[key] = (*self.disk.charges.get(key, ()), now)
        return None

    def refund_login(self, account: str, address: str) -> None:
        for key in _charged(account, address):
            self.disk.charges[key] = self.disk.charges.get(key, ())[:-1]

    def failed_logins(self, account: str, address: str, window: timedelta, now: datetime) -> int:
        return max(len(self._charges(key, window, now)) for key in _charged(account, address))

    def _charges(self, key: str, window: timedelta, now: datetime) -> tuple[datetime, ...]:
        """Those charged before a clock was set back do not count: they would block an account for years."""
        return tuple(at for at in self.disk.charges.get(key, ()) if now - window < at <= now + window)

    # ------------------------------------------------------------------------------------ the rest

    def pause(self, secret: str, pause: Pause | None) -> None:
        if pause is None:
            self.disk.pauses.pop(secret, None)
        else:
            self.disk.pauses[secret] = pause

    def pauses(self) -> Mapping[str, Pause]:
        return dict(self.disk.pauses)

    def audit(self, record: Mapping[str, object]) -> None:
        if self.audit_unwritable:
            raise AuditUnwritable("the audit log cannot be written")

        def act(disk: _Disk) -> None:
            disk.audit = (*disk.audit, dict(record))

        self._write("audit", act)

    def _write(self, name: str, act: Callable[[_Disk], _Answer]) -> _Answer:
        """One transaction: `act` works on a copy, which becomes the disk only when all of it went well."""
        fault = self.faults.strike(f"store.{name}")
        if fault is not None and fault.goes is Goes.KILLED_BEFORE:
            raise SimulatedKill(f"store.{name}")
        if fault is not None and fault.goes is Goes.REFUSED:
            raise AuditUnwritable("simulated") if name == "audit" else StoreFull("simulated: the disk is full")
        copy = self.disk.copy()
        answer = act(copy)
        vars(self.disk).update(vars(copy))
        if fault is not None and fault.goes is Goes.KILLED_AFTER:
            raise SimulatedKill(f"store.{name}")
        return answer

    def _apply(self, disk: _Disk, secret: str, change: Change) -> None:
        if change.rotation is not None:
            known = disk.rotations.get(change.rotation.id)
            if known is None:
                raise NotFound(f"no rotation {change.rotation.id}")
            if known.epoch != change.rotation.epoch:
                raise EpochLost(f"rotation {known.id} was taken over")
            disk.rotations[known.id] = change.rotation
        records = {record.number: record for record in disk.versions.get(secret, ())}
        if change.new_version is not None:
            if change.new_version.number in records:
                raise ValueError(f"version {change.new_version.number} of {secret} exists already")
            records[change.new_version.number] = change.new_version
            disk.numbers[secret] = max(disk.numbers.get(secret, 0), change.new_version.number)
        for number, facts in (change.facts or {}).items():
            if number not in records:
                raise NotFound(f"{secret} has no version {number}")
            records[number] = _amended(records[number], facts)
        disk.versions[secret] = tuple(records[number] for number in sorted(records))
        labels = {**disk.labels.get(secret, {}), **(change.labels or {})}
        disk.labels[secret] = {label: number for label, number in labels.items() if number is not None}

    def _none_open(self, disk: _Disk, secret: str) -> None:
        if any(r.open and r.secret == secret for r in disk.rotations.values()):
            raise AlreadyOpen(f"a rotation of {secret} is open already")


def _next(counters: dict[str, int], name: str) -> int:
    counters[name] = counters.get(name, 0) + 1
    return counters[name]


def _charged(account: str, address: str) -> tuple[str, str]:
    return f"account:{account}@{address}", f"address:{address}"


def _amended(record: VersionRecord, change: VersionChange) -> VersionRecord:
    given = {f.name: getattr(change, f.name) for f in fields(change) if getattr(change, f.name) is not None}
    return replace(record, **given)


class MemoryEnvelope:
    """Binds like the real one and hides values from a search for canaries; it withstands nobody. Deterministic."""

    def __init__(self, installation: str = "simulated") -> None:
        self._installation = installation
        self._key = hashlib.sha256(installation.encode()).digest()

    def seal(self, fields: Fields, *, secret: str, bound_to: str) -> bytes:
        values = {name: value.reveal().hex() for name, value in sorted(fields.items())}
        body = self._masked(json.dumps([secret, bound_to, values]).encode())
        return hmac.digest(self._key, body, "sha256") + body

    def open(self, sealed: bytes, *, secret: str, bound_to: str) -> Fields:
        mac, body = sealed[:32], sealed[32:]
        if not hmac.compare_digest(mac, hmac.digest(self._key, body, "sha256")):
            raise EnvelopeInvalid("sealed by another installation, or damaged")
        was_secret, was_bound_to, values = json.loads(self._masked(body))
        if (was_secret, was_bound_to) != (secret, bound_to):
            raise EnvelopeInvalid(f"sealed as {was_secret} {was_bound_to}, not as {secret} {bound_to}")
        return {name: SecretBytes(bytes.fromhex(value)) for name, value in values.items()}

    def fingerprint(self, value: SecretBytes) -> str:
        return hmac.new(self._key, b"fingerprint" + value.reveal(), "sha256").hexdigest()[:16]

    def _masked(self, body: bytes) -> bytes:
        mask = hashlib.shake_256(self._key).digest(len(body))
        return bytes(a ^ b for a, b in zip(body, mask, strict=True))
