"""What a place shows of its values, and what it shall carry: for places that a policy says how to write and show."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Self

from vaultkeeper.access import consumers, slots
from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.access.consumers import Consumer
from vaultkeeper.access.settings import Consumers
from vaultkeeper.model.outcome import (
    Confirmation,
    Held,
    Holds,
    Login,
    No,
    NotYet,
    Prepared,
    Receipt,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import DeliveryContext, Item

LONE = "value"
"""The slot of a policy's single `value`."""

_HASHED = "its `show` tells a hash only: what stood there before cannot be put back"


@dataclass(frozen=True)
class Seen:
    """One value as the place tells it: itself, or its hash."""

    content: bytes | None
    sha256: str

    @classmethod
    def whole(cls, content: bytes) -> Self:
        return cls(content, hashlib.sha256(content).hexdigest())

    def is_(self, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256


There = Mapping[Slot, Seen]
"""What was shown; a slot with nothing in it is left out."""


class ShownPlace(ABC):
    """The hooks of a destination that knows what it holds by asking the place to show it."""

    Settings: ClassVar[type[Consumers]]

    @abstractmethod
    def look(self, items: Sequence[Item], ctx: DeliveryContext) -> tuple[There, float | None]:
        """What it holds, and when that last changed, in seconds since the epoch, where it tells. Raises Answered."""

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held] | Unknown:
        try:
            there, _ = self.look(items, ctx)
        except Answered as error:
            return error.unknown
        return {item.slot: _held(item, there) for item in items}

    def prepare(
        self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext
    ) -> Prepared | Refused | NotYet | Unknown:
        try:
            there, _ = self.look(items, ctx)
        except Answered as error:
            return error.result
        return Prepared({item.slot: _receipt(item, there) for item in items})

    def tell(self, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        """Have every consumer read again."""
        return consumers.tell(self._consumers(items), ctx.deadline)

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        try:
            there, changed_at = self.look(items, ctx)
            lost = tuple(item.slot for item, _ in lacking(items, there))
        except Answered as error:
            return error.unknown  # that it cannot be looked at says nothing of its consumers
        if lost:
            return NotYet("the place does not carry what was delivered", timedelta(seconds=1), lost)
        told = self._consumers(items)
        if changed_at is None and any(settings.confirm for _, settings in told):
            return Unknown(Login.UNREACHABLE, "`confirm` needs `changed_at` in what `show` answers")
        return consumers.running(told, changed_at or 0.0, ctx.deadline)

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None:
        try:
            seen = self.look([item], ctx)[0].get(item.slot)
        except Answered as error:
            return error.unknown
        if seen is not None and seen.content is None:
            return Unknown(Login.UNREACHABLE, "its `show` tells a hash only")
        return None if seen is None or seen.content is None else SecretBytes(seen.content)

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        return consumers.patience(self._consumers(items))

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds | Unknown:
        try:
            there, _ = self.look([item], ctx)
        except Answered as error:
            return error.unknown
        return _holds(item, version, there)

    def _consumers(self, items: Sequence[Item]) -> list[Consumer]:
        return [(item.spec, self.Settings.model_validate(item.spec.settings)) for item in items]


def _held(item: Item, there: There) -> Held:
    """Which version a slot holds."""
    seen = there.get(item.slot)
    return Held(None) if seen is None else slots.held(item, _value(item), seen.is_)


def _holds(item: Item, version: SecretVersion, there: There) -> Holds:
    """Whether a slot holds `version`."""
    seen = there.get(item.slot)
    running = seen is not None and slots.carries(item, _value(item), version, seen.is_)
    return Holds.RUNNING if running else Holds.NOTHING


def _receipt(item: Item, there: There) -> Receipt:
    """The one that was made before, else what is there now."""
    seen = there.get(item.slot)
    hashed = seen is not None and seen.content is None
    return slots.receipt_of(item) or slots.receipt(seen.content if seen else None, hashed=hashed)


def _wanted(items: Sequence[Item]) -> list[tuple[Item, bytes | None]]:
    """What each slot shall carry; None: nothing. Raises Answered where a receipt does not tell what was there."""
    found: list[tuple[Item, bytes | None]] = []
    for item in items:
        before = slots.receipt_of(item)
        if item.primary is not None:
            found.append((item, slots.new_content(item)))
        elif before is not None:  # without one nothing was delivered, and nothing goes back
            if before.public.get("hashed"):
                raise refused(No.UNSUPPORTED, f"{item.slot}: {_HASHED}")
            found.append((item, before.sealed.reveal() if before.sealed else None))
    return found


def lacking(items: Sequence[Item], there: There) -> list[tuple[Item, bytes | None]]:
    """Those that the slots shall carry and that are not so yet. Raises Answered as it does."""
    return [(item, content) for item, content in _wanted(items) if not _carries(there.get(item.slot), content)]


def _carries(seen: Seen | None, content: bytes | None) -> bool:
    return seen is None if content is None else seen is not None and seen.is_(content)


def _value(item: Item) -> str:
    """Its name in `values`."""
    return next((name for name in item.spec.values if (name or LONE) == item.slot), "")
