"""Finds targets, destinations and generators. A kind joins by existing: no list to edit.

Ours: a module in `vaultkeeper.targets`, `.destinations` or `.generators`, named as its kind, with one class of that
`kind`. Other people's: an entry point in the group of the same name, named as its kind, that leads to such a class.
A module is imported when its kind is asked for, so a command pays only for what its policies use.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.secret import Strategy
from vaultkeeper.ports import Destination, Generator, Target

GROUPS: Mapping[str, type[Any]] = {
    "targets": Target,
    "destinations": Destination,
    "generators": Generator,
}


class Registry:
    """What the engine and the policy loader ask for kinds. Safe for several threads."""

    def __init__(self) -> None:
        self._classes: dict[tuple[str, str], type[Any]] = {}
        self._found: dict[str, dict[str, EntryPoint | None]] = {}
        self._lock = threading.RLock()

    def kinds(self, group: str) -> Sequence[str]:
        """Names of the kinds in `targets`, `destinations` or `generators`, sorted."""
        return sorted(self._names(group))

    def target_class(self, kind: str) -> type[Target]:
        """Raises ConfigurationInvalid: unknown, broken, or lacking something that the Protocol asks for."""
        return self._class("targets", kind)

    def target(self, kind: str, settings: Mapping[str, object], codec: int) -> Target:
        """Opened from a binding. Raises ConfigurationInvalid also where this release is older than the binding."""
        found = self.target_class(kind)
        if codec > found.codec:
            raise ConfigurationInvalid(
                f"a version was made for settings {codec} of the kind {kind!r}",
                why=f"this release reads them up to {found.codec}",
                next="use the newer release of vaultkeeper again",
            )
        return found.open(settings, codec)

    def destination(self, kind: str) -> Destination:
        """Raises ConfigurationInvalid as `target_class` does."""
        opened: Destination = self._class("destinations", kind).open()
        return opened

    def generator(self, kind: str) -> Generator:
        """Raises ConfigurationInvalid as `target_class` does."""
        made: Generator = self._class("generators", kind)()
        return made

    def backend(self, group: str, kind: str) -> type[Any]:
        """The class of any kind, for schema and reference pages. Raises ConfigurationInvalid."""
        return self._class(group, kind)

    def _names(self, group: str) -> dict[str, EntryPoint | None]:
        with self._lock:
            if group not in self._found:
                package = import_module(f"vaultkeeper.{group}")
                ours: dict[str, EntryPoint | None] = {m.name: None for m in pkgutil.iter_modules(package.__path__)}
                others = {point.name: point for point in entry_points(group=f"vaultkeeper.{group}")}
                self._found[group] = {**others, **ours}  # nobody replaces a kind of ours by installing a package
            return self._found[group]

    def _class(self, group: str, kind: str) -> type[Any]:
        with self._lock:
            if (group, kind) not in self._classes:
                self._classes[group, kind] = self._load(group, kind)
            return self._classes[group, kind]

    def _load(self, group: str, kind: str) -> type[Any]:
        names = self._names(group)
        singular = group.removesuffix("s")
        if kind not in names:
            near = difflib.get_close_matches(kind, names, 1)
            raise ConfigurationInvalid(
                f"there is no {singular} of the kind {kind!r}",
                why=f"the nearest is {near[0]!r}" if near else f"there are: {', '.join(sorted(names))}",
            )
        point = names[kind]
        found: Any = point.load() if point is not None else _in_module(f"vaultkeeper.{group}.{kind}", kind)
        lacking = _lacking(found, GROUPS[group])
        if lacking or getattr(found, "kind", None) != kind:
            raise ConfigurationInvalid(
                f"the {singular} {kind!r} cannot be used",
                why=f"it lacks {', '.join(lacking)}" if lacking else "its class names another kind",
                next="vaultkeeper/ports.py says what a back end has",
            )
        if group == "targets":
            _refuse_blind_minting(found)
        checked: type[Any] = found
        return checked


def _in_module(name: str, kind: str) -> object:
    module = import_module(name)
    fitting = [c for c in vars(module).values() if inspect.isclass(c) and getattr(c, "kind", None) == kind]
    return next((c for c in fitting if c.__module__ == name), None)


def _lacking(found: object, protocol: type[Any]) -> list[str]:
    """Names that the Protocol has and the class has not."""
    wanted = {name for name in {*vars(protocol), *protocol.__annotations__} if not name.startswith("_")}
    return sorted(name for name in wanted if not hasattr(found, name))


def _refuse_blind_minting(target: type[Target]) -> None:
    """A target that cannot be observed must be set again safely; a minted value cannot be chosen, so it cannot."""
    capabilities = target.capabilities
    if not capabilities.observes and Strategy.MINTED in capabilities.strategies:
        raise ConfigurationInvalid(
            f"the target {target.kind!r} cannot be used",
            why="it makes its own values and cannot be observed: after a lost reply nobody could tell what it accepts",
        )
