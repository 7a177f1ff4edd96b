"""Rotations as they stand in front of one phase, for tests of single rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from vaultkeeper.engine.plan import plan, shape_of
from vaultkeeper.model.policy import DestinationSpec, Place, Read, RotationPolicy, TargetSpec
from vaultkeeper.model.rotation import Audience, Purpose, Rotation, Step
from vaultkeeper.model.secret import GroupKey, Strategy

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GRACE = timedelta(hours=24)
GROUP, OTHER = GroupKey("swarm:shop"), GroupKey("file:/etc/shop")
SPEC = DestinationSpec("file", {"": "{password}"}, Read.AT_START)


def policy(strategy: Strategy | None, *, via: bool = False, self_service: bool = False) -> RotationPolicy:
    """Grace 24 h."""
    checked = strategy not in {None, Strategy.PREVIOUS_KEYS}
    target = None
    if checked and strategy is not None:
        target = TargetSpec("sim", strategy, via=SPEC if via else None, self_service=self_service)
    return RotationPolicy(
        "db", Place("p.yaml"), target=target, strategy=strategy, destinations=(SPEC,), grace_period=GRACE
    )


def standing(
    step: Step | None,
    strategy: Strategy | None = Strategy.OVERLAP,
    *,
    nth: int = 0,
    first: bool = False,
    via: bool = False,
    self_service: bool = False,
    purpose: Purpose = Purpose.ROTATE,
    audience: Audience | None = None,
    **changes: Any,
) -> Rotation:
    """Running, before the nth phase of that step, with everything before it behind it. None: before the end.

    It goes from v2 to v3; PREVIOUS is v1.
    """
    spec = policy(strategy, via=via, self_service=self_service)
    phases = plan(shape_of(spec, first=first, purpose=purpose))
    found = [i for i, p in enumerate(phases) if p.step is step and audience in {None, p.audience}]
    at = len(phases) if step is None else found[nth]
    made = any(p.step is Step.CREATE for p in phases[:at])
    rotation = Rotation(
        id="80" * 16,
        secret="db",
        policy=spec,
        phases=phases,
        opened_at=NOW,
        entered_at=NOW,
        purpose=purpose,
        from_version=None if first else 2,
        to_version=3 if made else None,
        previous_version=None if first else 1,
        at=at,
        reached=at - 1,
    )
    return replace(rotation, **changes)


def begun(rotation: Rotation) -> Rotation:
    """Its outward call may have been made."""
    return replace(rotation, begun=True, reached=max(rotation.reached, rotation.at))
