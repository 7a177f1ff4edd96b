"""Values that a person gives: named as the policy says, and able to stand where the templates put them."""

from __future__ import annotations

from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.plan import by_hand
from vaultkeeper.errors import PolicyInvalid, UsageError
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.secret import Fields
from vaultkeeper.model.template import Template

BARE = ""  # the key of a value given without a field name


def named(policy: RotationPolicy, given: Fields, parts: Parts) -> Fields:
    """By field. Raises UsageError where a manual secret is not given exactly its `fields`."""
    if BARE in given:
        given = {_only_field(policy, parts): given[BARE]}
    if by_hand(policy) and set(given) != set(policy.fields):
        expected = ", ".join(f'"{name}": "…"' for name in policy.fields)
        missing = [name for name in policy.fields if name not in given]
        unknown = [name for name in given if name not in policy.fields]
        wrong = [f"without {', '.join(missing)}"] if missing else []
        wrong += [f"with {', '.join(unknown)}, which it has not"] if unknown else []
        raise UsageError(
            f"{policy.name}: the value was given {' and '.join(wrong)}",
            why=f"its policy says `fields: [{', '.join(policy.fields)}]`",
            works="whatever worked before; nothing was stored or changed",
            next=f"a JSON object on stdin: {{{expected}}}" if len(policy.fields) > 1 else "the bare value on stdin",
        )
    return given


def _only_field(policy: RotationPolicy, parts: Parts) -> str:
    if policy.generator is not None:
        return policy.generator.field or parts.backends.generator(policy.generator.kind).field
    return policy.fields[0] if policy.fields else "value"


def refuse_breaking_out(policy: RotationPolicy, fields: Fields) -> None:
    """A hand-made value may hold what no generator draws. The characters themselves are not told: they are of it."""
    characters = {name: frozenset(value.text()) for name, value in fields.items() if value.is_text()}
    for template in (text for spec in policy.destinations for text in spec.values.values()):
        for risk in Template.parse(template).risks(characters):
            raise PolicyInvalid(
                f"{policy.name}: this value's {risk.field} would break out of {risk.into}",
                why="the template inserts it raw",
                works="whatever worked before; nothing was stored or changed",
                next=risk.remedy,
            )
