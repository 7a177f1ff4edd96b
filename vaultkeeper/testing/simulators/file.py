"""A file with several values that its consumers open on every use: nothing restarts, nothing remembers.

Each "service" of the settings is a path.
"""

from __future__ import annotations

from vaultkeeper.model.outcome import Proof
from vaultkeeper.model.secret import GroupKey, SecretBytes
from vaultkeeper.ports import DeliveryContext, Item
from vaultkeeper.testing.simulators.base import SimulatedDestination


class FileDestination(SimulatedDestination):
    kind = "sim_file"
    proof = Proof.WRITTEN
    rolls_back = False

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | None:
        there = self.state(item)["running"].get(self.service(group), {}).get(item.slot)
        return SecretBytes(there["content"]) if there else None
