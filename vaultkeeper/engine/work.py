"""One rotation in hand: what its journal says, what is about to be written, and the versions it is about.

A step that only looks is journalled with the next write, because repeating it costs nothing. What reaches outside is
journalled, fsynced and audited *before* it is done: `begin`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from vaultkeeper.engine import moves
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import attempted, specs
from vaultkeeper.engine.parts import Event, Parts, open_target, power, present_binding
from vaultkeeper.engine.verdict import closes_the_gap, described
from vaultkeeper.errors import AuditUnwritable, ConfigurationInvalid
from vaultkeeper.model.rotation import Audience, End, Phase, Placed, Rotation, State, Step
from vaultkeeper.model.secret import Acceptance, Binding, Fields, GroupKey, SecretVersion
from vaultkeeper.ports import Change, Closes, Context, Deadline, DeliveryContext, NamesSystem, Target

RENDEZVOUS = frozenset({Step.BARRIER, Step.DELIVER, Step.CONFIRM})
CHANGES_A_SYSTEM = frozenset({Step.MINT, Step.SET, Step.RETIRE, Step.DELIVER})


@dataclass(eq=False)  # one in hand is itself and no other, however alike
class Work:
    """Used by one thread at a time. `_unwritten` is what is judged already and not yet in the store."""

    rotation: Rotation
    parts: Parts
    book: Book
    given: Fields | None = None  #: what a person supplied for the version to be made; stored by CREATE
    _unwritten: Change | None = field(default=None)
    journalled: Rotation = field(init=False)  #: as the store has it
    _targets: list[tuple[Binding, Target]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journalled = self.rotation
        self.book.rebind = self._rebound

    # ------------------------------------------------------------------------------------------------------ journal

    def apply(self, change: Change) -> None:
        """Take a judgement over. It becomes durable with the next `write`."""
        if change.rotation is None:
            raise RuntimeError("a judgement always carries its rotation")
        if change.rotation.phase is not self.rotation.phase:
            step = self.rotation.phase.step.value if self.rotation.phase else "end"
            self.parts.watch(Event(self.rotation.secret, step, "done"))
        if change.rotation.state is State.WAITING:
            self.parts.watch(Event(self.rotation.secret, "waiting", _waits(change.rotation)))
        self.rotation = change.rotation
        self._unwritten = merged(self._unwritten, change)
        if not self.rotation.open or self.rotation.state in {State.PARKED, State.AMBIGUOUS}:
            self._conclude()

    def write(self) -> None:
        """Make everything judged so far durable, in one transaction."""
        if self._unwritten is not None:
            self.parts.store.commit(replace(self._unwritten, rotation=self.rotation))
            self.book.learn(self._unwritten)
            self._unwritten, self.journalled = None, self.rotation

    def secure(self) -> None:
        """A new value is durable before anybody outside hears of it, a test included (invariant 1)."""
        if self._unwritten is not None and self._unwritten.new_version is not None:
            self.write()

    def begin(self) -> None:
        """Journal, then audit, that the present phase is about to reach outside (invariants 1 and 14)."""
        self.apply(Change(moves.begin(self.rotation, self.parts.clock.now())))
        phase = self.rotation.phase
        if phase is None or phase.step not in CHANGES_A_SYSTEM:
            self.write()
            return
        record = self._record("begin", phase.step.value)
        self._owe(record)
        self.write()
        self._audit(record)

    def _conclude(self) -> None:
        record = self._record("end", self.rotation.state.value)
        if self.rotation.open:  # nothing ends before it is audited
            self._owe(record)
        self._audit(record)
        self.write()

    def _owe(self, record: dict[str, object]) -> None:
        """Let the journal keep what closing a gap may have to do without the audit log: a kill does not lose it.

        In the transaction that announces it, so that it costs none; it leaves the journal with the next one. Whoever
        is killed between them has it written twice, with the same epoch: the log and the journal have no common
        transaction, and one word too many hides nothing.
        """
        if closes_the_gap(self.rotation) and record not in self.rotation.unaudited:
            self.rotation = replace(self.rotation, unaudited=(*self.rotation.unaudited, record))

    def _audit(self, record: dict[str, object]) -> None:
        """What is not in the audit log is not done, but one thing: closing the gap that an audited set has opened.

        While the target accepts only a value that consumers do not have yet, stopping would lock them out. Then it is
        told aloud, and the record that the journal has is written before the next one, by whichever process that is.
        """
        owed = self.rotation.unaudited
        try:
            for one in owed if record in owed else (*owed, record):
                self.parts.store.audit(one)
                self.rotation = replace(self.rotation, unaudited=self.rotation.unaudited[1:])
        except AuditUnwritable as error:
            if record not in owed:
                raise
            text = f"{error}; consumers are handed what the target accepts already, so that they are not locked out"
            self.parts.watch(Event(self.rotation.secret, "waiting", f"(audit log) {text}"))
            if self.rotation.state is State.RUNNING:  # what has stopped tells why
                self.apply(Change(replace(self.rotation, detail=text)))

    def _record(self, event: str, what: str) -> dict[str, object]:
        rotation = self.rotation
        return {
            "event": event,
            "what": what,
            "secret": rotation.secret,
            "rotation": rotation.id,
            "direction": rotation.direction.value,
            "from": rotation.from_version,
            "to": rotation.to_version,
            "cause": rotation.cause.value if rotation.cause else None,
            "reason": rotation.options.reason,
            "epoch": rotation.epoch,
        }

    # --------------------------------------------------------------------------------------------------------- when

    def awake(self, now: datetime) -> bool:
        """Has it something to do now?"""
        rotation = self.rotation
        if rotation.state not in {State.RUNNING, State.WAITING}:
            return False
        return rotation.not_before is None or rotation.not_before <= now

    @property
    def at_rendezvous(self) -> bool:
        phase = self.rotation.phase
        return phase is not None and phase.step in RENDEZVOUS and not self.rotation.outcome_unknown

    # ------------------------------------------------------------------------------------------------------ versions

    def version(self, end: End) -> SecretVersion | None:
        return self.book.maybe(self.rotation.number(end))

    def versions(self, ends: tuple[End, ...]) -> list[SecretVersion]:
        return [version for end in ends if (version := self.version(end)) is not None]

    def leftovers(self) -> list[SecretVersion]:
        """Earlier versions that nobody retired: something else took the place of their rotation.

        Also a candidate of which this store does not know: after a restored backup it may have been set since.
        """
        ends = {self.rotation.from_version, self.rotation.to_version}
        left = (r for r in self.book.records().values() if r.acceptance is not Acceptance.REFUSED and r.sealed)
        return [self.book.version(record.number) for record in left if record.number not in ends]

    def binding(self) -> Binding:
        """What a version made now is made for."""
        return present_binding(self.rotation.policy, self.parts)

    def _rebound(self, made_for: Binding) -> Binding:
        """Another probe or time-out is not another system: the same one is reached as today's policy says."""
        today = self.binding()
        if made_for.target_kind != today.target_kind or made_for.target_settings == today.target_settings:
            return made_for
        systems = [_system(self.parts, binding) for binding in (made_for, today)]
        return replace(today, strategy=made_for.strategy) if systems[0] and systems[0] == systems[1] else made_for

    # -------------------------------------------------------------------------------------------------------- targets

    def target(self, binding: Binding) -> Target | None:
        """The system that a version was made for, opened once until `close`. None: nobody checks it."""
        for made_for, opened in self._targets:
            if made_for == binding:
                return opened
        target = open_target(self.parts, binding)
        if target is not None:
            self._targets.append((binding, target))
        return target

    def close(self) -> None:
        """Nothing stays open while a rotation sleeps or after its end. Idempotent."""
        targets, self._targets = self._targets, []
        for held in (*(target for _, target in targets), *self._shared(), self.parts.credentials):
            closing = power(held, Closes)
            if closing is not None:
                attempted(self.parts, f"{type(held).__name__}.close", closing.close)

    def _shared(self) -> Iterator[object]:
        """What rotations side by side use too. A kind that is not installed any more holds nothing open."""
        policy, backends = self.rotation.policy, self.parts.backends
        for kind in {spec.kind for _, spec, _ in specs(policy)}:
            with suppress(ConfigurationInvalid):
                yield backends.destination(kind)
        if policy.generator is not None:
            with suppress(ConfigurationInvalid):
                yield backends.generator(policy.generator.kind)

    # ------------------------------------------------------------------------------------------------------- contexts

    def deadline(self) -> Deadline:
        return Deadline(self.parts.clock.monotonic_s() + self.parts.hook_deadline.total_seconds())

    def context(self) -> Context:
        return Context(
            installation=self.parts.store.installation,
            secret=self.rotation.secret,
            epoch=self.rotation.epoch,
            deadline=self.deadline(),
            credentials=self.parts.credentials,
            current=self.version(End.FROM),
            pending=self.version(End.TO),
        )

    def delivery_context(self) -> DeliveryContext:
        return DeliveryContext(
            installation=self.parts.store.installation,
            epochs={self.rotation.secret: self.rotation.epoch},
            deadline=self.deadline(),
            credentials=self.parts.credentials,
        )

    # --------------------------------------------------------------------------------------------------------- places

    def places(self, audience: Audience) -> list[Placed]:
        return [place for place in self.rotation.places if place.audience is audience]

    def groups(self, phase: Phase) -> frozenset[GroupKey]:
        """The delivery groups that a deliver or confirm phase has to settle."""
        return frozenset(place.group for place in self.places(phase.audience))


