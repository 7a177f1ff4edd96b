"""The JSON Schema of policy files, for editors: from the same tables that read them and the kinds' own Settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from vaultkeeper.model.policy import Read
from vaultkeeper.model.secret import Strategy
from vaultkeeper.policyfile import keys
from vaultkeeper.policyfile.parts import READ_DEFAULTS
from vaultkeeper.policyfile.settings import SettingsOf

Schema = dict[str, Any]
_TEMPLATE: Schema = {"type": "string", "minLength": 1, "description": "`{field}`, `{field|url}`, …; `{{` for a brace"}
_TEMPLATES: Schema = {"type": "object", "additionalProperties": _TEMPLATE, "minProperties": 1}
_USE: Schema = {"type": "string", "description": "a part from `connections`; keys beside it win"}


def schema(kinds: SettingsOf) -> Schema:
    """Draft 2020-12. Imports every kind."""
    secret = {name: {**key.schema, "description": key.doc} for name, key in keys.SECRET.items()}
    defaults = {name: secret[name] for name, key in keys.SECRET.items() if key.inherits}
    definitions: Schema = {}
    definitions["generator"] = _part("generator", kinds, "generators", _generator_keys(), definitions)
    definitions["target"] = _part("target", kinds, "targets", _target_keys(), definitions)
    definitions["destination"] = _part("destination", kinds, "destinations", _destination_keys(), definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vaultkeeper policy file",
        "type": "object",
        "properties": {
            "defaults": _closed(defaults)
            | {"description": "for this file; in _defaults.yaml for its folder and below"},
            "connections": {
                "type": "object",
                "additionalProperties": {"type": "object", "not": {"required": ["use"]}},
                "description": "named parts, taken in with `use:`",
            },
            "secrets": {
                "type": "object",
                "propertyNames": keys.NAME_SCHEMA,
                "additionalProperties": {"$ref": "#/$defs/secret"},
            },
        },
        "additionalProperties": False,
        "$defs": {"secret": _closed(secret) | {"not": {"required": list(keys.REPLACES)}}, **definitions},
    }


def _closed(properties: Mapping[str, Any]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _generator_keys() -> Schema:
    return {
        "use": _USE,
        "field": {"type": "string", "pattern": f"^{keys.FIELD.pattern}$", "description": "renames the field it yields"},
        "weak_ok": {**keys.NONEMPTY, "description": "why less than 128 bits of entropy are enough"},
    }


def _target_keys() -> Schema:
    beside = {"$ref": "#/$defs/destination"}
    return {
        "use": _USE,
        "strategy": {"enum": [strategy.value for strategy in Strategy]},
        "via": {**beside, "description": "the checker reads its value or list from there"},
        "persisted_by": {**beside, "description": "carries a live change over the checker's restart"},
        "verify": {"const": "none", "description": "cannot be proven; needs a `reason`"},
        "reason": {**keys.NONEMPTY, "description": "of `verify: none`; shown everywhere"},
        "close_sessions": {"type": "boolean", "description": "end sessions of the retired account"},
        "admin": {"const": "self", "description": "the account changes its own password"},
    }


def _destination_keys() -> Schema:
    return {
        "use": _USE,
        "value": _TEMPLATE,
        "values": {**_TEMPLATES, "description": "name → template, where a place carries several"},
        "secrets": {**_TEMPLATES, "description": "the same, for objects"},
        "read": {"enum": [read.value for read in Read], "description": "what consumers do"},
        "timeout": {**keys.DURATION, "description": "of confirm"},
        "healthy_for": {**keys.DURATION, "description": "of confirm; default 10s"},
    }


def _part(noun: str, kinds: SettingsOf, group: str, common: Schema, definitions: Schema) -> Schema:
    """By `kind`: its own keys beside the common ones; what it requires may also come from `use`."""
    names = sorted(kinds.kinds(group))
    branches = []
    for kind in names:
        own = own_keys(kinds, group, kind)
        for name, definition in own.pop("$defs", {}).items():
            definitions[f"{noun}.{kind}.{name}"] = definition
        properties = {"kind": {"const": kind}, **common, **_own(own, common)}
        if noun == "target":
            targets = kinds.target_class(kind).capabilities.strategies
            properties["strategy"] = {"enum": sorted(strategy.value for strategy in targets)}
        branch = _closed(properties) | _requires(own.get("required", []))
        if "description" in own:
            branch["description"] = own["description"]
        definitions[f"{noun}.{kind}"] = branch
        chosen = {"properties": {"kind": {"const": kind}}, "required": ["kind"]}
        branches.append({"if": chosen, "then": {"$ref": f"#/$defs/{noun}.{kind}"}})
    whole: Schema = {"type": "object", "properties": {"kind": {"enum": names}}, "allOf": branches}
    return whole | {"anyOf": _either("kind", "use")}


def own_keys(kinds: SettingsOf, group: str, kind: str) -> Schema:
    """Of one kind: what its own Settings say, with `$defs` of their parts under the names that references have."""
    noun = group.removesuffix("s")
    own: Schema = _settings(kinds, group, kind).model_json_schema(ref_template=f"#/$defs/{noun}.{kind}.{{model}}")
    required = [*own.get("required", ())]
    if group == "destinations" and kind not in READ_DEFAULTS:
        required.append("read")
    return own | ({"required": required} if required else {})


def common_keys(group: str) -> Schema:
    """Keys that stand beside those of every kind of a group."""
    return {"targets": _target_keys, "destinations": _destination_keys, "generators": _generator_keys}[group]()


def _own(model: Schema, common: Schema) -> Schema:
    """The kind's own keys. Of `persisted_by` it only hears that somebody does it; people say who."""
    properties: Schema = dict(model.get("properties", {}))
    if "persisted_by" in properties:
        properties["persisted_by"] = common["persisted_by"]
    return properties


def _either(*names: str) -> Sequence[Schema]:
    return [{"required": [name]} for name in names]


def _requires(required: list[str]) -> Schema:
    if not required:
        return {}
    return {"if": {"not": {"required": ["use"]}}, "then": {"required": sorted(required)}}


def _settings(kinds: SettingsOf, group: str, kind: str) -> type[BaseModel]:
    if group == "targets":
        found = kinds.target_class(kind).Settings
    elif group == "destinations":
        found = kinds.destination(kind).Settings
    else:
        found = kinds.generator(kind).Settings
    model: type[BaseModel] = found
    return model
