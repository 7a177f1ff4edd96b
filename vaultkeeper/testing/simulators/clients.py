"""Client machines that fetch what was published when they are next online: confirming takes days, nothing is put back.

`clients` maps a machine to the days it stays offline after each publication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from vaultkeeper.model.outcome import Confirmation, Confirmed, Done, Held, Holds, NotYet, Prepared, Receipt
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import DeliveryContext, Item, Spot
from vaultkeeper.testing.simulators.base import SimulatedDestination
from vaultkeeper.testing.world import State


class ClientSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    world: str
    system: str
    clients: Mapping[str, int] = {"desktop": 0, "laptop": 3}


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

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot]:
        group = GroupKey(f"{self.kind}:{spec.settings['system']}/all")
        return [Spot(group, Slot(value), value, f"all clients: {value or 'secret'}") for value in spec.values]

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held]:
        held: dict[Slot, Held] = {}
        for item in items:
            published = self.publications(item)
            known = [v.number for v in item.accepted if published and published[-1]["version"] == v.id]
            held[item.slot] = Held(known[0] if known else None, foreign=bool(published) and not known)
        return held

    def prepare(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Prepared:
        receipts = {}
        for item in items:
            last = (self.publications(item) or [None])[-1]  # type: ignore[list-item]  # None stands for "nothing yet"
            old = Receipt({"version": last["version"]}, SecretBytes(last["content"])) if last else Receipt()
            receipts[item.slot] = item.receipt or old
        return Prepared(receipts)

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
            wanted = self.wanted(item)
            held = {name: slots.get(item.slot) for name, slots in world.consumers(system).items()}
            late |= {name for name, content in held.items() if content != (wanted["content"] if wanted else None)}
        if late:
            return NotYet("not every client has fetched it", timedelta(hours=6), tuple(sorted(late)))
        return Confirmed(self.proof)

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds:
        published = self.publications(item)
        return Holds.RUNNING if published and published[-1]["version"] == version.id else Holds.NOTHING

    def release(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Done:
        return Done()