def _waits(rotation: Rotation) -> str:
    """The reason in parentheses, until when, and why."""
    return described(rotation).removeprefix("waiting ") + (f": {rotation.detail}" if rotation.detail else "")


def _system(parts: Parts, binding: Binding) -> str | None:
    if binding.target_kind is None:
        return None
    named = power(parts.backends.target(binding.target_kind, binding.target_settings, binding.codec), NamesSystem)
    return named.system() if named is not None else None


def merged(earlier: Change | None, later: Change) -> Change:
    """Two judgements as one transaction: facts of one version add up, the later label wins."""
    if earlier is None:
        return later
    facts, new = dict(earlier.facts or {}), later.new_version or earlier.new_version
    for number, change in (later.facts or {}).items():
        told = {name: value for name, value in vars(change).items() if value is not None}
        before = facts.get(number)
        if new is not None and number == new.number:
            new = replace(new, **told)
        else:
            facts[number] = change if before is None else replace(before, **told)
    return Change(
        rotation=later.rotation,
        new_version=new,
        facts=facts or None,
        labels={**(earlier.labels or {}), **(later.labels or {})} or None,
    )


def phase_of(work: Work) -> Phase:
    """The phase that a running rotation stands in; there is none only after its end."""
    phase = work.rotation.phase
    if phase is None:
        raise RuntimeError("a finished track takes no further step")
    return phase


def partly(work: Work, *, begun: bool) -> Rotation:
    """A refusal after a part of the phase was done does not mean that nothing was changed."""
    return replace(work.rotation, doubted=work.rotation.doubted or begun)
