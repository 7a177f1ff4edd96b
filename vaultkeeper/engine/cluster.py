"""Which secrets must be driven together: those that share a delivery group or depend on one another."""

from __future__ import annotations

from collections.abc import Sequence

from vaultkeeper.engine.groups import Layout
from vaultkeeper.engine.parts import Parts


def clusters(names: Sequence[str], layout: Layout) -> list[list[str]]:
    """Secrets that share a group or depend on one another, together; dependencies first within a cluster."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first_in: dict[str, str] = {}
    for name in names:
        for place in layout.places(name):
            other = first_in.setdefault(str(place.group), name)
            parent[root(name)] = root(other)
        policy = layout.parts.policies.get(name)
        for needed in policy.depends_on if policy else ():
            if needed in parent:
                parent[root(name)] = root(needed)
    found: dict[str, list[str]] = {}
    for name in _dependencies_first(names, layout.parts):
        found.setdefault(root(name), []).append(name)
    return list(found.values())


def _dependencies_first(names: Sequence[str], parts: Parts) -> list[str]:
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        policy = parts.policies.get(name)
        for needed in policy.depends_on if policy else ():
            if needed in names and needed not in ordered:
                visit(needed)
        ordered[name] = None

    for name in names:
        visit(name)
    return list(ordered)
