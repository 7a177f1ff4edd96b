"""When faults stop: one restart, then what the errors themselves say, and everything has come to rest."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tests.crash.invariants import Broken
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.reconcile import apply, reconcile
from vaultkeeper.engine.rollback import rollback
from vaultkeeper.engine.rotate import Report, resume, rotate
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, Options, Rotation, State, Step, Waiting
from vaultkeeper.model.secret import StagingLabel, Strategy

LONG = timedelta(days=20)
if TYPE_CHECKING:
    from tests.crash.simulation import Run


def settle(run: Run) -> None:
    """Faults stop. Raises Broken(7) where a secret does not come to rest."""
    run.weather.rate = 0.0
    run.weather.forced = {}
    run.log.append("faults stop")
    for state in run.world.state.values():
        state.pop("broken", None)
        state.pop("sessions", None)
    for name in [*run.store.inner.pauses()]:
        run.store.inner.pause(name, None)
    run.command("resume --all", lambda p: resume(None, p, wait=LONG))
    for name, policy in run.policies.items():
        if not run.judge.harm[name]:
            _at_rest(run, name, policy, after="one restart")
    for name, policy in run.policies.items():
        _follow_the_words(run, name)
        if _rotates_again(run, name, policy):
            _at_rest(run, name, policy, after="one more rotation")


def _excused(run: Run, rotation: Rotation | None) -> bool:
    """A person must still do something that a restart cannot."""
    if rotation is None or not rotation.open:
        return False
    if rotation.waiting is Waiting.INPUT:
        return True
    if rotation.waiting is Waiting.DEPENDENCY and rotation.phase and rotation.phase.step is Step.OBSERVE:
        return any(run.judge.newest[name].open for name in rotation.policy.depends_on if name in run.judge.newest)
    return rotation.cause is Cause.LAGGARDS


def _at_rest(run: Run, name: str, policy: RotationPolicy, *, after: str) -> None:
    judge = run.judge
    judge.refresh(name)
    rotation = judge.newest.get(name)
    if _excused(run, rotation):
        return
    if rotation is not None and rotation.open:
        raise Broken(7, f"{name} is {rotation.state.value} ({rotation.cause or rotation.waiting}) after {after}")
    labels = judge.labels.get(name, {})
    if StagingLabel.PENDING in labels:
        raise Broken(7, f"{name}: v{labels[StagingLabel.PENDING]} is still pending after {after}")
    current = judge.record(name, labels.get(StagingLabel.CURRENT))
    if current is None:
        return
    good = judge.spellings(current)
    for where, content in judge.held(policy):
        if content not in good:
            raise Broken(7, f"{where} does not hold v{current.number} of {name} after {after}")
    if current.binding.target_kind is None or judge.expired(current):
        return
    accepted = {judge.pair(r): r.number for r in judge.records[name] if judge.accepts(r)}
    if judge.pair(current) not in accepted:
        raise Broken(7, f"{name}: v{current.number} is current and refused after {after}")
    # Whose retirement a rollback cancelled and did not finish itself is the next rotation's to retire.
    left = {r.from_version for r in run.store.inner.rotations(name) if r.superseded and after == "one restart"}
    others = {number for pair, number in accepted.items() if pair != judge.pair(current)}
    if others - left and name not in run.disturbed and current.binding.strategy is not Strategy.MANUAL:
        raise Broken(7, f"{name}: v{sorted(others - left)} still accepted beside v{current.number} after {after}")
    if not left:
        _no_litter(run, name, policy, current.id, current.binding.strategy)


def _no_litter(run: Run, name: str, policy: RotationPolicy, current_id: str, strategy: Strategy | None) -> None:
    """No stray object, rollback path or token of ours, unless somebody brought it back from a backup."""
    judge = run.judge
    if name in run.disturbed:
        return
    ours = {r.id: r.number for r in judge.records[name]}
    for spec in policy.destinations:
        state = run.world.state.get(str(spec.settings["system"]), {})
        for key in state.get("objects", {}):
            id_ = key.rpartition("|")[2]
            late = str(spec.settings["system"]).startswith("new")  # `reconcile` may serve it beside an open rotation
            if not late and id_ in ours and id_ != current_id and strategy is not Strategy.MANUAL:
                raise Broken(7, f"{name}: an object of v{ours[id_]} is left: {key}")
    if policy.target is not None and policy.target.kind == "sim_minting":
        tokens = run.world.state.get(str(policy.target.settings["system"]), {}).get("tokens", {})
        stray = [
            token["name"]
            for token in tokens.values()
            if token["value"] not in {p[1] for p in [judge.fields[(name, current_id)]]}
        ]
        if stray and not run.store_was_restored:
            raise Broken(7, f"{name}: {len(stray)} stray tokens")


def _follow_the_words(run: Run, name: str) -> None:
    """Invariant 14: whatever is still stuck names the command that helps; here they are followed."""
    for _ in range(8):
        rotation = run.judge.newest.get(name)
        if rotation is not None and rotation.open:
            _obey(run, name, rotation)
        elif run.judge.harm[name]:
            if not _reconciled(run, name):
                given = run.truth(name)
                if given is not None and StagingLabel.CURRENT not in run.judge.labels.get(name, {}):
                    run.adopted(name, given)
                return
        else:
            return
        run.judge.refresh(name)


def _obey(run: Run, name: str, rotation: Rotation) -> None:
    if rotation.waiting is Waiting.INPUT:
        run.by_hand(name, wait=LONG)
        return
    if rotation.cause is Cause.LAGGARDS:
        run.clock.advance(timedelta(days=4))
        run.command(f"resume {name}", lambda p: resume([name], p, wait=LONG))
        return
    if rotation.state is State.AMBIGUOUS:
        given = run.truth(name)
        if given is not None:
            run.adopted(name, given)
        else:
            _replace(run, name)
        return
    if rotation.cause in {Cause.STALE, Cause.TARGET_WENT_BACK, Cause.DRIFT}:
        if _reconciled(run, name):
            return
        run.clock.advance(timedelta(hours=1))  # "the target gave no answer": whoever reads that comes again later
        given = run.truth(name)
        if given is not None and rotation.cause is not Cause.DRIFT:
            run.adopted(name, given)
            return
    run.command(f"resume {name}", lambda p: resume([name], p, wait=LONG))
    if run.judge.newest[name].open:
        run.command(f"rollback {name}", lambda p: rollback(name, p, wait=LONG))


def _beyond_help(run: Run, name: str) -> bool:
    """A store that lost every version, before a target that accepts nothing, and who waits for one of such.

    Only a newer backup helps.
    """
    run.judge.refresh(name)
    rotation = run.judge.newest.get(name)
    if rotation is None or not rotation.open:
        return False
    if rotation.waiting is Waiting.DEPENDENCY:
        return any(_beyond_help(run, other) for other in rotation.policy.depends_on)
    nothing_is_left = StagingLabel.CURRENT not in run.judge.labels.get(name, {}) and run.truth(name) is None
    return rotation.cause is Cause.STALE and nothing_is_left


def _replace(run: Run, name: str) -> list[Report]:
    options = Options(replace=True)
    return run.command(
        f"rotate {name} --replace", lambda p: rotate([name], p, by_name=True, options=options, wait=LONG)
    )


def _reconciled(run: Run, name: str) -> bool:
    done = []

    def act(parts: Parts) -> None:
        proposals = reconcile(name, parts)
        if proposals:
            key = run.rng.choice(proposals).key
            run.log.append(f"    reconcile {name}: {[p.key for p in proposals]} → {key}")
            apply(name, key, parts)
            done.append(key)

    run.command(f"reconcile {name}", act)
    return bool(done)


def _rotates_again(run: Run, name: str, policy: RotationPolicy) -> bool:
    """The proof that nothing is stuck: another rotation goes through. False: no command could help."""
    run.clock.advance(timedelta(days=4))
    if policy.strategy is Strategy.MANUAL:
        before = run.made
        for _ in ("an earlier one's end", "the new value", "the old one's end"):
            done = run.made > before and run.store.inner.rotations(name)[0].state is State.DONE
            if not done:
                run.by_hand(name, wait=LONG)
        if run.store.inner.rotations(name)[0].state is not State.DONE:
            raise Broken(7, f"{name} takes no new value when all is well again")
        run.judge.harm[name].clear()
        return True
    current = run.judge.record(name, run.judge.labels.get(name, {}).get(StagingLabel.CURRENT))
    if run.judge.harm[name] or (current is not None and run.judge.expired(current)):
        reports = _replace(run, name)
    else:
        reports = run.command(f"rotate {name}", lambda p: rotate([name], p, by_name=True, wait=LONG))
    if _beyond_help(run, name):
        return False
    if [report.state for report in reports] != ["done"]:
        raise Broken(7, f"{name} does not rotate when all is well again")
    if policy.strategy is not Strategy.PREVIOUS_KEYS:
        run.judge.harm[name].clear()  # keys that a restored store does not know any more stay unknown
    return True
