"""Delivering to file-like destinations as the engine does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from vaultkeeper.model.outcome import Confirmation, Prepared, Result
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import Binding, Fields, SecretBytes, SecretVersion
from vaultkeeper.model.template import Template
from vaultkeeper.ports import Deadline, DeliveryContext, Destination, Item


class FileCredentials:
    """Resolves {file: PATH}, and vaultkeeper's own identity and recipients from two more files."""

    def __init__(self, **own: str) -> None:
        self.own = own

    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        if "file" in reference:
            return {"value": SecretBytes(Path(reference["file"]).read_bytes())}
        (name,) = reference
        assert reference[name] == "vaultkeeper"
        return {"value": SecretBytes(self.own[name].encode())}


def version(number: int, value: str | bytes, secret: str = "shop/db", **more: str) -> SecretVersion:
    raw = value if isinstance(value, bytes) else value.encode()
    fields = {"password": SecretBytes(raw), **{name: SecretBytes(text.encode()) for name, text in more.items()}}
    return SecretVersion(secret, number, f"id-{number}", fields, Binding(None, None, {}, 1), datetime.now(UTC))


def spec(
    kind: str,
    path: Path,
    values: Mapping[str, str],
    read: Read = Read.PER_USE,
    healthy_for: timedelta = timedelta(0),
    **settings: object,
) -> DestinationSpec:
    return DestinationSpec(kind, values, read, {"path": str(path), **settings}, healthy_for=healthy_for)


@dataclass
class Delivery:
    """One group: its destinations, and what each carries."""

    destination: Destination
    specs: Sequence[DestinationSpec]
    credentials: FileCredentials
    receipts: dict[str, Any]

    @classmethod
    def of(
        cls, destination: Destination, *specs: DestinationSpec, credentials: FileCredentials | None = None
    ) -> Delivery:
        return cls(destination, specs, credentials or FileCredentials(), {})

    @property
    def ctx(self) -> DeliveryContext:
        return DeliveryContext("test", {}, Deadline(time.monotonic() + 60), self.credentials)

    def items(self, *carried: SecretVersion | None, accepted: Sequence[SecretVersion] = ()) -> list[Item]:
        """One version per destination (the last one for those that are left); None: back to the receipt."""
        items = []
        for number, one in enumerate(self.specs):
            primary = carried[min(number, len(carried) - 1)]
            spots = self.destination.spots(one, self.ctx)
            assert isinstance(spots, Sequence)
            self.group = spots[0].group
            for spot in spots:
                content = None
                beside = [primary, *(v for v in accepted if v is not primary)] if primary else []
                if primary:
                    template = Template.parse(one.values[spot.value])
                    content = template.render(primary.fields, [v.fields for v in beside])
                receipt = self.receipts.get(spot.slot)
                items.append(
                    Item(spot.slot, one, "shop/db", primary, content, tuple(accepted) or tuple(beside), receipt)
                )
        return items

    def prepare(self, *carried: SecretVersion | None) -> Any:
        items = [replace(item, receipt=None) for item in self.items(*carried)]
        answer = self.destination.prepare(self.group, items, self.ctx)
        if isinstance(answer, Prepared):
            self.receipts = {str(slot): receipt for slot, receipt in answer.receipts.items()}
        return answer

    def deliver(self, *carried: SecretVersion | None) -> Result:
        items = self.items(*carried)
        return self.destination.deliver(self.group, items, self.ctx)

    def hand_over(self, *carried: SecretVersion | None) -> Result:
        answer = self.prepare(*carried)
        return self.deliver(*carried) if isinstance(answer, Prepared) else answer

    def confirm(self, *carried: SecretVersion | None) -> Confirmation:
        items = self.items(*carried)
        return self.destination.confirm(self.group, items, self.ctx)

    def observe(self, *accepted: SecretVersion) -> Any:
        items = [replace(item, primary=None, content=None) for item in self.items(accepted[0], accepted=accepted)]
        return self.destination.observe(self.group, items, self.ctx)
