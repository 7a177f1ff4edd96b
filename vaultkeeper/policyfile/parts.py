"""The parts of a secret that name a kind: generator, target, destinations. What stands in `use` is merged in first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.policy import DestinationSpec, GeneratorSpec, Read, TargetSpec
from vaultkeeper.model.secret import Strategy
from vaultkeeper.model.template import Template
from vaultkeeper.policyfile import keys
from vaultkeeper.policyfile.findings import did_you_mean
from vaultkeeper.policyfile.read import Map
from vaultkeeper.policyfile.settings import VAULT_KEYS, Reading, declares, validated
from vaultkeeper.ports import ClosesSessions

T = TypeVar("T")

GENERATOR_KEYS = ("kind", "use", "field", "weak_ok")
TARGET_KEYS = ("kind", "use", "strategy", "via", "persisted_by", "verify", "reason", "close_sessions", "admin")
DESTINATION_KEYS = ("kind", "use", "value", "values", "secrets", "read", "timeout", "healthy_for")
_ALSO_THE_KINDS = ("admin", "close_sessions", "verify", "reason")  #: reach a kind that declares them

READ_DEFAULTS: Mapping[str, Read] = {
    "swarm": Read.AT_START,
    "compose": Read.AT_START,
    "dokploy": Read.AT_START,
    "dotenv": Read.AT_START,
    "vault_kv": Read.PER_USE,
    "keyring": Read.PER_USE,
    "grafana_datasource": Read.PER_USE,
    "clients": Read.PER_USE,
    "sops": Read.COPY,
}
"""Fixed by the format; every other kind must say."""

Connections = Mapping[str, Map]


@dataclass(frozen=True)
class Part:
    """One part, merged, with its path for messages."""

    raw: Map
    path: str
    reading: Reading

    def fault(self, key: str, text: str) -> None:
        self.reading.findings.add(self.raw.where(key), f"{self.path}.{key}" if key else self.path, text)

    def take(self, key: str, read: Callable[[object], T], default: T) -> T:
        """A key of the format's own; the default also where it is wrong."""
        if key not in self.raw:
            return default
        try:
            return read(self.raw[key])
        except ValueError as error:
            self.fault(key, str(error))
            return default

    def rest(self, *own: str) -> Map:
        """What is the kind's."""
        rest = Map(self.raw.place)
        for key, value in self.raw.items():
            if key not in own:
                rest.put(key, value, self.raw.where(key))
        return rest

    def kind(self, group: str) -> str | None:
        """The kind, if it is text."""
        if "kind" not in self.raw:
            known = ", ".join(sorted(self.reading.kinds.kinds(group)))
            self.fault("kind", f"is missing; expected one of {known}")
            return None
        return self.take("kind", keys.text, "") or None

    def ask(self, group: str, load: Callable[[str], T]) -> tuple[str, T] | None:
        """The kind with what the registry has for it."""
        kind = self.kind(group)
        if kind is None:
            return None
        if kind not in self.reading.kinds.kinds(group):
            self.fault("kind", f"unknown kind `{kind}`; {did_you_mean(kind, self.reading.kinds.kinds(group))}")
            return None
        try:
            return kind, load(kind)
        except ConfigurationInvalid as error:
            self.fault("kind", str(error))
            return None


def merged(raw: object, path: str, connections: Connections, reading: Reading, place: Map) -> Part | None:
    """`raw` with its `use` taken in, one level deep; keys beside `use` win."""
    if not isinstance(raw, Map):
        reading.findings.add(place.place, path, "expected keys such as {kind: …}")
        return None
    whole = _taken_in(Part(raw, path, reading), connections)
    return Part(_with_vaults(whole, path, connections, reading), path, reading) if whole is not None else None


def _taken_in(part: Part, connections: Connections, only: Collection[str] = ()) -> Map | None:
    """With the connection that `use` names, or those keys of it. None where there is no such connection."""
    if "use" not in part.raw:
        return part.raw
    name = part.take("use", keys.text, "")
    if name not in connections:
        if name:
            part.fault("use", f"no such connection `{name}`; {did_you_mean(name, connections)}")
        return None
    whole = Map(part.raw.place)
    for source in (connections[name], part.raw):
        for key, value in source.items():
            if key != "use" and (source is part.raw or not only or key in only):
                whole.put(key, value, source.where(key))
    return whole


def _with_vaults(raw: Map, path: str, connections: Connections, reading: Reading) -> Map:
    """With the connection of every {vault: PATH, field: F, use: NAME} in it, however deep."""
    whole = Map(raw.place)
    for key, value in raw.items():
        inner = value
        if isinstance(value, Map):
            here = f"{path}.{key}"
            inner = _with_vaults(value, here, connections, reading)
            if "vault" in inner:
                inner = _taken_in(Part(inner, here, reading), connections, VAULT_KEYS) or inner
        whole.put(key, inner, raw.where(key))
    return whole if any(whole[key] is not raw[key] for key in raw) else raw


