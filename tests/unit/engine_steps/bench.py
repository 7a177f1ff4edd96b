"""Simulated systems wired to the engine by hand: policies in a line each, and a fresh process for every command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.importing import import_value
from vaultkeeper.engine.parts import Event, Parts
from vaultkeeper.engine.rollback import rollback
from vaultkeeper.engine.rotate import Report, resume, rotate, run_due
from vaultkeeper.model.policy import DestinationSpec, GeneratorSpec, Place, Read, RotationPolicy, TargetSpec
from vaultkeeper.model.rotation import Options, Purpose, Rotation
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, StagingLabel, Strategy, VersionRecord
from vaultkeeper.ports import Destination, Envelope, Generator, Store, Target
from vaultkeeper.testing.clock import FakeClock
from vaultkeeper.testing.faults import Fault, Faults
from vaultkeeper.testing.memory import MemoryEnvelope, MemoryStore
from vaultkeeper.testing.simulators import DESTINATIONS, GENERATORS, TARGETS
from vaultkeeper.testing.simulators.manual import make, revoke
from vaultkeeper.testing.world import World, secret_value

LONG = timedelta(days=400)  # a command waits in the foreground until everything has come to rest
HOUR = timedelta(hours=1)
GRACE = timedelta(hours=1)


class SimBackends:
    """The registry of the simulated kinds."""

    def target_class(self, kind: str) -> type[Target]:
        return TARGETS[kind]

    def target(self, kind: str, settings: Mapping[str, object], codec: int) -> Target:
        return TARGETS[kind].open(settings, codec)

    def destination(self, kind: str) -> Destination:
        return DESTINATIONS[kind].open()

    def generator(self, kind: str) -> Generator:
        return GENERATORS[kind]()


class NoCredentials:
    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        raise AssertionError("no simulator needs a credential")


class Shapes:
    """Policies over one world; every system is named after its secret unless said otherwise."""

    def __init__(self, world: str) -> None:
        self.world = world

    def place(self, system: str, **settings: object) -> dict[str, object]:
        return {"world": self.world, "system": system, **settings}

    def to(
        self,
        kind: str,
        system: str,
        values: Mapping[str, str] | None = None,
        *,
        read: Read = Read.PER_USE,
        timeout: timedelta | None = None,
        **settings: object,
    ) -> DestinationSpec:
        values = values or {"": "{username}:{password}"}
        return DestinationSpec(kind, values, read, self.place(system, **settings), timeout)

    def file(self, system: str, values: Mapping[str, str] | None = None, **settings: Any) -> DestinationSpec:
        return self.to("sim_file", system, values, services=("app",), **settings)

    def service(self, system: str, values: Mapping[str, str] | None = None, **settings: Any) -> DestinationSpec:
        settings.setdefault("services", ("app",))
        return self.to("sim_service", system, values, read=Read.AT_START, **settings)

    def policy(
        self,
        name: str,
        kind: str | None,
        strategy: Strategy | None,
        *destinations: DestinationSpec,
        target: Mapping[str, object] | None = None,
        via: DestinationSpec | None = None,
        close_sessions: bool = False,
        unverified: str | None = None,
        **more: Any,
    ) -> RotationPolicy:
        spec = None
        if kind is not None and strategy is not None:
            settings = self.place(f"db_{name}", **(target or {}))
            spec = TargetSpec(kind, strategy, settings, via=via, unverified=unverified, close_sessions=close_sessions)
        no_grace = strategy in {None, Strategy.SINGLE, Strategy.PREVIOUS_KEYS}
        return RotationPolicy(
            name,
            Place("bench"),
            generator=more.pop("generator", GeneratorSpec("sim_counter", self.place(f"gen_{name}"))),
            target=spec,
            strategy=strategy,
            destinations=destinations,
            grace_period=more.pop("grace_period", timedelta(0) if no_grace else GRACE),
            min_interval=more.pop("min_interval", timedelta(0)),
            **more,
        )

    def overlap(self, name: str, *to: DestinationSpec, **more: Any) -> RotationPolicy:
        return self.policy(name, "sim_overlap", Strategy.OVERLAP, *to, **more)

    def alternating(self, name: str, *to: DestinationSpec, **more: Any) -> RotationPolicy:
        return self.policy(name, "sim_alternating", Strategy.ALTERNATING_USERS, *to, **more)

    def single(self, name: str, *to: DestinationSpec, **more: Any) -> RotationPolicy:
        return self.policy(name, "sim_single", Strategy.SINGLE, *to, **more)

    def throttling(self, name: str, *to: DestinationSpec, **more: Any) -> RotationPolicy:
        return self.policy(name, "sim_throttling", Strategy.SINGLE, *to, **more)

    def minted(self, name: str, *to: DestinationSpec, **more: Any) -> RotationPolicy:
        return self.policy(name, "sim_minting", Strategy.MINTED, *to, generator=None, **more)

    def manual(self, name: str, *to: DestinationSpec, **more: Any) -> RotationPolicy:
        fields = ("password",)
        return self.policy(name, "sim_manual", Strategy.MANUAL, *to, generator=None, fields=fields, **more)

    def via(self, name: str, strategy: Strategy, carrier: str, *to: DestinationSpec, **more: Any) -> RotationPolicy:
        """The checker reads its list from a destination of the kind `carrier`."""
        carried = self.to(carrier, f"list_{name}", {"list": ""}, read=Read.AT_START, services=("checker",))
        reads = {"reads": (f"list_{name}", "checker", "list")}
        return self.policy(name, "sim_checker", strategy, *to, target=reads, via=carried, **more)

    def keys(self, name: str, system: str, services: tuple[str, ...] = ("app",), **more: Any) -> RotationPolicy:
        values = {"key": "{password}", "previous": "{previous.password|join(',')}"}
        to = self.to("sim_keyring_app", system, values, read=Read.AT_START, services=services)
        return self.policy(name, None, Strategy.PREVIOUS_KEYS, to, **more)

    def unchecked(self, name: str, *to: DestinationSpec, **more: Any) -> RotationPolicy:
        return self.policy(name, None, None, *to, **more)


class Bench:
    """A world, a store that survives, and one process per command."""

    def __init__(self, name: str, *faults: Fault, store: Store | None = None, envelope: Envelope | None = None) -> None:
        self.clock = FakeClock()
        self.faults = Faults(list(faults))
        self.world = World(name, self.clock, self.faults)
        self.memory = MemoryStore(faults=self.faults)
        self.store: Store = store or self.memory
        self.envelope: Envelope = envelope or MemoryEnvelope()
        self.policies: dict[str, RotationPolicy] = {}
        self.make = Shapes(name)
        self.events: list[Event] = []

    def use(self, *policies: RotationPolicy) -> None:
        self.policies |= {policy.name: policy for policy in policies}

    def edit(self, name: str, **changes: Any) -> None:
        self.policies[name] = replace(self.policies[name], **changes)

    def parts(self) -> Parts:
        backends, watch = SimBackends(), self.events.append
        return Parts(
            self.store,
            self.envelope,
            self.clock,
            NoCredentials(),
            backends,
            dict(self.policies),
            watch=watch,
            parallel=1,
        )

    # ------------------------------------------------------------------------------------------------ commands

    def rotate(
        self,
        *names: str,
        purpose: Purpose = Purpose.ROTATE,
        wait: timedelta = LONG,
        by_name: bool = True,
        **options: Any,
    ) -> list[Report]:
        names = names or tuple(self.policies)
        return rotate(names, self.parts(), by_name=by_name, purpose=purpose, options=Options(**options), wait=wait)

    def done(self, *names: str, **options: Any) -> None:
        """Rotate, and hold everybody to `done`."""
        for report in self.rotate(*names, **options):
            assert report.state == "done", (report.state, report.skipped, report.error, report.rotation)

    def one(self, name: str, **options: Any) -> Rotation:
        """Rotate one secret by name; its rotation as it stands then."""
        (report,) = self.rotate(name, **options)
        assert report.rotation is not None, (report.skipped, report.error)
        return report.rotation

    def emergency(self, name: str, **options: Any) -> list[Report]:
        return self.rotate(name, purpose=Purpose.EMERGENCY, **options)

    def resume(self, *names: str, wait: timedelta = LONG, forward: bool = True, **said: Any) -> list[Report]:
        return resume(names or None, self.parts(), wait=wait, forward=forward, said=Options(**said) if said else None)

    def run_due(self, wait: timedelta = LONG) -> list[Report]:
        return run_due(self.parts(), wait=wait)

    def made_by_hand(self, name: str, value: str) -> str:
        """What a person does on the page of a manual secret; the value comes back, to be imported."""
        make(self.world, f"db_{name}", value.encode())
        return value

    def revoke(self, name: str, number: int) -> None:
        revoke(self.world, f"db_{name}", secret_value(self.version(name, number)))

    def import_value(self, name: str, value: str, **more: Any) -> Report:
        given = {"": SecretBytes(value.encode())}
        return import_value(name, given, self.parts(), **{"wait": 2 * HOUR, **more})

    def imported(self, name: str, value: str, **more: Any) -> Rotation:
        report = self.import_value(name, value, **more)
        assert report.rotation is not None, (report.skipped, report.error)
        return report.rotation

    def rollback(self, name: str, wait: timedelta = LONG, *, again: bool = False) -> Report:
        return rollback(name, self.parts(), wait=wait, again=again)

    def adopt(self, name: str, value: str, **fields: str) -> SecretVersion:
        given = {"": SecretBytes(value.encode()), **{k: SecretBytes(v.encode()) for k, v in fields.items()}}
        if fields:
            given["password"] = given.pop("")
        return adopt(name, given, self.parts())

    # ------------------------------------------------------------------------------------------------ looking

    def newest(self, name: str) -> Rotation:
        return self.store.rotations(name, limit=1)[0]

    def current(self, name: str) -> int | None:
        return self.store.labels(name).get(StagingLabel.CURRENT)

    def previous(self, name: str) -> int | None:
        return self.store.labels(name).get(StagingLabel.PREVIOUS)

    def record(self, name: str, number: int) -> VersionRecord:
        return next(record for record in self.store.versions(name) if record.number == number)

    def version(self, name: str, number: int) -> SecretVersion:
        record = self.record(name, number)
        opened = self.envelope.open(record.sealed or b"", secret=name, bound_to=f"{record.number}:{record.id}")
        return SecretVersion(name, number, record.id, opened, record.binding, record.created_at)

    def accepted(self, name: str) -> set[int]:
        """The stored versions that a login would succeed with."""
        policy = self.policies[name]
        assert policy.target is not None
        system = str(policy.target.settings["system"])
        numbers = [record.number for record in self.store.versions(name) if record.sealed is not None]
        return {number for number in numbers if self.world.accepts(system, self.version(name, number))}

    def running(self, system: str, service: str = "app") -> dict[str, bytes]:
        return self.world.consumers(system).get(service, {})

    def calls(self, hook: str) -> int:
        return self.faults.calls[hook]
