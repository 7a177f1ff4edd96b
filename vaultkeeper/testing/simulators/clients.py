"""Client machines that fetch what was published when they are next online: confirming takes days, nothing is put back.

`clients` maps a machine to the days it stays offline after each publication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from vaultkeeper.model.outcome import Confirmation, Confirmed, Done, NotYet, Prepared
from vaultkeeper.model.secret import GroupKey
from vaultkeeper.ports import DeliveryContext, Item
from vaultkeeper.testing.simulators.base import Place, SimulatedDestination
from vaultkeeper.testing.world import State


class ClientSettings(Place):
    clients: Mapping[str, int] = {"desktop": 0, "laptop": 3}

    def in_order(self) -> list[str]:
        return ["all"]


class ClientsDestination(SimulatedDestination):
    kind = "sim_clients"
    puts_back = False
    Settings = ClientSettings

    def publications(self, item: Item) -> list[State]:
        settings = self.Settings.model_validate(dict(item.spec.settings))
        state = self._where(item.spec)[0].system(settings.system)
        state["clients"] = {name: timedelta(days=days) for name, days in settings.clients.items()}
        published: list[State] = state.setdefault("published", {}).setdefault(item.slot, [])
        return published

    def there(self, group: GroupKey, item: Item) -> State | None:
        published = self.publications(item)
        return published[-1] if published else None

    def prepare(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Prepared:
        return Prepared(self.receipts(group, items))

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Done:
        for item in items:
            published, wanted = self.publications(item), self.wanted(item)
            if wanted is None:
                published.clear()
            elif not published or {**published[-1], **wanted} != published[-1]:
                published.append({**wanted, "at": self._where(item.spec)[0].clock.now()})
        return Done()

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        late: set[str] = set()
        for item in items:
            world, system = self._where(item.spec)
            wanted = (self.wanted(item) or {}).get("content")
            late |= {name for name, slots in world.consumers(system).items() if slots.get(item.slot) != wanted}
        not_yet = NotYet("not every client has fetched it", timedelta(hours=6), tuple(sorted(late)))
        return not_yet if late else Confirmed(self.proof)
