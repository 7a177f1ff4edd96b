"""The keys of a secret that no back end is asked about: what each means, how it is read, what its JSON Schema says.

One table, `SECRET`, drives reading, inheritance from `defaults` and the exported schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from vaultkeeper.model import cron, duration
from vaultkeeper.model.policy import Cron, KeepVersions, Window
from vaultkeeper.policyfile.findings import Findings, did_you_mean
from vaultkeeper.policyfile.read import Map, Seq

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
Schema = Mapping[str, Any]


class Wrong(ValueError):
    """A value that a key cannot take. `key`: the one inside it that is wrong, if any."""

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


@dataclass(frozen=True)
class Key:
    """`inherits`: may stand in `defaults`."""

    read: Callable[[Any], object]
    schema: Schema
    doc: str
    inherits: bool = False


# -------------------------------------------------------------------------------------------------------- readers


def text(value: object) -> str:
    """Raises Wrong, as every reader here."""
    if not isinstance(value, str):
        raise Wrong("expected text" + (", in quotes" if isinstance(value, int | float) else ""))
    return value


def some_text(value: object) -> str:
    """Text that says something."""
    if not text(value).strip():
        raise Wrong("expected text, it is empty")
    return str(value)


def flag(value: object) -> bool:
    """True or false; `yes` and `on` are text."""
    if not isinstance(value, bool):
        raise Wrong("expected true or false")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, Seq) or not all(isinstance(item, str) for item in value):
        raise Wrong("expected a list of texts")
    return tuple(value)


def _mapping(value: object) -> Map:
    if not isinstance(value, Map):
        raise Wrong("expected keys and values")
    return value


def _listing(value: object) -> Seq:
    if not isinstance(value, Seq):
        raise Wrong("expected a list")
    return value


def span(value: object) -> timedelta:
    """A duration; zero is one."""
    if not isinstance(value, str):
        raise Wrong(f"expected {duration.EXPECTED}")
    return _span(value)


@lru_cache(maxsize=1024)
def _span(value: str) -> timedelta:
    return duration.parse(value)


def _period(value: object) -> timedelta:
    if span(value) <= timedelta(0):
        raise Wrong("expected more than 0s")
    return span(value)


@lru_cache(maxsize=1024)
def _cron(value: str) -> Cron:
    return cron.parse(value)


def _schedule(value: object) -> Cron:
    if not isinstance(value, str):
        raise Wrong(f"expected {cron.EXPECTED}")
    return _cron(value)


def _window(value: object) -> Window:
    if isinstance(value, str):
        return Window(_period(value))
    if not isinstance(value, Map) or set(value) != {"at", "for"}:
        raise Wrong("expected a duration such as 2h, or {at: CRON, for: DURATION}")
    return Window(_inside(value, "for", _period), _inside(value, "at", _schedule))


def _keep(value: object) -> KeepVersions:
    if value == "forever":
        return KeepVersions(keep_for=None)
    if not isinstance(value, Map) or not value:
        raise Wrong("expected {at_least: 5, for: 400d} or forever")
    for key in value:
        if key not in ("at_least", "for"):
            raise Wrong(f"unknown key; {did_you_mean(key, ('at_least', 'for'))}", key)
    default = KeepVersions()
    return KeepVersions(
        _inside(value, "at_least", _at_least) if "at_least" in value else default.at_least,
        _inside(value, "for", _period) if "for" in value else default.keep_for,
    )


def _at_least(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Wrong("expected a number of versions, 1 or more")
    return value


def _inside(value: Map, key: str, read: Callable[[object], Any]) -> Any:
    """One key of a small mapping, so that its own place is named."""
    try:
        return read(value[key])
    except ValueError as error:
        raise Wrong(str(error), key) from None


def _timezone(value: object) -> str:
    try:
        return ZoneInfo(text(value)).key  # keeps its own cache
    except (KeyError, ValueError, OSError):
        raise Wrong(f"no such time zone; {_near_zone(str(value))}") from None


def _near_zone(name: str) -> str:
    guess = did_you_mean(name, available_timezones())
    return guess if guess.startswith("did") else "expected an IANA name such as Europe/Paris or UTC"


def _on_drift(value: object) -> bool:
    if value not in ("tell", "repair"):
        raise Wrong("expected tell or repair")
    return value == "repair"


def _names(value: object) -> tuple[str, ...]:
    for name in _texts(value):
        if not NAME.fullmatch(name):
            raise Wrong("expected names of secrets")
    return _texts(value)


def _field_names(value: object) -> tuple[str, ...]:
    found = _texts(value)
    if not found or len(set(found)) != len(found) or not all(FIELD.fullmatch(name) for name in found):
        raise Wrong("expected different names such as [client_id, client_secret]")
    return found


def _previous_keys(value: object) -> str:
    if value != "previous_keys":
        raise Wrong("expected previous_keys; every other strategy belongs into `target`")
    return "previous_keys"


# ---------------------------------------------------------------------------------------------------------- tables

TEXT: Schema = {"type": "string"}
NONEMPTY: Schema = {"type": "string", "pattern": "\\S"}
TEXTS: Schema = {"type": "array", "items": TEXT}
NAME_SCHEMA: Schema = {"type": "string", "pattern": f"^{NAME.pattern}$"}
DURATION: Schema = {"type": "string", "pattern": r"^(([0-9]{1,9}(y|mo|w|d|h|min|s))+|P[0-9YMWDTHS]+)$"}
CRON: Schema = {"type": "string", "minLength": 6}

SECRET: Mapping[str, Key] = {
    "owner": Key(some_text, NONEMPTY, "who is told", inherits=True),
    "description": Key(text, TEXT, "for people", inherits=True),
    "tags": Key(_texts, TEXTS, "select secrets: `rotate --tag`", inherits=True),
    "enabled": Key(flag, {"type": "boolean"}, "false: checked, never rotated", inherits=True),
    "generator": Key(
        _mapping, {"$ref": "#/$defs/generator"}, "makes the value; absent for manual, minted and static", inherits=True
    ),
    "fields": Key(
        _field_names,
        {"type": "array", "items": {"type": "string", "pattern": f"^{FIELD.pattern}$"}, "minItems": 1},
        "names of a manual secret's parts; default one field `value`",
    ),
    "static": Key(some_text, NONEMPTY, "a constant that travels with secrets; a changed one is due once"),
    "keep_versions": Key(
        _keep,
        {
            "oneOf": [
                {"const": "forever"},
                {
                    "type": "object",
                    "properties": {"at_least": {"type": "integer", "minimum": 1}, "for": DURATION},
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            ]
        },
        "old versions kept for old backups; default at least 5, for 400d",
        inherits=True,
    ),
    "rotation_period": Key(_period, DURATION, "how often; or `rotation_schedule`", inherits=True),
    "rotation_schedule": Key(
        _schedule, CRON, "standard cron, @weekly and kin, or weekly … yearly; or `rotation_period`", inherits=True
    ),
    "rotation_window": Key(
        _window,
        {
            "oneOf": [
                DURATION,
                {
                    "type": "object",
                    "properties": {"at": CRON, "for": DURATION},
                    "required": ["at", "for"],
                    "additionalProperties": False,
                },
            ]
        },
        "when a due rotation may start",
        inherits=True,
    ),
    "timezone": Key(_timezone, TEXT, "IANA name; default UTC", inherits=True),
    "jitter": Key(span, DURATION, "spreads due times of different secrets", inherits=True),
    "min_interval": Key(span, DURATION, "never sooner than this after the last one; default 5min", inherits=True),
    "grace_period": Key(
        span, DURATION, "how long the old version stays valid after consumers are confirmed; default 24h", inherits=True
    ),
    "on_drift": Key(
        _on_drift, {"enum": ["tell", "repair"]}, "when somebody put a destination back; default tell", inherits=True
    ),
    "depends_on": Key(_names, {"type": "array", "items": NAME_SCHEMA}, "secrets whose rotation goes first"),
    "target": Key(_mapping, {"$ref": "#/$defs/target"}, "the system that checks the credential"),
    "destinations": Key(
        _listing, {"type": "array", "items": {"$ref": "#/$defs/destination"}}, "where consumers read it"
    ),
    "strategy": Key(_previous_keys, {"const": "previous_keys"}, "only where there is no target"),
}

REPLACES = {"rotation_period": "rotation_schedule", "rotation_schedule": "rotation_period"}


@dataclass(frozen=True)
class Layer:
    """Typed values with the mapping each was read from. `defaults` of files and a secret's own keys alike."""

    values: Mapping[str, object]
    sources: Mapping[str, Map]

    def over(self, outer: Layer) -> Layer:
        """This layer's keys win; its own period replaces an outer schedule and the other way round."""
        gone = {REPLACES[key] for key in self.values if key in REPLACES}
        values = {key: value for key, value in outer.values.items() if key not in gone}
        return Layer({**values, **self.values}, {**outer.sources, **self.sources})


NOTHING = Layer({}, {})


def read_layer(raw: Map, path: str, findings: Findings, *, defaults: bool) -> Layer:
    """Every key that can be read; the others are findings."""
    values: dict[str, object] = {}
    for name, value in raw.items():
        key = SECRET.get(name)
        here = f"{path}.{name}"
        if key is None:
            findings.add(raw.where(name), here, f"unknown key; {did_you_mean(name, SECRET)}")
        elif defaults and not key.inherits:
            findings.add(raw.where(name), here, "not in `defaults`: expected in each secret")
        else:
            try:
                values[name] = key.read(value)
            except Wrong as error:
                place = value.where(error.key) if error.key and isinstance(value, Map) else raw.where(name)
                findings.add(place, f"{here}.{error.key}" if error.key else here, str(error))
            except ValueError as error:
                findings.add(raw.where(name), here, str(error))
    if "rotation_period" in values and "rotation_schedule" in values:
        findings.add(raw.where("rotation_schedule"), path, "expected rotation_period or rotation_schedule, not both")
    return Layer(values, dict.fromkeys(values, raw))
