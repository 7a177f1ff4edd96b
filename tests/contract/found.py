"""Kinds of the registry, and what `tests/servers/<kind>.py` offers to try them on.

`start() -> Server` for a target, or a `ReadingPlace` for a destination. Where one account or place is not enough:
`VARIANTS`, name → how to make it (from the server, for a target). `SERVERS`: variant → how to start a server of its
own, where it needs one. `UNSWEPT`: variants that the kill sweep leaves to another one. `UNTAGGED`: variants whose
settings rule out tags.
A server of a target may have `refused_logins()`: how many its own log shows (tests/integration/test_refusals.py).
`AT_ONCE`: how many kill points are tried side by side, where consumers take long to start.
`GROUP`: a group of pytest-xdist, where a server takes long to start and everybody in one worker shares it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

from tests.servers import ServerMissing
from vaultkeeper.registry import Registry

REGISTRY = Registry()
Case = tuple[str, str]  # kind, variant


def has_server(kind: str, group: str = "targets") -> bool:
    return find_spec(_module(kind, group)) is not None


def servers(kind: str, group: str = "targets") -> ModuleType:
    return import_module(_module(kind, group))


def _module(kind: str, group: str) -> str:
    """A kind that both checks and is read has two modules: `<kind>.py` and `<kind>_place.py`."""
    place = f"tests.servers.{kind}_place"
    return place if group == "destinations" and find_spec(place) is not None else f"tests.servers.{kind}"


def variants(kind: str, group: str = "targets") -> Mapping[str, Callable[..., Any] | None]:
    """None: what `start` offers."""
    found: Mapping[str, Callable[..., Any] | None] = getattr(servers(kind, group), "VARIANTS", {"plain": None})
    return found


def start_of(kind: str, variant: str, group: str = "targets") -> Callable[..., Any]:
    """What starts the server that a variant is tried on."""
    starts: Mapping[str, Callable[..., Any]] = getattr(servers(kind, group), "SERVERS", {})
    return starts.get(variant, servers(kind, group).start)


def cases(group: str) -> list[Case]:
    """Every variant of every kind that can be tried."""
    kinds = [kind for kind in REGISTRY.kinds(group) if has_server(kind, group)]
    return [(kind, variant) for kind in kinds for variant in variants(kind, group)]


def marks(kind: str) -> list[pytest.MarkDecorator]:
    """What keeps the tests of one slow server in one worker."""
    group = getattr(servers(kind), "GROUP", None)
    return [pytest.mark.xdist_group(group)] if group else []


def class_name(kind: str, variant: str) -> str:
    return "Test" + "".join(part.title() for part in f"{kind}_{variant}".split("_"))


def started(kind: str, make: Callable[[], Any]) -> Any:
    """A running system; without its binary the test is skipped, which CI does not allow."""
    try:
        return make()
    except ServerMissing as missing:
        pytest.skip(f"{kind}: {missing}")