# ------------------------------------------------------------------------------------------------------- generator


def generator(part: Part) -> GeneratorSpec | None:
    """None where anything is wrong."""
    before = len(part.reading.findings)
    field = part.take("field", _field, None)
    weak_ok = part.take("weak_ok", keys.some_text, None)
    asked = part.ask("generators", part.reading.kinds.generator)
    if asked is None:
        return None
    kind, made = asked
    settings = validated(made.Settings, part.rest(*GENERATOR_KEYS), part.path, part.reading, common=GENERATOR_KEYS)
    if settings is None or len(part.reading.findings) > before:
        return None
    return GeneratorSpec(kind, settings, field, weak_ok)


def _field(value: object) -> str | None:
    if not keys.FIELD.fullmatch(keys.text(value)):
        raise keys.Wrong("expected a name of letters, digits and _")
    return str(value)


# ---------------------------------------------------------------------------------------------------------- target


def target(part: Part, connections: Connections) -> TargetSpec | None:
    """None where anything is wrong."""
    reading = part.reading
    before = len(reading.findings)
    asked = part.ask("targets", reading.kinds.target_class)
    via = _beside("via", part, connections, default="")
    persisted_by = _persisting(part, connections)
    unverified = _unverified(part)
    close_sessions = part.take("close_sessions", keys.flag, default=False)
    if asked is None:
        return None
    kind, cls = asked
    strategy = _strategy(part, cls.capabilities.strategies)
    own = [key for key in TARGET_KEYS if not (key in _ALSO_THE_KINDS and declares(cls.Settings, key))]
    if "admin" in own and part.raw.get("admin", "self") != "self":
        own.remove("admin")
    rest = part.rest(*own)
    if "persisted_by" in part.raw and declares(cls.Settings, "persisted_by"):
        somebody_does: object = True  # all that the kind needs to know
        rest.put("persisted_by", somebody_does, part.raw.where("persisted_by"))
    elif "persisted_by" in part.raw:
        part.fault("persisted_by", f"expected none: a {kind} keeps by itself what is set there")
    settings = validated(cls.Settings, rest, part.path, reading, common=TARGET_KEYS)
    if close_sessions and not issubclass(cls, ClosesSessions):
        part.fault("close_sessions", f"a {kind} cannot close sessions")
    if strategy is None or settings is None:
        return None
    self_service = part.raw.get("admin") == "self"
    spec = TargetSpec(kind, strategy, settings, via, persisted_by, unverified, close_sessions, self_service)
    _accounts(part, spec)
    _side_by_side(part, spec)
    return spec if len(reading.findings) == before else None


def _beside(key: str, part: Part, connections: Connections, *, default: str) -> DestinationSpec | None:
    if key not in part.raw:
        return None
    inner = merged(part.raw[key], f"{part.path}.{key}", connections, part.reading, part.raw)
    return destination(inner, default) if inner else None


def _persisting(part: Part, connections: Connections) -> DestinationSpec | None:
    """The checker reads there when it starts again. It has the value already: nobody restarts it or waits for it."""
    found = _beside("persisted_by", part, connections, default="{accepted[0]}")
    if found is None:
        return None
    settings = part.reading.kinds.destination(found.kind).Settings
    leaves_out = [key for key in ("reload", "apply") if declares(settings, key)]
    if READ_DEFAULTS.get(found.kind) is Read.AT_START and not leaves_out:
        part.fault("persisted_by", f"a {found.kind} restarts whoever reads there: expected a place that does not")
    for key in leaves_out:
        if found.settings.get(key, "none") != "none":
            part.fault("persisted_by", f"expected no `{key}`: the checker is not restarted, it has the value already")
    return replace(found, read=Read.FIRST_START)


def _strategy(part: Part, offered: Iterable[Strategy]) -> Strategy | None:
    known = {strategy.value: strategy for strategy in offered}
    if "strategy" not in part.raw:
        if len(known) == 1:
            return next(iter(known.values()))
        part.fault("strategy", f"is missing; expected {' or '.join(sorted(known))}")
        return None
    name = part.take("strategy", keys.text, "")
    if name and name not in known:
        part.fault("strategy", f"`{name}` is not possible here; {did_you_mean(name, known)}")
    return known.get(name)


