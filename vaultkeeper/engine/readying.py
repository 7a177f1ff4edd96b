"""Prepare and release: before a delivery what makes it possible and undoable, after it what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from vaultkeeper.engine import judge
from vaultkeeper.engine.groups import Holder, asked, attempted, seal_receipt
from vaultkeeper.engine.moves import RETRY, advance, park
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
from vaultkeeper.model.rotation import Cause, End, Phase
from vaultkeeper.model.secret import (
    GroupKey,
    SecretVersion,
)
from vaultkeeper.ports import Change, Item


def prepare(work: Work) -> Change:
    """Additive: consumers see nothing. What it takes to put each slot back is journalled before any delivery."""
    phase, parts, now = phase_of(work), work.parts, work.parts.clock.now()
    if not work.places(phase.audience):
        return advance(work.rotation, now)
    work.begin()
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
                receipts[key] = seal_receipt(work.rotation, place, prepared.receipts[place.slot], parts)
    return advance(replace(work.rotation, receipts=receipts), parts.clock.now())


def _own_items(work: Work, group: GroupKey, phase: Phase) -> list[Item]:
    holder = Holder(work.rotation.secret, work.rotation.policy, work.rotation.places, work.rotation, work.book)
    versions = work.versions(phase.carry)
    return [holder.item(place, versions, work.parts) for place in work.places(phase.audience) if place.group == group]


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
        same = holder.item(place, [version], parts).content == item.content  # a user name that both versions have
        release_it = _released if same else _release_one
        result: Result | Holds = release_it(work, place.group, version, item)
        for other in left:  # not asked whether it is still held: after a rollback its content may be the new one's
            if isinstance(result, Done):
                result = _released(work, place.group, other, item)
        if result is Holds.RUNNING:  # confirmed once, so somebody put it back since: no waiting changes that
            return park(work.rotation, Cause.DRIFT, f"{place.name} runs on v{version.number}")
        if isinstance(result, Holds):
            again = max(RETRY, abs(parts.clock.now() - work.rotation.entered_at) / 10)
            result = NotYet(f"{place.name}: a way back to v{version.number} is still open", again)
        if not isinstance(result, Done):
            return judge.judge_result(work.rotation, result, parts.clock.now())
    return advance(work.rotation, parts.clock.now())


def _released(work: Work, group: GroupKey, version: SecretVersion, item: Item) -> Result:
    destination = work.parts.backends.destination(item.spec.kind)
    ctx = work.delivery_context()
    return asked(work.parts, f"{item.spec.kind}.release", lambda: destination.release(group, version, item, ctx))


def _release_one(work: Work, group: GroupKey, version: SecretVersion, item: Item) -> Result | Holds:
    """Done, or what still names the version. Those who were cut off or never restart were not confirmed either."""
    released = _released(work, group, version, item)
    if not isinstance(released, Done):
        return released
    destination = work.parts.backends.destination(item.spec.kind)
    kind, ctx = destination.kind, work.delivery_context()
    held = asked(work.parts, f"{kind}.holds", lambda: destination.holds(group, version, item, ctx))
    if isinstance(held, Unknown | Refused):
        return held
    unasked = work.rotation.options.cut or item.spec.read is Read.FIRST_START
    return Done() if held is Holds.NOTHING or (held is Holds.RUNNING and unasked) else held
