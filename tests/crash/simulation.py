"""A seeded run of engine and store over simulated systems: random policies, commands, kills and faults.

The same seed is the same run. `run(seed)` raises `Failure` with the run's log when an invariant is broken.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any
from unittest.mock import patch

from tests.crash.invariants import Broken, Judge, WatchedBackends
from tests.crash.settling import settle
from tests.crash.stocking import stock
from tests.crash.weather import MOST_CALLS, RestlessRun, StruckStore, Weather
from tests.unit.engine_steps.bench import NoCredentials, Shapes
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.importing import import_value
from vaultkeeper.engine.parts import Event, Parts
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.engine.rollback import rollback
from vaultkeeper.engine.rotate import Report, resume, rotate, run_due
from vaultkeeper.errors import VaultkeeperError
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Options, Purpose
from vaultkeeper.model.secret import Fields, SecretBytes, StagingLabel, Strategy
from vaultkeeper.ports import Envelope, Pause, Store
from vaultkeeper.testing.clock import FakeClock
from vaultkeeper.testing.faults import SimulatedKill
from vaultkeeper.testing.memory import MemoryEnvelope, MemoryStore
from vaultkeeper.testing.simulators.manual import make, revoke
from vaultkeeper.testing.world import World

LONG = timedelta(days=20)
WAITS = (timedelta(0), timedelta(minutes=10), timedelta(hours=2), LONG)
PAUSES = (timedelta(seconds=20), timedelta(minutes=7), timedelta(hours=2), timedelta(days=1), timedelta(days=10))
STORM_RATES = (0.0, 0.004, 0.012, 0.03, 0.08)


class Failure(AssertionError):
    """A seed that breaks an invariant, with its log."""

    def __init__(self, seed: int, why: str, log: list[str]) -> None:
        super().__init__(f"seed {seed}: {why}\n" + "\n".join(log[-80:]) + f"\nreplay: scripts/simulate --seed {seed}")
        self.seed = seed
        self.why = why
        self.log = log


@dataclass
class Disk:
    """Where a run keeps its state; the default is in memory."""

    store: Store
    envelope: Envelope
    snapshot: Callable[[], Any] | None = None  #: a backup; None: this run's store is never restored
    restore: Callable[[Any], None] = lambda _snapshot: None


def in_memory() -> Disk:
    store = MemoryStore()
    return Disk(store, MemoryEnvelope(), store.snapshot, store.restore)


class ListeningEnvelope:
    """Remembers which values this process has had in its hands: only those can a driver's error quote."""

    def __init__(self, inner: Envelope) -> None:
        self.inner = inner
        self.values: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def open(self, sealed: bytes, *, secret: str, bound_to: str) -> Fields:
        fields = self.inner.open(sealed, secret=secret, bound_to=bound_to)
        self.values += [value.reveal() for name, value in fields.items() if name != "username"]
        return fields


