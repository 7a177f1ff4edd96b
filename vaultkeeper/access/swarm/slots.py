"""What the items of a delivery group mean in a swarm: which object each slot shall carry, and which it carries now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vaultkeeper.access import slots
from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.access.swarm import Service, Swarm
from vaultkeeper.access.swarm import advice as swarm_advice
from vaultkeeper.access.swarm import spec as swarm_spec
from vaultkeeper.access.swarm.objects import LABEL, MAX_BYTES, Logical, Object, Objects
from vaultkeeper.access.swarm.spec import Mount, Wanted, task_secrets
from vaultkeeper.access.swarm.tasks import alive
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Held, No
from vaultkeeper.model.secret import SecretVersion
from vaultkeeper.ports import Item


@dataclass(frozen=True)
class Seat:
    """One item and where its service reads it."""

    item: Item
    mount: Mount

    @property
    def value(self) -> str:
        """The name of its template."""
        return "" if "" in self.item.spec.values else self.item.slot

    @property
    def old(self) -> list[dict[str, Any]] | None:
        """The references that stood here before. None: never prepared, so nothing is known to go back to."""
        receipt = slots.receipt_of(self.item)
        found: Any = receipt.public.get("refs") if receipt is not None else None
        return [dict(each) for each in found] if found is not None else None


@dataclass(frozen=True)
class Seats:
    """Answers for one hook. Every call may raise Answered."""

    swarm: Swarm
    objects: Objects
    installation: str

    def logical(self, seat: Seat) -> Logical:
        return Logical(self.installation, seat.item.secret, seat.item.slot)

    def known(self, seat: Seat) -> list[Object]:
        """Every object of this logical secret, oldest first; those of an earlier installation too."""
        labels = self.logical(seat).labels()
        del labels[LABEL + "installation"]
        return self.objects.all_of(labels)

    def wanted(self, seat: Seat, service: Service, *, make: bool) -> Wanted | None:
        """What the slot shall carry. None: nothing is to be done here, or without `make` there is no such object yet.

        Preferred is what stands there now or stood there before, so that an adopted secret restarts nobody and going
        back needs no new object.
        """
        item, known = seat.item, self.known(seat)
        ours = frozenset(each.id for each in known)
        if item.primary is None:
            return None if seat.old is None else Wanted(seat.mount, ours, put_back=tuple(seat.old))
        content = slots.new_content(item)
        if not 0 < len(content) <= MAX_BYTES:
            raise refused(
                No.VALUE, f"a Swarm secret holds 1 to {MAX_BYTES} bytes, and {seat.item.slot} has {len(content)}"
            )
        logical = self.logical(seat)
        found = self._in_place(seat, service, known, item.primary, content)
        found = found or self.objects.find(logical, item.primary, content, known)
        if found is None and make:
            found = self.objects.make(logical, item.primary, content)
        return Wanted(seat.mount, ours | {found.id}, found.id, found.name) if found else None

    def _in_place(
        self, seat: Seat, service: Service, known: Sequence[Object], version: SecretVersion, content: bytes
    ) -> Object | None:
        present = swarm_spec.at(seat.mount, swarm_spec.references(service.spec), [each.id for each in known])
        for object_id in dict.fromkeys(str(each["SecretID"]) for each in [*present, *(seat.old or [])]):
            found = self._object(object_id, known)
            fits = found is not None and (not found.ours or found.is_of(self.logical(seat), version))
            if found is not None and fits and self.objects.equal(found, content):
                return found
        return None

    def _object(self, object_id: str, known: Sequence[Object]) -> Object | None:
        return next((each for each in known if each.id == object_id), None) or self.objects.by_id(object_id)

    def present(self, seat: Seat, spec: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The references that stand for the slot in a spec."""
        ours = [each.id for each in self.known(seat)]
        return swarm_spec.at(seat.mount, swarm_spec.references(spec), ours)

    def must_be_free(self, seat: Seat, service: Service) -> None:
        """Raises Answered where another secret of ours is read from this very file."""
        for each in self.present(seat, service.spec):
            found = self.objects.by_id(str(each["SecretID"]))
            holder = found.labels.get(LABEL + "secret", "") if found and found.ours else seat.item.secret
            same = found is None or found.labels.get(LABEL + "installation", self.installation) == self.installation
            if holder != seat.item.secret and same:
                text = f"{service.name}: the file {seat.mount.file} is delivered from {holder} already"
                raise refused(No.CAPACITY, text)

    def made_elsewhere(self, seat: Seat, service: Service) -> str:
        """Which other installation made what the slot carries: an earlier one, or one beside us. Empty: none."""
        present = {each.get("SecretID") for each in swarm_spec.references(service.spec)}
        by = {each.labels.get(LABEL + "installation", "") for each in self.known(seat) if each.id in present}
        return ", ".join(sorted(by - {self.installation}))

    def held(self, seat: Seat, service: Service) -> Held:
        """By label where it is ours, else by asking whether it is equal to one of ours."""
        present = self.present(seat, service.spec)
        if not present:
            return Held(None)
        found = self.objects.by_id(str(present[0]["SecretID"]))
        if found is None:
            return Held(None, foreign=True)
        for version in seat.item.accepted:
            if found.is_of(self.logical(seat), version):
                return Held(version.number)
        if found.is_of(self.logical(seat)):
            return Held(None, foreign=True)
        return slots.held(seat.item, seat.value, lambda content: self.objects.equal(found, content))

    def ids_of(self, seat: Seat, version: SecretVersion, service: Service) -> set[str]:
        """Objects that carry a version: labelled so, or made by hand, named by the service here, and equal."""
        logical, known = self.logical(seat), self.known(seat)
        ids = {each.id for each in known if each.is_of(logical, version)}
        ours = [each.id for each in known]
        named = [*swarm_spec.references(service.spec), *swarm_spec.references(service.previous), *(seat.old or [])]
        for object_id in {str(each["SecretID"]) for each in swarm_spec.at(seat.mount, named, ours)} - set(ours):
            found = self.objects.by_id(object_id)
            if found is not None and slots.carries(seat.item, seat.value, version, self._equals(found)):
                ids.add(object_id)
        return ids

    def _equals(self, found: Object) -> slots.Same:
        return lambda content: self.objects.equal(found, content)

    def services_with(self, bases: Sequence[str], secrets: Sequence[str], mounts: Mapping[str, Mount]) -> list[str]:
        """Names of services that refer to an object of one of `secrets`, or to a hand-made one of exactly that name.

        Those that read it at their first start only are left out.
        """
        found: dict[str, None] = {}
        labels = {LABEL + "installation": self.installation}
        made = [each for each in self.objects.all_of(labels) if each.labels.get(LABEL + "object") in bases]
        ours = {each.id for each in made if not secrets or each.labels.get(LABEL + "secret") in secrets}
        for service in self.swarm.services():
            for each in swarm_spec.references(service.spec):
                known = each.get("SecretID") in ours or each.get("SecretName") in bases
                once = any(swarm_advice.reads_once(service.spec, mount) for mount in mounts.values())
                if known and not once:
                    found[service.name] = None
        return sorted(found)

    def moving(self) -> list[str]:
        """Services with secrets of this installation that the Engine is rolling out."""
        ours = {each.id for each in self.objects.all_of({LABEL + "installation": self.installation})}
        return [s.name for s in self.swarm.services() if s.moving and any(s.names(object_id) for object_id in ours)]

    def names(self, spots: Sequence[tuple[str, Mount]]) -> dict[str, str]:
        """`VK_<BASE>` → the object's name, for each (service, mount). Raises BackendError where services differ."""
        made = {each.id: each for each in self.objects.all_of({LABEL + "installation": self.installation})}
        found: dict[str, str] = {}
        for service in self.swarm.services():
            for mount in [mount for name, mount in spots if name == service.name]:
                ours = [each.id for each in made.values() if each.labels.get(LABEL + "object") == mount.base]
                variable = "VK_" + "".join(c if c.isalnum() else "_" for c in mount.base.upper())
                for each in swarm_spec.at(mount, swarm_spec.references(service.spec), ours):
                    name = found.setdefault(variable, str(each["SecretName"]))
                    if name != each["SecretName"]:
                        raise BackendError(
                            f"{service.name} carries {each['SecretName']}, and another service {name}",
                            why="a rotation is under way, or somebody put one of them back",
                            next="vaultkeeper status --observe",
                        )
        return dict(sorted(found.items()))

    def only_inside(self, host: str) -> str:
        """The networks of the service that a host name means in this swarm; empty where it may be reached from outside.

        A name with a dot is no service's, and one with a published port is reachable from everywhere.
        """
        found = next((each for each in self.swarm.services() if each.name == host), None) if "." not in host else None
        if found is None or (found.spec.get("EndpointSpec") or {}).get("Ports"):
            return ""
        listed = (found.spec.get("TaskTemplate") or {}).get("Networks") or found.spec.get("Networks") or []
        return ", ".join(self._network(str(each.get("Target"))) for each in listed)

    def _network(self, network_id: str) -> str:
        try:
            found = self.swarm.engine.get(f"/networks/{network_id}", self.swarm.deadline, absent_ok=True)
        except Answered:  # a proxy need not let that through
            return network_id
        return str(found["Name"]) if found else network_id

    def collect(self, seat: Seat, version: SecretVersion, keep: int) -> None:
        """Delete objects of this logical secret that nothing names any more, but the newest `keep` of them.

        Those of a version that never became current go at once; the current one's never do, even where a store that was
        restored left newer ones. In use means: named by any service's spec or previous spec, or by a task that may
        still run; the Engine itself looks at present specs only (moby/swarmkit#2509).
        """
        logical, primary = self.logical(seat), seat.item.primary
        mine = [each for each in self.known(seat) if each.is_of(logical)]
        discarded = primary is None or version.number > primary.number
        dropped = [each for each in mine if discarded and each.is_of(logical, version)]
        rest = [each for each in mine if each not in dropped]
        old = [each for each in rest[: max(len(rest) - keep, 0)] if not (primary and each.is_of(logical, primary))]
        unused = [*dropped, *old]
        if unused:
            services = self.swarm.services()
            unused = [each for each in unused if not any(service.names(each.id) for service in services)]
        if unused:
            used = {object_id for task in self.swarm.tasks() if alive(task) for object_id in task_secrets(task)}
            self.objects.delete([each for each in unused if each.id not in used])
