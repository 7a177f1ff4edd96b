"""What a rotation would do, and what stands in its way: for `plan`, `check` and the question before a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.budget import WRONG, Deliberate, Refusal, budget_of, refusals
from vaultkeeper.engine.by_hand import page, who_makes_it, who_revokes_it
from vaultkeeper.engine.groups import (
    Holder,
    asked,
    attempted,
    confirm_timeout,
    delivery_context,
    find_places,
    specs,
)
from vaultkeeper.engine.opening import new_rotation
from vaultkeeper.engine.parts import Parts, open_target
from vaultkeeper.engine.plan import by_hand, one_at_a_time
from vaultkeeper.engine.rotate import next_due, reason_to_skip
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import BackendError, VaultkeeperError
from vaultkeeper.model import duration
from vaultkeeper.model.outcome import Finding, Refused, Unknown
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Audience, End, Options, Phase, Placed, Purpose, State, Step
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion
from vaultkeeper.ports import Item, ReadsBack, Rendered, Target


@dataclass(frozen=True)
class Gap:
    """Where one value works at a time: consumers have the old one, and the target takes the new one only."""

    last: timedelta | None  #: how long the last one was


@dataclass(frozen=True)
class Preview:
    """One secret's plan. `blocked`: why nothing would be done now; `steps`: one line each, for people."""

    secret: str
    policy: RotationPolicy
    from_version: int | None
    to_version: int
    phases: Sequence[Phase]
    steps: Sequence[str]
    findings: Sequence[Finding]
    due_at: datetime | None
    blocked: str
    gap: Gap | None = None  #: None: nobody is cut off at any time
    deliberate: Deliberate | None = None  #: logins that fail on purpose; None: nobody checks the secret


def preview(
    names: Sequence[str], parts: Parts, *, ask_servers: bool, purpose: Purpose = Purpose.ROTATE
) -> list[Preview]:
    """Nothing is changed, at no system and not in the store."""
    return [_preview(parts.policies[name], parts, purpose, ask_servers=ask_servers) for name in names]


def check(parts: Parts, *, offline: bool) -> list[tuple[str, Finding]]:
    """Every enabled policy against its systems. An unreachable one is a warning."""
    if offline:
        return []
    enabled = [name for name, policy in parts.policies.items() if policy.enabled]
    return [(name, finding) for name in enabled for finding in _checked(name, parts)]


def _checked(name: str, parts: Parts) -> Sequence[Finding]:
    """A policy that cannot be planned does not hide what is to be said of the others."""
    try:
        (plan,) = preview([name], parts, ask_servers=True)
    except BackendError as error:
        return (Finding("refuse", str(error), error.next),)
    return plan.findings


def _preview(policy: RotationPolicy, parts: Parts, purpose: Purpose, *, ask_servers: bool) -> Preview:
    rotation = new_rotation(policy.name, parts, purpose, Options())
    work = Work(rotation, parts, Book(policy.name, parts.store, parts.envelope, parts.redactor))
    places = find_places(policy, parts, delivery_context(parts))
    placed = places if isinstance(places, tuple) else ()
    findings: list[Finding] = []
    if not isinstance(places, tuple):
        findings.append(Finding("warn", f"a destination could not be asked for its places: {places.detail}"))
    findings += [*_untagged(policy, parts), *_unread(policy, parts)]
    if ask_servers:
        findings += _target_findings(work, parts)
        findings += _destination_findings(work, placed, parts)
    skipped = reason_to_skip(policy.name, parts, purpose, by_name=False)
    where = page(open_target(parts, work.binding())) if by_hand(policy) else ""
    newest = max((record.number for record in work.book.records().values()), default=0)
    return Preview(
        policy.name,
        policy,
        rotation.from_version,
        newest + 1,
        rotation.phases,
        [line for phase in rotation.phases for line in _lines(phase, policy, placed, where)],
        findings,
        next_due(policy, parts, parts.clock.now()),
        skipped.skipped if skipped else "",
        _gap(work),
        _deliberate(work),
    )


