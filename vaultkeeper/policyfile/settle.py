"""One secret: its own keys over the defaults that apply to it, the rules between keys, and the RotationPolicy."""

from __future__ import annotations

from datetime import timedelta

from vaultkeeper.model.duration import show
from vaultkeeper.model.outcome import Proof
from vaultkeeper.model.policy import (
    DEFAULT_GRACE,
    DEFAULT_MIN_INTERVAL,
    GeneratorSpec,
    Read,
    RotationPolicy,
    Window,
)
from vaultkeeper.model.secret import Strategy, main_field
from vaultkeeper.policyfile import parts, values
from vaultkeeper.policyfile.read import Map, Seq
from vaultkeeper.policyfile.secret import Secret
from vaultkeeper.policyfile.settings import declares
from vaultkeeper.ports import ByHand

_TIMES = ("rotation_period", "rotation_schedule", "rotation_window", "jitter")
_VALUELESS = (Strategy.MANUAL, Strategy.MINTED)


def settle(secret: Secret) -> RotationPolicy | None:
    """The policy, or None with at least one finding added."""
    before = len(secret.reading.findings)
    _target(secret)
    if "target" in secret.raw and secret.target is None:
        _the_rest(secret)
        return None
    fields = _value(secret)
    _destinations(secret, fields)
    _times(secret)
    grace = _grace(secret)
    values.entropy(secret)
    values.templates(secret, fields)
    if len(secret.reading.findings) > before or not _complete(secret):
        return None
    is_static = secret.static is not None
    return RotationPolicy(
        name=secret.name,
        place=secret.place,
        generator=secret.generator,
        static=secret.static,
        fields=fields if secret.strategy is Strategy.MANUAL and fields else (),
        target=secret.target,
        strategy=secret.strategy,
        destinations=tuple(spec for _, spec in secret.destinations),
        rotation_period=None if is_static else secret.get("rotation_period"),
        rotation_schedule=None if is_static else secret.get("rotation_schedule"),
        rotation_window=None if is_static else _window(secret),
        timezone=secret.get("timezone") or "UTC",
        jitter=secret.get("jitter") or timedelta(0),
        min_interval=_min_interval(secret),
        grace_period=grace,
        on_drift_repair=bool(secret.get("on_drift")),
        depends_on=secret.get("depends_on") or (),
        keep_versions=secret.get("keep_versions") or RotationPolicy.keep_versions,
        owner=secret.get("owner") or "",
        description=secret.get("description") or "",
        tags=secret.get("tags") or (),
        enabled=secret.get("enabled") is not False,
    )


def _the_rest(secret: Secret) -> None:
    """All that can be said without the target, whose strategy decides what may stand beside it."""
    if secret.get("generator") is not None:
        _generator(secret)
    _destinations(secret, None)
    _times(secret)


def _complete(secret: Secret) -> bool:
    """Whether every key could be read: those that could not are findings of the file, made before."""
    return len(secret.own.values) == len(secret.raw)


def _target(secret: Secret) -> None:
    if not secret.is_own("target"):
        return
    part = parts.merged(secret.raw["target"], f"{secret.name}.target", secret.connections, secret.reading, secret.raw)
    secret.target = parts.target(part, secret.connections) if part else None
    if secret.is_own("strategy"):
        secret.fault("strategy", "only where there is no target; expected inside `target`")
    if secret.target and secret.target.strategy is Strategy.PREVIOUS_KEYS:
        secret.fault("target", "previous_keys has no target: expected `strategy` beside `destinations`")


def _value(secret: Secret) -> tuple[str, ...] | None:
    """Where the value comes from. The fields a version is known to have; None where only its target knows."""
    if secret.static is not None:
        for key in ("generator", "fields", "target", "strategy", *_TIMES, "grace_period"):
            if secret.is_own(key):
                secret.fault(key, "a `static` secret has none: it is delivered when its text changes")
        return ("value",)
    if secret.strategy in _VALUELESS:
        if secret.is_own("generator"):
            who = "a person" if secret.strategy is Strategy.MANUAL else "the system"
            secret.fault("generator", f"expected none: {who} makes the value")
        if secret.strategy is Strategy.MANUAL:
            names: tuple[str, ...] = secret.get("fields") or ("value",)
            _fits(secret, names)
            return names
        if secret.is_own("fields"):
            secret.fault("fields", "expected only where a person gives the value (strategy manual)")
        return None
    if secret.is_own("fields"):
        secret.fault("fields", "expected only where a person gives the value (strategy manual)")
    if secret.get("generator") is None:
        if not {"generator", "static"} & secret.raw.keys():
            secret.fault("", "expected a `generator`, a `static` text, or a target that is manual or minted")
        return None
    secret.generator = _generator(secret)
    if secret.generator is None:
        return None
    made = secret.reading.kinds.generator(secret.generator.kind)
    return (secret.generator.field or made.field,)


