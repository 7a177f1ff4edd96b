"""Secrets of Docker Swarm services: a new object per version, one update per service, and proof by its tasks.

A group is one service, a slot one logical secret of it (`db_password`, carried by objects `db_password_v7`). All that a
batch has for a service goes into one update, in which nothing but secret references changes. Confirmed means that every
task which shall run does run, with the new object in its own spec, for `healthy_for` and the Engine's monitor.

What a service's mode means here: replicated and global ones are updated and confirmed by their tasks; with no task to
run (`replicas: 0`, no node left) the changed spec is all there is, and the proof is `written`. A job would run once
more on each update, so it is refused. Tasks of drained nodes move, and count where they run; those of a lost node are
waited for at `release`, until the swarm itself gives them up. A paused update is refused before, a failure after.
`read: first_start` leaves the reference alone: changing it restarts the service, which is what it must not.

Privileges: SERVICES, SECRETS, TASKS with GET and POST, and DELETE of secrets, at a manager; whoever has them can become
root there.
https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar, Self

from vaultkeeper.access import docker, slots
from vaultkeeper.access.answer import Answered, unknown
from vaultkeeper.access.docker.answers import EngineTrouble
from vaultkeeper.access.swarm import OutOfSequence, Service, Swarm
from vaultkeeper.access.swarm import advice as swarm_advice
from vaultkeeper.access.swarm import items as swarm_items
from vaultkeeper.access.swarm import rollout as swarm_rollout
from vaultkeeper.access.swarm import spec as swarm_spec
from vaultkeeper.access.swarm.objects import MAX_BYTES, Memory, Objects
from vaultkeeper.access.swarm.settings import SwarmSettings, service_of
from vaultkeeper.access.swarm.slots import Seat, Seats
from vaultkeeper.access.swarm.spec import Wanted
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import (
    Confirmation,
    Confirmed,
    Done,
    Failed,
    Finding,
    Held,
    Holds,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import GroupKey, SecretVersion, Slot
from vaultkeeper.ports import DeliveryContext, Item, Spot

MOST_MOVING = 10  # services with secrets of ours that one Engine rolls out at once
MOST_CONFLICTS = 8
_SOON = timedelta(seconds=1)
_LATER = timedelta(minutes=1)


class SwarmDestination:
    """Stateless but for what is true for ever (an object's content) and what `plan` shows (deadlines)."""

    kind: ClassVar[str] = "swarm"
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.DEMONSTRATED
    puts_back: ClassVar[bool] = True
    forbidden: ClassVar[frozenset[str]] = frozenset()
    max_bytes: ClassVar[int | None] = MAX_BYTES
    Settings: ClassVar[type[Any]] = SwarmSettings

    def __init__(self) -> None:
        self._memory = Memory()
        self._deadlines: dict[GroupKey, timedelta] = {}

    @classmethod
    def open(cls) -> Self:
        return cls()

    # ------------------------------------------------------------------------------------------------------------ look

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        settings = swarm_items.settings_of(spec)
        bases = settings.bases(spec.values)
        try:
            services = settings.services or self._discovered(spec, bases, ctx)
        except Answered as error:
            return error.unknown
        return [
            Spot(settings.group(service), Slot(base), value, f"{service}: {settings.mount_of(base).path}")
            for service in settings.ordered(services)
            for base, value in bases.items()
        ]

    def _discovered(self, spec: DestinationSpec, bases: Mapping[str, str], ctx: DeliveryContext) -> Sequence[str]:
        """Raises Answered, or BackendError where nobody refers to it: an empty list would look like a success."""
        with self._seats(spec, ctx) as seats:
            mounts = {base: swarm_items.settings_of(spec).mount_of(base) for base in bases}
            found = seats.services_with(list(bases), list(ctx.epochs), mounts)
        if not found:
            raise BackendError(
                f"no service refers to {', '.join(bases)}", next="name the first ones: `services: [NAME]`"
            )
        return found

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        try:
            with self._seats(items[0].spec, ctx) as seats:
                service = seats.swarm.service(service_of(group))
                if service is None:
                    return [_missing(group)]
                seated = swarm_items.seated(items)
                current = swarm_rollout.current(seats.swarm.tasks(service))
                self._deadlines[group] = swarm_items.deadline_of(service, items, len(current))
                mounted = [(seat.mount, seats.present(seat, service.spec)) for seat in seated]
                inside = [
                    found
                    for host in swarm_items.targets(items)
                    if (found := swarm_advice.inside(host, seats.only_inside(host)))
                ]
                unlisted = _unlisted(service.name, items, seats)
                theirs = [
                    swarm_advice.made_elsewhere(service, seat.mount, by)
                    for seat in seated
                    if (by := seats.made_elsewhere(seat, service))
                ]
                return [*inside, *unlisted, *theirs, *swarm_advice.findings(service, mounted, current)]
        except Answered as error:
            level = "refuse" if isinstance(error.result, Refused) else "unchecked"
            return [Finding(level, error.what, error.next)]

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held] | Unknown:
        try:
            with self._seats(items[0].spec, ctx) as seats:
                service = _present(seats, group)
                return {seat.item.slot: seats.held(seat, service) for seat in swarm_items.restarting(items)}
        except Answered as error:
            return error.unknown

    def names(self, spec: DestinationSpec, ctx: DeliveryContext) -> Mapping[str, str] | Unknown:
        """See `ports.NamesObjects`. Raises BackendError where services differ."""
        spots = self.spots(spec, ctx)
        if isinstance(spots, Unknown):
            return spots
        try:
            with self._seats(spec, ctx) as seats:
                mounts = {spot.slot: swarm_items.settings_of(spec).mount_of(spot.slot) for spot in spots}
                return seats.names([(service_of(spot.group), mounts[spot.slot]) for spot in spots])
        except Answered as error:
            return error.unknown

    # -------------------------------------------------------------------------------------------------------- hand over

    def prepare(
        self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext
    ) -> Prepared | Refused | NotYet | Unknown:
        try:
            with self._seats(items[0].spec, ctx) as seats:
                service = seats.swarm.service(service_of(group))
                if service is None:
                    return Refused(No.UNSUPPORTED, _missing(group).text)
                refusal = swarm_advice.refusal(service)
                if refusal is not None:
                    return Refused(No.UNSUPPORTED, refusal.text)
                for seat in swarm_items.restarting(items):
                    seats.must_be_free(seat, service)
                wanted = swarm_items.wanted(items, service, seats)
                if swarm_items.changed(service, wanted) and swarm_items.is_anothers(service, wanted):
                    # now, because `single` sets between this and the delivery
                    return NotYet(f"{service.name} is being updated by somebody else", _SOON)
                tasks = len(swarm_rollout.current(seats.swarm.tasks(service)))
                return Prepared(
                    {
                        seat.item.slot: swarm_items.receipt_for(seats, seat, service, items, tasks)
                        for seat in swarm_items.seated(items)
                    }
                )
        except Answered as error:
            return error.result

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        """One update for all of them, repeated from a fresh look when somebody else was faster."""
        try:
            with self._seats(items[0].spec, ctx) as seats:
                for _ in range(MOST_CONFLICTS):
                    try:
                        return self._deliver(group, items, seats, ctx)
                    except OutOfSequence:
                        continue
                return NotYet(f"{service_of(group)} is being changed by somebody else all the time", _SOON)
        except EngineTrouble as error:
            return error.unknown
        except Answered as error:
            return error.result

    def _deliver(self, group: GroupKey, items: Sequence[Item], seats: Seats, ctx: DeliveryContext) -> Result:
        service = seats.swarm.service(service_of(group))
        if service is None:
            back = swarm_items.all_go_back(items, ctx.epochs)
            return Done() if back else Refused(No.UNSUPPORTED, _missing(group).text)
        wanted = swarm_items.wanted(items, service, seats)
        spec = swarm_items.changed(service, wanted)
        if spec is None:
            return Done()
        refusal = swarm_advice.refusal(service)
        if refusal is not None and not any(swarm_items.goes_back(seat.item) for seat, _ in wanted):
            return Refused(No.UNSUPPORTED, refusal.text)
        if swarm_items.is_anothers(service, wanted):
            return NotYet(f"{service.name} is being updated by somebody else", _SOON)
        if not service.moving and len(seats.moving()) >= MOST_MOVING:
            return NotYet(f"{MOST_MOVING} other services are being updated", _SOON)
        in_hand = [item for item in items if slots.receipt_of(item) is not None]  # who releases it restores it, too
        override = swarm_items.override(in_hand, service)
        seats.swarm.update(service, {**spec, "UpdateConfig": override} if override is not None else spec)
        try:
            after = seats.swarm.service(service.name)
        except Answered as error:  # whatever it is, never Refused: the service is updated
            return error.unknown
        strays = swarm_spec.strays(service.spec, after.spec) if after is not None else []
        if strays:  # looked at again by the engine: what we want is there, and somebody else may have written too
            return Refused(No.CONFLICT, f"{service.name}: more than secrets changed: {', '.join(strays[:5])}")
        return Done()

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        if not swarm_items.restarting(items):
            return Confirmed(Proof.WRITTEN)
        try:
            with self._seats(items[0].spec, ctx) as seats:
                service = seats.swarm.service(service_of(group))
                if service is None:
                    back = swarm_items.all_go_back(items, ctx.epochs)
                    return Confirmed(Proof.WRITTEN) if back else Failed(service_of(group), _missing(group).text)
                return swarm_items.without_values(self._judged(group, items, service, seats, ctx), items)
        except Answered as error:
            return error.unknown

    def _judged(
        self, group: GroupKey, items: Sequence[Item], service: Service, seats: Seats, ctx: DeliveryContext
    ) -> Confirmation:
        wanted: list[Wanted] = []
        for seat in swarm_items.restarting(items):
            each = seats.wanted(seat, service, make=False)
            if each is None and seat.item.primary is not None:
                return NotYet(f"{service.name}: {seat.item.slot} is not delivered", _SOON)
            wanted += [each] if each is not None else []
        case = swarm_rollout.Case(
            service,
            seats.swarm.tasks(service),
            wanted,
            now=seats.swarm.now,
            healthy_for=max(item.spec.healthy_for for item in items),
            window=self.confirm_deadline(group, items),
            going_back=swarm_items.all_go_back(items, ctx.epochs),
        )
        return swarm_rollout.judge(case, seats.swarm.last_words)

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        """As computed from the service when it was prepared or last looked at, whichever is longer."""
        receipts = [receipt for item in items if (receipt := slots.receipt_of(item)) is not None]
        seconds = [float(str(receipt.public.get("deadline_s", 0))) for receipt in receipts]
        known = [timedelta(seconds=s) for s in seconds] + [self._deadlines.get(group, timedelta(0))]
        healthy = max(item.spec.healthy_for for item in items)
        return max(*known, timedelta(0)) or timedelta(seconds=swarm_spec.rollout_s({}, 1)) + healthy

    # ------------------------------------------------------------------------------------------------------- afterwards

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds | Unknown:
        """A task on its way out counts as a way back: it still uses the version, and nobody needs to act."""
        if item.spec.read is Read.FIRST_START:
            return Holds.NOTHING
        try:
            with self._seats(item.spec, ctx) as seats:
                service = seats.swarm.service(service_of(group))
                if service is None:
                    return Holds.NOTHING
                ids = seats.ids_of(swarm_items.seated([item])[0], version, service)
                return swarm_rollout.holds(service, seats.swarm.tasks(service), ids)
        except Answered as error:
            return error.unknown

    def release(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Result:
        """Restore an overridden UpdateConfig, write the spec as it is to move PreviousSpec on, then collect objects."""
        if item.spec.read is Read.FIRST_START:
            return Done()
        seat = swarm_items.seated([item])[0]
        try:
            with self._seats(item.spec, ctx) as seats:
                for _ in range(MOST_CONFLICTS):
                    try:
                        waits = self._close(seat, version, seats.swarm.service(service_of(group)), seats)
                    except OutOfSequence:
                        continue
                    if waits is None:
                        seats.collect(seat, version, swarm_items.settings_of(item.spec).keep)
                    return waits or Done()
                return NotYet(f"{service_of(group)} is being changed by somebody else all the time", _SOON)
        except EngineTrouble as error:
            return error.unknown
        except Answered as error:
            return error.result

    def _close(self, seat: Seat, version: SecretVersion, service: Service | None, seats: Seats) -> NotYet | None:
        """None: nothing leads back any more, or the service itself is gone or runs on it."""
        if service is None:
            return None
        ids = seats.ids_of(seat, version, service)
        if swarm_rollout.named(service.spec, ids):
            return None
        restored = swarm_items.restored(seat, service)
        if restored is None and not swarm_rollout.named(service.previous, ids):
            return None
        if service.moving:
            return NotYet(f"{service.name} is being updated", _SOON)
        if swarm_advice.paused(service):  # even an unchanged update would go on with what was paused
            return NotYet(f"the last update of {service.name} is paused; go on with it or roll it back", _LATER)
        seats.swarm.update(service, service.spec if restored is None else restored)
        return None

    @contextmanager
    def _seats(self, spec: DestinationSpec, ctx: DeliveryContext) -> Iterator[Seats]:
        """One connection for one hook. Raises Answered."""
        with docker.engine(swarm_items.settings_of(spec), ctx.credentials) as engine:
            swarm = Swarm(engine, ctx.deadline)
            yield Seats(swarm, Objects(swarm, self._memory), ctx.installation)


# ---------------------------------------------------------------------------------------------------------- small parts


def _unlisted(service: str, items: Sequence[Item], seats: Seats) -> list[Finding]:
    """Services that read an object of these secrets and that nobody will update; told once, by the first one listed."""
    found: list[Finding] = []
    for seat in swarm_items.restarting(items):
        settings = swarm_items.settings_of(seat.item.spec)
        if settings.discover or settings.ordered(settings.services)[0] != service:
            continue
        mounts = {seat.mount.base: seat.mount}
        reading = seats.services_with(list(mounts), [seat.item.secret], mounts)
        left = [name for name in reading if name not in settings.services]
        if left:
            text = f"{', '.join(left)} refers to {seat.mount.base} too, and `services` does not list it"
            found.append(Finding("warn", text, "list it, here or in another destination, or say `discover: true`"))
    return found


def _missing(group: GroupKey) -> Finding:
    return Finding("refuse", f"there is no service {service_of(group)}", "docker service ls   shows those there are")


def _present(seats: Seats, group: GroupKey) -> Service:
    """Raises Answered."""
    service = seats.swarm.service(service_of(group))
    if service is None:
        raise unknown(_missing(group).text)
    return service