def _gap(work: Work) -> Gap | None:
    rotation = work.rotation
    if rotation.from_version is None or not one_at_a_time(rotation.policy):
        return None
    before = work.parts.store.rotations(rotation.secret)
    return Gap(next((r.gap for r in before if r.state is State.DONE and r.gap is not None), None))


def _deliberate(work: Work) -> Deliberate | None:
    """Refused on purpose, and where. Before the first version some kinds cannot say where."""
    target = work.target(work.binding())
    if target is None:
        return None
    expected = refusals(work.rotation.phases, work.rotation.policy.target, target.capabilities)
    known = attempted(work.parts, f"{target.kind}.login_key", partial(_placed, work, target, expected))
    return known if isinstance(known, Deliberate) else Deliberate(expected)


def _placed(work: Work, target: Target, expected: Sequence[Refusal]) -> Deliberate:
    """With the account of each, and the address."""
    made_for, now = work.binding(), work.parts.clock.now()
    anybody = SecretVersion(work.rotation.secret, 0, "", {"username": SecretBytes(b"")}, made_for, now)
    old = work.version(End.FROM) or anybody
    new = _taking_turns(old, work.rotation.policy)
    found = []
    for refusal in expected:
        version = old if refusal.end is End.FROM else new
        if refusal.of == WRONG:
            version = target.decoy(version) or version
        found.append(replace(refusal, account=_account(target, version) if old is not anybody else ""))
    return Deliberate(tuple(found), target.login_key(old)[1], budget_of(target, old))


def _account(target: Target, version: SecretVersion) -> str:
    """As it stands in the target's log; where a value has no user name, as its failures are counted."""
    return version.fields["username"].text() if "username" in version.fields else target.login_key(version)[0]


def _taking_turns(old: SecretVersion, policy: RotationPolicy) -> SecretVersion:
    """As the account that the next version will be of, where two take turns."""
    users = policy.target.settings.get("users") if policy.target else None
    if not isinstance(users, list | tuple) or "username" not in old.fields:
        return old
    others = [user for user in users if SecretBytes(str(user).encode()) != old.fields["username"]]
    return replace(old, fields={**old.fields, "username": SecretBytes(str(others[0]).encode())}) if others else old


def _untagged(policy: RotationPolicy, parts: Parts) -> list[Finding]:
    """Invariant 12: where nothing at the target says who wrote last, a person must know."""
    spec = policy.target
    if spec is None or (parts.backends.target_class(spec.kind).capabilities.tags and not spec.self_service):
        return []
    text = "holds no tag of ours: a store restored from an old backup is noticed only when its value is refused"
    return [Finding("unchecked", f"{spec.kind} {text}")]


def _unread(policy: RotationPolicy, parts: Parts) -> list[Finding]:
    """A list that travels in a place which does not show what it holds (a Swarm secret) is written as ours alone."""
    spec = policy.target
    if spec is None or spec.via is None or any(spec.via.values.values()):
        return []
    whole = not isinstance(parts.backends.destination(spec.via.kind), ReadsBack)
    listed = issubclass(parts.backends.target_class(spec.kind), Rendered)
    text = f"{spec.via.kind} does not show what it holds: entries of this {spec.kind} that are not ours are not kept"
    return [Finding("warn", text, "give each of them a secret of its own")] if whole and listed else []


def _target_findings(work: Work, parts: Parts) -> list[Finding]:
    try:
        target = open_target(parts, work.binding())
        if target is None:
            return []
        found = asked(parts, f"{target.kind}.check", lambda: target.check(work.context()))
    except VaultkeeperError as error:
        return [Finding("refuse", str(error), error.next)]
    return _as_findings(found)


