"""CURRENT handed over once more, outside of any rotation: to a consumer that was put back, or that is new.

Each answer but Done is told: whoever asks for it must never read "done" of a consumer that nobody reached.
"""

from __future__ import annotations

from collections.abc import Sequence

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import Holder, Layout, asked, delivery_context, find_places
from vaultkeeper.engine.handover import holder_of
from vaultkeeper.engine.parts import Parts
from vaultkeeper.errors import RotationFailed
from vaultkeeper.model.outcome import Failed, No, NotYet, Refused, Unknown
from vaultkeeper.model.policy import Read, RotationPolicy
from vaultkeeper.model.rotation import Placed, Rotation
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
    moved the labels already, if any; a checker's list keeps the old value then.
    """
    layout = Layout(parts)
    ours = Holder(name, parts.policies[name], tuple(places), in_grace, book)
    for group in dict.fromkeys(place.group for place in places):
        others = [holder_of(secret, None, layout, parts) for secret in sorted(layout.secrets_in(group) - {name})]
        items = [item for holder in (ours, *others) for item in holder.items(group, parts)]
        if not ours.items(group, parts):
            continue
        destination = parts.backends.destination(items[0].spec.kind)
        with parts.store.hold(f"group:{group}"):
            _deliver(name, destination, group, items, parts)
        _confirm(name, destination, group, items, parts)


def _deliver(name: str, destination: Destination, group: GroupKey, items: list[Item], parts: Parts) -> None:
    for hook in (destination.prepare, destination.deliver):
        answer = asked(
            parts,
            f"{destination.kind}.{hook.__name__}",
            lambda h=hook: h(group, items, delivery_context(parts)),  # type: ignore[misc]
        )
        if isinstance(answer, Unknown | Refused | NotYet):
            raise RotationFailed(
                f"{name}: {group} could not be delivered",
                why=answer.reason if isinstance(answer, NotYet) else answer.detail,
                works="the target is on the current version; this consumer may not be",
                next=f"vaultkeeper reconcile {name}",
            )


def _confirm(name: str, destination: Destination, group: GroupKey, items: list[Item], parts: Parts) -> None:
    """Only a definite failure is told: a consumer that takes its time has what it needs."""
    if all(item.spec.read is Read.FIRST_START for item in items):
        return
    answer = asked(
        parts, f"{destination.kind}.confirm", lambda: destination.confirm(group, items, delivery_context(parts))
    )
    if isinstance(answer, Refused) and answer.why is not No.CONFLICT:
        answer = Failed(str(group), answer.detail)
    if isinstance(answer, Failed):
        raise RotationFailed(
            f"{name}: {answer.consumer} cannot run on the current version",
            why=answer.why,
            works="the target is on the current version, and it was delivered; this consumer does not run on it",
            next=f"put right what is named above, then   vaultkeeper reconcile {name}",
        )
