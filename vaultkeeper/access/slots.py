"""What file-like destinations share: which version a slot holds, and the receipt that puts it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Held, Receipt
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, main_field
from vaultkeeper.model.template import Template
from vaultkeeper.ports import Item

Same = Callable[[bytes], bool]
"""Whether a slot holds exactly this content."""


def receipt(value: bytes | None, **public: object) -> Receipt:
    """What a slot held: `value`, or nothing at all."""
    if value is None:
        return Receipt({**public, "was": "absent"})
    return Receipt({**public, "was": "present"}, SecretBytes(value))


def receipt_of(item: Item) -> Receipt | None:
    """The receipt that the engine hands back, if one was made."""
    return item.receipt if isinstance(item.receipt, Receipt) else None


def new_content(item: Item) -> bytes:
    """What a slot with a primary version shall carry. Raises BackendError where the engine gave none."""
    if item.content is None:
        raise BackendError(f"{item.secret}: no content was given for a slot that shall carry one")
    return item.content.reveal()


def renderings(item: Item, value: str) -> Iterator[tuple[SecretVersion, bytes]]:
    """Each version of `item.accepted` as the slot would carry it, in that order. `value` names the template."""
    if item.primary is not None and item.content is not None:
        yield item.primary, item.content.reveal()
    for version in item.accepted:
        for content in _contents(item, value, version):
            yield version, content


def held(item: Item, value: str, same: Same) -> Held:
    """Which version a slot that holds something holds. `same` tells whether it is exactly this content."""
    for version, content in renderings(item, value):
        if same(content):
            return Held(version.number)
    return Held(None, foreign=True)


def carries(item: Item, value: str, version: SecretVersion, same: Same) -> bool:
    """Whether the slot holds `version`, whatever stands beside it.

    What a template like `{accepted[-1]}` shows of another version that stands there is no trace of this one.
    """
    of_others = [c for v in item.accepted if v.number != version.number for c in _contents(item, value, v, alone=True)]
    return any(same(content) for content in _contents(item, value, version) if content not in of_others)


def values(items: Sequence[Item]) -> list[bytes]:
    """What no text about these items may quote: their values, as they are and as templates spell them."""
    versions = [version for item in items for version in (item.primary, *item.accepted) if version]
    fields = [value.reveal() for version in versions for name, value in version.fields.items() if name != "username"]
    receipts = [receipt.sealed.reveal() for item in items if (receipt := receipt_of(item)) and receipt.sealed]
    return [*fields, *receipts, *(item.content.reveal() for item in items if item.content)]


def _contents(item: Item, value: str, version: SecretVersion, *, alone: bool = False) -> Iterator[bytes]:
    """`version` as primary with the others beside it, then alone. Nothing where it lacks a field of the template."""
    others = [other.fields for other in item.accepted if other.number != version.number]
    beside: Sequence[Sequence[Fields]] = ([version.fields],) if alone else ([version.fields, *others], [version.fields])
    text = item.spec.values.get(value)
    for accepted in beside:
        with suppress(ValueError):
            if text is None:
                yield version.fields[main_field(set(version.fields))].reveal()
            else:
                yield Template.parse(text).render(version.fields, accepted).reveal()
