"""The table of steps, and those that only look or judge. Waiting is an answer, never a sleep.

A step concerns one rotation alone; delivering and confirming are done for a whole group (`handover`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

from vaultkeeper.engine import judge
from vaultkeeper.engine.at_target import prove, set_, test
from vaultkeeper.engine.budget import PUT_OFF, budget_of, refusals
from vaultkeeper.engine.creation import create, mint
from vaultkeeper.engine.groups import Holder, asked, attempted, find_places
from vaultkeeper.engine.judge import Seen
from vaultkeeper.engine.moves import advance, park, wait, waited
from vaultkeeper.engine.observe import drift, look, look_back
from vaultkeeper.engine.parts import power
from vaultkeeper.engine.readying import prepare, release
from vaultkeeper.engine.schedule import due_at
from vaultkeeper.engine.work import Work, phase_of
from vaultkeeper.model.outcome import (
    Login,
    Refused,
    Unknown,
    Usage,
)
from vaultkeeper.model.rotation import Cause, Direction, End, State, Step, Waiting
from vaultkeeper.ports import Change, ReportsUse

DEPENDENCY_POLL = timedelta(seconds=1)  # at first; then after a tenth of the time waited so far


def observe(work: Work) -> Change:
    """Stale stores, drift and restored targets are found before anything changes; or before anybody is put back."""
    if work.rotation.direction is Direction.BACK:
        return _observe_before_handing_back(work)
    parts, rotation, now = work.parts, work.rotation, work.parts.clock.now()
    waiting_on = _unfinished_dependencies(work)
    if waiting_on:
        again = now + max(DEPENDENCY_POLL, waited(rotation, now) / 10)
        return wait(rotation, Waiting.DEPENDENCY, again, waiting_on)
    places = find_places(rotation.policy, parts, work.delivery_context())
    if isinstance(places, Unknown | Refused):
        return judge.judge_result(rotation, places, now)
    seen = look(work)
    if isinstance(seen, Refused):
        return judge.judge_result(rotation, seen, now)
    holder = Holder(rotation.secret, rotation.policy, places, None, work.book)
    resets = _would_reset_an_account_in_use(work)  # then a place that nobody can read may be the one that was put back
    must_know = resets and not rotation.options.cut
    reverted = attempted(parts, "drift", partial(drift, work, holder, must_know=must_know))
    if isinstance(reverted, Unknown | Refused):
        return judge.judge_result(rotation, reverted, now)
    placed = replace(rotation, places=places, detail="; ".join(reverted))
    judged = judge.judge_seen(placed, seen, now)
    goes_on = judged.rotation is not None and judged.rotation.state is State.RUNNING
    if reverted and resets and goes_on and judged.rotation:  # what stops it at the target says more truly what works
        return park(replace(placed, gone=judged.rotation.gone), Cause.DRIFT)
    return _remembering(seen, judged)


def _observe_before_handing_back(work: Work) -> Change:
    seen = look_back(work)
    nothing_known = Seen(askable=False)
    return judge.judge_seen(work.rotation, nothing_known if isinstance(seen, Refused) else seen, work.parts.clock.now())


def _unfinished_dependencies(work: Work) -> tuple[str, ...]:
    """rotation.md section 9: this secret's create waits until theirs have finished."""
    store = work.parts.store
    newest = {name: store.rotations(name, limit=1) for name in work.rotation.policy.depends_on}
    return tuple(
        name for name, rotations in newest.items() if rotations and rotations[0].open and not rotations[0].finished
    )


def _would_reset_an_account_in_use(work: Work) -> bool:
    """Consumers were put back to an account that this rotation would give a new password."""
    previous, current = work.book.maybe(work.rotation.previous_version), work.version(End.FROM)
    if previous is None or current is None or "username" not in current.fields or "username" not in previous.fields:
        return False
    return current.fields["username"] != previous.fields["username"]


