"""An abstract installation: what a target accepts, what consumers hold, what is in the store; and every step that the
engine takes in it, spelled as engine/steps.py, handover.py, work.py and rollback.py spell it.

Values are small integers; a version's number is its value unless it copies another's. `judge` and `moves` decide,
looked up on their modules, so that a test may put a mutated row in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, replace
from enum import Enum
from operator import attrgetter
from typing import NamedTuple, TypeVar

from tests.unit.engine.cases import LATER, T0, Case
from vaultkeeper.engine import moves, plan
from vaultkeeper.model.rotation import Cause, Direction, Phase, Purpose, Rotation, State
from vaultkeeper.model.secret import Acceptance, StagingLabel, Strategy
from vaultkeeper.ports import Change, VersionChange

PREVIOUS, FROM, TO = 1, 2, 3
FOREIGN = 0  #: a value that nobody here knows
ORPHAN = 30  #: a minted value that was lost before it was stored
Values = tuple[int, ...]
Asked = TypeVar("Asked")


class Group(NamedTuple):
    """A consumer. Between a delivery and its confirm it may run on what was there before or on what is there now."""

    written: Values  #: primary first
    may_run: frozenset[Values]


class World(NamedTuple):
    accepted: frozenset[int]
    groups: tuple[Group, ...]
    restored: bool = False  #: the target was put back, and nothing of ours has been set since
    old_refused: bool = False  #: somebody took the old value away before anybody went back to it


class Fact(NamedTuple):
    acceptance: str = Acceptance.UNKNOWN.value  # hashed a million times: a word is faster than its Enum
    verified: bool = False
    compromised: bool = False


class Ledger(NamedTuple):
    """The store. `rotation` is an index into `Engine.rotations`."""

    rotation: int
    labels: tuple[int | None, int | None, int | None]  #: PENDING, CURRENT, PREVIOUS
    facts: tuple[tuple[int, Fact], ...]
    values: tuple[tuple[int, int], ...]  #: version → value; absent: not made yet

    def value(self, number: int | None) -> int | None:
        return None if number is None else dict(self.values).get(number)


class Point(NamedTuple):
    """A reachable state. `live`: the store with what the process has judged and not yet written; None: no process."""

    world: World
    durable: Ledger
    live: Ledger | None
    faults: int
    round: int = 0  #: 1: a rollback or an emergency came after the first rotation
    hastened: bool = False


class Kind(Enum):
    CALM = "calm"  #: what happens when nothing goes wrong
    CHOICE = "choice"  #: time or a person decides
    FAULT = "fault"


class Edge(NamedTuple):
    kind: Kind
    label: str
    to: Point
    stops: bool = False  #: a command ends here: its exit code is judged


_THE_SAME = {"id", "secret", "policy", "options", "places", "receipts", "opened_at", "entered_at", "epoch"}
_KEY = attrgetter(*(f.name for f in fields(Rotation) if f.name not in _THE_SAME | {"phases", "back"}))
ALIKE = frozenset(
    {Cause.DELIVERY, Cause.CONFIRM_TIMEOUT, Cause.PRIVILEGE, Cause.CAPACITY, Cause.UNSUPPORTED, Cause.ASKED}
)
"""Causes that nothing on the way back looks at: with two faults one of them stands for all."""
LABELS = (StagingLabel.PENDING, StagingLabel.CURRENT, StagingLabel.PREVIOUS)


class Engine:
    """All moves out of a `Point`."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rotations: list[Rotation] = []
        self._index: dict[tuple[object, ...], int] = {}
        self._tracks: dict[int, tuple[tuple[Phase, ...], int]] = {}
        self._numbers: dict[tuple[Phase, ...], int] = {}
        self._memo: dict[tuple[int, Hashable], tuple[int, Change]] = {}
        self._asked: dict[tuple[int, Callable[[Rotation], object]], object] = {}

    # ----------------------------------------------------------------------------------------------------- beginning

    def start(self) -> Point:
        case = self.case
        known = () if case.first else ((PREVIOUS, PREVIOUS), (FROM, FROM))
        old = Acceptance.ACCEPTED if case.strategy is Strategy.PREVIOUS_KEYS else Acceptance.REFUSED
        leaked = case.purpose is Purpose.EMERGENCY
        now = Fact(Acceptance.ACCEPTED.value, True, leaked)
        facts = () if case.first else ((PREVIOUS, Fact(old.value)), (FROM, now))
        empty = Ledger(-1, (None, None, None) if case.first else (None, FROM, PREVIOUS), facts, known)
        gone = Cause.TARGET_WENT_BACK if case.back else Cause.NONE_ACCEPTED
        ledger = self._opened(empty, case.purpose, gone if case.dead else None)
        held = self.held_before()
        world = World(self.accepted_before(), (Group(held, frozenset([held])),) * case.groups)
        return Point(world, ledger, ledger, case.faults)

    def accepted_before(self) -> frozenset[int]:
        if not self.case.checked:
            return frozenset()
        if self.case.first:
            return frozenset([FOREIGN] if self.case.account_usable else [])
        working = [] if self.case.dead else [FROM]
        return frozenset([PREVIOUS, *working] if self.case.back else working)

    def held_before(self) -> Values:
        if self.case.first:
            return (FOREIGN,) if self.case.account_usable else ()
        return (FROM, PREVIOUS) if self.case.strategy is Strategy.PREVIOUS_KEYS else (FROM,)

    def _opened(self, ledger: Ledger, purpose: Purpose, gone: Cause | None = None) -> Ledger:
        current, previous = ledger.labels[1], ledger.labels[2]
        policy = self.case.policy
        lost = self.case.data_loss and purpose is Purpose.EMERGENCY
        shape = plan.shape_of(policy, first=current is None, purpose=purpose, data_loss=lost)
        rotation = Rotation(
            id="80" * 16,
            secret=policy.name,
            policy=policy,
            phases=plan.plan(shape),
            opened_at=T0,
            entered_at=T0,
            purpose=purpose,
            options=self.case.options,
            from_version=current,
            previous_version=previous,
            gone=gone,
        )
        return ledger._replace(rotation=self._intern(rotation))

    def rotation(self, ledger: Ledger) -> Rotation:
        return self.rotations[ledger.rotation]

    def once(self, ledger: Ledger, ask: Callable[[Rotation], Asked]) -> Asked:
        """What `ask` says of the rotation: a function of it alone, asked a hundred thousand times."""
        key = (ledger.rotation, ask)
        if key not in self._asked:
            self._asked[key] = ask(self.rotation(ledger))
        return self._asked[key]  # type: ignore[return-value]

    def _track(self, phases: tuple[Phase, ...]) -> int:
        """A number for equal phases; hashed once for each tuple."""
        if id(phases) not in self._tracks:
            self._tracks[id(phases)] = (phases, self._numbers.setdefault(phases, len(self._numbers)))
        return self._tracks[id(phases)][1]

    def _intern(self, rotation: Rotation) -> int:
        """Instants fold into "now" and "later": what time decides is a choice."""
        rotation = replace(
            rotation,
            entered_at=T0,
            ended_at=T0 if rotation.ended_at else None,
            not_before=LATER if rotation.not_before else None,
            detail="…" if rotation.detail else "",  # texts tell people, they decide nothing; nor does what is measured
            why_back="",
            gap_opened_at=None,
            gap=None,
        )
        if self.case.faults > 1 and rotation.direction is Direction.BACK and rotation.open and rotation.cause in ALIKE:
            rotation = replace(rotation, cause=Cause.ASKED) if rotation.state is not State.PARKED else rotation
        key = (self._track(rotation.phases), self._track(rotation.back), *_KEY(rotation))
        if key not in self._index:
            self._index[key] = len(self.rotations)
            self.rotations.append(rotation)
        return self._index[key]

    # ----------------------------------------------------------------------------------------------------- judgements

    def judged(self, at: Point, event: Hashable, decide: Callable[[Rotation], Change]) -> Point:
        """The process takes a judgement over; it is durable with the next write."""
        live = at.live
        assert live is not None
        key = (live.rotation, event)
        if key not in self._memo:
            change = decide(self.rotations[live.rotation])
            assert change.rotation is not None
            self._memo[key] = (self._intern(change.rotation), change)
        index, change = self._memo[key]
        after = with_change(Ledger(index, *live[1:]), change)
        return Point(at.world, at.durable, after, *at[3:])  # three times as fast as _replace

    def begun(self, at: Point) -> Point:
        """Journalled before it reaches outside: the only way to the world."""
        at = self.judged(at, "begin", lambda r: Change(moves.begin(r, T0)))
        assert at.live is not None
        return at._replace(durable=at.live)

    # ---------------------------------------------------------------------------------------------------------- edges

    def run(self, at: Point) -> Iterator[Edge]:
        """The next thing that the process does (`stepping.py`)."""
        raise NotImplementedError

    def edges(self, at: Point) -> Iterator[Edge]:
        if at.live is None:
            yield from self._commands(at)
        else:
            yield from self.run(at)
            if at.faults:
                yield crash(at, at.world)
        if at.faults and self.case.checked:
            yield from self._restored(at)
            yield from self._operator_refuses_the_old_one(at)

    def _restored(self, at: Point) -> Iterator[Edge]:
        """The target comes back from a backup: of before this rotation, or of before the one before it."""
        backups = {self.accepted_before()} | (set() if self.case.first else {frozenset([PREVIOUS])})
        rotation = self.rotation(at.live or at.durable)
        old, forward = at.durable.value(rotation.from_version), rotation.direction is Direction.FORWARD
        for backup in backups:
            if backup != at.world.accepted:
                refused = at.world.old_refused or (forward and rotation.open and old not in backup)
                world = at.world._replace(accepted=backup, restored=True, old_refused=refused)
                yield Edge(Kind.FAULT, f"target restored to {sorted(backup)}", less(at)._replace(world=world))

    def _operator_refuses_the_old_one(self, at: Point) -> Iterator[Edge]:
        """While the target accepts both, both are stored, and the rotation goes forward still."""
        rotation = self.rotation(at.live or at.durable)
        old, new = at.durable.value(rotation.from_version), at.durable.value(rotation.to_version)
        forward = rotation.direction is Direction.FORWARD and rotation.open and not rotation.finished
        if forward and old is not None and old != new and {old, new} <= at.world.accepted:
            world = at.world._replace(accepted=at.world.accepted - {old}, restored=True, old_refused=True)
            yield Edge(Kind.FAULT, f"operator refuses {old}", less(at)._replace(world=world))

    def _commands(self, at: Point) -> Iterator[Edge]:
        """What a person or the daemon may do while no process runs."""
        rotation = self.rotation(at.durable)
        if rotation.open:
            yield Edge(Kind.CALM, "resume", self._taken(at, "resume", lambda r: Change(moves.resumed(r, T0))))
            if rotation.finished:
                if at.round == 0 and rotation.purpose is not Purpose.EMERGENCY and not at.hastened:
                    hastened = self._taken(at, "hasten", lambda r: Change(moves.hastened(moves.resumed(r, T0), T0)))
                    yield Edge(Kind.CHOICE, "--emergency in grace", hastened._replace(hastened=True))
            else:
                back = self._taken(at, "rollback", lambda r: moves.sent_back(r, T0))
                yield Edge(Kind.CHOICE, "rollback", back)
                return
        if self.case.dead and at.durable.labels[1] == FROM:
            return  # as it was before
        clean = at.faults == self.case.faults or at.world.restored
        if at.round == 0 and (rotation.open or clean):  # every other end leaves the same world as a clean one
            yield from self._follow_ups(at, rotation)

    def _follow_ups(self, at: Point, rotation: Rotation) -> Iterator[Edge]:
        current, previous = at.durable.labels[1], at.durable.labels[2]
        if previous is not None and self._can_go_back_to(at.durable, previous):
            opened = self._opened(at.durable, Purpose.ROLLBACK)
            yield Edge(Kind.CHOICE, "rollback after finish", at._replace(durable=opened, live=opened, round=1))
        if current is not None and rotation.purpose is Purpose.ROTATE:  # an open one is past its finish: overtaken
            leaked = VersionChange(compromised=True)
            opened = self._opened(with_change(at.durable, Change(facts={current: leaked})), Purpose.EMERGENCY)
            yield Edge(Kind.CHOICE, "rotate --emergency", at._replace(durable=opened, live=opened, round=1))

    def _can_go_back_to(self, ledger: Ledger, number: int) -> bool:
        fact = dict(ledger.facts)[number]
        retired = fact.acceptance == Acceptance.REFUSED.value
        blind = self.case.strategy in plan.BY_HAND and self.case.unverified is not None
        possible = self.case.strategy in plan.ROLLS_BACK_AFTER_RETIRE and not blind
        return not fact.compromised and not (retired and not possible) and number in dict(ledger.values)

    def _taken(self, at: Point, event: str, move: Callable[[Rotation], Change]) -> Point:
        """By another process: what was begun has an unknown outcome, and time has passed."""

        def take(rotation: Rotation) -> Change:
            return move(replace(moves.taken_up(rotation), not_before=None))

        return self.judged(at._replace(live=at.durable), event, take)


def less(at: Point) -> Point:
    return Point(at.world, at.durable, at.live, at.faults - 1, at.round, at.hastened)


def crash(at: Point, world: World) -> Edge:
    """Only what was written is left."""
    return Edge(Kind.FAULT, "killed", less(at)._replace(world=world, live=None))


def with_change(ledger: Ledger, change: Change) -> Ledger:
    if change.facts:
        facts = dict(ledger.facts)
        for number, told in change.facts.items():
            before = facts.get(number, Fact())
            facts[number] = Fact(
                told.acceptance.value if told.acceptance else before.acceptance,
                before.verified if told.verified is None else told.verified,
                before.compromised if told.compromised is None else told.compromised,
            )
        ledger = ledger._replace(facts=tuple(sorted(facts.items())))
    if change.labels:
        labels = dict(zip(LABELS, ledger.labels, strict=True))
        labels.update(change.labels)
        ledger = ledger._replace(labels=(labels[LABELS[0]], labels[LABELS[1]], labels[LABELS[2]]))
    return ledger
