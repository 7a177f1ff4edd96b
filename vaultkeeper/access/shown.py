"""What a place shows of its values, and what it shall carry: for places that a policy says how to write and show."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from vaultkeeper.access import slots
from vaultkeeper.access.answer import refused
from vaultkeeper.model.outcome import Held, Holds, No, Receipt
from vaultkeeper.model.secret import SecretVersion, Slot
from vaultkeeper.ports import Item

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


def held(item: Item, there: There) -> Held:
    """Which version a slot holds."""
    seen = there.get(item.slot)
    return Held(None) if seen is None else slots.held(item, _value(item), seen.is_)


def holds(item: Item, version: SecretVersion, there: There) -> Holds:
    """Whether a slot holds `version`."""
    seen = there.get(item.slot)
    running = seen is not None and slots.carries(item, _value(item), version, seen.is_)
    return Holds.RUNNING if running else Holds.NOTHING


def receipt(item: Item, there: There) -> Receipt:
    """The one that was made before, else what is there now."""
    seen = there.get(item.slot)
    hashed = seen is not None and seen.content is None
    return slots.receipt_of(item) or slots.receipt(seen.content if seen else None, hashed=hashed)


def wanted(items: Sequence[Item]) -> list[tuple[Item, bytes | None]]:
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
    """Those of `wanted` that are not so yet. Raises Answered as it does."""
    return [(item, content) for item, content in wanted(items) if not _carries(there.get(item.slot), content)]


def _carries(seen: Seen | None, content: bytes | None) -> bool:
    return seen is None if content is None else seen is not None and seen.is_(content)


def _value(item: Item) -> str:
    """Its name in `values`."""
    return next((name for name in item.spec.values if (name or LONE) == item.slot), "")
