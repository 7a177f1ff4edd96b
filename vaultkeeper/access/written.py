"""What every destination that is a file does: look, take a receipt, edit, replace, tell the consumers, see them run.

A kind brings its settings and a `Document`, the file's content with named slots. All slots of one file are one group:
they are edited together, in one replacement, under the engine's lock of that group. A program without our lock may
edit the file too; what it wrote between our reading and our rename is Refused(CONFLICT) and never lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Protocol, Self

from pydantic import Field

from vaultkeeper.access import consumers, files, slots
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.settings import Consumed, PolicyPath
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.outcome import (
    Confirmation,
    Failed,
    Finding,
    Held,
    Holds,
    No,
    NotYet,
    Prepared,
    Proof,
    Receipt,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import DeliveryContext, Item, Spot


class FileSettings(Consumed):
    """Settings of a destination that is one file."""

    path: PolicyPath = Field(description="of the file")


class Document(Protocol):
    """The content of a file. `stored` is a slot as the file spells it, `content` what readers shall see."""

    def get(self, slot: str) -> bytes | None:
        """As stored. None: the slot is absent."""

    def carries(self, slot: str, content: bytes) -> bool: ...

    def put(self, slot: str, content: bytes) -> None:
        """Raises Answered with Refused where the slot cannot carry it."""

    def restore(self, slot: str, stored: bytes | None) -> None:
        """The exact opposite of what `get` told before a `put`. None: remove the slot."""

    def encode(self) -> bytes | None:
        """The file's bytes. None or only blanks: nothing is left. Raises Answered."""


@dataclass
class Whole:
    """A file that is one value: its only slot is the whole of it."""

    content: bytes | None

    def get(self, slot: str) -> bytes | None:
        return self.content

    def carries(self, slot: str, content: bytes) -> bool:
        return self.content == content

    def put(self, slot: str, content: bytes) -> None:
        self.content = content

    def restore(self, slot: str, stored: bytes | None) -> None:
        self.content = stored

    def encode(self) -> bytes | None:
        return self.content


