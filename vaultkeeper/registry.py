"""Finds targets, destinations and generators: our own and other people's. There is no list to edit.

A kind joins by existing: a module of its name in `vaultkeeper.targets`, `.destinations` or `.generators` with one
public class whose `kind` is that name, or an entry point of its name in the group `vaultkeeper.targets` and so on
(https://packaging.python.org/en/latest/specifications/entry-points/). A module is imported when its kind is asked
for, because drivers cost 100 ms and more each.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.outcome import Basis
from vaultkeeper.model.secret import Strategy
from vaultkeeper.policyfile.findings import did_you_mean
from vaultkeeper.ports import Capabilities, Destination, Generator, Mints, Target

PROTOCOLS: Mapping[str, type[Any]] = {"targets": Target, "destinations": Destination, "generators": Generator}
"""Group → what its classes must implement."""


@dataclass
class Registry:
    """Classes and instances are made once. Every method raises ConfigurationInvalid for an unknown or unfit kind."""

    _modules: dict[str, dict[str, str]] = field(default_factory=dict)  #: group → kind → module
    _plugins: dict[str, dict[str, EntryPoint]] = field(default_factory=dict)
    _classes: dict[tuple[str, str], type[Any]] = field(default_factory=dict)
    _instances: dict[tuple[str, str], Any] = field(default_factory=dict)

    def kinds(self, group: str) -> Sequence[str]:
        """Names of the kinds in `targets`, `destinations` or `generators`. Imports none of them."""
        self._find(group)
        return sorted({*self._modules[group], *self._plugins[group]})

    def origin(self, group: str, kind: str) -> str:
        """The distribution that brings a kind; ours is "vaultkeeper". Imports nothing."""
        self._find(group)
        plugin = self._plugins[group].get(kind)
        if plugin is None or kind in self._modules[group]:
            return "vaultkeeper"
        return plugin.dist.name if plugin.dist else plugin.value

    def target_class(self, kind: str) -> type[Target]:
        return self.load("targets", kind)

    def target(self, kind: str, settings: Mapping[str, object], codec: int) -> Target:
        """Opened from one binding; no I/O."""
        return self.target_class(kind).open(settings, codec)

    def destination(self, kind: str) -> Destination:
        opened: Destination = self._once("destinations", kind, lambda cls: cls.open())
        return opened

    def generator(self, kind: str) -> Generator:
        made: Generator = self._once("generators", kind, lambda cls: cls())
        return made

    def load(self, group: str, kind: str) -> type[Any]:
        """The class of a kind, checked against its Protocol."""
        if (group, kind) not in self._classes:
            self._classes[group, kind] = self._load(group, kind)
        return self._classes[group, kind]

    def _once(self, group: str, kind: str, make: Any) -> Any:
        if (group, kind) not in self._instances:
            self._instances[group, kind] = make(self.load(group, kind))
        return self._instances[group, kind]

    def _find(self, group: str) -> None:
        if group in self._modules:
            return
        package = importlib.import_module(f"vaultkeeper.{group}")
        self._plugins[group] = {point.name: point for point in entry_points(group=f"vaultkeeper.{group}")}
        self._modules[group] = {  # last: where a thread sees it, nothing is missing
            module.name: f"{package.__name__}.{module.name}"
            for module in pkgutil.iter_modules(package.__path__)
            if not module.name.startswith("_")
        }

    def _load(self, group: str, kind: str) -> type[Any]:
        self._find(group)
        module, plugin = self._modules[group].get(kind), self._plugins[group].get(kind)
        noun = group.removesuffix("s")
        if module is None and plugin is None:
            raise ConfigurationInvalid(f"unknown {noun} `{kind}`", why=did_you_mean(kind, self.kinds(group)))
        if module is not None and plugin is not None:
            raise ConfigurationInvalid(
                f"two {group} are called `{kind}`",
                why=f"vaultkeeper has one, {plugin.value} is another",
                next="uninstall the package that brings the second, or ask its author to rename it",
            )
        origin = module or (plugin.value if plugin else "")
        try:
            found = plugin.load() if plugin else _only_class(importlib.import_module(origin), kind)
        except ImportError as error:
            raise ConfigurationInvalid(
                f"{noun} `{kind}` cannot be loaded", why=f"{origin}: {error}", next="install what it needs"
            ) from error
        _judge(found, kind, group, origin)
        cls: type[Any] = found
        return cls


def _only_class(module: Any, kind: str) -> Any:
    """The one public class of that kind; names imported from elsewhere do not count."""
    found = [
        cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and not name.startswith("_") and vars(cls).get("kind") == kind
    ]
    if len(found) != 1:
        raise ConfigurationInvalid(
            f"{module.__name__} must hold one public class with `kind = {kind!r}`", why=f"it holds {len(found)}"
        )
    return found[0]


def _judge(cls: Any, kind: str, group: str, origin: str) -> None:
    """Raises ConfigurationInvalid, naming the first thing that is missing."""

    def refuse(why: str) -> None:
        raise ConfigurationInvalid(f"`{kind}` ({origin}) is no {group.removesuffix('s')}", why=why)

    if not inspect.isclass(cls):
        refuse("expected a class")
    protocol = PROTOCOLS[group]
    for name in (*protocol.__annotations__, *_hooks(protocol)):
        if not hasattr(cls, name):
            refuse(f"`{name}` is missing")
        if name in _hooks(protocol) and not callable(getattr(cls, name)):
            refuse(f"`{name}` is no method")
    if cls.kind != kind:
        refuse(f"its `kind` is {cls.kind!r}")
    if not (inspect.isclass(cls.Settings) and issubclass(cls.Settings, BaseModel)):
        refuse("`Settings` is no pydantic model")
    if not cls.Settings.model_config.get("frozen"):
        refuse("`Settings` is not frozen: expected model_config = ConfigDict(frozen=True, extra='forbid')")
    if group == "targets":
        _judge_capabilities(cls, refuse)


def _judge_capabilities(cls: Any, refuse: Any) -> None:
    powers = cls.capabilities
    if not isinstance(powers, Capabilities):
        refuse("`capabilities` is no Capabilities")
    if not powers.strategies:
        refuse("`capabilities` names no strategy")
    mints = Strategy.MINTED in powers.strategies
    for name in _hooks(Mints) if mints else ():
        if not hasattr(cls, name):
            refuse(f"strategy minted: `{name}` is missing")
    if mints and not powers.observes - {Basis.NONE}:
        # Without a look at the target the engine repeats `set` after a lost reply: right for a value that it chose,
        # an orphan each time for one that the system makes (ports.md).
        refuse("a target that cannot observe must take a chosen value, it cannot mint one")


def _hooks(protocol: type[Any]) -> list[str]:
    return [name for name, hook in vars(protocol).items() if not name.startswith("_") and _is_hook(hook)]


def _is_hook(hook: object) -> bool:
    return inspect.isfunction(hook) or isinstance(hook, classmethod | staticmethod)
