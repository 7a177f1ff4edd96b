"""What a group's items say together: where each is read, whether it goes back, how its service is rolled out.

Receipts of Swarm slots: `service` (its id), `to` (the version's number, or None), `refs` (the references that stood
there), `deadline_s`, and `update_config` where ours took its place. Nothing in them is secret.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from vaultkeeper.access import slots
from vaultkeeper.access.swarm import Service
from vaultkeeper.access.swarm import spec as swarm_spec
from vaultkeeper.access.swarm.settings import SwarmSettings
from vaultkeeper.access.swarm.slots import Seat, Seats
from vaultkeeper.access.swarm.spec import Json, Wanted
from vaultkeeper.model.outcome import Confirmation, Failed, NotYet, Receipt
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.ports import Item

Pairs = Sequence[tuple[Seat, Wanted]]

_TELLING = 6  # bytes: a shorter value may stand in a text by chance


def settings_of(spec: DestinationSpec) -> SwarmSettings:
    """What the policy says of it."""
    return SwarmSettings.model_validate(spec.settings)


def seated(items: Sequence[Item]) -> list[Seat]:
    """Each item where its service reads it."""
    return [Seat(item, settings_of(item.spec).mount_of(item.slot)) for item in items]


def restarting(items: Sequence[Item]) -> list[Seat]:
    """Without those that are read once in a service's life."""
    return [seat for seat in seated(items) if seat.item.spec.read is not Read.FIRST_START]


def goes_back(item: Item) -> bool:
    """To an older version than its receipt was made for, or to what stood there before the first."""
    receipt = slots.receipt_of(item)
    if receipt is None:
        return False
    return item.primary is None or item.primary.number < int(str(receipt.public.get("to") or 0))


def all_go_back(items: Sequence[Item], driven: Collection[str]) -> bool:
    """Every item of a rotation under way, and there is one. A neighbour in its grace has a receipt too."""
    known = [item for item in items if slots.receipt_of(item) is not None and (not driven or item.secret in driven)]
    return bool(known) and all(goes_back(item) for item in known)


def wanted(items: Sequence[Item], service: Service, seats: Seats) -> Pairs:
    """What each slot shall carry, its object made. Raises Answered."""
    found = [(seat, seats.wanted(seat, service, make=True)) for seat in restarting(items)]
    return [(seat, each) for seat, each in found if each is not None]


def changed(service: Service, pairs: Pairs) -> Json | None:
    """The spec that carries all of it. None: the present one does."""
    spec: Json = service.spec
    for _, each in pairs:
        spec = each.applied(spec)
    return None if swarm_spec.references(spec) == swarm_spec.references(service.spec) else spec


def is_anothers(service: Service, pairs: Pairs) -> bool:
    """Is a rollout under way that is not ours, and that nobody needs to interrupt?"""
    return service.moving and not any(may_interrupt(service, seat, each) for seat, each in pairs)


def may_interrupt(service: Service, seat: Seat, wanted: Wanted) -> bool:
    """Our own rollout, which is over for us, and any rollout where consumers must be put back."""
    now, before = (
        [each["SecretID"] for each in swarm_spec.at(seat.mount, swarm_spec.references(spec), wanted.ours)]
        for spec in (service.spec, service.previous)
    )
    return goes_back(seat.item) or now != before


def override(items: Sequence[Item], service: Service) -> Json | None:
    """The UpdateConfig of this rollout. None: the service's own."""
    said = next((config for item in items if (config := settings_of(item.spec).update_config) is not None), None)
    own = swarm_spec.update_config(service.spec)
    return None if said is None or said.in_force(own) else said.over(own)


def restored(seat: Seat, service: Service) -> Json | None:
    """The spec with the UpdateConfig that the receipt remembers. None: nothing of ours is in force."""
    receipt, said = slots.receipt_of(seat.item), settings_of(seat.item.spec).update_config
    own: Any = receipt.public.get("update_config") if receipt is not None else None
    if own is None or said is None or not said.in_force(swarm_spec.update_config(service.spec)):
        return None
    return {**service.spec, "UpdateConfig": said.taken_back(swarm_spec.update_config(service.spec), own)}


def receipt_for(seats: Seats, seat: Seat, service: Service, items: Sequence[Item], tasks: int) -> Receipt:
    """What stood there: references, and the UpdateConfig where ours is to take its place. Nothing in it is secret."""
    kept = slots.receipt_of(seat.item)
    if kept is not None:
        return kept
    public: dict[str, object] = {
        "service": service.id,
        "to": seat.item.primary.number if seat.item.primary else None,
        "refs": seats.present(seat, service.spec),
        "deadline_s": math.ceil(deadline_of(service, items, tasks).total_seconds()),
    }
    own = _own_config(seat, service)
    if own is not None:
        public["update_config"] = own
    return Receipt(public)


def _own_config(seat: Seat, service: Service) -> Json | None:
    """The service's UpdateConfig, where ours is to take its place or did so in its last update. None: ours never does.

    A rotation may take the place of one that had no time to restore it (a rollback in grace, an emergency). An update
    that changed nothing but secrets and the UpdateConfig to what the policy says was ours.
    """
    said, own = settings_of(seat.item.spec).update_config, swarm_spec.update_config(service.spec)
    if said is None or not said.in_force(own):
        return None if said is None else own
    before = service.previous
    if before is None or said.in_force(swarm_spec.update_config(before)):
        return None
    same_secrets = swarm_spec.references(before) == swarm_spec.references(service.spec)
    return None if same_secrets or swarm_spec.strays(before, service.spec) else swarm_spec.update_config(before)


def deadline_of(service: Service, items: Sequence[Item], tasks: int) -> timedelta:
    """How long a rollout of this service may take and still go well, watching included. `tasks`: of a global one."""
    config = override(items, service)
    spec = service.spec if config is None else {**service.spec, "UpdateConfig": config}
    wanted = swarm_spec.replicas(spec)
    rollout_s = swarm_spec.rollout_s(spec, tasks if wanted is None else wanted)
    watched_s = max(swarm_spec.monitor_s(spec), *(item.spec.healthy_for.total_seconds() for item in items))
    return timedelta(seconds=math.ceil(rollout_s + watched_s + swarm_spec.SLACK_S))


def targets(items: Sequence[Item]) -> list[str]:
    """Host names of the systems that check these secrets."""
    bindings = [item.primary.binding.target_settings for item in items if item.primary is not None]
    return list(dict.fromkeys(host for each in bindings if isinstance(host := each.get("host"), str) and host))


def without_values(answer: Confirmation, items: Sequence[Item]) -> Confirmation:
    """A consumer's last line may hold what it was given."""
    values = {item.content.reveal() for item in items if item.content is not None}
    fields = [field for item in items for version in item.accepted for field in version.fields.items()]
    values |= {value.reveal() for name, value in fields if name != "username"}
    if isinstance(answer, Failed):
        return replace(answer, why=_blotted(answer.why, values))
    if isinstance(answer, NotYet):
        return replace(answer, reason=_blotted(answer.reason, values))
    return answer


def _blotted(text: str, values: Iterable[bytes]) -> str:
    for value in sorted((v.decode(errors="replace") for v in values if len(v) >= _TELLING), key=len, reverse=True):
        text = text.replace(value, "…")
    return text
