"""CURRENT handed over once more, outside of any rotation: to a consumer that was put back, or that is new.

Each answer but Done is told: whoever asks for it must never read "done" of a consumer that nobody reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import Holder, Layout, asked, confirm_timeout, delivery_context, find_places
from vaultkeeper.engine.handover import holder_of
from vaultkeeper.engine.moves import PUT_OFF_AT_ONCE
from vaultkeeper.engine.parts import Event, Parts
from vaultkeeper.errors import RotationFailed
from vaultkeeper.model.outcome import Failed, NotYet, Refused, Unknown
from vaultkeeper.model.policy import Read, RotationPolicy
from vaultkeeper.model.rotation import Audience, Placed, Rotation, Step
from vaultkeeper.model.secret import GroupKey
from vaultkeeper.ports import Destination, Item


def places_of(policy: RotationPolicy, parts: Parts) -> tuple[Placed, ...]:
    """Every slot of a policy. Raises RotationFailed where a destination cannot be asked: nobody is left out."""
    found = find_places(policy, parts, delivery_context(parts))
    if isinstance(found, Unknown | Refused):
        raise RotationFailed(
            f"{policy.name}: its consumers could not be listed",
            why=found.detail,
            works="whatever worked before: nothing was changed",
            next=f"vaultkeeper reconcile {policy.name}",
        )
    return found


def deliver_current(name: str, places: Sequence[Placed], book: Book, in_grace: Rotation | None, parts: Parts) -> None:
    """Hand CURRENT to every slot and ask each consumer once. Idempotent. Raises RotationFailed, naming the first.

    A group is handed over whole: what is not in `items` might be taken for gone. `in_grace`: the open rotation that has
    moved the labels already, if any; a checker's list keeps the old value then. Sleeps while groups are put off.
    """
    layout = Layout(parts)
    ours = Holder(name, parts.policies[name], tuple(places), in_grace, book)

    def items_of(group: GroupKey) -> list[Item]:
        others = [holder_of(secret, None, layout, parts) for secret in sorted(layout.secrets_in(group) - {name})]
        return [item for holder in (ours, *others) for item in holder.items(group, parts)]

    for audience in (Audience.CHECKER, Audience.CONSUMERS):  # consumers follow their checker
        groups = dict.fromkeys(place.group for place in places if place.audience is audience)
        _hand_to_all(name, [group for group in groups if ours.items(group, parts)], items_of, parts)


@dataclass(frozen=True)
class _PutOff:
    """`patience`: how long one delivery of this group may take, by its own reckoning."""

    answer: NotYet
    patience: timedelta


def _hand_to_all(
    name: str, groups: Iterable[GroupKey], items_of: Callable[[GroupKey], list[Item]], parts: Parts
) -> None:
    """Who is put off or fails keeps no other waiting; the former is asked again as long as any group still moves on."""
    left, moved_s = list(groups), parts.clock.monotonic_s()
    failed: RotationFailed | None = None
    while left:
        put_off: dict[GroupKey, _PutOff] = {}
        for group in left[:]:
            try:
                wait = _hand_over(name, group, items_of, parts)
            except RotationFailed as error:
                failed, wait = failed or error, None
            if wait is None:
                left.remove(group)
                moved_s = parts.clock.monotonic_s()
                continue
            put_off[group] = wait
            if len(put_off) == PUT_OFF_AT_ONCE:
                break
        if put_off:
            _sleep_or_give_up(name, put_off, moved_s, parts)
    if failed is not None:
        raise failed


def _sleep_or_give_up(name: str, put_off: dict[GroupKey, _PutOff], moved_s: float, parts: Parts) -> None:
    group, wait = next(iter(put_off.items()))
    longest = max(each.patience for each in put_off.values())
    if parts.clock.monotonic_s() - moved_s >= longest.total_seconds():
        raise _undelivered(name, group, wait.answer.reason)
    parts.watch(Event(name, Step.DELIVER.value, f"{group} waits: {wait.answer.reason}"))
    parts.clock.sleep(min(each.answer.after for each in put_off.values()))


def _hand_over(name: str, group: GroupKey, items_of: Callable[[GroupKey], list[Item]], parts: Parts) -> _PutOff | None:
    """`items_of` is asked each time: a neighbour may have moved on while we slept."""
    with parts.store.hold(f"group:{group}"):
        items = items_of(group)
        destination = parts.backends.destination(items[0].spec.kind)
        put_off = _deliver(name, destination, group, items, parts)
        if put_off is not None:
            return _PutOff(put_off, confirm_timeout(destination, group, items))
    _confirm(name, destination, group, items, parts)
    return None


def _deliver(name: str, destination: Destination, group: GroupKey, items: list[Item], parts: Parts) -> NotYet | None:
    for hook in (destination.prepare, destination.deliver):
        answer = asked(
            parts,
            f"{destination.kind}.{hook.__name__}",
            lambda h=hook: h(group, items, delivery_context(parts)),  # type: ignore[misc]
        )
        if isinstance(answer, NotYet):
            return answer
        if isinstance(answer, Unknown | Refused):
            raise _undelivered(name, group, answer.detail)
    return None


def _undelivered(name: str, group: GroupKey, why: str) -> RotationFailed:
    return RotationFailed(
        f"{name}: {group} could not be delivered",
        why=why,
        works="the target is on the current version; this consumer may not be",
        next=f"vaultkeeper reconcile {name}",
    )


def _confirm(name: str, destination: Destination, group: GroupKey, items: list[Item], parts: Parts) -> None:
    """A consumer that takes its time has what it needs; one that fails, or can never be looked at, is told."""
    if all(item.spec.read is Read.FIRST_START for item in items):
        return
    answer = asked(
        parts, f"{destination.kind}.confirm", lambda: destination.confirm(group, items, delivery_context(parts))
    )
    delivered, then = "the target is on the current version, and it was delivered", f"vaultkeeper reconcile {name}"
    if isinstance(answer, Failed):
        raise RotationFailed(
            f"{name}: {answer.consumer} cannot run on the current version",
            why=answer.why,
            works=f"{delivered}; this consumer does not run on it",
            next=f"put right what is named above, then   {then}",
        )
    if isinstance(answer, Refused):
        raise RotationFailed(f"{name}: {group} could not be looked at", why=answer.detail, works=delivered, next=then)
