"""A generator whose values a test knows, and a target and a destination that cannot keep a secret.

Everything is told to `logging` at DEBUG. The hook named in the file `fail` beside the generator's list raises an
exception that quotes the values. Privileges: those of postgres and file, which they are otherwise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from vaultkeeper.destinations.file import FileDestination
from vaultkeeper.destinations.file import Settings as FileSettings
from vaultkeeper.model.outcome import Done
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion
from vaultkeeper.ports import Item
from vaultkeeper.targets.postgres import PostgresSettings, PostgresTarget

log = logging.getLogger("indiscreet")


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    values: str


class Canary:
    """The next value of a JSON list in a file."""

    kind = "canary"
    field = "password"
    Settings = Settings

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        path = Path(str(settings["values"]))
        first, *rest = json.loads(path.read_text())
        say(path.parent, "generate", [first], aloud=False)  # nobody could know this value yet
        path.write_text(json.dumps(rest))
        return {self.field: SecretBytes(first.encode())}

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        return 256.0

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return frozenset(map(chr, range(32, 127)))


def say(folder: Path, hook: str, values: Sequence[str], *, aloud: bool = True) -> None:
    """Tell everybody, and fail once where the test wants it."""
    if aloud:
        log.debug("%s knows %s", hook, " and ".join(values))
        log.debug("%s knows %s in bytes", hook, [value.encode() for value in values])
    wish = folder / "fail"
    if wish.exists() and wish.read_text() == hook:
        wish.unlink()
        try:
            raise ValueError(f"inside {hook}: {values}")
        except ValueError:
            if aloud:
                log.exception("%s failed with %s", hook, values)
            raise RuntimeError(f"{hook} cannot keep {values}") from None


def values_in(things: object) -> list[str]:
    """Every value in what a hook was given."""
    if isinstance(things, SecretBytes):
        return [things.text()]
    if isinstance(things, SecretVersion):
        return values_in(things.fields)
    if isinstance(things, Mapping):
        return [value for thing in things.values() for value in values_in(thing)]
    if isinstance(things, list | tuple):
        return [value for thing in things for value in values_in(thing)]
    if isinstance(things, Item):
        return values_in([things.primary, things.content])
    return []


class GossipSettings(PostgresSettings):
    gossip: str


class Gossip(PostgresTarget):
    """PostgreSQL, by somebody who talks."""

    kind: ClassVar[str] = "gossip"
    Settings: ClassVar[type[PostgresSettings]] = GossipSettings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Gossip:  # noqa: ARG003 - there is one codec
        return cls(GossipSettings.model_validate(settings))

    def complete(self, given: Fields, ctx: Any, *, adopting: bool) -> Fields:
        self._say("complete", given)
        return super().complete(given, ctx, adopting=adopting)

    def observe(self, candidates: Any, ctx: Any) -> Any:
        self._say("observe", candidates)
        return super().observe(candidates, ctx)

    def set(self, accept: Any, refuse: Any, ctx: Any) -> Any:
        self._say("retire" if refuse else "set", [accept, refuse])
        return super().set(accept, refuse, ctx)

    def test(self, version: SecretVersion, ctx: Any) -> Any:
        self._say("test", version)
        return super().test(version, ctx)

    def usage(self, version: SecretVersion, since: Any, ctx: Any) -> Any:
        self._say("usage", version)
        return super().usage(version, since, ctx)

    def _say(self, hook: str, things: object) -> None:
        say(Path(str(getattr(self.settings, "gossip"))), hook, values_in(things))  # noqa: B009


class ChatterSettings(FileSettings):
    gossip: str


class Chatter(FileDestination):
    """A file, by somebody who talks."""

    kind: ClassVar[str] = "chatter"
    Settings = ChatterSettings

    def release(self, group: Any, version: SecretVersion, item: Any, ctx: Any) -> Done:
        say(self._folder([item]), "release", values_in(version))
        return Done()

    def prepare(self, group: Any, items: Any, ctx: Any) -> Any:
        say(self._folder(items), "prepare", values_in(items))
        return super().prepare(group, items, ctx)

    def deliver(self, group: Any, items: Any, ctx: Any) -> Any:
        say(self._folder(items), "deliver", values_in(items))
        return super().deliver(group, items, ctx)

    def confirm(self, group: Any, items: Any, ctx: Any) -> Any:
        say(self._folder(items), "confirm", values_in(items))
        return super().confirm(group, items, ctx)

    def _folder(self, items: Sequence[Any]) -> Path:
        return Path(self.Settings.model_validate(items[0].spec.settings).gossip)
