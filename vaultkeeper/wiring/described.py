"""What is installed, kind by kind: what its docstring, its Settings and its capabilities say. Nothing is written twice.

A docstring begins with one sentence that says what the kind is. `Privileges: …` (or `Privileges of …: …`) at the
beginning of a line says what its account needs, up to a blank line or a line that begins with an address. Such lines
are its sources. CONTRIBUTING says so to authors.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model import duration
from vaultkeeper.model.outcome import Basis, Proof
from vaultkeeper.model.secret import Strategy
from vaultkeeper.policyfile.parts import READ_DEFAULTS
from vaultkeeper.policyfile.schema import common_keys, own_keys
from vaultkeeper.ports import (
    ByHand,
    ClosesSessions,
    Explains,
    Mints,
    NamesObjects,
    ReadsBack,
    Releases,
    Rendered,
    ReportsUse,
)
from vaultkeeper.registry import Registry

_PRIVILEGES = re.compile(r"^(Privileges\b[^:\n]*):[ \n](.*?)(?=\n\n|\nhttps?://|\Z)", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"https?://[^\s,)]+[\w/]")
_SOURCES = re.compile(r"^https?://.*(?:\n(?!\n).*)*", re.MULTILINE)
_CONTROL = frozenset(map(chr, [*range(32), 127]))

STRATEGIES: Mapping[Strategy, str] = {
    Strategy.OVERLAP: "old and new are accepted side by side until the old one is retired",
    Strategy.ALTERNATING_USERS: "two accounts take turns",
    Strategy.SINGLE: "one value at a time; the gap is stated in the plan and measured",
    Strategy.MINTED: "the system makes the value, beside the old one",
    Strategy.PREVIOUS_KEYS: "consumers keep old keys in a list",
    Strategy.MANUAL: "only a person may change it: reminded of, imported, seen dead",
}
_BASES = {
    Basis.VERIFIER: "reads the stored hash back and compares",
    Basis.LISTING: "reads the exact list of what is accepted",
    Basis.LOGIN: "logs in as the account",
    Basis.NONE: "cannot be told without a probe",
}
_PROOFS = {
    Proof.DEMONSTRATED: "consumers are seen running on what was delivered",
    Proof.WRITTEN: "what was delivered is read back from the place; consumers are not seen",
}
_POWERS: Mapping[type[Any], str] = {
    ByHand: "asks a person for its values",
    Mints: "makes the values itself",
    Rendered: "may read its list from a destination (`via`)",
    ReportsUse: "tells who still uses the old value",
    ClosesSessions: "can end the sessions of the old value (`close_sessions`)",
    Explains: "says why a login is answered otherwise than was set",
    Releases: "closes rollback paths and collects objects of the old value",
    ReadsBack: "what it holds can be read again",
    NamesObjects: "carries each version in an object of its own (`vaultkeeper env`)",
}


@dataclass(frozen=True)
class Setting:
    """One key. `inside`: the keys of each mapping that it may hold, by how that is spelled."""

    name: str
    type: str
    required: bool
    default: str
    description: str
    inside: Mapping[str, Sequence[Setting]] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """`origin`: the package that brings it. `problem`: why it cannot be loaded; then there is nothing else."""

    group: str
    kind: str
    origin: str
    problem: str = ""
    summary: str = ""
    text: str = ""  #: the docstring without summary and privileges
    privileges: str = ""
    sources: tuple[str, ...] = ()
    strategies: tuple[Strategy, ...] = ()
    traits: tuple[str, ...] = ()  #: sentences about what it can do
    settings: tuple[Setting, ...] = ()
    common: tuple[str, ...] = ()  #: keys that every kind of the group has


def all_of(group: str, kinds: Registry) -> list[Described]:
    """Every kind of `targets`, `destinations` or `generators`; one that cannot be loaded says so and stops no other."""
    found = []
    for kind in kinds.kinds(group):
        try:
            found.append(described(group, kind, kinds))
        except ConfigurationInvalid as error:
            found.append(Described(group, kind, kinds.origin(group, kind), problem=str(error)))
    return found


def described(group: str, kind: str, kinds: Registry) -> Described:
    """One kind. Raises ConfigurationInvalid for one that is unknown or cannot be loaded."""
    cls = kinds.load(group, kind)
    module = inspect.getmodule(cls)
    docstring = (inspect.getdoc(module) if module else None) or inspect.getdoc(cls) or ""
    summary, text, privileges = parted(docstring)
    model = own_keys(kinds, group, kind)
    return Described(
        group,
        kind,
        kinds.origin(group, kind),
        summary=summary,
        text=text,
        privileges=privileges,
        sources=tuple(dict.fromkeys(_ADDRESS.findall(docstring))),
        strategies=tuple(s for s in Strategy if group == "targets" and s in cls.capabilities.strategies),
        traits=tuple(_traits(group, cls)),
        settings=tuple(_settings(model, _definitions(model))),
        common=tuple(name for name in common_keys(group) if name not in model.get("properties", {})),
    )


def parted(docstring: str) -> tuple[str, str, str]:
    """(first sentence, the rest, privileges without their heading's word but with what it says), without sources."""
    found = _PRIVILEGES.search(docstring)
    privileges = ""
    if found:
        heading = found[1].removeprefix("Privileges").strip()
        said = _ADDRESS.sub("", " ".join(found[2].split())).strip(" ,")
        privileges = f"{heading[:1].upper()}{heading[1:]}: {said}" if heading else said
        docstring = docstring[: found.start()] + docstring[found.end() :]
    docstring = _SOURCES.sub("", docstring)
    paragraphs = [p.strip() for p in re.split(r"\n\s*\n", docstring) if p.strip()]
    first, *rest = paragraphs or [""]
    summary, _, more = " ".join(first.split()).partition(". ")
    kept = [more, *rest] if more else rest
    told = (" ".join(_ADDRESS.sub("", p).split()) for p in kept)
    return summary.rstrip(".") + ".", "\n\n".join(p for p in told if p), privileges


# ------------------------------------------------------------------------------------------------------ what it can do


def _traits(group: str, cls: type[Any]) -> Iterator[str]:
    if group == "targets":
        yield from _target_traits(cls)
    if group == "destinations":
        yield f"Confirm: {_PROOFS[cls.proof]}."
        if not cls.puts_back:
            yield "Consumers cannot be put back to an old value."
        if read := READ_DEFAULTS.get(cls.kind):
            yield f"`read` is {read.value} unless the policy says otherwise."
        yield from _limits(cls)
    for protocol, text in _POWERS.items():
        if issubclass(cls, protocol):
            yield f"{text[:1].upper()}{text[1:]}."


def _target_traits(cls: type[Any]) -> Iterator[str]:
    can = cls.capabilities
    known = "; ".join(text for basis, text in _BASES.items() if basis in can.observes)
    yield f"How it is known what is accepted: {known}."
    if can.max_accepted == 1:
        yield "Accepts one value at a time."
    if not can.probes:
        yield "No login as the account is possible: shown as unverified."
    if can.mutual:
        yield "The protocol proves the server, so that no wrong value is tried."
    if can.tags:
        yield "Holds a tag of who wrote last: a store from an old backup is noticed before it writes."
    if can.login_budget:
        failures, window = can.login_budget
        yield f"Locks accounts: at most {failures} failed logins in {duration.show(window)}."
    if can.interrupts:
        yield "A change restarts it."
    yield from _limits(can)


def _limits(limits: Any) -> Iterator[str]:
    if limits.max_bytes:
        yield f"Values are at most {limits.max_bytes} bytes long."
    if limits.forbidden:
        shown = " ".join(f"`{c}`" for c in sorted(limits.forbidden - _CONTROL) if c.strip())
        words = [shown] if shown else []
        words += ["blanks"] if " " in limits.forbidden else []
        words += ["control characters"] if limits.forbidden & _CONTROL else []
        yield f"Values hold no {', '.join(words)}."


# ------------------------------------------------------------------------------------------------------------ settings


def _definitions(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """By the last part of the name that references use."""
    found: Mapping[str, Any] = model.get("$defs", {})
    return found


def _settings(model: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Setting]:
    required = model.get("required", [])
    return [
        Setting(
            name,
            _type(schema, definitions),
            name in required,
            _default(schema),
            schema.get("description", ""),
            dict(_inside(schema, definitions)),
        )
        for name, schema in model.get("properties", {}).items()
    ]


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    return "" if default is None else default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """In the words of a policy file."""
    if "$ref" in schema:
        named = _of(schema, definitions)
        return _spelt(named) if named.get("properties") else _type(named, definitions)
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            parts = [_type(part, definitions) for part in schema[several] if part.get("type") != "null"]
            return " | ".join(dict.fromkeys(parts))
    match schema.get("type"):
        case "array":
            items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
            return f"list of {_type(items, definitions)}"
        case "object":
            values = schema.get("additionalProperties")
            return f"{{NAME: {_type(values, definitions)}}}" if isinstance(values, dict) and values else "mapping"
        case str(plain):
            return {"string": "text", "integer": "number", "boolean": "true | false"}.get(plain, plain)
    return "anything"


def _of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = definitions[schema["$ref"].rpartition(".")[2].rpartition("/")[2]]
    return found


def _spelt(definition: Mapping[str, Any]) -> str:
    """How such a mapping is written: by what it must say."""
    names = definition.get("required") or list(definition.get("properties", {}))[:1]
    return "{" + ", ".join(f"{name}: …" for name in names) + "}"


def _inside(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Setting]]]:
    if "$ref" in schema:
        definition = _of(schema, definitions)
        if "properties" in definition:
            yield _spelt(definition), _settings(definition, definitions)
        return
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *filter(None, [schema.get("items")])):
        if isinstance(part, dict):
            yield from _inside(part, definitions)
