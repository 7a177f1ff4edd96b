"""Prepare and release: before a delivery what makes it possible and undoable, after it what it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from vaultkeeper.engine import judge
from vaultkeeper.engine.groups import Holder, asked, attempted, find_places, seal_receipt, specs
from vaultkeeper.engine.moves import PUT_OFF_AT_ONCE, RETRY, advance, park, waited
from vaultkeeper.engine.parts import power
from vaultkeeper.engine.plan import keeps_old
from vaultkeeper.engine.work import Work, partly, phase_of
from vaultkeeper.model.outcome import (
    Done,
    Holds,
    NotYet,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import Read
from vaultkeeper.model.rotation import Cause, End, Phase, Placed, Step
from vaultkeeper.model.secret import (
    GroupKey,
    SecretVersion,
)
from vaultkeeper.ports import Change, Item, Releases

LOOKED_BACK = 5  # rotations, this one too; each supersedes at most the one before it


def prepare(work: Work) -> Change:
    """Additive: consumers see nothing. What it takes to put each slot back is journalled before any delivery."""
    phase, parts, now = phase_of(work), work.parts, work.parts.clock.now()
    if not work.places(phase.audience):
        return advance(work.rotation, now)
    _begin(work)
    receipts = dict(work.rotation.receipts)
    groups = sorted(work.groups(phase))
    for group in groups:
        items = attempted(parts, "template", partial(_own_items, work, group, phase))
        if isinstance(items, Unknown | Refused):
            return judge.judge_result(partly(work, begun=group != groups[0]), items, now)
        destination = parts.backends.destination(items[0].spec.kind)
        ask_prepare = partial(destination.prepare, group, items, work.delivery_context())
        prepared = asked(parts, f"{destination.kind}.prepare", ask_prepare)
        if isinstance(prepared, Unknown | Refused | NotYet):
            return judge.judge_result(partly(work, begun=group != groups[0]), prepared, now)
        for place in work.places(phase.audience):
            key = work.rotation.receipt_key(place.group, place.slot)
            if place.group == group and place.slot in prepared.receipts and key not in receipts:
                receipts[key] = seal_receipt(work.rotation, place, prepared.receipts[place.slot], work.book)
    return advance(replace(work.rotation, receipts=receipts), parts.clock.now())


def _begin(work: Work) -> bool:
    """Tell whether one of its kinds releases anything.

    A kind that does not makes nothing either: it only looks, and the next outward step journals that.
    """
    kinds = {spec.kind for _, spec, _ in specs(work.rotation.policy)}
    releasing = any(power(work.parts.backends.destination(kind), Releases) for kind in kinds)
    if releasing:
        work.begin()
    return releasing


def _own_items(work: Work, group: GroupKey, phase: Phase) -> list[Item]:
    holder = Holder(work.rotation.secret, work.rotation.policy, work.rotation.places, work.rotation, work.book)
    versions = work.versions(phase.carry)
    return [holder.item(place, versions, work.parts) for place in work.places(phase.audience) if place.group == group]


def release(work: Work) -> Change:
    """Close rollback paths that name the version, and collect its objects; also of a discarded PENDING.

    A place that is not ready yet keeps no other waiting, and a group that is through is not asked again.
    """
    phase, parts = phase_of(work), work.parts
    version = work.version(phase.carry[0])
    if version is None or not work.rotation.places:
        return advance(work.rotation, parts.clock.now())
    releasing = _begin(work)
    late = _came_later(work, version) if phase.carry[0] is End.FROM else []
    if isinstance(late, Drifted):
        return park(work.rotation, Cause.DRIFT, late.detail)
    if isinstance(late, Unknown | Refused):
        return judge.judge_result(work.rotation, late, parts.clock.now())
    places = [*work.rotation.places, *late]
    left = _left_behind(work) if releasing and phase.carry[0] is End.FROM else []
    through, still_open = set(work.rotation.settled), list[NotYet | Refused | Unknown]()
    for group in dict.fromkeys(place.group for place in places if place.group not in through):
        answer = _release_group(work, [place for place in places if place.group == group], version, left)
        if isinstance(answer, Drifted):
            return park(work.rotation, Cause.DRIFT, answer.detail)
        if isinstance(answer, Done):
            through.add(group)
            continue
        still_open.append(answer)
        put_off = isinstance(answer, NotYet) and len(still_open) < PUT_OFF_AT_ONCE
        if not put_off and not judge.cuts(work.rotation):
            break
    return judge.judge_released(replace(work.rotation, settled=tuple(sorted(through))), still_open, parts.clock.now())


@dataclass(frozen=True)
class Drifted:
    """Confirmed once, so somebody put it back since: no waiting changes that."""

    detail: str


def _came_later(work: Work, version: SecretVersion) -> list[Placed] | Drifted | Unknown | Refused:
    """Places that a destination discovers only now; Drifted where one has the version, for it was handed no other."""
    rotation, parts = work.rotation, work.parts
    discovers = any(spec.settings.get("discover") for _, spec, _ in specs(rotation.policy))
    if not discovers or rotation.options.cut or keeps_old(rotation.policy):
        return []
    found = find_places(rotation.policy, parts, work.delivery_context())
    if not isinstance(found, tuple):
        return found if isinstance(found, Unknown) else []  # refused: nobody reads it any more
    holder = Holder(rotation.secret, rotation.policy, found, rotation, work.book)
    known = {place.group for place in rotation.places}
    late = [place for place in found if place.group not in known]
    for place in late:
        item = holder.item(place, holder.versions(place.audience) or [], parts)
        same = holder.item(place, [version], parts).content == item.content
        destination, ctx = parts.backends.destination(item.spec.kind), work.delivery_context()
        with_both = replace(item, accepted=(*item.accepted, version))
        held = asked(parts, f"{item.spec.kind}.observe", partial(destination.observe, place.group, [with_both], ctx))
        if isinstance(held, Unknown | Refused):
            return held
        seen = held.get(place.slot)  # not told of what is read once in a consumer's life
        if seen is not None and seen.version == version.number and not same:
            return Drifted(f"{place.name} came later, with v{version.number}")
    return late


def _left_behind(work: Work) -> list[SecretVersion]:
    """Of rotations that something else took the place of before they released: those accepted still, where a target
    says so, and where none does those that the journal names. And of an emergency that waited for no release.
    """
    before = work.parts.store.rotations(work.rotation.secret, limit=LOOKED_BACK)
    left = {r.from_version for r in before if r.options.cut}
    if any(phase.step in {Step.RETIRE, Step.PROVE} for phase in work.rotation.phases):
        left |= {version.number for version in work.leftovers()}
    else:
        left |= {number for r in before if r.superseded for number in (r.from_version, r.to_version)}
    left -= {work.rotation.from_version, work.rotation.to_version}
    return [work.book.version(number) for number in sorted(n for n in left if n is not None)]


def _release_group(
    work: Work, places: Sequence[Placed], version: SecretVersion, left: Sequence[SecretVersion]
) -> Result | Drifted:
    parts, group = work.parts, places[0].group
    holder = Holder(work.rotation.secret, work.rotation.policy, work.rotation.places, work.rotation, work.book)
    for place in places:
        item = holder.item(place, holder.versions(place.audience) or [], parts)
        same = holder.item(place, [version], parts).content == item.content  # a user name that both versions have
        release_it = _released if same else _release_one
        result: Result | Holds = release_it(work, group, version, item)
        for other in left:  # not asked whether it is still held: after a rollback its content may be the new one's
            if isinstance(result, Done):
                result = _released(work, group, other, item)
        if result is Holds.RUNNING:
            return Drifted(f"{place.name} runs on v{version.number}")
        if isinstance(result, Holds):
            again = max(RETRY, waited(work.rotation, parts.clock.now()) / 10)
            return NotYet(f"{place.name}: a way back to v{version.number} is still open", again)
        if not isinstance(result, Done):
            return result
    return Done()


def _released(work: Work, group: GroupKey, version: SecretVersion, item: Item) -> Result:
    releasing = power(work.parts.backends.destination(item.spec.kind), Releases)
    if releasing is None:
        return Done()
    ctx = work.delivery_context()
    return asked(work.parts, f"{item.spec.kind}.release", lambda: releasing.release(group, version, item, ctx))


def _release_one(work: Work, group: GroupKey, version: SecretVersion, item: Item) -> Result | Holds:
    """Done, or what still names the version.

    Those who were cut off or never restart were not confirmed either, and a list of keys keeps the version.
    """
    released = _released(work, group, version, item)
    if not isinstance(released, Done):
        return released
    destination = work.parts.backends.destination(item.spec.kind)
    kind, ctx = destination.kind, work.delivery_context()
    held = asked(work.parts, f"{kind}.holds", lambda: destination.holds(group, version, item, ctx))
    if isinstance(held, Unknown | Refused):
        return held
    unasked = work.rotation.options.cut or item.spec.read is Read.FIRST_START or keeps_old(work.rotation.policy)
    return Done() if held is Holds.NOTHING or (held is Holds.RUNNING and unasked) else held
