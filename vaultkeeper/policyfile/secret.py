"""One secret while it is put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from vaultkeeper.model.cron import shortest_gap
from vaultkeeper.model.policy import DestinationSpec, GeneratorSpec, Place, TargetSpec
from vaultkeeper.model.secret import Strategy
from vaultkeeper.policyfile.keys import Layer
from vaultkeeper.policyfile.parts import Connections, Part
from vaultkeeper.policyfile.read import Map
from vaultkeeper.policyfile.settings import Reading


@dataclass
class Secret:
    """Its keys, typed, and the parts that were made of them so far."""

    name: str
    raw: Map
    place: Place
    own: Layer
    merged: Layer
    connections: Connections
    reading: Reading
    generator: GeneratorSpec | None = None
    target: TargetSpec | None = None
    destinations: list[tuple[Part, DestinationSpec]] = field(default_factory=list)

    def get(self, key: str) -> Any:
        return self.merged.values.get(key)

    def is_own(self, key: str) -> bool:
        return key in self.own.values

    def fault(self, key: str, text: str) -> None:
        """At the key, wherever it was inherited from, but named as this secret's."""
        source = self.merged.sources.get(key, self.raw)
        place = source.where(key) if key in source else self.place
        self.reading.findings.add(place, f"{self.name}.{key}" if key else self.name, text)

    @property
    def static(self) -> str | None:
        static: str | None = self.get("static")
        return static

    @property
    def strategy(self) -> Strategy | None:
        if self.target is not None:
            return self.target.strategy
        return Strategy.PREVIOUS_KEYS if self.get("strategy") else None

    @property
    def period(self) -> timedelta | None:
        """The shortest time between two due times."""
        schedule = self.get("rotation_schedule")
        period: timedelta | None = self.get("rotation_period")
        return shortest_gap(schedule.expression) if schedule else period
