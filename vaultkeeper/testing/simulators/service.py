"""Services that share a delivery and of which one may be unable to run on it, like a Swarm stack.

`state["broken"][service]` holds, slot by slot, the only contents on which that service is healthy.
"""

from __future__ import annotations

from collections.abc import Sequence

from vaultkeeper.model.outcome import Confirmation, Failed
from vaultkeeper.model.secret import GroupKey
from vaultkeeper.ports import DeliveryContext, Item
from vaultkeeper.testing.simulators.base import SimulatedDestination


class ServiceDestination(SimulatedDestination):
    kind = "sim_service"

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        service = self.service(group)
        for item in items:
            state = self.state(item)
            runs_on = state["running"].get(service, {}).get(item.slot, {}).get("content")
            if service in state.get("broken", {}) and state["broken"][service].get(item.slot) != runs_on:
                return Failed(service, "exits after start")
        return super().confirm(group, items, ctx)
