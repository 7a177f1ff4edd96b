"""Delivery groups: what every slot of one consumer shall carry, handed over and confirmed in one go.

A batch is not journalled. It is derived from the store each time: P where a rotation goes forward, C where it goes
back, CURRENT where none is open. Crash recovery, drift repair, going back and rollback are thus one call
(rotation.md section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.guard import ask, attempt
from vaultkeeper.engine.parts import Parts, power
from vaultkeeper.engine.plan import carried, keeps_old
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Receipt, Refused, Unknown
from vaultkeeper.model.policy import DestinationSpec, RotationPolicy
from vaultkeeper.model.rotation import Audience, End, Placed, Rotation, SealedReceipt
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, StagingLabel
from vaultkeeper.model.template import Template
from vaultkeeper.ports import Deadline, DeliveryContext, Destination, Item, ReadsBack, Rendered

T = TypeVar("T")
VIA = -1  # Placed.destination of the checker's own destination


def specs(policy: RotationPolicy) -> list[tuple[int, DestinationSpec, Audience]]:
    """Every destination of a policy with its index: the checker's own, then as written, the persisting one last."""
    via = policy.target.via if policy.target else None
    persisted = policy.target.persisted_by if policy.target else None
    listed = [*policy.destinations, *([persisted] if persisted else [])]
    checker = [(VIA, via, Audience.CHECKER)] if via else []
    return [*checker, *((index, spec, Audience.CONSUMERS) for index, spec in enumerate(listed))]


def spec_of(policy: RotationPolicy, index: int) -> DestinationSpec:
    """The destination that a `Placed` names."""
    return next(spec for number, spec, _ in specs(policy) if number == index)


def asked(parts: Parts, what: str, hook: Callable[[], T]) -> T | Unknown | Refused:
    """One guarded hook call."""
    return ask(hook, what=what, deadline_s=parts.hook_deadline.total_seconds(), redactor=parts.redactor)


def attempted(parts: Parts, what: str, act: Callable[[], T]) -> T | Unknown | Refused:
    """What only computes, or asks hooks of its own."""
    return attempt(act, what=what, redactor=parts.redactor)


def find_places(policy: RotationPolicy, parts: Parts, ctx: DeliveryContext) -> tuple[Placed, ...] | Unknown | Refused:
    """Every slot that a policy's destinations name, asked of the destinations themselves."""
    ctx = replace(ctx, epochs=ctx.epochs or {policy.name: 0})  # who discovers its slots must know whose they are
    found: list[Placed] = []
    for index, spec, audience in specs(policy):
        destination = parts.backends.destination(spec.kind)
        spots = asked(parts, f"{spec.kind}.spots", partial(destination.spots, spec, ctx))
        if isinstance(spots, Unknown | Refused):
            return spots
        found += [Placed(index, spot.group, spot.slot, spot.value, spot.name, audience) for spot in spots]
    return tuple(found)


def delivery_context(parts: Parts, epochs: dict[str, int] | None = None) -> DeliveryContext:
    """What a destination's hook is given; its deadline starts now."""
    deadline = Deadline(parts.clock.monotonic_s() + parts.hook_deadline.total_seconds())
    return DeliveryContext(parts.store.installation, epochs or {}, deadline, parts.credentials)


@dataclass
class Layout:
    """Which secrets share which group, over all policies. Made once per command, when first asked."""

    parts: Parts
    _places: dict[str, tuple[Placed, ...]] = field(default_factory=dict)
    _by_group: dict[GroupKey, set[str]] = field(default_factory=dict)
    _read: bool = False

    def places(self, secret: str) -> tuple[Placed, ...]:
        """Empty where a destination cannot be asked now: its group is then delivered without this neighbour."""
        if secret not in self._places:
            policy = self.parts.policies.get(secret)
            found = find_places(policy, self.parts, delivery_context(self.parts)) if policy else ()
            self._places[secret] = found if isinstance(found, tuple) else ()
        return self._places[secret]

    def secrets_in(self, group: GroupKey) -> set[str]:
        if not self._read:
            for secret in self.parts.policies:
                for place in self.places(secret):
                    self._by_group.setdefault(place.group, set()).add(secret)
            self._read = True
        return self._by_group.get(group, set())


