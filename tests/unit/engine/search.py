"""Walks every reachable state of a `Case` and says what is wrong with each.

A violation carries the path that leads to it, so that it can be read as a story and replayed by hand.
"""

from __future__ import annotations

import gc
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.unit.engine.abstract import FOREIGN, ORPHAN, PREVIOUS, Engine, Kind, Ledger, Point
from tests.unit.engine.cases import CASES, Case
from tests.unit.engine.stepping import Stepping
from vaultkeeper.engine import judge, moves, verdict
from vaultkeeper.errors import VaultkeeperError
from vaultkeeper.model.rotation import ENDED, Audience, Cause, Direction, Purpose, Rotation, State, Step
from vaultkeeper.model.secret import Acceptance, Strategy

ENOUGH = 400  # steps without faults in which everything has ended, or it never does
SET_BY_NOBODY = frozenset({Strategy.MINTED, Strategy.MANUAL})  # once its system refuses it
PERSONS_TURN = frozenset({State.PARKED, State.AMBIGUOUS})


@dataclass
class Found:
    """What a search found. `ends`: how often each documented end was reached."""

    case: Case
    states: int = 0
    edges: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    violations: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        ends = ", ".join(f"{name} {count}" for name, count in sorted(self.ends.items()))
        return f"{self.case.name:42} {self.states:7} states {self.edges:8} edges   {ends}"


class Search:
    """Breadth first, so that the first path to a violation is a shortest one."""

    def __init__(self, case: Case, *, stop_at_first: bool = False) -> None:
        self.engine = Stepping(case)
        self.found = Found(case)
        self.case = case
        self.stop_at_first = stop_at_first
        self._number: dict[Point, int] = {}  #: in the order in which they were found
        self._points: list[Point] = []
        self._came: list[tuple[int, str]] = []  #: from which point, by what
        self._calm: dict[int, int] = {}

    def run(self) -> Found:
        self._reach(self.engine.start(), -1, "opened")
        here = 0
        while here < len(self._points) and not (self.stop_at_first and self.found.violations):
            at = self._points[here]
            self._note(here, judge_state(self.engine, at))
            for edge in self.engine.edges(at):
                self.found.edges += 1
                there = self._reach(edge.to, here, edge.label)
                if edge.kind is Kind.CALM:
                    self._calm[here] = there
                if edge.stops:
                    self._note(here, judge_stop(self.engine, edge.to))
            here += 1
        self.found.states = len(self._points)
        if not (self.stop_at_first and self.found.violations):
            self._judge_convergence()
        return self.found

    def walked(self) -> Iterator[tuple[Point, Point, str]]:
        """Every edge, once the search has run."""
        for at in self._points:
            for edge in self.engine.edges(at):
                yield at, edge.to, edge.label

    def _reach(self, to: Point, came: int, label: str) -> int:
        number = self._number.setdefault(to, len(self._points))
        if number == len(self._points):
            self._points.append(to)
            self._came.append((came, label))
        return number

    # ----------------------------------------------------------------------------------------------------- convergence

    def _judge_convergence(self) -> None:
        """Invariant 7: when faults stop, one restart reaches an end, or a person's turn that says so."""
        ends: dict[int, int] = {}
        for start, at in enumerate(self._points):
            path: list[int] = []
            here = start
            while here not in ends and here in self._calm and len(path) < ENOUGH:
                path.append(here)
                here = self._calm[here]
                if self._points[here].live is None and self._is_a_stop(self._points[here]):
                    break
            end = ends.get(here, here)
            if len(path) >= ENOUGH:
                self._note(start, ["it never ends, though nothing goes wrong any more"])
                return
            ends.update(dict.fromkeys(path, end))
            if at.live is None:
                self._judge_restart(start, self._points[end])

    def _is_a_stop(self, at: Point) -> bool:
        rotation = self.engine.rotation(at.durable)
        return not rotation.open or rotation.state in PERSONS_TURN

    def _judge_restart(self, start: int, end: Point) -> None:
        at = self._points[start]
        before, after = self.engine.rotation(at.durable), self.engine.rotation(end.durable)
        if not before.open:
            name = before.state.value
            self.found.ends[name] = self.found.ends.get(name, 0) + 1
            return
        if before.state in PERSONS_TURN:
            name = f"{before.state.value}({before.cause.value if before.cause else '?'})"
            self.found.ends[name] = self.found.ends.get(name, 0) + 1
        if after.open and not stuck_with_reason(self.case, at, after):
            described = self.engine.once(end.durable, words).described
            self._note(start, [f"one restart without faults ends in {described}: {after.detail}"])

    # ------------------------------------------------------------------------------------------------------------ notes

    def _note(self, at: int, wrongs: Iterable[str]) -> None:
        for wrong in wrongs:
            self.found.violations.setdefault(wrong, self.story(at))

    def story(self, at: int) -> list[str]:
        """How one gets there, a line for each step."""
        told: list[str] = []
        while at >= 0:
            point, (came, label) = self._points[at], self._came[at]
            rotation = self.engine.rotation(point.live or point.durable)
            phase = rotation.phase.step.value if rotation.phase else "end"
            told.append(
                f"{label}  →  {rotation.direction.value} {rotation.at}:{phase} {rotation.state.value}"
                f"{' in doubt' if rotation.outcome_unknown else ''}{'' if point.live else ', no process'}; "
                f"accepts {sorted(point.world.accepted)}; "
                f"consumers {[sorted(g.may_run | {g.written}) for g in point.world.groups]}"
            )
            at = came
        return told[::-1]