class WrittenFile:
    """The hooks of `Destination` over a `Document`. A kind adds `kind`, `Settings`, `slots` and `load`."""

    kind: ClassVar[str]
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.DEMONSTRATED
    puts_back: ClassVar[bool] = True
    forbidden: ClassVar[frozenset[str]] = frozenset()
    max_bytes: ClassVar[int | None] = files.MAX_BYTES
    Settings: ClassVar[type[FileSettings]]

    @classmethod
    def open(cls) -> Self:
        return cls()

    def slots(self, spec: DestinationSpec) -> Sequence[tuple[Slot, str]]:
        """Slot and name in `values` of each. Raises PolicyInvalid."""
        raise NotImplementedError

    def load(self, was: files.Snapshot, items: Sequence[Item], ctx: DeliveryContext) -> Document:
        """Raises Answered where the content cannot be edited without harm. Another's content is never dropped."""
        raise NotImplementedError

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        path = self._settings(spec).path
        return [
            Spot(GroupKey(f"{self.kind}:{path}"), slot, value, f"{path}: {slot}" if slot else path)
            for slot, value in self.slots(spec)
        ]

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        path = self._path(items)
        findings = []
        try:
            owner = self._owner(items)
        except ConfigurationInvalid:
            owner = None  # found again below
        try:
            files.check_writable(path, owner)
            was = files.read(path)
            self.load(was, items, ctx)
        except Answered as error:
            level = "refuse" if isinstance(error.result, Refused) else "unchecked"
            return [Finding(level, error.what, error.next)]
        for spec, settings in self._consumers(items):
            try:
                settings.owner_ids()
            except ConfigurationInvalid as error:
                findings.append(Finding("refuse", error.what))
            if (settings.mode_bits() or was.mode) & 0o004 and not self.sealed:
                findings.append(Finding("warn", f"{path} can be read by every user of this machine"))
            if spec.read is Read.AT_START and settings.reload == "none":
                findings.append(Finding("warn", f"{path} is read at start, and no `reload` tells its consumers"))
        return list(dict.fromkeys(findings)) or [Finding("ok", f"{path} can be written")]

    sealed: ClassVar[bool] = False  #: the file is ciphertext: everybody may read it

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held] | Unknown:
        try:
            document = self.load(files.read(self._path(items)), items, ctx)
        except Answered as error:
            return error.unknown
        found = {}
        for item in items:
            absent = document.get(item.slot) is None
            found[item.slot] = Held(None) if absent else slots.held(item, self._value(item), _sees(document, item.slot))
        return found

    def prepare(
        self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext
    ) -> Prepared | Refused | NotYet | Unknown:
        """Edits a copy in memory, so that a value which the place cannot carry is refused before anything is set."""
        path = self._path(items)
        try:
            self._agree(items)
            files.check_writable(path, self._owner(items))
            was = files.read(path)
            document = self.load(was, items, ctx)
            receipts = {
                item.slot: slots.receipt_of(item) or slots.receipt(document.get(item.slot), file=was.exists)
                for item in items
            }
            _edit(document, items)
            document.encode()
        except Answered as error:
            return error.result
        except ConfigurationInvalid as error:
            return Refused(No.UNSUPPORTED, error.what)
        return Prepared(receipts)

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        """Read, edit, replace; unchanged content is left alone, but its consumers are told again (after a crash)."""
        path = self._path(items)
        told = self._consumers(items)
        mode = next((s.mode_bits() for _, s in told if s.mode), None)
        owner = self._owner(items)
        try:
            was = files.read(path)
            document = self.load(was, items, ctx)
            changed = _edit(document, items)
            if changed or not all(settings.dressed(was) for _, settings in told):
                content = document.encode()
                if content is None or (not content.strip() and _made_by_us(items)):
                    files.remove(path, was)
                else:
                    files.replace(path, content, was, mode=mode, owner=owner)
            else:
                files.sweep(path)
        except Answered as error:
            return error.result
        return consumers.tell(told, ctx.deadline)

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        path = self._path(items)
        try:
            was = files.read(path)
            document = self.load(was, items, ctx)
            lost = _edit(document, items)
        except Answered as error:
            if isinstance(error.result, Refused) and error.result.why is not No.PRIVILEGE:
                return Failed(path, error.what)
            return error.unknown  # consumers may read what we may not, and what we may not read we cannot put back
        if lost:
            return NotYet(f"{path} no longer carries what was delivered", timedelta(seconds=1), (path,))
        return consumers.running(self._consumers(items), was.changed_at, ctx.deadline)

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        return consumers.patience(self._consumers(items))

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds | Unknown:
        try:
            document = self.load(files.read(self._path([item])), [item], ctx)
        except Answered as error:
            return error.unknown
        carried = slots.carries(item, self._value(item), version, _sees(document, item.slot))
        return Holds.RUNNING if carried else Holds.NOTHING

    # ---------------------------------------------------------------------------------------------------- small parts

    def _settings(self, spec: DestinationSpec) -> FileSettings:
        return self.Settings.model_validate(spec.settings)

    def _path(self, items: Sequence[Item]) -> str:
        return self._settings(items[0].spec).path

    def _consumers(self, items: Sequence[Item]) -> list[tuple[DestinationSpec, FileSettings]]:
        return [(item.spec, self._settings(item.spec)) for item in items]

    def _owner(self, items: Sequence[Item]) -> files.Owner | None:
        """Raises ConfigurationInvalid for a name that this machine does not know."""
        return next((settings.owner_ids() for _, settings in self._consumers(items) if settings.owner), None)

    def _value(self, item: Item) -> str:
        return next((value for slot, value in self.slots(item.spec) if slot == item.slot), "")

    def _agree(self, items: Sequence[Item]) -> None:
        """Several destinations may name one file; two modes or owners of it would take turns for ever."""
        told = self._consumers(items)
        modes = {settings.mode_bits() for _, settings in told if settings.mode}
        owners = {settings.owner_ids() for _, settings in told if settings.owner}
        if len(modes) > 1 or len(owners) > 1:
            raise ConfigurationInvalid(f"{self._path(items)} is given several modes or owners")


def _sees(document: Document, slot: Slot) -> slots.Same:
    return lambda content: document.carries(slot, content)


def _edit(document: Document, items: Sequence[Item]) -> bool:
    """Make every slot carry its item; whether anything had to change."""
    changed = False
    for item in items:
        if item.primary is not None:
            content = slots.new_content(item)
            if not document.carries(item.slot, content):
                document.put(item.slot, content)
                changed = True
            continue
        receipt = slots.receipt_of(item)
        if receipt is not None:  # without one nothing was delivered, and nothing goes back
            stored = _stored(receipt)
            if document.get(item.slot) != stored:
                document.restore(item.slot, stored)
                changed = True
    return changed


def _made_by_us(items: Sequence[Item]) -> bool:
    receipts = [slots.receipt_of(item) for item in items]
    return any(receipt is not None and receipt.public.get("file") is False for receipt in receipts)


def _stored(receipt: Receipt) -> bytes | None:
    return None if receipt.sealed is None else receipt.sealed.reveal()


def read_back(destination: WrittenFile, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None:
    """A slot's stored form, for kinds that store what they were given."""
    try:
        stored = destination.load(files.read(destination._path([item])), [item], ctx).get(item.slot)  # noqa: SLF001
    except Answered as error:
        return error.unknown
    return None if stored is None else SecretBytes(stored)
