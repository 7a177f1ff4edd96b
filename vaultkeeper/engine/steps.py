"""One function per step: does it, or asks, and returns the judgement. Waiting is an answer, never a sleep.

`STEPS` holds those that concern one rotation alone; delivering and confirming are done for a whole group (`handover`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from vaultkeeper.engine import judge
from vaultkeeper.engine.book import bound_to
from vaultkeeper.engine.groups import Holder, asked, find_places, seal_receipt
from vaultkeeper.engine.judge import Proved, Seen, Tested
from vaultkeeper.engine.moves import RETRY, advance, park, turn_back, wait, wait_unknown
from vaultkeeper.engine.observe import by_binding, drift, login, look, same_credential, same_target
from vaultkeeper.engine.parts import power
from vaultkeeper.engine.schedule import due_at
from vaultkeeper.engine.work import Work
from vaultkeeper.model.outcome import (
    Done,
    Finding,
    Holds,
    Login,
    No,
    NotYet,
    Refused,
    Result,
    Unknown,
    Usage,
)
from vaultkeeper.model.rotation import Cause, End, Phase, Purpose, Rotation, State, Step, Waiting
from vaultkeeper.model.secret import (
    Acceptance,
    Fields,
    GroupKey,
    Handle,
    SecretBytes,
    SecretVersion,
    StagingLabel,
    VersionRecord,
    main_field,
)
from vaultkeeper.ports import Change, ClosesSessions, Item, Mints, ReportsUse, Spares, Target, VersionChange

INPUT_POLL = timedelta(hours=1)
DEPENDENCY_POLL = timedelta(seconds=1)  # at first; then after a tenth of the time waited so far


def phase_of(work: Work) -> Phase:
    """The phase that a running rotation stands in; there is none only after its end."""
    phase = work.rotation.phase
    if phase is None:
        raise RuntimeError("a finished track takes no further step")
    return phase


# ------------------------------------------------------------------------------------------------------------- observe


def observe(work: Work) -> Change:
    """Stale stores, drift and restored targets are found before anything changes."""
    parts, rotation, now = work.parts, work.rotation, work.parts.clock.now()
    waiting_on = _unfinished_dependencies(work)
    if waiting_on:
        again = now + max(DEPENDENCY_POLL, abs(now - rotation.entered_at) / 10)
        return wait(rotation, Waiting.DEPENDENCY, again, waiting_on)
    places = find_places(rotation.policy, parts, work.delivery_context())
    if isinstance(places, Unknown | Refused):
        return judge.judge_result(rotation, places, now)
    seen = look(work)
    if isinstance(seen, Refused):
        return judge.judge_result(rotation, seen, now)
    holder = Holder(rotation.secret, rotation.policy, places, None, work.book)
    reverted = drift(work, holder)
    placed = replace(rotation, places=places, detail="; ".join(reverted))
    if reverted and _would_reset_an_account_in_use(work):
        return park(placed, Cause.DRIFT)
    return _remembering(seen, judge.judge_seen(placed, seen, now))


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


# -------------------------------------------------------------------------------------------------------------- create


def create(work: Work) -> Change:
    """Generate, complete, seal; durable before it is visible, because the next outward step writes first."""
    parts, rotation, now = work.parts, work.rotation, work.parts.clock.now()
    refusal = _first_refusal(work)
    if refusal is not None:
        return judge.judge_result(rotation, refusal, now)
    fields = _new_fields(work)
    if isinstance(fields, Refused | NotYet | Unknown):
        return judge.judge_result(rotation, fields, now)
    number = parts.store.next_number(rotation.secret)
    version_id = secrets.token_hex(16)
    sealed = (
        parts.envelope.seal(fields, secret=rotation.secret, bound_to=bound_to(number, version_id)) if fields else None
    )
    handle, expires_at = _inherited(work)
    record = VersionRecord(rotation.secret, number, version_id, work.binding(), now, sealed, handle, expires_at)
    work.book.add(record, fields)
    moved = advance(replace(rotation, to_version=number), now)
    return replace(moved, new_version=record, labels={StagingLabel.PENDING: number})


def _first_refusal(work: Work) -> Refused | None:
    """Privileges and capacity are asked for before anything exists that would have to be undone."""
    target = work.target(work.binding())
    if target is None:
        return None
    findings = asked(work.parts, f"{target.kind}.check", lambda: target.check(work.context()))
    if isinstance(findings, Refused):
        return findings
    if isinstance(findings, Unknown):
        return None  # unreachable shows itself in the step that needs an answer
    refused = next((finding for finding in findings if finding.level == "refuse"), None)
    return Refused(No.PRIVILEGE, _told(refused)) if refused else None


def _told(finding: Finding) -> str:
    return f"{finding.text}; {finding.next}" if finding.next else finding.text


def _new_fields(work: Work) -> Fields | Refused | NotYet | Unknown:
    rotation, parts = work.rotation, work.parts
    if rotation.purpose is Purpose.ROLLBACK:
        source = work.book.maybe(rotation.previous_version)
        return dict(source.fields) if source else Refused(No.UNSUPPORTED, "there is no previous version")
    given = _generated(rotation, work)
    target = work.target(work.binding())
    if given is None:
        return {} if power(target, Mints) else NotYet("a person supplies this value", INPUT_POLL)
    if target is None:
        return given
    parts.redactor.learn(given)  # before anybody else is shown it
    completed = asked(parts, f"{target.kind}.complete", lambda: target.complete(given, work.context(), adopting=False))
    if not isinstance(completed, Unknown | Refused):
        parts.redactor.learn(completed)
    return completed


def _generated(rotation: Rotation, work: Work) -> Fields | None:
    """None: the system or a person makes the value."""
    policy = rotation.policy
    if policy.static is not None:
        return {"value": SecretBytes(policy.static.encode())}
    if policy.generator is None:
        return None
    generator = work.parts.backends.generator(policy.generator.kind)
    forbidden, max_bytes = frozenset[str](), None
    if policy.target is not None:
        capabilities = work.parts.backends.target_class(policy.target.kind).capabilities
        forbidden, max_bytes = capabilities.forbidden, capabilities.max_bytes
    for spec in policy.destinations:
        forbidden |= work.parts.backends.destination(spec.kind).forbidden
    fields = generator.generate(policy.generator.settings, forbidden, max_bytes)
    if policy.generator.field is None:
        return fields
    return {policy.generator.field: fields[generator.field]}


def _inherited(work: Work) -> tuple[Handle | None, datetime | None]:
    """A rollback of a minted value carries its handle and expiry along."""
    source = work.book.maybe(work.rotation.previous_version) if work.rotation.purpose is Purpose.ROLLBACK else None
    return (source.handle, source.expires_at) if source else (None, None)


def mint(work: Work) -> Change:
    """The name is durable before the call, the value before any use (rotation.md section 14)."""
    parts, rotation, now = work.parts, work.rotation, work.parts.clock.now()
    pending = work.version(End.TO)
    target = power(work.target(work.binding()), Mints)
    if pending is None or target is None:
        raise RuntimeError("only a target that mints has a mint phase")
    if pending.fields:
        return advance(rotation, now)
    work.begin()
    ctx, kind = work.context(), work.binding().target_kind
    found = asked(parts, f"{kind}.find", lambda: target.find(pending.id, ctx))
    if isinstance(found, Unknown | Refused):
        return judge.judge_result(work.rotation, found, now)
    if found is not None and found[0] is None:
        dropped = _collect_orphan(work, pending)
        if not isinstance(dropped, Done):
            return judge.judge_result(work.rotation, dropped, now)
    # Counted from a durable moment: after a crash the token that `find` returns still carries the first call's expiry.
    period = rotation.policy.rotation_period
    expires = pending.created_at + 2 * period + timedelta(days=1) if period else None
    if found is not None and found[0] is not None:
        return _store_minted(work, pending, found[0], found[1], expires)
    minted = asked(parts, f"{kind}.mint", lambda: target.mint(pending.id, expires, ctx))
    if isinstance(minted, Unknown | Refused | NotYet):
        return judge.judge_result(work.rotation, minted, now)
    return _store_minted(work, pending, *minted, expires)


def _store_minted(
    work: Work, pending: SecretVersion, fields: Fields, handle: Handle, expires: datetime | None
) -> Change:
    sealed = work.parts.envelope.seal(fields, secret=pending.secret, bound_to=bound_to(pending.number, pending.id))
    facts = {pending.number: VersionChange(sealed=sealed, handle=handle, expires_at=expires)}
    work.apply(advance(work.rotation, work.parts.clock.now(), facts))
    work.write()
    return Change(work.rotation)


# -------------------------------------------------------------------------------------------------------------- target


def set_(work: Work) -> Change:
    """Make the target accept and refuse as the phase says; each version at what it was made for."""
    work.begin()
    phase, parts = phase_of(work), work.parts
    accept, refuse = work.versions(phase.carry), work.versions(phase.refuse)
    left = []
    if phase.step is Step.RETIRE:
        left = [v for v in work.leftovers() if not any(same_credential(v, kept) for kept in accept)]
        refuse += left
    for orphan in [version for version in refuse if not version.fields]:
        collected = _collect_orphan(work, orphan)
        if not isinstance(collected, Done):
            return judge.judge_result(work.rotation, collected, parts.clock.now())
        refuse.remove(orphan)
    here, bindings = work.binding(), by_binding([*accept, *refuse], work.binding())
    for binding, versions in bindings:
        target = work.target(binding)
        if target is None:
            continue
        result = _set_at(work, target, [v for v in accept if v in versions], [v for v in refuse if v in versions])
        elsewhere = not same_target(binding, here)
        if isinstance(result, Unknown) and elsewhere and phase.step is Step.RETIRE:
            if work.rotation.options.forget_old:
                continue
            return park(work.rotation, Cause.BINDING, result.detail)
        if not isinstance(result, Done):
            changed = binding is not bindings[0][0]
            return judge.judge_result(_partly(work, begun=changed), result, parts.clock.now())
    if phase.step is Step.RETIRE:
        closed = _close_sessions(work, refuse)
        if not isinstance(closed, Done):
            return judge.judge_result(work.rotation, closed, parts.clock.now())
    dead = {v.number: VersionChange(acceptance=Acceptance.REFUSED) for v in left}
    return judge.judge_result(work.rotation, Done(), parts.clock.now(), dead)


def _collect_orphan(work: Work, version: SecretVersion) -> Result:
    """What was minted under this version's name, and never reached the store, is of use to nobody."""
    target, ctx = power(work.target(version.binding), Mints), work.context()
    if target is None:
        return Done()
    found = asked(work.parts, f"{version.binding.target_kind}.find", lambda: target.find(version.id, ctx))
    if isinstance(found, Unknown | Refused):
        return found
    if found is None:
        return Done()
    return asked(work.parts, f"{version.binding.target_kind}.drop", lambda: target.drop(found[1], ctx))


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
    answer, delay, refused = login(work, target, pending)
    if refused is not None:
        return turn_back(rotation, judge.CAUSE_OF[refused.why], now, refused.detail)
    if answer is Login.ACCEPTED and not target.capabilities.mutual:
        answer, delay, _ = login(work, target, _wrong_value(work, target, pending))
        if answer not in judge.NO_ANSWER:
            return judge.judge_tested(rotation, Tested(Login.ACCEPTED, answer), now)
    if answer in judge.NO_ANSWER:
        return wait_unknown(rotation, Unknown(answer, _unanswered(target), delay), now)
    return judge.judge_tested(rotation, Tested(answer), now)