def _unverified(part: Part) -> str | None:
    if "verify" in part.raw and part.raw["verify"] != "none":
        part.fault("verify", "expected none, with a `reason`; without `verify` it is proven")
    elif "verify" in part.raw and "reason" not in part.raw:
        part.fault("verify", "expected a `reason` beside it, which is shown everywhere")
    elif "reason" in part.raw and "verify" not in part.raw:
        part.fault("reason", "belongs to `verify: none`")
    return part.take("reason", keys.some_text, None)


def _accounts(part: Part, spec: TargetSpec) -> None:
    """`user` and `users` are the format's words, whatever the kind."""
    alternating = spec.strategy is Strategy.ALTERNATING_USERS
    if alternating and not spec.settings.get("users"):
        part.fault("user" if "user" in spec.settings else "strategy", "alternating_users takes `users: [A, B]`")
    if not alternating and "users" in spec.settings:
        part.fault("users", f"{spec.strategy.value} takes `user`; two accounts take turns by alternating_users")
    admin = spec.settings.get("admin")
    if isinstance(admin, Mapping) and admin.get("username") in accounts(spec):
        part.fault("admin", "an account that is its own admin needs `admin: self`")


def _side_by_side(part: Part, spec: TargetSpec) -> None:
    """A list with room for the new value only refuses the old one before consumers have heard of another."""
    beside = spec.strategy in {Strategy.OVERLAP, Strategy.ALTERNATING_USERS}
    texts = spec.via.values.values() if spec.via is not None and beside else ()
    if texts and all(texts) and not any(_shows_the_old(text) for text in texts):
        how = "overlap keeps" if spec.strategy is Strategy.OVERLAP else "alternating_users keep"
        part.fault("via", f"{how} the old value accepted, and nothing here holds it: add `{{accepted[-1]}}`")


def _shows_the_old(text: str) -> bool:
    try:
        return any(insert.previous or insert.index == -1 for insert in parsed(text).inserts())
    except ValueError:
        return True  # the template itself is complained of


def accounts(spec: TargetSpec) -> list[str]:
    """The accounts that a target's settings name."""
    users = spec.settings.get("users")
    named = [spec.settings.get("user"), *(users if isinstance(users, list | tuple) else ())]
    return [name for name in named if isinstance(name, str)]


# ----------------------------------------------------------------------------------------------------- destination


def destination(part: Part, default: str) -> DestinationSpec | None:
    """`default`: the template where the policy says no value. None where anything is wrong."""
    reading = part.reading
    before = len(reading.findings)
    asked = part.ask("destinations", reading.kinds.destination)
    values = _values(part, default)
    timeout = part.take("timeout", _some_time, None)
    healthy_for = part.take("healthy_for", keys.span, DestinationSpec.healthy_for)
    if asked is None:
        return None
    kind, made = asked
    read = READ_DEFAULTS.get(kind)
    if "read" in part.raw:
        read = part.take("read", _read, None)
    elif read is None:
        part.fault("read", f"is missing; a {kind} must say: {', '.join(_READS)}")
    settings = validated(made.Settings, part.rest(*DESTINATION_KEYS), part.path, reading, common=DESTINATION_KEYS)
    if read is None or settings is None or len(reading.findings) > before:
        return None
    return DestinationSpec(kind, values, read, settings, timeout, healthy_for)


_READS = {read.value: read for read in Read}


def _read(value: object) -> Read:
    if not isinstance(value, str) or value not in _READS:
        raise keys.Wrong(f"expected one of {', '.join(_READS)}")
    return _READS[value]


def _some_time(value: object) -> timedelta:
    if keys.span(value) <= timedelta(0):
        raise keys.Wrong("expected more than 0s")
    return keys.span(value)


def _values(part: Part, default: str) -> Mapping[str, str]:
    said = [key for key in ("value", "values", "secrets") if key in part.raw]
    if not said:
        return {"": default}
    if len(said) > 1:
        part.fault(said[1], f"expected {said[0]} or {said[1]}, not both")
        return {}
    key, raw = said[0], part.raw[said[0]]
    if key == "value":
        return {"": _template(part, part.raw, key, part.path)}
    if not isinstance(raw, Map) or not raw:
        part.fault(key, "expected names with templates, {NAME: TEMPLATE}")
        return {}
    return {name: _template(part, raw, name, f"{part.path}.{key}") for name in raw}


def _template(part: Part, raw: Map, key: str, path: str) -> str:
    try:
        return parsed(keys.some_text(raw[key])).text
    except ValueError as error:
        part.reading.findings.add(raw.where(key), f"{path}.{key}", str(error))
        return ""


@lru_cache(maxsize=65536)
def parsed(text: str) -> Template:
    """Many secrets share a template."""
    return Template.parse(text)
