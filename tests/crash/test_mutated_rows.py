"""The exhaustive search finds something: it sees each mutation of a row of the judgement table, a move or a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.unit.engine.cases import CASES, Case
from tests.unit.engine.search import search
from vaultkeeper.engine import judge, moves, plan, verdict
from vaultkeeper.model.outcome import Done, Failed, Login, NotYet, Refused
from vaultkeeper.model.rotation import Phase, Rotation, Step
from vaultkeeper.model.secret import StagingLabel
from vaultkeeper.ports import Change


@dataclass(frozen=True)
class Mutation:
    """`found_in`: a case in which the search, with so many faults, meets the consequence."""

    row: str
    module: Any
    name: str
    put: Callable[[Any], Any]  #: from the true function to the mutated one
    found_in: str
    faults: int = 1


def _otherwise(matches: Callable[..., bool], instead: Callable[..., Any]) -> Callable[[Any], Any]:
    def put(true: Any) -> Any:
        return lambda *args, **named: (instead if matches(*args) else true)(*args, **named)

    return put


def _advance(rotation: Rotation, *_rest: Any, **_named: Any) -> Change:
    return moves.advance(rotation, rotation.entered_at)


def _park_nameless(rotation: Rotation, cause: Any, detail: str = "") -> Change:
    change = TRUE_PARK(rotation, cause, detail)
    assert change.rotation is not None
    return replace(change, rotation=replace(change.rotation, cause=None, detail=""))


def _settle(rotation: Rotation, group: Any, groups: Any, _answer: Any, now: Any, **_named: Any) -> Change:
    return judge._settle(rotation, group, groups, now)


def _labels_stay(rotation: Rotation, now: Any) -> Change:
    change = TRUE_FINISH(rotation, now)
    return replace(change, labels={**(change.labels or {}), StagingLabel.PREVIOUS: None})


def _forgets_the_target(rotation: Rotation, shape: Any) -> tuple[Phase, ...] | None:
    back = TRUE_WAY_BACK(rotation, shape)
    return back and tuple(phase for phase in back if phase.step is not Step.SET)


def _target_first(rotation: Rotation, shape: Any) -> tuple[Phase, ...] | None:
    back = TRUE_WAY_BACK(rotation, shape)
    return back and tuple(sorted(back, key=lambda phase: phase.step is not Step.SET))


def _without(step: Step) -> Callable[[Any], Any]:
    return lambda true: lambda shape: tuple(phase for phase in true(shape) if phase.step is not step)


def _retires_too_early(true: Any) -> Any:
    def early(shape: Any) -> tuple[Phase, ...]:
        phases = list(true(shape))
        retire = next((p for p in phases if p.step is Step.RETIRE), None)
        if retire is not None:
            phases.remove(retire)
            phases.insert(next(i for i, p in enumerate(phases) if p.step is Step.DELIVER), retire)
        return tuple(phases)

    return early


def _unknown_is_done(rotation: Rotation, _unknown: Any, now: Any) -> Change:
    return moves.advance(rotation, now)


TRUE_PARK, TRUE_FINISH, TRUE_WAY_BACK = moves.park, judge.judge_finish, plan.way_back
_REFUSED_LATE = _otherwise(lambda r, result, *_: isinstance(result, Refused) and r.at > 3, _advance)
_DELIVERY_REFUSED = _otherwise(
    lambda _r, _g, _gs, result, _now: isinstance(result, Refused),
    lambda r, g, gs, _result, now: judge._settle(r, g, gs, now),
)


def _confirm_row(kind: type) -> Callable[[Any], Any]:
    return _otherwise(lambda _r, _g, _gs, answer, _now: isinstance(answer, kind), _settle)


def _never_untouched(rotation: Rotation, refused: Refused, now: Any) -> Change:
    return moves.turn_back(rotation, judge.CAUSE_OF[refused.why], now, refused.detail, untouched=True)


MUTATIONS = [
    Mutation("Unknown: taken for Done", judge, "wait_unknown", lambda _: _unknown_is_done, "overlap"),
    Mutation("after a set: the target is not put back", moves, "way_back", lambda _: _forgets_the_target, "overlap"),
    Mutation("going back: the target first", moves, "way_back", lambda _: _target_first, "overlap"),
    Mutation(
        "after a set, Refused: nothing was touched", judge, "_judge_refused", lambda _: _never_untouched, "overlap", 2
    ),
    Mutation("deliver Refused: next", judge, "judge_delivered", _DELIVERY_REFUSED, "overlap"),
    Mutation("any Refused: next", judge, "_judge_refused", lambda _: _advance, "overlap"),
    Mutation("retire Refused: next", judge, "judge_result", _REFUSED_LATE, "overlap, unverified"),
    Mutation(
        "test, P rejected: next",
        judge,
        "judge_tested",
        _otherwise(lambda _r, tested, _now: tested.pending is Login.REJECTED, _advance),
        "overlap",
    ),
    Mutation("confirm Failed: next", judge, "judge_confirmed", _confirm_row(Failed), "alternating users"),
    Mutation("confirm NotYet: next", judge, "judge_confirmed", _confirm_row(NotYet), "minted", 0),
    Mutation("finish: PREVIOUS stays", judge, "judge_finish", lambda _: _labels_stay, "nobody checks", 0),
    Mutation(
        "prove, C still accepted: next",
        judge,
        "judge_proved",
        _otherwise(lambda _r, proved, _now: proved.old is Login.ACCEPTED, _advance),
        "manual",
        0,
    ),
    Mutation(
        "observe, P accepted: the phase counts as done, whatever it should refuse",
        judge,
        "_wanted",
        lambda true: lambda rotation: (true(rotation)[0], ()),
        "alternating users",
    ),
    Mutation(
        "observe, P rejected and C accepted: next", judge, "_again", lambda _: lambda r: _advance(r).rotation, "overlap"
    ),
    Mutation("observe, C rejected: next", judge, "_judge_none_accepted", lambda _: _advance, "single, via"),
    Mutation(
        "observe, account in use: next",
        judge,
        "_judge_before_create",
        lambda _: _advance,
        "single, first, without --replace",
        0,
    ),
    Mutation("parked: without a cause", judge, "park", lambda _: _park_nameless, "single"),
    Mutation("parked: always exit 5", verdict, "consumers_served", lambda _: lambda _r: True, "single"),
    Mutation("ambiguous: exit 0", verdict, "exit_code", lambda _: lambda _r: 0, "single"),
    Mutation("taken over: no doubt about what was begun", moves, "taken_up", lambda _: lambda r: r, "overlap", 2),
    Mutation(
        "after finish: it may still go back",
        moves,
        "turn_back",
        lambda true: lambda r, *a, **k: true(replace(r, phases=_unfinished(r)), *a, **k),
        "overlap",
    ),
    Mutation("plan without confirm", plan, "plan", _without(Step.CONFIRM), "overlap", 0),
    Mutation("plan without retire", plan, "plan", _without(Step.RETIRE), "overlap, unverified", 0),
    Mutation("plan without deliver", plan, "plan", _without(Step.DELIVER), "overlap", 0),
    Mutation("plan that retires before it delivers", plan, "plan", _retires_too_early, "alternating users", 0),
]


def _unfinished(rotation: Rotation) -> tuple[Phase, ...]:
    """The same phases; FINISH hidden, so that nothing counts as finished."""
    return tuple(replace(p, step=Step.BARRIER) if p.step is Step.FINISH else p for p in rotation.phases)


def _case(name: str, faults: int) -> Case:
    return replace(next(case for case in CASES if case.name == name), faults=faults)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.row)
def test_a_mutated_row_is_found_by_the_search(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation.module, mutation.name, mutation.put(getattr(mutation.module, mutation.name)))
    found = search(_case(mutation.found_in, mutation.faults), stop_at_first=True)
    assert found.violations, f"nothing in {found.states} states shows that a row is wrong: {mutation.row}"


def test_done_means_next_in_the_search_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Done taken for "the same phase again" never ends: the search says so instead of walking for ever."""
    true = judge.judge_result
    put = _otherwise(lambda _r, result, *_: isinstance(result, Done), lambda r, *_rest: Change(replace(r, begun=False)))
    monkeypatch.setattr(judge, "judge_result", put(true))
    assert "it never ends, though nothing goes wrong any more" in search(_case("overlap", 0)).violations