def _fits(secret: Secret, names: tuple[str, ...]) -> None:
    """What the target's settings say of fields is about fields that there are."""
    spec = secret.target
    cls = secret.reading.kinds.target_class(spec.kind) if spec else None
    if spec is None or cls is None or not issubclass(cls, ByHand):
        return
    for text in cls.open(spec.settings, cls.codec).misfits(names):
        secret.fault("target", text)


def _generator(secret: Secret) -> GeneratorSpec | None:
    raw, path = secret.get("generator"), f"{secret.name}.generator"
    part = parts.merged(raw, path, secret.connections, secret.reading, secret.raw)
    return parts.generator(part) if part else None


def _destinations(secret: Secret, fields: tuple[str, ...] | None) -> None:
    raw = secret.get("destinations")
    if not isinstance(raw, Seq):
        return
    default = "{accepted[0]}"
    if fields is not None and (secret.target is None or secret.strategy is not Strategy.MINTED):
        try:
            default = f"{{{main_field(set(fields))}}}"
        except ValueError:
            default = ""  # judged below, where a destination relies on it
    for number, item in enumerate(raw):
        path = f"{secret.name}.destinations[{number}]"
        here = Map(raw.marks[number])
        part = parts.merged(item, path, secret.connections, secret.reading, here)
        spec = parts.destination(part, default) if part else None
        if part is None or spec is None:
            continue
        if spec.values == {"": ""}:
            part.fault("", f"expected `value` or `values`: the secret has the fields {', '.join(fields or ())}")
        secret.destinations.append((part, spec))


# ------------------------------------------------------------------------------------------------------------ times


def _times(secret: Secret) -> None:
    if secret.static is not None:
        return
    period = secret.period
    window: Window | None = secret.get("rotation_window")
    if secret.is_own("rotation_window") and window:
        if period is None:
            secret.fault("rotation_window", "expected a rotation_period or rotation_schedule beside it")
        elif window.at is None and secret.get("rotation_period"):
            secret.fault("rotation_window", "with a rotation_period: expected {at: CRON, for: DURATION}")
    if period is None:
        return
    if _min_interval(secret) > period:
        default = "" if secret.get("min_interval") is not None else " (the default; say `min_interval: 0s`)"
        text = f"{show(_min_interval(secret))}{default} is longer than the period of {show(period)}"
        secret.fault("min_interval", text)
    if (secret.get("jitter") or timedelta(0)) > period:
        secret.fault("jitter", f"is longer than the period of {show(period)}")


def _window(secret: Secret) -> Window | None:
    """An inherited window that fits nothing here is ignored."""
    window: Window | None = secret.get("rotation_window")
    if window is None or (window.at is None and secret.get("rotation_schedule") is None):
        return None
    return window if secret.period is not None else None


def _min_interval(secret: Secret) -> timedelta:
    said: timedelta | None = secret.get("min_interval")
    return DEFAULT_MIN_INTERVAL if said is None else said


def _grace(secret: Secret) -> timedelta:
    """Default 24 h, at most half the period; none where there is nothing to be graceful about."""
    said: timedelta | None = secret.get("grace_period")
    strategy, period = secret.strategy, secret.period
    if secret.target is None or strategy is Strategy.SINGLE:
        if secret.is_own("grace_period") and secret.static is None:
            why = "`single` accepts one value at a time" if secret.target else "there is no target to retire at"
            secret.fault("grace_period", f"expected none: {why}")
        return timedelta(0)
    if period is not None and said is not None and said > period:
        secret.fault("grace_period", f"{show(said)} is longer than the period of {show(period)}")
        return said
    grace = said
    if grace is None or (period is not None and not secret.is_own("grace_period")):
        grace = min(DEFAULT_GRACE if said is None else said, period / 2 if period else timedelta.max)
    if grace == timedelta(0):
        _refuse_written(secret)
    return grace


def _refuse_written(secret: Secret) -> None:
    """Without grace a consumer that nobody saw running on the new value may still hold the old one."""
    for part, spec in secret.destinations:
        kind = secret.reading.kinds.destination(spec.kind)
        unproven = kind.proof is Proof.WRITTEN or (
            declares(kind.Settings, "confirm") and spec.settings.get("confirm") is None
        )
        if unproven and spec.read not in (Read.COPY, Read.FIRST_START):
            part.fault(
                "", "grace_period 0s: its consumers are only `written`; expected a `confirm`, or a grace above 0s"
            )