def resolve_doubt(work: Work) -> Change:
    """After an unknown outcome: observe before anything else."""
    rotation, now = work.rotation, work.parts.clock.now()
    if not judge.needs_observation(rotation):
        return Change(replace(rotation, outcome_unknown=False, state=State.RUNNING, waiting=None, not_before=None))
    seen = look(work)
    if rotation.waiting in {Waiting.UNREACHABLE, Waiting.THROTTLED}:  # why it had no answer explains none that it has
        rotation = replace(rotation, detail="")
    if isinstance(seen, Refused):
        return park(rotation, judge.CAUSE_OF[seen.why], seen.detail)
    return _remembering(seen, judge.judge_seen(rotation, seen, now))


def _remembering(seen: Seen, change: Change) -> Change:
    """Failed logins are rationed: what was found rejected is not asked again when the wait for the rest is over.

    Without this a target that takes one failure per window could never answer for two dead values.
    """
    rotation = change.rotation
    if rotation is None:
        return change
    answers = ((rotation.to_version, seen.to), (rotation.from_version, seen.from_))
    found = (*answers, (rotation.previous_version, seen.previous))
    waits = rotation.waiting is Waiting.THROTTLED
    rejected = tuple(n for n, answer in found if waits and n is not None and answer is Login.REJECTED)
    return replace(change, rotation=replace(rotation, rejected=rejected))


def barrier(work: Work) -> Change:
    """Reached by everybody of the batch: now the gap of `single` may open, with every failure in it paid for."""
    rotation, now = work.rotation, work.parts.clock.now()
    target, pending = work.target(work.binding()), work.version(End.TO)
    charged = budget_of(target, pending) if target is not None and pending is not None else None
    if target is None or charged is None or charged.own:
        return advance(rotation, now)
    due = refusals(rotation.phases, rotation.policy.target, target.capabilities)
    for paid in range(len(due)):
        delay = charged.charge(work.parts.store, now)
        if delay is not None:
            for _ in range(paid):
                charged.refund(work.parts.store)
            return wait(rotation, Waiting.THROTTLED, now + delay, detail=PUT_OFF)
    return advance(rotation, now)


def finish(work: Work) -> Change:
    """The labels move."""
    return judge.judge_finish(work.rotation, work.parts.clock.now())


def grace(work: Work) -> Change:
    """Both values stay valid, asleep in the journal."""
    return judge.judge_grace(work.rotation, work.parts.clock.now())


def evidence(work: Work) -> Change:
    """Does anybody still use the old value? Where a person said `close_sessions`, retiring it ends what is left."""
    rotation, parts, now = work.rotation, work.parts, work.parts.clock.now()
    old = work.version(End.FROM)
    if rotation.policy.target is not None and rotation.policy.target.close_sessions:
        return advance(rotation, now)
    reporter = power(work.target(old.binding), ReportsUse) if old else None
    usage: Usage | Unknown = Usage(None)
    if old is not None and reporter is not None:
        report = partial(reporter.usage, old, rotation.entered_at, work.context())
        answer = asked(parts, f"{old.binding.target_kind}.usage", report)
        if isinstance(answer, Refused):
            return judge.judge_result(rotation, answer, now)
        usage = answer
    due = due_at(rotation.policy, rotation.opened_at, None, now)
    return judge.judge_usage(rotation, usage, now, due_again=due is not None and due <= now)


STEPS: dict[Step, Callable[[Work], Change]] = {
    Step.OBSERVE: observe,
    Step.CREATE: create,
    Step.MINT: mint,
    Step.PREPARE: prepare,
    Step.BARRIER: barrier,
    Step.SET: set_,
    Step.TEST: test,
    Step.FINISH: finish,
    Step.GRACE: grace,
    Step.RELEASE: release,
    Step.EVIDENCE: evidence,
    Step.RETIRE: set_,
    Step.PROVE: prove,
}


def take_step(work: Work) -> None:
    """The next thing that one rotation has to do by itself."""
    work.apply(resolve_doubt(work) if work.rotation.outcome_unknown else STEPS[phase_of(work).step](work))
