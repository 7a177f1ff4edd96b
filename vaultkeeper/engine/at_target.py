"""Set, test, retire, prove: what is done at the system that checks, and what it says to a login."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

from vaultkeeper.engine import judge
from vaultkeeper.engine.budget import PUT_OFF, budget_of
from vaultkeeper.engine.by_hand import asks_to_revoke, page
from vaultkeeper.engine.creation import collect_orphan
from vaultkeeper.engine.groups import asked
from vaultkeeper.engine.judge import Proved, Tested
from vaultkeeper.engine.moves import advance, park, turn_back, wait_unknown
from vaultkeeper.engine.observe import by_binding, explained, login, made_up, same_credential, same_login, same_target
from vaultkeeper.engine.parts import power
from vaultkeeper.engine.plan import one_at_a_time
from vaultkeeper.engine.work import Work, partly, phase_of
from vaultkeeper.model.outcome import (
    Done,
    Login,
    Result,
    Unknown,
)
from vaultkeeper.model.rotation import Cause, Direction, End, Purpose, Step
from vaultkeeper.model.secret import (
    Acceptance,
    SecretVersion,
)
from vaultkeeper.ports import Change, ClosesSessions, Spares, Target, VersionChange


def set_(work: Work) -> Change:
    """Make the target accept and refuse as the phase says; each version at what it was made for."""
    delay = _charge_for_the_own_login(work)
    if delay is not None:
        return wait_unknown(work.rotation, Unknown(Login.THROTTLED, PUT_OFF, delay), work.parts.clock.now())
    work.begin()
    phase, parts = phase_of(work), work.parts
    accept, refuse = work.versions(phase.carry), work.versions(phase.refuse)
    left = []
    if phase.step is Step.RETIRE:
        left = [v for v in (*work.leftovers(), *_leaked(work)) if not any(same_credential(v, kept) for kept in accept)]
        refuse += left
    for orphan in [version for version in refuse if not version.fields]:
        collected = collect_orphan(work, orphan)
        if not isinstance(collected, Done):
            return judge.judge_result(work.rotation, collected, parts.clock.now())
        refuse.remove(orphan)
    here, bindings = work.binding(), by_binding([*accept, *refuse], work.binding())
    for binding, versions in bindings:
        target = work.target(binding)
        if target is None:
            continue
        elsewhere, dying = not same_target(binding, here), [v for v in refuse if v in versions]
        untouched = not dying and work.rotation.direction is Direction.FORWARD
        if elsewhere and (work.rotation.options.forget_old or untouched):
            continue  # an earlier place is left as it is until something must be refused there
        result = _set_at(work, target, [v for v in accept if v in versions], dying)
        if isinstance(result, Unknown) and elsewhere and phase.step is Step.RETIRE:
            return park(work.rotation, Cause.BINDING, result.detail)
        if not isinstance(result, Done):
            changed = binding is not bindings[0][0]
            return judge.judge_result(partly(work, begun=changed), result, parts.clock.now())
    if phase.step is Step.RETIRE:
        closed = _close_sessions(work, refuse)
        if not isinstance(closed, Done):
            return judge.judge_result(work.rotation, closed, parts.clock.now())
    dead = {v.number: VersionChange(acceptance=Acceptance.REFUSED) for v in left}
    return judge.judge_result(work.rotation, Done(), parts.clock.now(), dead or None)


def _leaked(work: Work) -> list[SecretVersion]:
    """Refused long ago, but a restored backup may have brought them back, and no look goes further than PREVIOUS.

    Where an account takes one value only, what it has now refuses all others.
    """
    here, ends = work.binding(), {work.rotation.from_version, work.rotation.to_version}
    target = work.target(here)
    if target is None or target.capabilities.max_accepted == 1:
        return []
    dead = (r for r in work.book.records().values() if r.compromised and r.acceptance is Acceptance.REFUSED)
    known = (r for r in dead if r.sealed is not None and r.number not in ends and same_target(r.binding, here))
    return [work.book.version(record.number) for record in known]


def _charge_for_the_own_login(work: Work) -> timedelta | None:
    """Who changes its own password logs in as PENDING first, and is refused once. Where there is a barrier it paid.

    A kind whose accounts lock (a budget of its own) tries the value that works first, and fails none.
    """
    rotation, pending = work.rotation, work.version(End.TO)
    spec, target = rotation.policy.target, work.target(work.binding())
    newly = phase_of(work).step is Step.SET and rotation.direction is Direction.FORWARD and not rotation.doubted
    if spec is None or not spec.self_service or target is None or pending is None or not newly:
        return None
    charged = budget_of(target, pending)
    if charged is None or charged.own or one_at_a_time(rotation.policy):
        return None
    return charged.charge(work.parts.store, work.parts.clock.now())


def _set_at(work: Work, target: Target, accept: list[SecretVersion], refuse: list[SecretVersion]) -> Result:
    return asked(work.parts, f"{target.kind}.set", lambda: target.set(accept, refuse, work.context()))


def _close_sessions(work: Work, refused: list[SecretVersion]) -> Result:
    wanted = work.rotation.policy.target is not None and work.rotation.policy.target.close_sessions
    if not wanted and work.rotation.purpose is not Purpose.EMERGENCY:
        return Done()
    for version in refused:
        closer = power(work.target(version.binding), ClosesSessions)
        if closer is None:
            continue
        disconnect = partial(closer.disconnect, version, work.context())
        closed = asked(work.parts, f"{version.binding.target_kind}.disconnect", disconnect)
        if not isinstance(closed, Done):
            return closed
    return Done()


def test(work: Work) -> Change:
    """Log in as the account: P is accepted, a wrong value is refused, unless the protocol proves the server."""
    rotation, now = work.rotation, work.parts.clock.now()
    pending = work.version(End.TO)
    target = work.target(work.binding())
    if pending is None or target is None or rotation.policy.target is None:
        return advance(rotation, now)
    if rotation.policy.target.unverified or not target.capabilities.probes:
        reason = rotation.policy.target.unverified or f"{target.kind} cannot log in as the account"
        return judge.judge_tested(rotation, Tested(Login.ACCEPTED, unverified=reason), now)
    work.secure()
    heard = login(work, target, pending)
    if heard.refused is not None:
        return turn_back(rotation, judge.CAUSE_OF[heard.refused.why], now, heard.refused.detail)
    if heard.said is Login.ACCEPTED and not target.capabilities.mutual:
        heard = login(work, target, _wrong_value(work, target, pending), must_fail=True)
        if heard.said not in judge.NO_ANSWER:
            return judge.judge_tested(rotation, Tested(Login.ACCEPTED, heard.said), now)
    answer = heard.said
    if answer in judge.NO_ANSWER:
        # A login changes nothing: what an observation would spend is what the control needs when this wait is over.
        known = replace(rotation, doubted=False)
        return wait_unknown(known, Unknown(answer, heard.detail, heard.delay), now)
    why = explained(work.parts, target, pending, answer, work.context())
    return judge.judge_tested(rotation, Tested(answer, detail=why), now)


def _wrong_value(work: Work, target: Target, pending: SecretVersion) -> SecretVersion:
    """Where only one value can be accepted the old one is the control; else a decoy, else a random value."""
    current = work.version(End.FROM)
    refuses_old = any(End.FROM in p.refuse for p in work.rotation.phases[: work.rotation.at] if p.step is Step.SET)
    if refuses_old and current is not None and not same_login(current, pending):
        return current
    return made_up(target, pending)


def prove(work: Work) -> Change:
    """The retired value is refused, on a new connection."""
    rotation, now = work.rotation, work.parts.clock.now()
    old = work.version(phase_of(work).carry[0])
    target = work.target(old.binding) if old else None
    if old is None or target is None or rotation.policy.target is None or rotation.options.forget_old:
        return advance(rotation, now)
    other = work.version(End.FROM if phase_of(work).carry[0] is End.TO else End.TO)
    if other is not None and same_credential(old, other):
        return advance(rotation, now)  # a value that the other one also holds is never refused
    if rotation.policy.target.unverified or not target.capabilities.probes:
        return _prove_blindly(work, old, target)
    sparing = power(target, Spares)
    if sparing is not None and sparing.keeps(old):
        return advance(replace(rotation, detail="the first owner's own login is kept, as the policy says"), now)
    alive, dead = None, dict[int, VersionChange]()
    for version in (*_not_revoked_either(work, old), old):
        heard = login(work, work.target(version.binding) or target, version, must_fail=True)
        if heard.refused is not None:
            return park(rotation, judge.CAUSE_OF[heard.refused.why], heard.refused.detail)
        if heard.said in judge.NO_ANSWER:
            return _with(wait_unknown(rotation, Unknown(heard.said, heard.detail, heard.delay), now), dead)
        if heard.said is Login.ACCEPTED:
            alive = version
            break
        dead[version.number] = VersionChange(acceptance=Acceptance.REFUSED)
    return _with(_judge_old(work, old, other, alive, target), dead)


def _judge_old(
    work: Work, old: SecretVersion, new: SecretVersion | None, alive: SecretVersion | None, target: Target
) -> Change:
    """`alive`: one that is still accepted, `old` or another that nobody revoked."""
    rotation, now = work.rotation, work.parts.clock.now()
    if _wrong_one_is_revoked(work, new, target):
        said = f"v{rotation.to_version} (new) is refused: was it revoked in place of v{old.number} (old)?"
        return park(rotation, Cause.TARGET_WENT_BACK if alive else Cause.NONE_ACCEPTED, said)
    if alive is None:
        return judge.judge_proved(rotation, Proved(Login.REJECTED), now)
    if judge.only_a_person_revokes(rotation):
        why = asks_to_revoke(rotation, [alive.number], page(target), seen=True)
    else:
        why = explained(work.parts, target, alive, Login.ACCEPTED, work.context())
    return judge.judge_proved(rotation, Proved(Login.ACCEPTED, detail=why), now)


def _wrong_one_is_revoked(work: Work, new: SecretVersion | None, target: Target) -> bool:
    """Nobody is asked to revoke the last value that works, and nothing is done where none does."""
    if new is None or not judge.only_a_person_revokes(work.rotation):
        return False
    return login(work, work.target(new.binding) or target, new).said is Login.REJECTED


def _prove_blindly(work: Work, old: SecretVersion, target: Target) -> Change:
    """Where nothing can be seen, and a person revokes, that person's word is all there is."""
    rotation, spec = work.rotation, work.rotation.policy.target
    reason = (spec and spec.unverified) or f"{target.kind} cannot log in as the account"
    others = _not_revoked_either(work, old)
    asks = asks_to_revoke(rotation, [v.number for v in (*others, old)], page(target), seen=False)
    dead: dict[int, VersionChange] = {}
    if rotation.options.revoked:
        reason += "; a person said that the old value is revoked"
        dead = {v.number: VersionChange(acceptance=Acceptance.REFUSED) for v in (*others, old)}
    return _with(judge.judge_proved(rotation, Proved(None, reason, asks), work.parts.clock.now()), dead)


def _not_revoked_either(work: Work, old: SecretVersion) -> list[SecretVersion]:
    """Where only a person revokes, nothing has refused what earlier rotations left."""
    kept = work.version(End.TO)
    if not judge.only_a_person_revokes(work.rotation) or kept is None:
        return []
    return [v for v in work.leftovers() if not same_credential(v, kept) and not same_credential(v, old)]


def _with(change: Change, facts: dict[int, VersionChange]) -> Change:
    return replace(change, facts={**facts, **(change.facts or {})} or None)
