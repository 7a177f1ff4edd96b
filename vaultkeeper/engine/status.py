"""What a person wants to know of every secret, from the store alone, or by asking the systems too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.by_hand import page
from vaultkeeper.engine.groups import Holder, delivery_context, find_places
from vaultkeeper.engine.observe import drift
from vaultkeeper.engine.opening import new_rotation
from vaultkeeper.engine.parts import Parts, open_target, present_binding
from vaultkeeper.engine.plan import by_hand
from vaultkeeper.engine.rotate import next_due, pause_of
from vaultkeeper.engine.verdict import awaited, described, told
from vaultkeeper.engine.work import Work
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Options, Purpose, Rotation, State
from vaultkeeper.model.secret import StagingLabel, VersionRecord


@dataclass(frozen=True)
class SecretStatus:
    """`state`: ok, due, new, disabled, no policy, rolled_back, or an open rotation's. `last_result`: of the newest."""

    name: str
    version: int | None
    state: str
    age_seconds: float | None  #: of the current version
    due_at: datetime | None
    last_result: str
    next: str
    paused: str
    owner: str
    drift: str
    unverified: str
    page: str  #: where a person makes and revokes its values, if only a person can
    waits_for: str  #: what a person is asked for now


def status(parts: Parts, *, observe: bool = False) -> list[SecretStatus]:
    """Every secret of the policies and of the store. `observe` asks the destinations for drift, read-only."""
    names = sorted({*parts.policies, *parts.store.secrets()})
    return [_status(name, parts, observe=observe) for name in names]


def _status(name: str, parts: Parts, *, observe: bool) -> SecretStatus:
    policy, now = parts.policies.get(name), parts.clock.now()
    newest = next(iter(parts.store.rotations(name, limit=1)), None)
    current = _current(name, parts)
    due_at = next_due(policy, parts, now) if policy else None
    pause = pause_of(name, parts)
    error = told(newest) if newest else None
    state = _state(policy, newest, current, due=due_at is not None and due_at <= now)
    return SecretStatus(
        name=name,
        version=current.number if current else None,
        state=state,
        age_seconds=(now - current.created_at).total_seconds() if current else None,
        due_at=due_at,
        last_result=described(newest) if newest else "",
        next=error.next if error else _following(policy, newest, state),
        paused=pause.reason or "paused" if pause else "",
        owner=policy.owner if policy else "",
        drift=_drift(policy, parts) if observe and policy and current else "",
        unverified=newest.unverified if newest else _declared(policy) if current else "",
        page=page(open_target(parts, present_binding(policy, parts))) if policy and by_hand(policy) else "",
        waits_for=newest.detail if newest and awaited(newest) else "",
    )


def _declared(policy: RotationPolicy | None) -> str:
    """Adopted, and nothing could be proven then either."""
    return (policy.target.unverified if policy and policy.target else None) or ""


def _following(policy: RotationPolicy | None, newest: Rotation | None, state: str) -> str:
    """What a target checks works already somewhere; a value that nobody checks can be made anew."""
    if newest is not None and awaited(newest):
        return awaited(newest)
    if policy is not None and by_hand(policy) and state == "due":
        return f"vaultkeeper import {policy.name}"
    if policy is None or state != "new":
        return ""
    return f"vaultkeeper {'adopt' if policy.target else 'rotate'} {policy.name}"


def _current(name: str, parts: Parts) -> VersionRecord | None:
    number = parts.store.labels(name).get(StagingLabel.CURRENT)
    return next((record for record in parts.store.versions(name) if record.number == number), None)


def _state(policy: RotationPolicy | None, newest: Rotation | None, current: VersionRecord | None, *, due: bool) -> str:
    if newest is not None and newest.open:
        return newest.state.value
    if policy is None:
        return "no policy"
    if not policy.enabled:
        return "disabled"
    if current is None:
        return "new"
    if newest is not None and newest.state is State.ROLLED_BACK and not newest.superseded:
        return "rolled_back"
    return "due" if due else "ok"


def _drift(policy: RotationPolicy, parts: Parts) -> str:
    places = find_places(policy, parts, delivery_context(parts))
    if not isinstance(places, tuple):
        return f"not known: {places.detail}"
    book = Book(policy.name, parts.store, parts.envelope, parts.redactor)
    work = Work(new_rotation(policy.name, parts, Purpose.ROTATE, Options()), parts, book)
    return "; ".join(drift(work, Holder(policy.name, policy, places, None, book)))