def stuck_with_reason(case: Case, at: Point, after: Rotation) -> bool:
    """A person's turn that no restart can end: the target was put back, or nobody can undo the first version."""
    if after.cause is Cause.CHECKS_NOTHING:
        return after.direction is Direction.BACK and after.phase is None
    lost = {Cause.TARGET_WENT_BACK, Cause.NONE_ACCEPTED, Cause.OLD_REFUSED, Cause.NO_WAY_BACK, Cause.STILL_ACCEPTED}
    return (at.world.restored or case.dead) and after.cause in lost


# ---------------------------------------------------------------------------------------------------------- every state


def judge_state(engine: Engine, at: Point) -> Iterator[str]:
    """What holds at every instant, whatever was killed."""
    case, world = engine.case, at.world
    stored = {value for _, value in at.durable.values}
    ledgers = [ledger for ledger in (at.durable, at.live) if ledger]
    visible = {value for group in world.groups for value in group.written}
    if case.strategy is not Strategy.MANUAL:  # there a person made the value, at its system
        visible |= world.accepted
    if visible - stored - {FOREIGN, ORPHAN}:
        yield f"durable before visible: {sorted(visible - stored)} is nowhere stored"
    begins_with_one = not (case.first or case.dead) or (
        any(engine.rotation(ledger).finished for ledger in ledgers) and not world.restored
    )
    if case.checked and begins_with_one and not world.accepted & stored:
        yield "reachable: no stored version is accepted"
    if case.account_usable and not case.replace and FOREIGN not in world.accepted and not world.restored:
        yield "an account in use was taken over without --replace"
    if not consumers_hold_accepted(engine, at) and not excused(engine, at, ledgers):
        yield "a consumer holds a refused value"
    if case.strategy is Strategy.PREVIOUS_KEYS:
        yield from _keys_everywhere(at)
    if hands_out_a_refused_value(engine, at):
        yield "going back hands out a value that the target is known to refuse"


def hands_out_a_refused_value(engine: Engine, at: Point) -> bool:
    """With one fault what took it away was the only one, so the look before the way back got its answer.

    What a machine can set again is handed out where neither works: it is set right after.
    """
    rotation = engine.rotation(at.live or at.durable)
    phase, known = rotation.phase, knew_that_the_old_one_is_refused(engine, at)
    delivers = phase is not None and phase.step is Step.DELIVER and phase.audience is Audience.CONSUMERS
    old, new = at.durable.value(rotation.from_version), at.durable.value(rotation.to_version)
    goes_back = rotation.direction is Direction.BACK and rotation.begun and delivers
    lasting = new in at.world.accepted or engine.case.strategy in SET_BY_NOBODY
    return known and goes_back and lasting and old not in at.world.accepted


def knew_that_the_old_one_is_refused(engine: Engine, at: Point) -> bool:
    return engine.case.faults == 1 and at.world.old_refused and not engine.case.unverified