def _destination_findings(work: Work, places: Sequence[Placed], parts: Parts) -> list[Finding]:
    holder = Holder(work.rotation.secret, work.rotation.policy, tuple(places), None, work.book)
    findings: list[Finding] = []
    for group in dict.fromkeys(place.group for place in places):
        items = holder.items(group, parts) or _empty_items(work, group, places)
        destination = parts.backends.destination(items[0].spec.kind)
        found = asked(
            parts,
            f"{destination.kind}.check",
            lambda d=destination, g=group, i=items: d.check(g, i, delivery_context(parts)),  # type: ignore[misc]
        )
        findings += _as_findings(found)
        timeout = confirm_timeout(destination, group, items)
        findings.append(Finding("ok", f"{group}: confirmed within {duration.show(timeout)}, or it goes back"))
    return findings


def _empty_items(work: Work, group: GroupKey, places: Sequence[Placed]) -> list[Item]:
    """Before the first version there is nothing to carry, but the place can be looked at."""
    by_index = {index: spec for index, spec, _ in specs(work.rotation.policy)}
    return [
        Item(place.slot, by_index[place.destination], work.rotation.secret, None)
        for place in places
        if place.group == group
    ]


def _as_findings(found: Sequence[Finding] | Unknown | Refused) -> list[Finding]:
    if isinstance(found, Unknown):
        return [Finding("warn", f"not reachable now: {found.detail}")]
    if isinstance(found, Refused):
        return [Finding("refuse", found.detail)]
    return list(found)


def _lines(phase: Phase, policy: RotationPolicy, places: Sequence[Placed], where: str) -> list[str]:
    """A phase in words. Phases that reach nobody say nothing. `where`: the page on which a person changes it."""
    there = [place.name for place in places if place.audience is phase.audience]
    who = "the checker reads" if phase.audience is Audience.CHECKER else "consumers read"
    target = policy.target.kind if policy.target else ""
    return {
        Step.OBSERVE: ["observe   what target and destinations hold now"],
        Step.CREATE: [f"create    {_origin(policy, where)}"],
        Step.MINT: [f"mint      {target} makes the value"],
        Step.PREPARE: [],
        Step.BARRIER: ["barrier   everything is ready before the gap opens"],
        Step.SET: [f"set       {target} accepts {_ends(phase.carry)}" + _refusing(phase)],
        Step.TEST: [f"test      {_proof(policy, target)}"],
        Step.DELIVER: [f"deliver   {_ends(phase.carry)} → {name}" for name in there],
        Step.CONFIRM: [f"confirm   {who} it: {', '.join(there)}"] if there else [],
        Step.FINISH: ["finish    the new version is CURRENT"],
        Step.GRACE: [f"grace     the old value stays valid for {_span(policy.grace_period)}"],
        Step.RELEASE: [f"release   no way back to {_ends(phase.carry)} stays open at consumers"] if there else [],
        Step.EVIDENCE: ["evidence  nobody uses the old value any more"],
        Step.RETIRE: [f"retire    {target} refuses the old value"],
        Step.PROVE: [f"prove     {_refusal(phase, policy, where)}"],
    }[phase.step]


def _origin(policy: RotationPolicy, where: str) -> str:
    if by_hand(policy):
        return who_makes_it(policy, where)
    made = f"a new {policy.generator.kind}" if policy.generator else "the version's name"
    return f"{'the constant' if policy.static is not None else made}, sealed and stored before anything else"


def _proof(policy: RotationPolicy, target: str) -> str:
    if policy.target is not None and policy.target.unverified:
        return f"nothing can be proven here: {policy.target.unverified}"
    return f"log in to {target} with the new value; a wrong one must fail"


def _refusal(phase: Phase, policy: RotationPolicy, where: str) -> str:
    if by_hand(policy):
        return who_revokes_it(policy, where)
    return f"{_ends(phase.carry)} is refused"


def _ends(ends: Sequence[End]) -> str:
    names = {End.TO: "the new value", End.FROM: "the old value"}
    return " and ".join(names[end] for end in ends) or "nothing"


def _refusing(phase: Phase) -> str:
    return f", refuses {_ends(phase.refuse)}" if phase.refuse else ""


def _span(length: timedelta) -> str:
    return duration.show(length) if length else "no time"
