"""What do target and destinations hold *now*? Asked at the start of every rotation and after every unknown outcome.

Asking by verifier or listing costs nothing. Where a target can only be asked by logging in, each attempt that may
fail is charged to a durable budget first (rotation.md section 6).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from vaultkeeper.engine.budget import PUT_OFF, budget_of
from vaultkeeper.engine.groups import Holder, asked, delivery_context
from vaultkeeper.engine.judge import Seen
from vaultkeeper.engine.parts import Parts, power
from vaultkeeper.engine.plan import dies_for_good
from vaultkeeper.engine.verdict import gap_is_open
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Basis, Held, Login, Observation, Refused, Tag, Unknown
from vaultkeeper.model.rotation import End, Placed
from vaultkeeper.model.secret import MAIN_FIELDS, Binding, Fields, SecretBytes, SecretVersion, main_field
from vaultkeeper.ports import Context, Explains, Target

EVERYBODY: tuple[End | None, ...] = (End.TO, End.FROM, None)  #: None stands for PREVIOUS


def look_back(work: Work) -> Seen | Refused:
    """Does the target still accept what consumers shall be put back to? Only if not: what they have, or one before?

    Where that is asked by logging in, a way back that is open costs no failed login.
    """
    old = look(work, (End.FROM,))
    if isinstance(old, Refused) or old.from_ is not Login.REJECTED:
        return old
    new = look(work, (End.TO,))
    if isinstance(new, Refused):
        return new
    new = replace(new, from_=old.from_)
    if new.to is not Login.REJECTED or not dies_for_good(work.rotation.policy):
        return new
    before = look(work, (None,))
    return before if isinstance(before, Refused) else replace(before, from_=new.from_, to=new.to)


def look(work: Work, ends: Sequence[End | None] = EVERYBODY) -> Seen | Refused:
    """One observation of the target for every version that the judgement may need."""
    policy = work.rotation.policy
    target = work.target(work.binding())
    if target is None or policy.target is None:
        return Seen(askable=False)
    if policy.target.unverified:
        return Seen(askable=False, detail=policy.target.unverified)
    candidates = {end: version for end, version in _candidates(work).items() if end in ends}
    answers: dict[int, Login] = {}
    usable, delay, detail, unanswered = None, None, "", None
    for binding, versions in _asked_at(work, candidates.values()):
        if work.rotation.options.forget_old and not same_target(binding, work.binding()):
            continue
        at = work.target(binding) or target
        seen = asked(work.parts, f"{at.kind}.observe", partial(at.observe, versions, work.context()))
        if isinstance(seen, Refused):
            return seen
        if isinstance(seen, Unknown):
            answers |= {version.number: seen.reason for version in versions}
            delay, detail = seen.retry_after, seen.detail
            unanswered = seen.reason if same_target(binding, work.binding()) else unanswered
            continue
        if seen.tag is not None and _newer(seen.tag, work):
            return Seen(newer_tag=True, detail=_tag_text(seen.tag))
        found, silent = _answers(work, at, versions, seen)
        answers |= found
        usable, delay = seen.account_usable, seen.retry_after
        if silent is not None:
            delay, detail = silent.delay or delay, silent.detail or detail
    return Seen(
        to=_answer(candidates, answers, End.TO),
        from_=_answer(candidates, answers, End.FROM),
        previous=_answer(candidates, answers, None),
        account_usable=usable,
        unanswered=unanswered,
        askable=bool(candidates) or usable is not None or work.rotation.from_version is None,
        retry_after=delay,
        detail=detail,
    )


def _asked_at(work: Work, candidates: Iterable[SecretVersion]) -> list[tuple[Binding, list[SecretVersion]]]:
    """Where each was made for; and first where the next one will be.

    Who moved there before us may have left a tag, and where nobody answers nothing is begun.
    """
    bindings, here = by_binding(candidates, work.binding()), work.binding()
    if not any(same_target(binding, here) for binding, _ in bindings):
        bindings.insert(0, (here, []))
    return bindings


def newest_generation(work: Work) -> int:
    """The highest that a tag of ours tells, of all places that `look` asks. 0: none answers with one."""
    target, newest = work.target(work.binding()), 0
    if target is None:
        return newest
    for binding, versions in _asked_at(work, _candidates(work).values()):
        at = work.target(binding) or target
        seen = asked(work.parts, f"{at.kind}.observe", partial(at.observe, versions, work.context()))
        if isinstance(seen, Observation) and seen.tag is not None and _ours(seen.tag, work):
            newest = max(newest, seen.tag.generation)
    return newest


def _candidates(work: Work) -> dict[End | None, SecretVersion]:
    """PENDING first: its answer decides most (AWS asks in this order too). None stands for PREVIOUS."""
    rotation = work.rotation
    numbers = {End.TO: rotation.to_version, End.FROM: rotation.from_version, None: rotation.previous_version}
    return {
        end: version
        for end, number in numbers.items()
        if number is not None and (version := work.book.version(number)).fields
    }


def _answer(candidates: dict[End | None, SecretVersion], answers: dict[int, Login], end: End | None) -> Login | None:
    version = candidates.get(end)
    return answers.get(version.number) if version else None


def by_binding(versions: Iterable[SecretVersion], default: Binding) -> list[tuple[Binding, list[SecretVersion]]]:
    """Versions by what they were made for. No version at all: the present binding, so that an empty account is seen."""
    found: list[tuple[Binding, list[SecretVersion]]] = []
    for version in versions:
        for binding, members in found:
            if same_target(binding, version.binding):
                members.append(version)
                break
        else:
            found.append((version.binding, [version]))
    return found or [(default, [])]


def same_target(one: Binding, other: Binding) -> bool:
    """Were two versions made for the same system, reached the same way?"""
    return one.target_kind == other.target_kind and dict(one.target_settings) == dict(other.target_settings)


def same_credential(one: SecretVersion, other: SecretVersion) -> bool:
    """Is it the same login at the same system? After a rollback, an import or an adoption two versions may be."""
    return same_target(one.binding, other.binding) and same_login(one, other)


def same_login(one: SecretVersion, other: SecretVersion) -> bool:
    """Would both say the same to one and the same system, whatever they were made for?"""
    return _login_of(one.fields) == _login_of(other.fields)


def _login_of(fields: Fields) -> Fields:
    """Derived fields (a salted verifier, say) may differ for one and the same password."""
    main = {"username", *MAIN_FIELDS} & set(fields)
    return {name: value for name, value in fields.items() if name in main or not main - {"username"}}


def _answers(
    work: Work, target: Target, versions: Sequence[SecretVersion], seen: Observation
) -> tuple[dict[int, Login], Tried | None]:
    """By the target's own record where it can be read; else by logging in, as few times as can decide.

    With the login that got no answer, if one did.
    """
    answers = dict(seen.answers)
    if seen.basis not in {Basis.LOGIN, Basis.NONE} or not target.capabilities.probes:
        return answers, None
    answers |= dict.fromkeys(work.rotation.rejected, Login.REJECTED)
    for version in versions:
        if version.number not in answers:
            heard = login(work, target, version)
            answers[version.number] = heard.said
            if heard.said in {Login.UNREACHABLE, Login.THROTTLED}:
                return answers, heard
            alone = work.rotation.to_version is None or target.capabilities.max_accepted == 1
            if heard.said is Login.ACCEPTED and alone:
                break  # no further failed login than the decision needs
    return answers, None


@dataclass(frozen=True)
class Tried:
    """What became of one login. `delay`: until it may be asked again. `refused`: it cannot be asked at all.

    `detail`: why there was no answer; empty where there was one.
    """

    said: Login
    delay: timedelta | None = None
    refused: Refused | None = None
    detail: str = ""


def login(work: Work, target: Target, version: SecretVersion, *, must_fail: bool = False) -> Tried:
    """One login of a rotation. What its open gap needs was paid before the gap, and nothing in it is put off."""
    rushed = gap_is_open(work.rotation)
    prepaid = rushed and must_fail and not work.rotation.doubted
    return tried(work.parts, target, version, work.context(), must_fail=must_fail, rushed=rushed, prepaid=prepaid)


def tried(
    parts: Parts,
    target: Target,
    version: SecretVersion,
    ctx: Context,
    *,
    must_fail: bool = False,
    rushed: bool = False,
    prepaid: bool = False,
) -> Tried:
    """One login, its possible failure charged durably before it is tried.

    An account that is locked is worse than a gap: the budget of a kind that locks them is never overdrawn.
    """
    charged, failed_before = budget_of(target, version), 0
    if charged is not None and prepaid and not charged.own:
        charged = None
    if charged is not None:
        now = parts.clock.now()
        failed_before = charged.spent(parts.store, now)
        delay = charged.charge(parts.store, now)
        if delay is not None and (charged.own or not rushed):
            return Tried(Login.THROTTLED, delay, detail=PUT_OFF)
        charged = charged if delay is None else None
    answer = asked(parts, f"{target.kind}.test", lambda: target.test(version, ctx))
    if isinstance(answer, Refused):
        return Tried(Login.UNREACHABLE, refused=answer, detail=answer.detail)
    said = answer.reason if isinstance(answer, Unknown) else answer
    heard = Tried(said)
    if said in {Login.UNREACHABLE, Login.THROTTLED}:
        told = answer if isinstance(answer, Unknown) else Unknown(said)
        heard = Tried(
            said, told.retry_after, detail=told.detail or f"{target.kind} gave no answer to a login as the account"
        )
    if charged is None:
        return heard
    # Where nobody answers, what should have been let in was hardly refused; a wrong value may have been.
    unheard = said is Login.UNREACHABLE and not must_fail and not charged.own
    if said is Login.ACCEPTED or unheard:
        charged.refund(parts.store)
    if said is Login.REJECTED and failed_before and charged.own and not target.capabilities.tells_lockouts:
        # A lock-out answers like a rejection there.
        return Tried(Login.THROTTLED, charged.window, detail=f"{target.kind} rejects it, or has locked the account")
    return heard


def made_up(target: Target, version: SecretVersion) -> SecretVersion:
    """A login that must fail: what the target says hurts nobody, else a random value of the same length."""
    decoy = target.decoy(version)
    if decoy is not None:
        return decoy
    name = main_field(set(version.fields))
    length = max(len(version.fields[name].reveal()), 16)
    wrong = SecretBytes(secrets.token_hex(length)[:length].encode())
    return replace(version, fields={**version.fields, name: wrong}, handle=None)  # a handle would name the right one


def explained(parts: Parts, target: Target, version: SecretVersion, said: Login, ctx: Context) -> str:
    """What the target knows of an answer that is not what was set; empty where it knows nothing."""
    explaining = power(target, Explains)
    if explaining is None:
        return ""
    told = asked(parts, f"{target.kind}.explain", lambda: explaining.explain(version, said, ctx))
    return parts.redactor.clean(told) if isinstance(told, str) else ""


def _newer(tag: Tag, work: Work) -> bool:
    """Did somebody with a later state than this store write last (invariant 12)?"""
    return _ours(tag, work) and tag.generation > max(work.book.records(), default=0)


def _ours(tag: Tag, work: Work) -> bool:
    return (tag.installation, tag.secret) == (work.parts.store.installation, work.rotation.secret)


def _tag_text(tag: Tag) -> str:
    return f"the target was last written as generation {tag.generation}, which this store does not know"


class Untold(BackendError):
    """A place that must say what it holds did not: `result`, which tells how long to wait, and why."""

    def __init__(self, group: str, said: Unknown | Refused) -> None:
        super().__init__(f"{group} did not say what it holds: {said.detail}")
        self.result = replace(said, detail=self.what)


def drift(work: Work, holder: Holder, *, must_know: bool = False) -> list[str]:
    """Places that somebody put back to an older version of ours, for people: "shop_api: holds v3, not v4".

    A place that does not say is passed over; with `must_know` Untold is raised.
    """
    current = work.rotation.from_version
    if current is None:
        return []
    found = []
    stored = sorted((n for n, r in work.book.records().items() if r.sealed is not None), reverse=True)
    for group in sorted({place.group for place in holder.places}):
        held = _held(work, holder, str(group), [n for n in stored if n == current], must_know=must_know)
        if any(one.version != current for _, one in held):  # only now is it worth to unseal the older ones
            held = _held(work, holder, str(group), stored[:5], must_know=must_know)
        for place, one in held:
            if one.version is not None and one.version != current:
                found.append(f"{place}: holds v{one.version}, not v{current}")
    return found


def held_now(holder: Holder, parts: Parts, places: Sequence[Placed] | None = None) -> list[tuple[Placed, Held]]:
    """What every slot of a secret (or those of `places`) carries now, read-only. Raises BackendError.

    Without slots that are not ours to write, and those that a destination does not tell of: read once in a life.
    """
    places = holder.places if places is None else places
    found: list[tuple[Placed, Held]] = []
    for group in dict.fromkeys(place.group for place in places):
        items = holder.items(group, parts)
        if not items:
            continue
        destination = parts.backends.destination(items[0].spec.kind)
        ask = partial(destination.observe, group, items, delivery_context(parts))
        seen = asked(parts, f"{destination.kind}.observe", ask)
        if isinstance(seen, Unknown | Refused):
            raise BackendError(f"{group} could not be asked", why=seen.detail)
        found += [(place, seen[place.slot]) for place in places if place.group == group and place.slot in seen]
    return found


def _held(work: Work, holder: Holder, group: str, numbers: Sequence[int], *, must_know: bool) -> list[tuple[str, Held]]:
    parts = work.parts
    versions = [work.book.version(number) for number in numbers]
    places = [place for place in holder.places if place.group == group]
    items = [holder.item(place, versions, parts) for place in places]
    if not items:
        return []
    destination = parts.backends.destination(items[0].spec.kind)
    seen = asked(
        parts,
        f"{destination.kind}.observe",
        lambda: destination.observe(places[0].group, items, work.delivery_context()),
    )
    if isinstance(seen, Unknown | Refused):
        if must_know:
            raise Untold(group, seen)
        return []
    return [(place.name, seen[place.slot]) for place in places if place.slot in seen]
