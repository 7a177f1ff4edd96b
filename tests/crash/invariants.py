"""The invariants of DESIGN.md section 4, judged from outside: what the world holds, what the store has committed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from tests.crash.weather import StruckStore
from tests.unit.engine_steps.bench import SimBackends
from vaultkeeper.engine.plan import one_at_a_time
from vaultkeeper.engine.rotate import Report
from vaultkeeper.model.outcome import Done, Login
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Audience, Purpose, Rotation, State, Step
from vaultkeeper.model.secret import SecretVersion, StagingLabel, VersionRecord
from vaultkeeper.ports import Destination, Envelope, Item, Target
from vaultkeeper.store.codec import encode_rotation
from vaultkeeper.testing.faults import CHANGES, READS
from vaultkeeper.testing.world import World, secret_value

VALUE = re.compile(rb"(?<![A-Za-z0-9])[A-Za-z0-9]{24}(?![A-Za-z0-9])|minted-token-\d+")


class Broken(BaseException):
    """An invariant does not hold. No Exception, so that the engine's guard does not take it for a driver's."""

    def __init__(self, invariant: int, text: str) -> None:
        super().__init__(f"invariant {invariant}: {text}")
        self.invariant = invariant


class Judge:
    """Looks at everything after every event. `harm` holds secrets that outside events (a restored backup) hurt."""

    def __init__(self, world: World, envelope: Envelope, policies: dict[str, RotationPolicy]) -> None:
        self.world = world
        self.envelope = envelope
        self.policies = policies
        self.store: StruckStore
        self.harm: dict[str, set[str]] = defaultdict(set)
        self.ids: set[tuple[str, str]] = set()
        self.values: set[bytes] = set()
        self.orphans: set[bytes] = set()
        self.sealed: dict[tuple[str, str], bytes] = {}
        self.fields: dict[tuple[str, str], tuple[str | None, bytes]] = {}
        self.to_versions: dict[str, int] = {}
        self.tests: dict[str, list[tuple[int, bool, Login]]] = defaultdict(list)
        self.finished_at: dict[str, datetime] = {}
        self.records: dict[str, Sequence[VersionRecord]] = {}
        self.newest: dict[str, Rotation] = {}
        self.labels: dict[str, Mapping[StagingLabel, int]] = {}
        self.writes = 0
        self.adopting = False
        self.behind = ""
        self.clock_was_set = False
        self.looked_at: object = None

    def clock_hour(self) -> datetime:
        """Tokens expire and clients fetch as time passes."""
        return self.world.clock.now().replace(minute=0, second=0, microsecond=0)

    # --------------------------------------------------------------------------------------------- what became durable

    def seen(self, write: str, secret: str) -> None:
        """A write of this secret became durable."""
        self.writes += 1
        if write == "audit":
            return
        before = self.newest.get(secret)
        self.refresh(secret)
        self._versions_stay(secret)
        self._nothing_owed_is_lost(before, self.newest.get(secret))
        open_now = [r for r in self.store.inner.rotations(secret) if r.open]
        if len(open_now) > 1:
            raise Broken(4, f"{secret} has {len(open_now)} open rotations")
        rotation = self.newest.get(secret)
        if rotation is not None:
            self._same_candidate(rotation)
            self._verified(rotation)

    def refresh(self, secret: str) -> None:
        store = self.store.inner
        self.records[secret] = store.versions(secret)
        self.labels[secret] = store.labels(secret)
        newest = store.rotations(secret, limit=1)
        if newest:
            self.newest[secret] = newest[0]
        else:
            self.newest.pop(secret, None)
        for record in self.records[secret]:
            key = (secret, record.id)
            self.ids.add(key)
            if record.sealed is not None and self.sealed.get(key) != record.sealed:
                fields = self.envelope.open(record.sealed, secret=secret, bound_to=f"{record.number}:{record.id}")
                version = SecretVersion(secret, record.number, record.id, fields, record.binding, record.created_at)
                username = fields["username"].text() if "username" in fields else None
                if key in self.fields and self.fields[key] != (username, secret_value(version)):
                    raise Broken(3, f"{secret} v{record.number} got another value")
                self.sealed[key] = record.sealed
                self.fields[key] = (username, secret_value(version))
                self.values.add(secret_value(version))

    def forgotten(self) -> None:
        """The store was put back to a backup: what it held since is gone, and that is nobody's fault."""
        self.to_versions.clear()
        self.sealed.clear()
        self.fields.clear()
        self._kept: dict[str, set[str]] = {}
        for secret in [*self.records]:
            self.refresh(secret)

    def _versions_stay(self, secret: str) -> None:
        kept = vars(self).setdefault("_kept", {})
        now = {record.id for record in self.records[secret] if record.sealed is not None}
        if not kept.get(secret, set()) <= now:
            raise Broken(3, f"{secret}: a stored value disappeared")
        kept[secret] = now

    def _nothing_owed_is_lost(self, before: Rotation | None, now: Rotation | None) -> None:
        """Invariant 14: what closed a gap without the audit log leaves the journal only once that has it."""
        same = before is not None and now is not None and now.id == before.id
        kept = now.unaudited if same and now is not None else ()
        lost = [r for r in (before.unaudited if before else ()) if r not in kept and r not in self.store.audited]
        if lost or (now is not None and not now.open and now.unaudited):
            raise Broken(14, f"the audit log never got {lost or (now and now.unaudited)}")

    def _same_candidate(self, rotation: Rotation) -> None:
        if rotation.to_version is None:
            return
        before = self.to_versions.setdefault(rotation.id, rotation.to_version)
        if before != rotation.to_version:
            raise Broken(3, f"{rotation.secret}: v{before} was regenerated as v{rotation.to_version}")

    def _verified(self, rotation: Rotation) -> None:
        """Invariant 5, at the moment when labels move and when a rotation ends."""
        if rotation.finished and rotation.id not in self.finished_at:
            self.finished_at[rotation.id] = self.world.clock.now()
            self._was_tested(rotation)
        if rotation.state is State.DONE and rotation.finished and not rotation.superseded:
            self._old_is_dead(rotation)

    def _was_tested(self, rotation: Rotation) -> None:
        target = rotation.policy.target
        if target is None or rotation.unverified:
            return
        tests = self.tests[rotation.secret]
        if not any(n == rotation.to_version and ours and a is Login.ACCEPTED for n, ours, a in tests):
            raise Broken(5, f"{rotation.secret}: v{rotation.to_version} became current without a login")
        mutual = SimBackends().target_class(target.kind).capabilities.mutual
        wrong = [a for n, ours, a in tests if a is Login.REJECTED and not (n == rotation.to_version and ours)]
        if not mutual and not wrong:
            raise Broken(5, f"{rotation.secret}: no wrong value was refused")

    def _old_is_dead(self, rotation: Rotation) -> None:
        old = self.record(rotation.secret, rotation.from_version)
        new = self.record(rotation.secret, rotation.to_version)
        if old is None or new is None or old.binding.target_kind is None or self.harm[rotation.secret]:
            return
        if rotation.options.forget_old or rotation.unverified or self.pair(old) == self.pair(new):
            return
        if self.accepts(old):
            raise Broken(5, f"{rotation.secret}: done, but v{old.number} is still accepted")

    # --------------------------------------------------------------------------------------------- what is out there

    def record(self, secret: str, number: int | None) -> VersionRecord | None:
        return next((r for r in self.records.get(secret, ()) if r.number == number), None)

    def pair(self, record: VersionRecord) -> tuple[str | None, bytes] | None:
        return self.fields.get((record.secret, record.id))

    def accepts(self, record: VersionRecord) -> bool:
        """Would a login with this stored version succeed at what it was made for?"""
        pair = self.pair(record)
        if pair is None or record.sealed is None or record.binding.target_kind is None:
            return False
        accepted = self.world.accepted(str(record.binding.target_settings["system"]))
        username, value = pair
        if username is None or not any(account for account, _ in accepted):
            return any(value == other for _, other in accepted)
        return (username, value) in accepted

    def look(self, hook: str) -> None:
        """After every event: durable before visible, reachable, served, readable."""
        there = repr(self.world.state)
        if (there, self.writes, self.clock_hour()) == self.looked_at:
            return
        self.looked_at = (there, self.writes, self.clock_hour())
        visible = set(VALUE.findall(there.encode()))
        stray = visible - self.values - self._unstored_tokens()
        if stray:
            raise Broken(1, f"before {hook}: a value is out there that the store does not hold")
        for name, policy in self.policies.items():
            if not self.harm[name]:
                self._reachable(name)
                self._served(name, policy, hook)

    def _unstored_tokens(self) -> set[bytes]:
        """A minted value exists at its system before it can be stored; nobody else may have it.

        An orphan that was collected may come back with a backup of that system.
        """
        for state in self.world.state.values():
            for token in state.get("tokens", {}).values():
                for secret, id_ in self.ids:
                    if id_ == token["name"] and (secret, id_) not in self.sealed:
                        self.orphans.add(token["value"])
        if not self.orphans:
            return self.orphans
        carried = repr({name: s for name, s in self.world.state.items() if "tokens" not in s}).encode()
        return self.orphans - set(VALUE.findall(carried))

    def _reachable(self, name: str) -> None:
        current = self.record(name, self.labels.get(name, {}).get(StagingLabel.CURRENT))
        if current is None or current.binding.target_kind is None or self.expired(current):
            return
        if not any(self.accepts(record) for record in self.records[name]):
            raise Broken(2, f"{name}: no stored version is accepted")

    def expired(self, record: VersionRecord) -> bool:
        """A minted value that nobody renewed in time died by itself."""
        dead = record.expires_at is not None and record.expires_at <= self.world.clock.now()
        if dead:
            self.harm[record.secret].add("expired")
        return dead

    def _served(self, name: str, policy: RotationPolicy, hook: str) -> None:
        """Nobody is locked out: every consumer holds an accepted value, but for the stated gap of `single`."""
        rotation = self.newest.get(name)
        if rotation is not None and one_at_a_time(rotation.policy) and _in_the_gap(rotation):
            return
        current = self.record(name, self.labels.get(name, {}).get(StagingLabel.CURRENT))
        if current is None or self.expired(current):
            return
        checked = current.binding.target_kind is not None
        good = {text for r in self.records[name] if self.accepts(r) or not checked for text in self.spellings(r)}
        for where, content in self.held(policy):
            if content not in good:
                raise Broken(2, f"before {hook}: {where} holds a value of {name} that is refused")
        for spec in policy.destinations:
            if spec.kind == "sim_keyring_app" and self.world.unreadable(str(spec.settings["system"])):
                raise Broken(2, f"before {hook}: {name}: a service can no longer read its data")

    def spellings(self, record: VersionRecord) -> list[bytes]:
        """What a consumer's slot may hold of a version."""
        pair = self.pair(record)
        if pair is None:
            return []
        username, value = pair
        return [value, (username or "").encode() + b":" + value]

    def held(self, policy: RotationPolicy) -> Iterable[tuple[str, bytes]]:
        for spec in policy.destinations:
            if self.clock_was_set and spec.kind == "sim_clients":
                continue  # what a client fetched, and when, is told by the clock
            for service, slots in self.world.consumers(str(spec.settings["system"])).items():
                for slot in spec.values:
                    if slot in slots and slot != "previous":
                        yield f"{spec.settings['system']}/{service}:{slot}", slots[slot]

    # --------------------------------------------------------------------------------------------- what hooks are given

    def before_target(self, target: Target, hook: str, args: Sequence[Any]) -> None:
        for version in _versions(args):
            self._durable(version, f"{target.kind}.{hook}")
        ctx = args[-1]
        if hook in {"set", "mint"}:
            self._announced(f"{target.kind}.{hook}", [ctx.secret])
            self._retired_last(ctx.secret, hook)
            self._not_stale(target, args)
        if hook == "mint" and (ctx.secret, args[0]) not in self.ids:
            raise Broken(1, f"{ctx.secret}: minting under a name that the store does not hold")

    def after_target(self, hook: str, args: Sequence[Any], answer: object) -> None:
        if hook == "set" and self.behind and isinstance(answer, Done):
            raise Broken(12, self.behind)
        if hook == "test":
            version: SecretVersion = args[0]
            ours = self.fields.get((version.secret, version.id), (None, b""))[1] == secret_value(version)
            same_name = (
                "username" not in version.fields
                or self.fields.get((version.secret, version.id), ("", b""))[0] == version.fields["username"].text()
            )
            if isinstance(answer, Login):
                self.tests[version.secret].append((version.number, ours and same_name, answer))

    def before_destination(self, kind: str, hook: str, args: Sequence[Any]) -> None:
        items = [arg for arg in args if isinstance(arg, Item)]
        items += [item for arg in args if isinstance(arg, list | tuple) for item in arg if isinstance(item, Item)]
        for item in items:
            for version in {id(v): v for v in (item.primary, *item.accepted) if v is not None}.values():
                self._durable(version, f"{kind}.{hook}")
        if hook == "deliver":
            self._announced(f"{kind}.{hook}", [item.secret for item in items])

    def _durable(self, version: SecretVersion, hook: str) -> None:
        if self.adopting:
            return
        if (version.secret, version.id) not in self.ids:
            raise Broken(1, f"{hook} was given v{version.number} of {version.secret} before it was stored")
        if version.fields and (version.secret, version.id) not in self.sealed:
            raise Broken(1, f"{hook} was given v{version.number} of {version.secret} before its value was stored")

    def _announced(self, hook: str, names: Sequence[str]) -> None:
        """Invariant 14: the audit log heard of it before it happened."""
        newest = [self.newest[name] for name in names if name in self.newest]
        if hook.endswith(".deliver") and any(map(_is_owed, newest)):
            return
        if self.store.audit_unwritable:
            raise Broken(14, f"{hook} although the audit log cannot be written")
        last = {str(record["secret"]): record for record in self.store.audited}
        if not any(last.get(name, {}).get("event") in {"begin", "reconcile"} for name in names):
            raise Broken(14, f"{hook} without a word in the audit log")

    def _retired_last(self, secret: str, hook: str) -> None:
        """Invariant 6, when the engine is about to refuse the old version."""
        rotation = self.newest.get(secret)
        retiring = rotation is not None and rotation.phase is not None and rotation.phase.step is Step.RETIRE
        if rotation is None or not retiring or self.harm[secret] or hook != "set":
            return
        if rotation.purpose is not Purpose.EMERGENCY and any(p.step is Step.GRACE for p in rotation.phases):
            since = self.world.clock.now() - self.finished_at[rotation.id]
            if since < rotation.policy.grace_period and not self.clock_was_set:
                raise Broken(6, f"{secret}: retired {since} after finish")
        new, old = self.record(secret, rotation.to_version), self.record(secret, rotation.from_version)
        good = self.spellings(new) if new else []
        for where, content in self.held(rotation.policy):
            if content not in good and not rotation.unverified.startswith("cut") and not self.clock_was_set:
                raise Broken(6, f"{where} does not run on v{rotation.to_version} when the old one is retired")
        for spec in rotation.policy.destinations:
            previous = self.world.state.get(str(spec.settings["system"]), {}).get("previous", {})
            if old is not None and any(old.id in slots.values() for slots in previous.values()):
                raise Broken(6, f"{secret}: a rollback path names v{old.number} when it is retired")

    def _not_stale(self, target: Target, args: Sequence[Any]) -> None:
        """Invariant 12: nothing is written where the target is ahead of the store."""
        ctx = args[-1]
        tag = self.world.state.get(str(getattr(target, "home", "")), {}).get("tag")
        known = max((r.number for r in self.records.get(ctx.secret, ())), default=0)
        ahead = tag is not None and tag[:2] == [ctx.installation, ctx.secret] and tag[2] > known
        self.behind = f"{ctx.secret}: set although the target is at generation {tag[2]}" if tag and ahead else ""

    # ------------------------------------------------------------------------------------------------ after a command

    def after_command(self, reports: Sequence[Report], texts: Sequence[str]) -> None:
        if self.store.held:
            raise Broken(4, f"still held: {sorted(self.store.held)}")
        self.look("the end of the command")
        self.no_plaintext([*texts, *(repr(record) for record in self.store.audited[-50:])])
        for report in reports:
            self._loud(report)
            if report.rotation is not None:
                self.no_plaintext([encode_rotation(report.rotation), repr(report.rotation)])
            if report.error is not None:
                error = report.error
                self.no_plaintext([error.what, error.why, error.works, error.next])

    def no_plaintext(self, texts: Iterable[str]) -> None:
        """Invariant 9, as far as a simulation shows it."""
        for text in texts:
            if any(value in self.values for value in VALUE.findall(text.encode())):
                raise Broken(9, "a value stands in a text for people, the journal or the audit log")

    def _loud(self, report: Report) -> None:
        rotation = report.rotation
        if rotation is None:
            if not report.skipped and report.error is None:
                raise Broken(14, f"{report.secret}: nothing happened and nobody is told")
            return
        if rotation.state in {State.PARKED, State.AMBIGUOUS, State.ROLLED_BACK}:
            told = report.error
            if rotation.cause is None or told is None or not (told.what and told.why and told.works and told.next):
                raise Broken(14, f"{report.secret}: {rotation.state.value} without cause and next command: {told!r}")
        if rotation.state is State.WAITING and rotation.waiting is None:
            raise Broken(14, f"{report.secret}: waits for nothing that has a name")