class Run:
    """One schedule."""

    def __init__(self, seed: int, disk: Disk | None = None, *, commands: int = 25) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.log: list[str] = []
        self.disk = disk or in_memory()
        self.commands = commands
        self.clock = FakeClock()
        self.weather = Weather(self.rng, self._look, self.log.append)
        self.world = World(f"run{seed}", self.clock, self.weather)
        self.make = Shapes(self.world.name)
        self.policies: dict[str, RotationPolicy] = {}
        self.judge = Judge(self.world, self.disk.envelope, self.policies)
        self.store = StruckStore(self.disk.store, self.weather, self.judge.seen)
        self.judge.store = self.store
        self.weather.restored = self.hurt
        self.weather.a_value = self._a_value
        self.backup: Any = None
        self.disturbed: set[str] = set()
        self.store_was_restored = False
        self.envelope = ListeningEnvelope(self.disk.envelope)
        self.texts: list[str] = []
        self.counted: dict[str, int] = {}
        self.made = 0  #: by people

    # ------------------------------------------------------------------------------------------------ the run

    def play(self) -> None:
        """Stock the world, let it storm, let it settle. Raises Failure."""
        drawn = Random(self.seed)
        try:
            with patch("secrets.token_hex", lambda size=32: drawn.randbytes(size).hex()):
                stock(self)
                self.weather.rate = 0.0 if self.weather.calm else self.rng.choice(STORM_RATES)
                if self.weather.rate == 0.0 and not self.weather.calm:
                    self.weather.forced = {self.rng.randrange(20, 1200): "" for _ in range(4)}
                for _ in range(self.commands):
                    self.one_command()
                settle(self)
        except RestlessRun as restless:
            if not self.judge.clock_was_set:  # a clock that was put back makes every wait longer by as much
                raise Failure(self.seed, str(restless), self.log) from None
        except Broken as broken:
            raise Failure(self.seed, str(broken), self.log) from None
        except Exception as error:  # noqa: BLE001 - whatever the engine lets through is a finding
            self.log.append(traceback.format_exc())
            raise Failure(self.seed, f"{type(error).__name__}: {error}", self.log) from None

    def one_command(self) -> None:
        weights = {
            self.rotate_some: 10,
            self.rotate_all: 6,
            self.resume_all: 8,
            self.run_due: 8,
            self.pass_time: 8,
            self.roll_back: 4,
            self.emergency: 2,
            self.rehearse: 2,
            self.step_clock: 1,
            self.person: 3,
            self.adopt_truth: 1,
            self.owner: 4,
            self.pausing: 1,
            self.outside: 6,
            self.edit_policy: 2,
            self.stale_store: 1,
            self.audit_fails: 1,
        }
        (chosen,) = self.rng.choices([*weights], [*weights.values()])
        chosen()

    def command(self, text: str, act: Callable[[Parts], Any]) -> list[Report]:
        """A new process does one thing, or dies at it."""
        self.log.append(f"{self.clock.now():%m-%d %H:%M:%S} {text}")
        self.weather.calls_left = MOST_CALLS
        self.counted[text.partition(" ")[0]] = self.counted.get(text.partition(" ")[0], 0) + 1
        result: Any = []
        try:
            result = act(self.parts())
        except SimulatedKill as kill:
            self.log.append(f"    killed at {kill}")
        except VaultkeeperError as error:
            self.log.append(f"    {type(error).__name__}: {error}")
            self.texts += [str(error), error.works, error.next]
        reports = [r for r in (result if isinstance(result, list) else [result]) if isinstance(r, Report)]
        for report in reports:
            detail = report.rotation.detail if report.rotation else report.skipped or report.error
            self.log.append(f"    {report.secret}: {_state(report)} {detail or ''}")
        self.judge.after_command(reports, self.texts)
        self.texts.clear()
        return reports

    def parts(self) -> Parts:
        self.envelope = ListeningEnvelope(self.disk.envelope)
        return Parts(
            self.store,
            self.envelope,
            self.clock,
            NoCredentials(),
            WatchedBackends(self.judge),
            dict(self.policies),
            watch=self._watch,
            parallel=1,
        )

    def _look(self, hook: str) -> None:
        self.judge.look(hook)

    def _watch(self, event: Event) -> None:
        self.texts.append(f"{event.secret} {event.step} {event.text}")
        self.log.append(f"      {event.secret}: {event.step} {event.text}")

    def _a_value(self) -> str:
        return self.rng.choice(self.envelope.values).decode() if self.envelope.values else ""

    # ------------------------------------------------------------------------------------------------ commands

    def names(self) -> list[str]:
        return self.rng.sample([*self.policies], self.rng.randint(1, len(self.policies)))

    def name(self) -> str:
        return self.rng.choice([*self.policies])

    def rotate_some(self) -> None:
        names, wait = self.names(), self.rng.choice(WAITS)
        self.command(f"rotate {' '.join(names)} --wait {wait}", lambda p: rotate(names, p, by_name=True, wait=wait))

    def rotate_all(self) -> None:
        wait = self.rng.choice(WAITS)
        self.command(f"rotate --all --wait {wait}", lambda p: rotate([*p.policies], p, by_name=False, wait=wait))

    def resume_all(self) -> None:
        wait = self.rng.choice(WAITS)
        self.command(f"resume --all --wait {wait}", lambda p: resume(None, p, wait=wait))

    def run_due(self) -> None:
        wait = self.rng.choice(WAITS)
        self.command(f"run_due --wait {wait}", lambda p: run_due(p, wait=wait))

    def run_due_now(self) -> None:
        self.command("run_due", lambda p: run_due(p, wait=LONG))

    def rotations(self, name: str) -> int:
        """How many of this secret were ever opened."""
        return len(self.store.inner.rotations(name))

    def pass_time(self) -> None:
        self.clock.advance(self.rng.choice(PAUSES))

    def roll_back(self) -> None:
        name, wait = self.name(), self.rng.choice(WAITS)
        told = f"rollback {name} --again --wait {wait}"  # without it, it only goes on or refuses
        self.command(told, lambda p: rollback(name, p, wait=wait, again=True))

    def emergency(self) -> None:
        name, cut, wait = self.name(), self.rng.random() < 0.4, self.rng.choice(WAITS)
        if cut:
            self.judge.harm[name].add("cut")
        self.command(
            f"emergency {name} {'--cut ' if cut else ''}--wait {wait}",
            lambda p: rotate([name], p, by_name=True, purpose=Purpose.EMERGENCY, options=Options(cut=cut), wait=wait),
        )

    def rehearse(self) -> None:
        name = self.name()
        self.command(
            f"rehearse {name}", lambda p: rotate([name], p, by_name=True, purpose=Purpose.REHEARSE, wait=WAITS[1])
        )

    def step_clock(self) -> None:
        by = timedelta(days=self.rng.choice((-3, 3)))
        self.log.append(f"the clock is set by {by.days} d")
        self.clock.step(by)
        self.judge.clock_was_set = True

    def person(self) -> None:
        """Does what `reconcile` proposes."""
        name = self.name()

        def act(parts: Parts) -> None:
            proposals = reconcile(name, parts)
            if proposals:
                key = self.rng.choice(proposals).key
                self.log.append(f"    reconcile {name}: {key}")
                self.judge.harm[name].add("reconciled")
                apply(name, key, parts)

        self.command(f"reconcile {name}", act)

    def adopt_truth(self) -> None:
        """A person gives what works at the target now."""
        name = self.name()
        given = self.truth(name)
        if given is not None:
            self.adopted(name, given)

    def adopted(self, name: str, given: Fields) -> None:
        """A person's own value is proven before it is stored: it came from outside.

        Adopting delivers nothing, so until somebody does consumers may hold another version that works.
        """
        before = self.store.inner.labels(name).get(StagingLabel.CURRENT)
        self.judge.adopting = True
        self.command(f"adopt {name}", lambda p: adopt(name, given, p))
        self.judge.adopting = False
        if before not in (None, self.store.inner.labels(name).get(StagingLabel.CURRENT)):
            self.judge.harm[name].add("adopted")

    def owner(self) -> None:
        """Of a secret that only a person can change: gives the next value, or revokes what is not in use any more."""
        manual = [name for name, policy in self.policies.items() if policy.strategy is Strategy.MANUAL]
        if manual:
            self.by_hand(self.rng.choice(manual), wait=self.rng.choice(WAITS))

    def by_hand(self, name: str, *, wait: timedelta) -> None:
        newest = next(iter(self.store.inner.rotations(name, limit=1)), None)
        if newest is not None and newest.open and newest.finished:
            self.revoke_old(name)
            self.command(f"resume {name} --wait {wait}", lambda p: resume([name], p, wait=wait))
            return
        target = self.policies[name].target
        assert target is not None
        self.made += 1
        value = f"by-hand-{self.made}-{self.seed}".encode()
        make(self.world, str(target.settings["system"]), value)
        self.judge.values.add(value)
        given = {"": SecretBytes(value)}
        self.command(f"import {name} --wait {wait}", lambda p: import_value(name, given, p, wait=wait))

    def revoke_old(self, name: str) -> None:
        """Whatever the store does not call current."""
        current = self.store.inner.labels(name).get(StagingLabel.CURRENT)
        records = {record.number: record for record in self.store.inner.versions(name)}
        kept = self.judge.pair(records[current]) if current in records else None
        for record in records.values():
            pair = self.judge.pair(record)
            if record.binding.target_kind == "sim_manual" and pair is not None and pair != kept:
                revoke(self.world, str(record.binding.target_settings["system"]), pair[1])

    def truth(self, name: str) -> Fields | None:
        target = self.policies[name].target
        if target is None:
            return None
        pairs = sorted(self.world.accepted(str(target.settings["system"])))
        if not pairs:
            return None
        account, value = pairs[0]
        field = "token" if target.kind == "sim_minting" else "password"
        given = {field: SecretBytes(value)}
        self.judge.values.add(value)
        return {**given, "username": SecretBytes(account.encode())} if account else given

    def pausing(self) -> None:
        name, now = self.name(), self.clock.now()
        pause = Pause(None, "holidays", now) if name not in self.store.inner.pauses() else None
        self.log.append(f"{'pause' if pause else 'unpause'} {name}")
        self.store.inner.pause(name, pause)

    def audit_fails(self) -> None:
        self.store.audit_unwritable = True
        self.log.append("the audit log cannot be written")
        self.rotate_some()
        self.resume_all()
        self.store.audit_unwritable = False

    # ------------------------------------------------------------------------------------------------ outside events

    def hurt(self, system: str, how: str = "restored") -> None:
        """Somebody put a system back: whoever has to do with it is excused until the run settles."""
        for name, policy in self.policies.items():
            made_for = {str(r.binding.target_settings.get("system")) for r in self.judge.records.get(name, ())}
            if system in _systems(policy) | made_for:
                self.judge.harm[name].add(how)
                self.disturbed.add(name)

    def outside(self) -> None:
        systems = sorted(self.world.state)
        if not systems:
            return
        system = self.rng.choice(systems)
        roll = self.rng.random()
        if roll < 0.5:
            self.world.backup(system)
            self.log.append(f"{system} is backed up")
        elif roll < 0.62:
            self.log.append(f"{system} is restored")
            self.hurt(system)
            self.world.restore_backup(system)
        elif roll < 0.8:
            self._break(system)
        else:
            self._log_in(system)

    def _break(self, system: str) -> None:
        state = self.world.state[system]
        if state.get("broken"):
            state["broken"] = {}
        elif state.get("running"):
            service = self.rng.choice(sorted(state["running"]))
            runs_on = {slot: held["content"] for slot, held in state["running"][service].items()}
            state["broken"] = {service: runs_on}
            self.log.append(f"{system}/{service} runs on nothing but what it has")

    def _log_in(self, system: str) -> None:
        state = self.world.state[system]
        if "app_a" in state.get("accounts", {}) or "app_b" in state.get("accounts", {}):
            user = self.rng.choice(("app_a", "app_b"))
            sessions = state.setdefault("sessions", {})
            sessions[user] = [] if sessions.get(user) else ["10.0.0.9"]
            self.log.append(f"{system}: sessions {sessions}")

    def edit_policy(self) -> None:
        name = self.name()
        policy, roll = self.policies[name], self.rng.random()
        if roll < 0.3 and len(policy.destinations) > 1:
            self.policies[name] = replace(policy, destinations=policy.destinations[:-1])
            self.log.append(f"{name}: a destination is removed")
        elif roll < 0.6 and policy.destinations and policy.destinations[0].kind in {"sim_file", "sim_service"}:
            system = f"new{len(self.world.state)}_{name}"
            first = policy.destinations[0]
            settings = {**first.settings, "system": system}
            self.policies[name] = replace(
                policy, destinations=(*policy.destinations, replace(first, settings=settings))
            )
            self.log.append(f"{name}: a destination {system} is added")
        elif policy.target is not None and policy.target.via is None and roll < 0.8:
            system = f"moved{len(self.world.state)}_{name}"
            target = replace(policy.target, settings={**policy.target.settings, "system": system})
            self.policies[name] = replace(policy, target=target)
            self.world.system(system)
            self.log.append(f"{name}: its target moves to {system}")
        elif policy.grace_period:
            grace = self.rng.choice((timedelta(minutes=10), timedelta(days=2)))
            self.policies[name] = replace(policy, grace_period=grace)
            self.log.append(f"{name}: grace {grace}")

    def stale_store(self) -> None:
        if self.disk.snapshot is None:
            return
        if self.backup is None or self.rng.random() < 0.4:
            self.back_up_the_store()
        else:
            self.restore_the_store()

    def back_up_the_store(self) -> None:
        assert self.disk.snapshot is not None
        self.backup = self.disk.snapshot()
        self.log.append("the store is backed up")

    def restore_the_store(self) -> None:
        """An operator's act: whatever it forgets is nobody else's fault."""
        self.log.append("the store is restored from its backup")
        self.store_was_restored = True
        self.disk.restore(self.backup)
        for name in self.policies:
            self.judge.harm[name].add("stale")
        self.judge.forgotten()


def _systems(policy: RotationPolicy) -> set[str]:
    found = {str(spec.settings["system"]) for spec in policy.destinations}
    if policy.target is not None:
        found.add(str(policy.target.settings["system"]))
        if policy.target.via is not None:
            found.add(str(policy.target.via.settings["system"]))
    return found


def _state(report: Report) -> str:
    rotation = report.rotation
    if rotation is None:
        return report.state
    reason = rotation.cause or rotation.waiting
    where = f" at {rotation.phase.step.value}" if rotation.phase and rotation.open else ""
    why = f" ({reason.value})" if reason else ""
    return f"v{rotation.from_version}→v{rotation.to_version} {rotation.state.value}{why}{where}"


def run(seed: int, disk: Disk | None = None, *, commands: int = 25) -> Run:
    """Play one schedule. Raises Failure."""
    played = Run(seed, disk, commands=commands)
    played.play()
    return played