def consumers_hold_accepted(engine: Engine, at: Point) -> bool:
    if not engine.case.checked:
        return True
    held = {values[0] for group in at.world.groups for values in (group.written, *group.may_run) if values}
    return held <= at.world.accepted


def excused(engine: Engine, at: Point, ledgers: list[Ledger]) -> bool:
    """The stated gap of `single`; after a restored target, and after --cut, until the next command has ended."""
    if at.world.restored or any(engine.rotation(ledger).unverified.startswith("cut ") for ledger in ledgers):
        return True
    if engine.case.dead and at.round == 0 and not all(engine.rotation(ledger).finished for ledger in ledgers):
        return True
    return any(engine.once(ledger, in_the_gap) for ledger in ledgers)


def in_the_gap(rotation: Rotation) -> bool:
    """Between the set that refuses the old value and the end of the deliveries; and the same on the way back."""
    return (
        rotation.policy.strategy is Strategy.SINGLE
        and rotation.open
        and not rotation.finished
        and judge.needs_observation(rotation)
    )


def _keys_everywhere(at: Point) -> Iterator[str]:
    """Whatever one consumer encrypts, every other can read."""
    lists = [values for group in at.world.groups for values in (group.written, *group.may_run) if values]
    unread = {mine[0] for mine in lists for other in lists if mine[0] not in other}
    if unread:
        yield f"data encrypted with {sorted(unread)} cannot be read everywhere"


# ------------------------------------------------------------------------------------------------- where a command ends


class Words(NamedTuple):
    """What a command that ends here says."""

    code: int
    told: VaultkeeperError | None
    described: str


def words(rotation: Rotation) -> Words:
    return Words(verdict.exit_code(rotation), verdict.told(rotation), verdict.described(rotation))


def judge_stop(engine: Engine, at: Point) -> Iterator[str]:
    """Exit code, cause, next command; and for an end, that all is as that end says."""
    rotation = engine.rotation(at.durable)
    code, told, described = engine.once(at.durable, words)
    served = consumers_hold_accepted(engine, at)
    unknowing = at.world.restored or rotation.unverified.startswith("cut ")
    if code in {0, 5} and not served and not unknowing:
        yield f"exit {code} in {described}, but a consumer holds a refused value"
    back = rotation.state is State.ROLLED_BACK and rotation.cause not in moves.NOTHING_IS_BACK
    if code == 6 and back and served and not unknowing:
        yield f"exit 6 in {described}, but every consumer holds an accepted value"
    if rotation.state in PERSONS_TURN and (rotation.cause is None or told is None or not told.next or not told.why):
        yield f"{described} names no cause or no next command"
    if described == "parked (unsupported)" and engine.case.strategy is Strategy.MINTED and not _anything_works(at):
        yield f"{described}, but nothing works any more"
    looked = rotation.state is State.ROLLED_BACK and any(phase.step is Step.OBSERVE for phase in rotation.back)
    unknowing = unknowing and not (looked and knew_that_the_old_one_is_refused(engine, at))
    if told is not None and not unknowing and engine.case.checked:
        yield from _says_what_works(at, told.works)
    if rotation.state in ENDED:
        yield from _judge_end(engine, at, rotation)


def _anything_works(at: Point) -> bool:
    return at.durable.labels[1] is None or bool({value for _, value in at.durable.values} & at.world.accepted)


def _says_what_works(at: Point, works: str) -> Iterator[str]:
    """The first clause names the versions that work: all of them, or with "or" one of them."""
    claim = works.partition(":")[0]
    if claim.startswith("an older version than "):  # which it does not say to work
        return
    numbers = [int(number) for number in re.findall(r"v(\d+)", claim)]
    accepted = [at.durable.value(number) in at.world.accepted for number in numbers]
    if numbers and not (any(accepted) if " or " in claim else all(accepted)):
        yield f"it says that {works!r}, which is not so"


def _judge_end(engine: Engine, at: Point, rotation: Rotation) -> Iterator[str]:
    case, world = engine.case, at.world
    pending, current, previous = at.durable.labels
    forward = rotation.state is State.DONE and rotation.purpose is not Purpose.REHEARSE
    kept, left = rotation.to_version, rotation.from_version
    if not forward:
        kept, left = left, kept
    if pending is not None:
        yield f"{rotation.state.value}: a PENDING is left over"
    if current != kept or (forward and previous != left):
        yield f"{rotation.state.value}: the labels say v{current} and v{previous}, not v{kept} and v{left}"
    yield from _judge_places(engine, at, rotation, kept)
    if not world.restored and case.checked:
        yield from _judge_target(engine, at, rotation, (kept, left))