def _unanswered(target: Target) -> str:
    return f"{target.kind} gave no answer to a login as the account"


def _wrong_value(work: Work, target: Target, pending: SecretVersion) -> SecretVersion:
    """Where only one value can be accepted the old one is the control; else a decoy, else a random value."""
    current = work.version(End.FROM)
    refuses_old = any(End.FROM in p.refuse for p in work.rotation.phases[: work.rotation.at] if p.step is Step.SET)
    if refuses_old and current is not None and not same_credential(current, pending):
        return current
    decoy = target.decoy(pending)
    if decoy is not None:
        return decoy
    name = main_field(set(pending.fields))
    length = max(len(pending.fields[name].reveal()), 16)
    return replace(pending, fields={**pending.fields, name: SecretBytes(secrets.token_hex(length)[:length].encode())})


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
        reason = rotation.policy.target.unverified or f"{target.kind} cannot log in as the account"
        return judge.judge_proved(rotation, Proved(None, reason), now)
    sparing = power(target, Spares)
    if sparing is not None and sparing.keeps(old):
        return advance(replace(rotation, detail="the first owner's own login is kept, as the policy says"), now)
    answer, delay, refused = login(work, target, old)
    if refused is not None:
        return park(rotation, judge.CAUSE_OF[refused.why], refused.detail)
    if answer in judge.NO_ANSWER:
        return wait_unknown(rotation, Unknown(answer, _unanswered(target), delay), now)
    return judge.judge_proved(rotation, Proved(answer), now)


