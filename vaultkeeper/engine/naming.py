"""Names of the objects that consumers carry now, for whoever deploys them by other means than vaultkeeper."""

from __future__ import annotations

import re
from functools import partial

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import Holder, asked, delivery_context, find_places, spec_of, specs
from vaultkeeper.engine.observe import held_now
from vaultkeeper.engine.parts import Parts, power
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Refused, Unknown
from vaultkeeper.model.policy import Read, RotationPolicy
from vaultkeeper.model.rotation import Placed
from vaultkeeper.model.secret import StagingLabel
from vaultkeeper.ports import NamesObjects

ONCE = "_FIRST_START"
"""Ends the variables of consumers that read once in their life: their name stays, whatever the others carry."""

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


def names(parts: Parts) -> dict[str, str]:
    """Variable → name of an object, of every enabled policy, sorted. Never a value.

    Raises BackendError where a destination cannot tell, where consumers of one object carry different versions, or
    where one carries another than CURRENT: its name, once deployed, would keep a stale version alive.
    """
    found: dict[str, str] = {}
    for policy in parts.policies.values():
        if policy.enabled:
            _must_be_current(policy, parts)
        for _, spec, _ in specs(policy) if policy.enabled else ():
            namer = power(parts.backends.destination(spec.kind), NamesObjects)
            if namer is None:
                continue
            told = asked(parts, f"{spec.kind}.names", partial(namer.names, spec, delivery_context(parts)))
            if isinstance(told, Unknown | Refused):
                raise BackendError(f"the objects of {policy.name} cannot be named", why=told.detail)
            for variable, name in told.items():
                if not (
                    _PLAIN.fullmatch(variable) and _PLAIN.fullmatch(name)
                ):  # a shell will read it, and an Engine told us
                    raise BackendError(f"the objects of {policy.name} cannot be named", why=f"{name!r} is no such name")
                key = variable + (ONCE if spec.read is Read.FIRST_START else "")
                if found.setdefault(key, name) != name:
                    raise BackendError(
                        f"consumers of {policy.name} carry two objects, {found[key]} and {name}",
                        why="a rotation is under way, or somebody put one of them back",
                        next=f"vaultkeeper reconcile {policy.name}",
                    )
    return dict(sorted(found.items()))


def _must_be_current(policy: RotationPolicy, parts: Parts) -> None:
    """Consumers that read once keep what they have, and those without a reference have no name to be told."""
    kinds = {spec.kind for _, spec, _ in specs(policy) if spec.read is not Read.FIRST_START}
    if not any(power(parts.backends.destination(kind), NamesObjects) for kind in kinds):
        return
    current = parts.store.labels(policy.name).get(StagingLabel.CURRENT)
    if current is None:
        return
    places = find_places(policy, parts, delivery_context(parts))
    if isinstance(places, Unknown | Refused):
        raise BackendError(f"the objects of {policy.name} cannot be named", why=places.detail)
    holder = Holder(policy.name, policy, places, None, Book(policy.name, parts.store, parts.envelope, parts.redactor))
    for place, held in held_now(holder, parts, [p for p in places if _is_named(p, policy, parts)]):
        if held.foreign or held.version not in {None, current}:
            raise BackendError(
                f"{place.name} carries another object than that of v{current} of {policy.name}, which is current",
                why="somebody put it back, or a rotation is under way",
                works="nothing was written: a file with that name would keep it so at every deploy",
                next=f"vaultkeeper reconcile {policy.name}",
            )


def _is_named(place: Placed, policy: RotationPolicy, parts: Parts) -> bool:
    spec = spec_of(policy, place.destination)
    named = power(parts.backends.destination(spec.kind), NamesObjects) is not None
    return named and spec.read is not Read.FIRST_START
