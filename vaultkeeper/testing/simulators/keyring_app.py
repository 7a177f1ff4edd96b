"""An application that encrypts its data with a key, and reads old data with earlier keys, like Laravel.

Slot "key" holds the key to write with, slot "previous" the comma-separated others. All services share the data, and
each writes some with its key whenever it starts: `World.unreadable` tells what a service can no longer read.
"""

from __future__ import annotations

from collections.abc import Sequence

from vaultkeeper.model.outcome import Done, Refused
from vaultkeeper.model.secret import GroupKey
from vaultkeeper.ports import DeliveryContext, Item
from vaultkeeper.testing.simulators.base import SimulatedDestination


class KeyringAppDestination(SimulatedDestination):
    kind = "sim_keyring_app"

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Done | Refused:
        done = super().deliver(group, items, ctx)
        state = self.state(items[0])
        data: list[bytes] = state.setdefault("data", [])
        key = state["running"][self.service(group)].get("key", {}).get("content")
        if key and key not in data:
            data.append(key)
        return done
