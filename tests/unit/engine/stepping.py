"""Every step of a rotation in the abstract installation, with all that may go wrong in it.

Spelled as engine/steps.py, handover.py and observe.py spell it: who asks what, and what is written before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tests.unit.engine.abstract import FROM, ORPHAN, Edge, Engine, Fact, Group, Kind, Point, Values, World, crash, less
from tests.unit.engine.cases import CHECKER_GROUP, LATER, T0, Case
from vaultkeeper.engine import judge, moves, plan
from vaultkeeper.engine.judge import Proved, Seen, Tested
from vaultkeeper.model.outcome import Confirmed, Done, Failed, Login, No, NotYet, Proof, Refused, Result, Unknown, Usage
from vaultkeeper.model.rotation import Audience, Cause, Direction, End, Phase, Purpose, Rotation, State, Step
from vaultkeeper.model.secret import Acceptance, GroupKey, StagingLabel, Strategy
from vaultkeeper.ports import Change, VersionChange


class Stepping(Engine):
    """What a running process does next."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._steps: dict[Step, Callable[[Point, Rotation, Phase], Iterator[Edge]]] = {
            Step.OBSERVE: self._observe,
            Step.CREATE: self._create,
            Step.MINT: self._mint,
            Step.PREPARE: self._prepare,
            Step.BARRIER: self._barrier,
            Step.SET: self._set,
            Step.TEST: self._test,
            Step.DELIVER: self._deliver,
            Step.CONFIRM: self._confirm,
            Step.FINISH: self._finish,
            Step.GRACE: self._grace,
            Step.RELEASE: self._release,
            Step.EVIDENCE: self._evidence,
            Step.RETIRE: self._set,
            Step.PROVE: self._prove,
        }

    # ----------------------------------------------------------------------------------------------------------- steps

    def run(self, at: Point) -> Iterator[Edge]:
        assert at.live is not None
        rotation = self.rotation(at.live)
        asleep = rotation.not_before is not None
        if rotation.state not in {State.RUNNING, State.WAITING} or (asleep and rotation.state is State.WAITING):
            yield Edge(Kind.CALM, "the command ends", at._replace(durable=at.live, live=None), stops=True)
        elif asleep:
            awake = self.judged(at, "wake", lambda r: Change(replace(r, not_before=None)))
            yield Edge(Kind.CALM, "sleeps", awake._replace(durable=at.live))
        elif rotation.outcome_unknown:
            yield from self._resolve_doubt(at, rotation)
        else:
            assert rotation.phase is not None
            yield from self._steps[rotation.phase.step](at, rotation, rotation.phase)

    def _answers(self, at: Point, event: str, outcomes: Mapping[str, Callable[[Rotation], Change]]) -> Iterator[Edge]:
        """The first outcome is what happens when nothing goes wrong; the others are faults, and need some left."""
        for number, (label, decide) in enumerate(outcomes.items()):
            if number == 0:
                yield Edge(Kind.CALM, f"{event}: {label}", self.judged(at, (event, label), decide))
            elif at.faults:
                yield Edge(Kind.FAULT, f"{event}: {label}", self.judged(less(at), (event, label), decide))

    def _choice(self, at: Point, label: str, decide: Callable[[Rotation], Change]) -> Edge:
        return Edge(Kind.CHOICE, label, self.judged(at, label, decide))

    def _outward(
        self, begun: Point, event: str, after: World, decide: Callable[[Rotation, Result], Change]
    ) -> Iterator[Edge]:
        """One writing call: it works, the process dies before or after it, its reply is lost, it is refused."""
        done = begun._replace(world=after)
        yield Edge(Kind.CALM, event, self.judged(done, event, lambda r: decide(r, Done())))
        if not begun.faults:
            return
        yield crash(begun, begun.world)
        yield crash(begun, after)
        lost = Unknown(Login.UNREACHABLE)
        unknown = self.judged(less(done), (event, lost), lambda r: decide(r, lost))
        yield Edge(Kind.FAULT, f"{event}: reply lost", unknown)
        yield from self._unanswered(begun, event, decide)

    def _unanswered(self, at: Point, event: str, decide: Callable[[Rotation, Result], Change]) -> Iterator[Edge]:
        """Nothing was changed: out of reach, throttled, or refused for certain."""
        refusals = [Refused(no, no.value) for no in self._refusals(event)]
        answers: list[Result] = [Unknown(Login.UNREACHABLE), Unknown(Login.THROTTLED), *refusals]
        for answer in answers:
            label = f"{event}: {answer.why.value if isinstance(answer, Refused) else 'silent'}"
            judged = self.judged(less(at), (event, str(answer)), lambda r, a=answer: decide(r, a))  # type: ignore[misc]
            yield Edge(Kind.FAULT, label, judged)
        endless = Refused(No.CONFLICT, "again and again")
        judged = self.judged(
            less(at), (event, "conflicts"), lambda r: decide(replace(r, tries=judge.MAX_CONFLICTS), endless)
        )
        yield Edge(Kind.FAULT, f"{event}: conflicts without end", judged)

    def _refusals(self, event: str) -> list[No]:
        """Only a target can be found to check nothing. With two faults, one refusal stands for those judged alike."""
        alike = {No.CAPACITY, No.UNSUPPORTED} if self.case.faults > 1 else set()
        elsewhere = set() if event.split(maxsplit=1)[0] in {"create", "set", "retire"} else {No.UNCHECKED}
        return [no for no in No if no not in alike | elsewhere]

    # ------------------------------------------------------------------------------------------------------- observing

    def _look(self, at: Point, rotation: Rotation) -> dict[str, Seen]:
        """Every answer of an observation; the true one first."""
        live = at.live
        assert live is not None
        if not self.case.checked or self.case.unverified:
            return {"not askable": Seen(askable=False, detail=self.case.unverified or "")}

        def answers(of: Callable[[int], Login], **also: Any) -> Seen:
            to, from_, previous = (
                None if (value := live.value(number)) is None else of(value)
                for number in (rotation.to_version, rotation.from_version, rotation.previous_version)
            )
            return Seen(to, from_, previous, **also)

        usable = bool(at.world.accepted)
        truth = answers(
            lambda value: Login.ACCEPTED if value in at.world.accepted else Login.REJECTED, account_usable=usable
        )
        label = f"sees {[a and a.value for a in (truth.to, truth.from_, truth.previous)]}, usable {usable}"
        seen = {label: truth}
        for silence in judge.NO_ANSWER:
            seen[silence.value] = answers(lambda _value, s=silence: s, unanswered=silence)  # type: ignore[misc]
        if rotation.from_version is not None and not self.case.self_service:
            seen["newer tag"] = Seen(newer_tag=True, detail="a newer generation")
        return seen

    def _observe(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        outcomes: dict[str, Callable[[Rotation], Change]] = {
            label: (lambda r, s=seen: judge.judge_seen(r, s, T0))  # type: ignore[misc]
            for label, seen in self._look(at, rotation).items()
        }
        if rotation.direction is Direction.BACK:
            outcomes["refused"] = lambda r: judge.judge_seen(r, Seen(askable=False), T0)
            yield from self._answers(at, "observe before handing back", outcomes)
            return
        for answer in (Refused(No.PRIVILEGE, "no right to look"), Unknown(Login.UNREACHABLE)):
            outcomes[str(answer)] = lambda r, a=answer: judge.judge_result(r, a, T0)  # type: ignore[misc]
        yield from self._answers(at, "observe", outcomes)

    def _resolve_doubt(self, at: Point, rotation: Rotation) -> Iterator[Edge]:
        if not judge.needs_observation(rotation):
            yield Edge(Kind.CALM, "no doubt", self.judged(at, "no doubt", _cleared))
            return
        outcomes: dict[str, Callable[[Rotation], Change]] = {
            label: (lambda r, s=seen: judge.judge_seen(r, s, T0))  # type: ignore[misc]
            for label, seen in self._look(at, rotation).items()
        }
        outcomes["refused"] = lambda r: moves.park(r, Cause.PRIVILEGE, "no right to look")
        yield from self._answers(at, "look", outcomes)

    # -------------------------------------------------------------------------------------------------- making a value

    def _create(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        live = at.live
        assert live is not None
        number = max((n for n, _ in live.facts), default=FROM) + 1
        if self.case.strategy is Strategy.ALTERNATING_USERS and number % 2 == (rotation.from_version or 0) % 2:
            number += 1  # accounts take turns: odd values live on one, even ones on the other
        copied = live.value(rotation.previous_version) if rotation.purpose is Purpose.ROLLBACK else None
        minted = self.case.strategy is Strategy.MINTED and copied is None
        values = live.values if minted else (*live.values, (number, copied or number))
        ledger = live._replace(values=values, facts=(*live.facts, (number, Fact())))

        def made(r: Rotation) -> Change:
            change = moves.advance(replace(r, to_version=number), T0)
            return replace(change, labels={StagingLabel.PENDING: number})

        by_hand = self.case.strategy is Strategy.MANUAL and rotation.purpose is not Purpose.ROLLBACK
        world = at.world._replace(accepted=at.world.accepted | {number}) if by_hand else at.world
        created = at._replace(live=ledger, world=world)
        yield Edge(Kind.CALM, "create", self.judged(created, ("create", number), made))
        if by_hand:
            wanting = NotYet("a person supplies this value", LATER - T0)
            yield self._choice(at, "create: no input yet", lambda r: judge.judge_result(r, wanting, T0))
        if at.faults:
            yield from self._unanswered(at, "create", lambda r, a: judge.judge_result(r, a, T0))

    def _mint(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        """Found by name after a crash, an orphan is dropped; the value is durable before any use."""
        live, to = at.live, rotation.to_version
        assert live is not None and to is not None  # noqa: PT018
        if live.value(to) is not None:
            yield Edge(Kind.CALM, "minted before", self.judged(at, "minted", lambda r: moves.advance(r, T0)))
            return
        begun = self.begun(at)
        there = begun.world.accepted - {ORPHAN}
        lost = begun.world._replace(accepted=there | {ORPHAN})
        for edge in self._outward(begun, "mint", lost, lambda r, a: judge.judge_result(r, a, T0)):
            if edge.kind is not Kind.CALM:
                yield edge
                continue
            kept = edge.to.live
            assert kept is not None
            ledger = kept._replace(values=(*kept.values, (to, to)))
            world = lost._replace(accepted=there | {to})
            yield Edge(Kind.CALM, "mint", edge.to._replace(world=world, live=ledger, durable=ledger))

    # ------------------------------------------------------------------------------------------------------- the target

    def _set(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        begun = self.begun(at)
        accept, refuse = self._values(at, rotation, phase.carry), self._values(at, rotation, phase.refuse)
        left = self._leftovers(at, rotation) if phase.step is Step.RETIRE else {}
        refuse += [value for value in left.values() if value not in accept]
        dead = {number: VersionChange(acceptance=Acceptance.REFUSED) for number, v in left.items() if v not in accept}
        event = f"{phase.step.value} {accept} refuse {refuse}" + (f", left {sorted(dead)}" if dead else "")
        if self.case.strategy is Strategy.MINTED and not set(accept) <= at.world.accepted:
            gone = Refused(No.UNSUPPORTED, "a deleted token cannot be made again")
            refused = self.judged(begun, (event, "gone"), lambda r: judge.judge_result(r, gone, T0))
            yield Edge(Kind.CALM, f"{event}: gone", refused)
            return
        accepted = self._after_set(at.world.accepted, accept, refuse)
        if rotation.number(End.TO) in refuse:
            accepted -= {ORPHAN}  # deleted by its name
        world = at.world._replace(accepted=accepted, restored=False, old_refused=False)
        yield from self._outward(begun, event, world, lambda r, a: judge.judge_result(r, a, T0, dead or None))

    def _leftovers(self, at: Point, rotation: Rotation) -> dict[int, int]:
        """Earlier versions that nobody retired, with their values: something else took the place of their rotation."""
        live = at.live
        assert live is not None
        ends = {rotation.from_version, rotation.to_version}
        kept = [n for n, fact in live.facts if fact.acceptance != Acceptance.REFUSED.value and n not in ends]
        return {number: value for number in kept if (value := live.value(number)) is not None}

    def _after_set(self, accepted: frozenset[int], accept: list[int], refuse: list[int]) -> frozenset[int]:
        if self.case.strategy is Strategy.SINGLE:
            return frozenset(accept[:1]) if accept else accepted - set(refuse)
        if self.case.strategy is Strategy.ALTERNATING_USERS:
            taken = {value % 2 for value in accept}
            accepted = frozenset(value for value in accepted if value % 2 not in taken)
        gone = set(refuse) - set(accept)
        return (accepted | set(accept)) - gone

    def _values(self, at: Point, rotation: Rotation, ends: tuple[End, ...]) -> list[int]:
        assert at.live is not None
        numbers = [number for end in ends if (number := rotation.number(end)) is not None]
        return [value if (value := at.live.value(number)) is not None else number for number in numbers]

    def _test(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        if not self.case.checked or self.case.unverified:
            blind = Tested(Login.ACCEPTED, unverified=self.case.unverified or "")
            yield from self._answers(at, "test", {"cannot be asked": lambda r: judge.judge_tested(r, blind, T0)})
            return
        values = self._values(at, rotation, (End.TO,))
        if not values:
            yield from self._answers(at, "test", {"no version": lambda r: moves.advance(r, T0)})
            return
        value = values[0]
        pending = Login.ACCEPTED if value in at.world.accepted else Login.REJECTED
        tested = [Tested(pending, self._control(at, rotation) if pending is Login.ACCEPTED else None)]
        tested += [Tested(Login.REJECTED), Tested(Login.ACCEPTED, Login.ACCEPTED)]
        tested += [t for silence in judge.NO_ANSWER for t in (Tested(silence), Tested(Login.ACCEPTED, silence))]
        outcomes: dict[str, Callable[[Rotation], Change]] = {
            str((t.pending.value, t.wrong and t.wrong.value)): (lambda r, t=t: judge.judge_tested(r, t, T0))  # type: ignore[misc]
            for t in tested
        }
        yield from self._answers(at, "test", outcomes)
        held = {values[0] for group in at.world.groups for values in (group.written, *group.may_run) if values}
        kept = at.world.accepted - {value}
        if at.faults and value not in held and kept & set(self._values(at, rotation, (End.FROM,))):
            # The set said Done and did nothing: a replica, a cache.
            lost = at._replace(world=at.world._replace(accepted=kept))
            rejected = self.judged(
                less(lost), "test: lost", lambda r: judge.judge_tested(r, Tested(Login.REJECTED), T0)
            )
            yield Edge(Kind.FAULT, "test: the set was not done", rejected)

    def _control(self, at: Point, rotation: Rotation) -> Login:
        """Where the target refuses the old value it is the wrong one; else a value that nobody has."""
        refuses_old = any(End.FROM in p.refuse for p in rotation.phases[: rotation.at] if p.step is Step.SET)
        old = self._values(at, rotation, (End.FROM,)) if refuses_old else []
        return Login.ACCEPTED if at.world.accepted & set(old) else Login.REJECTED

    def _prove(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        values = self._values(at, rotation, phase.carry)
        if not values or not self.case.checked:
            yield from self._answers(at, "prove", {"nothing to prove": lambda r: moves.advance(r, T0)})
            return
        if self.case.strategy is Strategy.MANUAL:
            yield from self._prove_by_hand(at, rotation, values[0])
            return
        if self.case.unverified:
            blind = Proved(None, self.case.unverified)
            yield from self._answers(at, "prove", {"cannot be asked": lambda r: judge.judge_proved(r, blind, T0)})
            return
        truth = Login.ACCEPTED if values[0] in at.world.accepted else Login.REJECTED
        outcomes: dict[str, Callable[[Rotation], Change]] = {
            login.value: (lambda r, a=login: judge.judge_proved(r, Proved(a), T0))  # type: ignore[misc]
            for login in (truth, Login.ACCEPTED, *judge.NO_ANSWER)
        }
        yield from self._answers(at, "prove", outcomes)

    def _prove_by_hand(self, at: Point, rotation: Rotation, old: int) -> Iterator[Edge]:
        """A person revokes what no rotation may, sooner or later: the old value and what was left before it."""
        new = self._values(at, rotation, (End.TO,))
        left = {n: v for n, v in self._leftovers(at, rotation).items() if v not in new}
        dead = {number: VersionChange(acceptance=Acceptance.REFUSED) for number, value in left.items() if value != old}
        if self.case.unverified and rotation.from_version is not None:
            dead[rotation.from_version] = VersionChange(acceptance=Acceptance.REFUSED)
        alive = at.world.accepted & {old, *left.values()}
        there = Login.ACCEPTED if alive else Login.REJECTED
        blind = self.case.unverified or ""
        if alive:
            yield self._choice(
                at, "not revoked yet", lambda r: judge.judge_proved(r, Proved(None if blind else there, blind), T0)
            )
        world = at.world._replace(accepted=at.world.accepted - alive | set(new))
        if blind:  # a word that is lost with the process leaves a target that nobody here can see
            world = world._replace(restored=True)
        revoked = at._replace(world=world)

        def said(r: Rotation) -> Change:
            word = replace(r, options=replace(r.options, revoked=True)) if blind else r
            change = judge.judge_proved(word, Proved(None if blind else Login.REJECTED, blind), T0)
            return replace(change, facts={**dead, **(change.facts or {})})

        outcomes: dict[str, Callable[[Rotation], Change]] = {f"revoked, {sorted(dead)} too": said}
        outcomes |= {
            login.value: (lambda r, a=login: judge.judge_proved(r, Proved(a), T0))  # type: ignore[misc]
            for login in (() if blind else (Login.ACCEPTED, *judge.NO_ANSWER))
        }
        yield from self._answers(revoked, "prove", outcomes)

    # -------------------------------------------------------------------------------------------------------- consumers

    def _groups(self, phase: Phase) -> frozenset[GroupKey]:
        if phase.audience is Audience.CHECKER:
            return frozenset([CHECKER_GROUP]) if self.case.via else frozenset()
        return self.case.consumers

    def _prepare(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        """Additive, so consumers see nothing."""
        yield from self._unseen(at, phase, lambda r, a: judge.judge_result(r, a, T0))

    def _release(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        """Collecting, so consumers see nothing."""
        yield from self._unseen(at, phase, lambda r, a: judge.judge_released(r, [] if isinstance(a, Done) else [a], T0))

    def _unseen(self, at: Point, phase: Phase, judged: Callable[[Rotation, Result], Change]) -> Iterator[Edge]:
        if not self.case.consumers and phase.audience is Audience.CONSUMERS:
            yield from self._answers(at, phase.step.value, {"no places": lambda r: moves.advance(r, T0)})
            return
        yield from self._outward(self.begun(at), phase.step.value, at.world, judged)

    def _barrier(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        yield from self._answers(at, "barrier", {"reached": lambda r: moves.advance(r, T0)})

    def _next_group(self, rotation: Rotation, phase: Phase) -> GroupKey | None:
        return min(self._groups(phase).difference(rotation.settled), default=None)

    def _carried(self, at: Point, rotation: Rotation, audience: Audience) -> Values:
        assert at.live is not None
        ends = plan.carried(rotation, audience) or ()
        values = self._values(at, rotation, ends)
        if values and plan.keeps_old(self.case.policy):
            facts = sorted(at.live.facts, reverse=True)
            kept = [at.live.value(n) for n, fact in facts if fact.acceptance == Acceptance.ACCEPTED.value]
            values += [value for value in kept if value is not None and value not in values]
        return tuple(values)

    def _deliver(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        group, groups = self._next_group(rotation, phase), self._groups(phase)
        if group is None:
            yield from self._answers(at, "deliver", {"nobody": lambda r: moves.advance(r, T0)})
            return
        begun = at if rotation.begun else self.begun(at)
        assert begun.live is not None
        values = self._carried(begun, self.rotation(begun.live), phase.audience)
        if phase.audience is Audience.CHECKER:
            accepted = frozenset(values) or self.accepted_before()
            world = at.world._replace(accepted=accepted, restored=False, old_refused=False)
        else:
            world = _delivered(at.world, self._number(group), values or self.held_before())
        event = f"deliver {values} to {group}"
        yield from self._outward(begun, event, world, lambda r, a: judge.judge_delivered(r, group, groups, a, T0))

    def _number(self, group: GroupKey) -> int:
        return sorted(self.case.consumers).index(group)

    def _confirm(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        group, groups = self._next_group(rotation, phase), self._groups(phase)
        if group is None:
            yield from self._answers(at, "confirm", {"nobody": lambda r: moves.advance(r, T0)})
            return
        event = f"confirm {group}"

        def told(answer: Confirmed | NotYet | Failed | Unknown, now: datetime) -> Callable[[Rotation], Change]:
            return lambda r: judge.judge_confirmed(
                r, group, groups, answer, now, timeout=LATER - T0, puts_back=self.case.puts_back
            )

        confirmed, proven = at, told(Confirmed(Proof.DEMONSTRATED), T0)
        if phase.audience is Audience.CONSUMERS:
            number, wanted = self._number(group), self._carried(at, rotation, phase.audience) or self.held_before()
            confirmed = at._replace(world=_confirmed(at.world, number))
            if at.world.groups[number].written != wanted:
                event, proven = f"{event}: another value", told(Failed("one", "runs on another value"), T0)
        yield Edge(Kind.CALM, event, self.judged(confirmed, event, proven))
        slow = NotYet("restarting", LATER - T0, ("one",))
        yield self._choice(at, f"{event}: not yet", told(slow, T0))
        outcomes = {
            "": proven,
            "failed": told(Failed("one", "crashes"), T0),
            "too slow": told(slow, LATER),
            "silent": told(Unknown(Login.UNREACHABLE), T0),
        }
        for edge in self._answers(at, event, outcomes):
            if edge.kind is Kind.FAULT:
                yield edge

    # ---------------------------------------------------------------------------------------------------- the old value

    def _finish(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        yield from self._answers(at, "finish", {"labels move": lambda r: judge.judge_finish(r, T0)})

    def _grace(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        yield from self._answers(at, "grace", {"is over": lambda r: judge.judge_grace(r, LATER)})
        yield self._choice(at, "grace: not over", lambda r: judge.judge_grace(r, T0))

    def _evidence(self, at: Point, rotation: Rotation, phase: Phase) -> Iterator[Edge]:
        unused = Usage(False if self.case.sees_use else None)
        outcomes: dict[str, Callable[[Rotation], Change]] = {
            "nobody": lambda r: judge.judge_usage(r, unused, T0, due_again=False)
        }
        if self.case.sees_use:
            in_use, silent = Usage(True, ("one",)), Unknown(Login.UNREACHABLE)
            yield self._choice(at, "in use", lambda r: judge.judge_usage(r, in_use, T0, due_again=False))
            outcomes["in use when due again"] = lambda r: judge.judge_usage(r, in_use, T0, due_again=True)
            outcomes["in use after 7 days"] = lambda r: judge.judge_usage(r, in_use, LATER, due_again=False)
            outcomes["silent"] = lambda r: judge.judge_usage(r, silent, T0, due_again=False)
        yield from self._answers(at, "evidence", outcomes)


def _cleared(rotation: Rotation) -> Change:
    return Change(replace(rotation, outcome_unknown=False, state=State.RUNNING, waiting=None, not_before=None))


def _delivered(world: World, number: int, values: Values) -> World:
    group = world.groups[number]
    changed = Group(values, group.may_run | {values})
    return world._replace(groups=(*world.groups[:number], changed, *world.groups[number + 1 :]))


def _confirmed(world: World, number: int) -> World:
    group = world.groups[number]
    changed = Group(group.written, frozenset([group.written]))
    return world._replace(groups=(*world.groups[:number], changed, *world.groups[number + 1 :]))