def _judge_places(engine: Engine, at: Point, rotation: Rotation, kept: int | None) -> Iterator[str]:
    world, value = at.world, at.durable.value(kept)
    before = engine.held_before() or None
    for group in world.groups:
        if group.written[:1] != ((value,) if value is not None else (before or ())[:1]):
            yield f"{rotation.state.value}: a consumer holds {group.written}, not v{kept}"
        leaked = at.durable.value(rotation.from_version)
        dropped = rotation.state is State.DONE and rotation.options.data_loss
        if dropped and rotation.purpose is Purpose.EMERGENCY and leaked in group.written:
            yield f"done: the leaked key is still in the list {group.written}"
        if group.may_run != {group.written} and not rotation.unverified.startswith("cut "):
            yield f"{rotation.state.value}: a consumer may not run on {group.written}"


def _judge_target(
    engine: Engine, at: Point, rotation: Rotation, versions: tuple[int | None, int | None]
) -> Iterator[str]:
    case, world = engine.case, at.world
    kept, left = versions
    value, other = at.durable.value(kept), at.durable.value(left)
    as_before = case.dead and rotation.state is State.ROLLED_BACK
    if value is not None and value not in world.accepted and not as_before:
        yield f"{rotation.state.value}: the target does not accept v{kept}"
    if ORPHAN in world.accepted:
        yield f"{rotation.state.value}: a minted value is left behind"
    persons_task = case.strategy is Strategy.MANUAL and rotation.state is State.ROLLED_BACK
    if other in world.accepted and other != value and not persons_task:
        yield f"{rotation.state.value}: the target still accepts v{left}"
    unretired = [n for n, fact in at.durable.facts if fact.acceptance != "refused" and n not in {kept, left}]
    strays = [n for n in unretired if at.durable.value(n) in world.accepted - {value, other}]
    if forward_only(rotation) and strays:
        yield f"done: the target still accepts {strays}, which another rotation left"
    if case.back and at.round == 0 and forward_only(rotation) and PREVIOUS in world.accepted:
        yield "done: the target accepts what was back before it was looked at"
    if rotation.state is State.ROLLED_BACK and left and dict(at.durable.facts)[left].acceptance != "refused":
        yield f"rolled_back: v{left} was discarded and is not recorded as refused"
    verified = [number for number, fact in at.durable.facts if fact.verified]
    if kept is not None and max(verified, default=None) != kept:
        yield f"{rotation.state.value}: `get` resolves to v{max(verified, default=None)}, not to v{kept}"
    acceptance = dict(at.durable.facts).get(kept or -1)
    if acceptance is not None and acceptance.acceptance == Acceptance.REFUSED.value:
        yield f"{rotation.state.value}: v{kept} is in use and recorded as refused"


def forward_only(rotation: Rotation) -> bool:
    return rotation.state is State.DONE and rotation.purpose in {Purpose.ROTATE, Purpose.EMERGENCY}


def search(case: Case, *, stop_at_first: bool = False) -> Found:
    """Walk everything. All that is made is kept: looking for garbage among it takes a sixth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        return Search(case, stop_at_first=stop_at_first).run()
    finally:
        if was_on:
            gc.enable()


def main(words: list[str]) -> int:
    """`python -m tests.unit.engine.search [FAULTS] [NAME…]`: counts and, for each violation, how one gets there."""
    faults = int(words.pop(0)) if words and words[0].isdigit() else 2
    chosen = [replace(case, faults=faults) for case in CASES if not words or case.name.startswith(tuple(words))]
    found = []
    for case in chosen:
        began = time.monotonic()
        found.append(search(case))
        print(f"{found[-1]}   {time.monotonic() - began:.1f} s", flush=True)
        for wrong, path in found[-1].violations.items():
            print("\n        ".join([f"  ✗ {wrong}", *path]))
    print(f"{sum(one.states for one in found)} states, {sum(len(one.violations) for one in found)} kinds of violation")
    return int(any(one.violations for one in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
