"""Which secrets a command is about."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from vaultkeeper.errors import NotFound, UsageError
from vaultkeeper.model.policy import RotationPolicy

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Secrets by name.", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")]


def named(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """`names`, once each, in the order given. Raises NotFound naming the nearest known one."""
    known = set(known)
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise NotFound(
                f"there is no secret {name!r}",
                why=f"did you mean {near[0]}?" if near else "",
                next="vaultkeeper status   lists them",
            )
    return chosen


def enabled(policies: Mapping[str, RotationPolicy]) -> list[str]:
    """Whatever `--all` means."""
    return [name for name, policy in policies.items() if policy.enabled]


def chosen(
    names: Sequence[str] | None,
    policies: Mapping[str, RotationPolicy],
    *,
    every: bool = False,
    tags: Sequence[str] = (),
) -> list[str]:
    """By name, by tag, or every enabled one. Raises UsageError unless exactly one way is used."""
    ways = [bool(names), every, bool(tags)]
    if sum(ways) != 1:
        raise UsageError("say which secrets, in one way", next="NAME…, --all, or --tag T")
    if names:
        return named(names, policies)
    if tags:
        found = [name for name in enabled(policies) if set(tags) & set(policies[name].tags)]
        if not found:
            known = sorted({tag for policy in policies.values() for tag in policy.tags})
            raise NotFound(f"no enabled policy has the tag {' or '.join(tags)}", why=f"tags in use: {', '.join(known)}")
        return found
    return enabled(policies)
