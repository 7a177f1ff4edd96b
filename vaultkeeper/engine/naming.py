"""Names of the objects that consumers carry now, for whoever deploys them by other means than vaultkeeper."""

from __future__ import annotations

import re
from functools import partial

from vaultkeeper.engine.groups import asked, delivery_context, specs
from vaultkeeper.engine.parts import Parts, power
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Refused, Unknown
from vaultkeeper.model.policy import Read
from vaultkeeper.ports import NamesObjects

ONCE = "_FIRST_START"
"""Ends the variables of consumers that read once in their life: their name stays, whatever the others carry."""

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


def names(parts: Parts) -> dict[str, str]:
    """Variable → name of an object, of every enabled policy, sorted. Never a value.

    Raises BackendError where a destination cannot tell, or where consumers of one object carry different versions.
    """
    found: dict[str, str] = {}
    for policy in parts.policies.values():
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
                        next=f"vaultkeeper status --observe   then   vaultkeeper reconcile {policy.name}",
                    )
    return dict(sorted(found.items()))
