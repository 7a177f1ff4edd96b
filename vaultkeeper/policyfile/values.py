"""Is the value strong enough, and can it go where the templates put it?"""

from __future__ import annotations

from collections.abc import Mapping

from vaultkeeper.model.secret import Strategy
from vaultkeeper.policyfile import parts
from vaultkeeper.policyfile.findings import did_you_mean
from vaultkeeper.policyfile.parts import Part
from vaultkeeper.policyfile.read import Map
from vaultkeeper.policyfile.secret import Secret

LEAST_ENTROPY_BITS = 128


def _forbidden(secret: Secret) -> frozenset[str]:
    """What the target and the destinations cannot take."""
    kinds = secret.reading.kinds
    target = kinds.target_class(secret.target.kind).capabilities.forbidden if secret.target else frozenset[str]()
    return target.union(*(kinds.destination(spec.kind).forbidden for _, spec in secret.destinations))


def entropy(secret: Secret) -> None:
    """Too little of it is refused, unless somebody said why it is enough."""
    spec = secret.generator
    if spec is None or spec.weak_ok is not None:
        return
    made = secret.reading.kinds.generator(spec.kind)
    forbidden = _forbidden(secret)
    bits = secret.reading.once(
        ("entropy", spec.kind, _frozen(spec.settings), forbidden), lambda: made.entropy_bits(spec.settings, forbidden)
    )
    if bits < LEAST_ENTROPY_BITS:
        secret.fault(
            "generator", f"{bits:.0f} bits of entropy: expected {LEAST_ENTROPY_BITS} or more, or `weak_ok: REASON`"
        )


def _frozen(value: object) -> object:
    """A hashable stand-in for a JSON document: thousands of secrets share one generator's settings."""
    if isinstance(value, Mapping):
        return ("map", *sorted((key, _frozen(inner)) for key, inner in value.items()))
    return ("list", *map(_frozen, value)) if isinstance(value, list) else value


def _characters(secret: Secret, fields: tuple[str, ...] | None) -> dict[str, frozenset[str]]:
    """Of each field, what it may hold; fields of unknown content are judged when they are given."""
    known: dict[str, frozenset[str]] = {}
    if secret.static is not None:
        known["value"] = frozenset(secret.static)
    if secret.generator is not None and fields:
        spec = secret.generator
        made = secret.reading.kinds.generator(spec.kind)
        key = ("alphabet", spec.kind, _frozen(spec.settings))
        known[fields[0]] = secret.reading.once(key, lambda: made.alphabet(spec.settings)) - _forbidden(secret)
    if secret.target is not None and (accounts := parts.accounts(secret.target)):
        known["username"] = frozenset("".join(accounts))
    return known


def templates(secret: Secret, fields: tuple[str, ...] | None) -> None:
    """`fields`: those a version is known to have; None where only its target knows."""
    characters = _characters(secret, fields)
    uses_username = False
    for part, spec in secret.destinations:
        for name, text in spec.values.items():
            template = parts.parsed(text)
            names = template.fields()
            uses_username = uses_username or "username" in names
            where = _where(part, name)
            complete = secret.target is None or secret.strategy is Strategy.MANUAL  # no target adds fields
            for unknown in sorted(names - set(fields or ())) if complete and fields else ():
                where.fault(name or "value", f"no field `{unknown}`; {did_you_mean(unknown, fields or ())}")
            for risk in template.risks(characters):
                holds = f"{{{risk.field}}} may hold {risk.characters!r}, which breaks {risk.into}"
                where.fault(name or "value", f"{holds}: {risk.remedy}")
    if secret.strategy is Strategy.ALTERNATING_USERS and secret.destinations and not uses_username:
        secret.fault(
            "destinations", "two users take turns, so consumers must be told which: expected {username} in a template"
        )


def _where(part: Part, name: str) -> Part:
    """The mapping in which a template stands."""
    for key in ("values", "secrets"):
        inner = part.raw.get(key)
        if name and isinstance(inner, Map):
            return Part(inner, f"{part.path}.{key}", part.reading)
    return part
