"""A policy as a document again, with defaults, connections and absolute paths merged in. Reading it gives the same."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import yaml

from vaultkeeper.model.duration import show as spell
from vaultkeeper.model.policy import DestinationSpec, RotationPolicy, TargetSpec, Window
from vaultkeeper.model.secret import Strategy


def show(policies: Iterable[RotationPolicy]) -> str:
    """A policy file with all of them. Holds references, never values."""
    secrets = {policy.name: document(policy) for policy in policies}
    return yaml.dump({"secrets": secrets}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.CSafeDumper):
    """Without anchors, which policy files refuse."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def document(policy: RotationPolicy) -> dict[str, object]:
    """JSON types in the words of the policy format."""
    said: dict[str, object] = {
        "owner": policy.owner,
        "description": policy.description,
        "tags": list(policy.tags),
        "generator": _generator(policy),
        "static": policy.static,
        "fields": list(policy.fields),
        "rotation_period": _span(policy.rotation_period),
        "rotation_schedule": policy.rotation_schedule and policy.rotation_schedule.expression,
        "rotation_window": _window(policy.rotation_window),
        "timezone": policy.timezone,
        "jitter": _span(policy.jitter or None),
        "min_interval": _span(policy.min_interval),
        "grace_period": _grace(policy),
        "on_drift": "repair" if policy.on_drift_repair else "tell",
        "depends_on": list(policy.depends_on),
        "keep_versions": _keep(policy),
        "strategy": policy.strategy.value if policy.strategy and not policy.target else None,
        "target": policy.target and _target(policy.target),
    }
    kept = {key: value for key, value in said.items() if value not in (None, "", [])}
    return {"enabled": policy.enabled, **kept, "destinations": [_destination(spec) for spec in policy.destinations]}


def _span(duration: timedelta | None) -> str | None:
    return None if duration is None else spell(duration)


def _window(window: Window | None) -> object:
    if window is None or window.at is None:
        return window and spell(window.length)
    return {"at": window.at.expression, "for": spell(window.length)}


def _grace(policy: RotationPolicy) -> str | None:
    takes_one = policy.target is not None and policy.strategy is not Strategy.SINGLE
    return spell(policy.grace_period) if takes_one else None


def _keep(policy: RotationPolicy) -> object:
    kept = policy.keep_versions
    return "forever" if kept.keep_for is None else {"at_least": kept.at_least, "for": spell(kept.keep_for)}


def _generator(policy: RotationPolicy) -> object:
    spec = policy.generator
    if spec is None:
        return None
    own = {"kind": spec.kind, "field": spec.field, "weak_ok": spec.weak_ok}
    return {**{key: value for key, value in own.items() if value is not None}, **spec.settings}


def _target(spec: TargetSpec) -> dict[str, object]:
    said: dict[str, object] = {"kind": spec.kind, "strategy": spec.strategy.value, **spec.settings}
    if spec.self_service:
        said["admin"] = "self"
    if spec.close_sessions:
        said["close_sessions"] = True
    if spec.unverified is not None:
        said |= {"verify": "none", "reason": spec.unverified}
    for key, beside in (("via", spec.via), ("persisted_by", spec.persisted_by)):
        if beside is not None:
            said[key] = _destination(beside)
    return said


def _destination(spec: DestinationSpec) -> dict[str, object]:
    said: dict[str, object] = {"kind": spec.kind, "read": spec.read.value, **spec.settings}
    if set(spec.values) != {""}:
        said["values"] = dict(spec.values)
    elif spec.values[""]:
        said["value"] = spec.values[""]
    if spec.timeout is not None:
        said["timeout"] = spell(spec.timeout)
    return {**said, "healthy_for": spell(spec.healthy_for)}