# --------------------------------------------------------------------------------------------------- around a delivery


def prepare(work: Work) -> Change:
    """Additive: consumers see nothing. What it takes to put each slot back is journalled before any delivery."""
    phase, parts, now = phase_of(work), work.parts, work.parts.clock.now()
    if not work.places(phase.audience):
        return advance(work.rotation, now)
    work.begin()
    receipts = dict(work.rotation.receipts)
    groups = sorted(work.groups(phase))
    for group in groups:
        items = asked(parts, "template", partial(_own_items, work, group, phase))
        if isinstance(items, Unknown | Refused):
            return judge.judge_result(_partly(work, begun=group != groups[0]), items, now)
        destination = parts.backends.destination(items[0].spec.kind)
        ask_prepare = partial(destination.prepare, group, items, work.delivery_context())
        prepared = asked(parts, f"{destination.kind}.prepare", ask_prepare)
        if isinstance(prepared, Unknown | Refused | NotYet):
            return judge.judge_result(_partly(work, begun=group != groups[0]), prepared, now)
        for place in work.places(phase.audience):
            key = work.rotation.receipt_key(place.group, place.slot)
            if place.group == group and place.slot in prepared.receipts and key not in receipts:
                receipts[key] = seal_receipt(work.rotation, place, prepared.receipts[place.slot], parts)
    return advance(replace(work.rotation, receipts=receipts), parts.clock.now())