@dataclass(frozen=True)
class Holder:
    """One secret that has slots in a group: its open rotation, if any, and its versions."""

    secret: str
    policy: RotationPolicy
    places: tuple[Placed, ...]
    rotation: Rotation | None
    book: Book

    def versions(self, audience: Audience) -> list[SecretVersion] | None:
        """Primary first. None: this slot is not ours to write yet; empty: what the receipt holds."""
        if self.rotation is None:
            current = self.book.labelled(StagingLabel.CURRENT)
            return [current, *self._older(current)] if current else None
        ends = carried(self.rotation, audience)
        if ends is None:
            ends = (End.FROM,) if self.rotation.from_version is not None else None
        if ends is None:
            return None
        versions = [v for end in ends if (v := self.book.maybe(self.rotation.number(end))) is not None]
        return [*versions, *self._older(*versions)] if versions else []

    def _older(self, *besides: SecretVersion) -> list[SecretVersion]:
        return self.book.still_accepted({v.number for v in besides}) if keeps_old(self.policy) else []

    def items(self, group: GroupKey, parts: Parts) -> list[Item]:
        """What this secret's slots in the group shall carry; none where they are not ours to write yet."""
        carrying = [(place, self.versions(place.audience)) for place in self.places if place.group == group]
        return [self.item(place, versions, parts) for place, versions in carrying if versions is not None]

    def item(self, place: Placed, versions: Sequence[SecretVersion], parts: Parts) -> Item:
        spec = spec_of(self.policy, place.destination)
        bare = Item(place.slot, spec, self.secret, versions[0] if versions else None, receipt=self._receipt(place))
        content = self._content(place, spec, versions, parts, bare) if versions else None
        return Item(bare.slot, spec, self.secret, bare.primary, content, tuple(versions), bare.receipt)

    def _content(
        self, place: Placed, spec: DestinationSpec, versions: Sequence[SecretVersion], parts: Parts, bare: Item
    ) -> SecretBytes:
        text = spec.values.get(place.value, "")
        if text or place.audience is Audience.CONSUMERS:
            return _filled(text, place, versions)
        binding = versions[0].binding
        target = parts.backends.target(binding.target_kind or "", binding.target_settings, binding.codec)
        renderer = power(target, Rendered)
        if renderer is None:
            return _filled("{accepted[0]}", place, versions)
        return renderer.render(versions, self._existing(place, bare, parts), self._others(versions))

    def _others(self, carried: Sequence[SecretVersion]) -> list[SecretVersion]:
        """Every other version of the secret that still has its value: what a list may hold of ours and must not."""
        numbers = {version.number for version in carried}
        return [self.book.version(n) for n, r in self.book.records().items() if n not in numbers and r.sealed]

    def _existing(self, place: Placed, bare: Item, parts: Parts) -> SecretBytes | None:
        """What is there now, so that foreign lines are kept, where the place can be read back."""
        reader = power(parts.backends.destination(bare.spec.kind), ReadsBack)
        if reader is None:
            return None
        found = asked(parts, f"{bare.spec.kind}.read", partial(reader.read, place.group, bare, delivery_context(parts)))
        return found if isinstance(found, SecretBytes) else None

    def _receipt(self, place: Placed) -> Receipt | None:
        if self.rotation is None:
            return None
        kept = self.rotation.receipts.get(self.rotation.receipt_key(place.group, place.slot))
        if kept is None:
            return None
        if kept.sealed is None:
            return Receipt(kept.public, None)
        return Receipt(kept.public, self.book.receipt(kept.sealed, receipt_binding(self.rotation.id, place)))


def _filled(text: str, place: Placed, versions: Sequence[SecretVersion]) -> SecretBytes:
    """Raises BackendError for a field that the version has not; no value is in its text."""
    try:
        return Template.parse(text).render(versions[0].fields, [version.fields for version in versions])
    except ValueError as error:
        raise BackendError(
            f"the template for {place.name} cannot be filled",
            why=str(error),
            next="correct it in the policy, then   vaultkeeper check",
        ) from None


def receipt_binding(rotation_id: str, place: Placed) -> str:
    """What a sealed receipt is tied to (invariant 10)."""
    return f"receipt:{rotation_id}:{place.group}:{place.slot}"


def seal_receipt(rotation: Rotation, place: Placed, receipt: Receipt, book: Book) -> SealedReceipt:
    """A saved file holds other secrets too, so it is journalled sealed."""
    if receipt.sealed is None:
        return SealedReceipt(receipt.public, None)
    return SealedReceipt(receipt.public, book.seal_receipt(receipt.sealed, receipt_binding(rotation.id, place)))


def group_destination(holders: Sequence[Holder], group: GroupKey, parts: Parts) -> Destination:
    """The one kind that serves this group; the policy loader refuses two kinds in one place."""
    for holder in holders:
        for place in holder.places:
            if place.group == group:
                return parts.backends.destination(spec_of(holder.policy, place.destination).kind)
    raise RuntimeError(f"no destination serves {group}")


def confirm_timeout(destination: Destination, group: GroupKey, items: Sequence[Item]) -> timedelta:
    """The longest that a policy states for this group, else what the destination computes."""
    stated = [item.spec.timeout for item in items if item.spec.timeout is not None]
    return max(stated) if stated else destination.confirm_deadline(group, items)