def _is_owed(rotation: Rotation) -> bool:
    """Closes it a gap, with a journal that tells the audit log of it once that can be written?"""
    told = any((r["event"], r["epoch"]) == ("begin", rotation.epoch) for r in rotation.unaudited)
    return told and one_at_a_time(rotation.policy) and _in_the_gap(rotation)


def _in_the_gap(rotation: Rotation) -> bool:
    """The target may hold only the value that its consumers do not have yet."""
    if not rotation.open or rotation.finished:
        return False
    begun = rotation.phases[: rotation.reached + 1]
    return any(p.step is Step.SET or (p.step is Step.DELIVER and p.audience is Audience.CHECKER) for p in begun)


def _versions(args: Sequence[Any]) -> list[SecretVersion]:
    found = [arg for arg in args if isinstance(arg, SecretVersion)]
    return found + [v for arg in args if isinstance(arg, list | tuple) for v in arg if isinstance(v, SecretVersion)]


REPEATABLE = CHANGES - {"mint"}  # a second mint under one name is a conflict, not a repetition


def repeated(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Once; the test of invariant 8 makes it twice."""
    return hook


class WatchedBackends(SimBackends):
    """The simulated kinds, with the judge beside every hook."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def target(self, kind: str, settings: Mapping[str, object], codec: int) -> Target:
        target = super().target(kind, settings, codec)
        for name in filter(partial(hasattr, target), CHANGES | READS):
            setattr(target, name, self._beside_target(target, name, getattr(target, name)))
        return target

    def _beside_target(self, target: Target, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        act = repeated(hook) if name in REPEATABLE else hook

        def watched(*args: Any) -> Any:
            self.judge.before_target(target, name, args)
            answer = act(*args)
            self.judge.after_target(name, args, answer)
            return answer

        return watched

    def destination(self, kind: str) -> Destination:
        destination = super().destination(kind)
        for name in filter(partial(hasattr, destination), CHANGES | READS):
            setattr(destination, name, self._beside_destination(kind, name, getattr(destination, name)))
        return destination

    def _beside_destination(self, kind: str, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        act = repeated(hook) if name in REPEATABLE else hook

        def watched(*args: Any) -> Any:
            self.judge.before_destination(kind, name, args)
            return act(*args)

        watched.__name__ = name
        return watched