def _partly(work: Work, *, begun: bool) -> Rotation:
    """A refusal after a part of the phase was done does not mean that nothing was changed."""
    return replace(work.rotation, doubted=work.rotation.doubted or begun)


def _own_items(work: Work, group: GroupKey, phase: Phase) -> list[Item]:
    holder = Holder(work.rotation.secret, work.rotation.policy, work.rotation.places, work.rotation, work.book)
    versions = work.versions(phase.carry)
    return [holder.item(place, versions, work.parts) for place in work.places(phase.audience) if place.group == group]


def barrier(work: Work) -> Change:
    """Reached by everybody of the batch: now the gap of `single` may open."""
    return advance(work.rotation, work.parts.clock.now())


def finish(work: Work) -> Change:
    """The labels move."""
    return judge.judge_finish(work.rotation, work.parts.clock.now())


def grace(work: Work) -> Change:
    """Both values stay valid, asleep in the journal."""
    return judge.judge_grace(work.rotation, work.parts.clock.now())


def release(work: Work) -> Change:
    """Close rollback paths that name the version, and collect its objects; also of a discarded PENDING."""
    phase, parts = phase_of(work), work.parts
    version = work.version(phase.carry[0])
    if version is None or not work.rotation.places:
        return advance(work.rotation, parts.clock.now())
    work.begin()
    holder = Holder(work.rotation.secret, work.rotation.policy, work.rotation.places, work.rotation, work.book)
    left = work.leftovers() if phase.carry[0] is End.FROM else []
    for place in work.rotation.places:
        versions = holder.versions(place.audience) or []
        item = holder.item(place, versions, parts)
        result = _release_one(work, place.group, version, item)
        for other in left:  # not asked whether it is still held: after a rollback its content may be the new one's
            if isinstance(result, Done):
                result = _released(work, place.group, other, item)
        if not isinstance(result, Done):
            return judge.judge_result(work.rotation, result, parts.clock.now())
    return advance(work.rotation, parts.clock.now())


def _released(work: Work, group: GroupKey, version: SecretVersion, item: Item) -> Result:
    destination = work.parts.backends.destination(item.spec.kind)
    ctx = work.delivery_context()
    return asked(work.parts, f"{item.spec.kind}.release", lambda: destination.release(group, version, item, ctx))


def _release_one(work: Work, group: GroupKey, version: SecretVersion, item: Item) -> Result:
    released = _released(work, group, version, item)
    if not isinstance(released, Done):
        return released
    destination = work.parts.backends.destination(item.spec.kind)
    kind, ctx = destination.kind, work.delivery_context()
    held = asked(work.parts, f"{kind}.holds", lambda: destination.holds(group, version, item, ctx))
    if isinstance(held, Unknown | Refused):
        return held
    return Done() if held is Holds.NOTHING else NotYet(f"{kind} still holds v{version.number} ({held.value})", RETRY)


def evidence(work: Work) -> Change:
    """Does anybody still use the old value?"""
    rotation, parts, now = work.rotation, work.parts, work.parts.clock.now()
    old = work.version(End.FROM)
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
