"""The files that one project reads, among the items of its delivery group: whole values, and keys of env files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vaultkeeper.access import dotenv, files
from vaultkeeper.access.settings import Written
from vaultkeeper.access.written import FileSettings, Whole, WrittenFile, read_back
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Done, Login, Prepared, Refused, Result, Unknown
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import GroupKey, SecretBytes, Slot
from vaultkeeper.ports import DeliveryContext, Item


class ValueFile(WrittenFile):
    """One value, the whole of the file."""

    kind: ClassVar[str] = "compose"
    Settings: ClassVar[type[FileSettings]] = FileSettings

    def slots(self, spec: DestinationSpec) -> Sequence[tuple[Slot, str]]:
        return [(Slot(""), "")]

    def load(self, was: files.Snapshot, items: Sequence[Item], ctx: DeliveryContext) -> Whole:
        return Whole(was.content)

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None:
        return read_back(self, item, ctx)


class EnvFile(WrittenFile):
    """Keys of an env file."""

    kind: ClassVar[str] = "compose"
    Settings: ClassVar[type[FileSettings]] = FileSettings

    def slots(self, spec: DestinationSpec) -> Sequence[tuple[Slot, str]]:
        return [(Slot(name), name) for name in spec.values]

    def load(self, was: files.Snapshot, items: Sequence[Item], ctx: DeliveryContext) -> dotenv.EnvText:
        return dotenv.EnvText(was.content or b"")

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None:
        stored = read_back(self, item, ctx)
        if not isinstance(stored, SecretBytes):
            return stored
        plain = dotenv.read(stored.reveal())
        if plain is None:
            return Unknown(Login.UNREACHABLE, f"{item.slot} is quoted in a way that readers take differently")
        return SecretBytes(plain)


@dataclass(frozen=True)
class File:
    """One of the files, with its items as the group knows them and as the file does."""

    path: str
    kind: ValueFile | EnvFile
    pairs: list[tuple[Item, Item]]

    @property
    def inner(self) -> list[Item]:
        return [inner for _, inner in self.pairs]


def slot_of(path: str, key: str = "") -> Slot:
    """A file's, or one of its keys', among all slots of a project."""
    return Slot(f"{path}:{key}" if key else path)


def split(items: Sequence[Item], file_of: Callable[[DestinationSpec], tuple[str, bool, Written]]) -> list[File]:
    """By file, in the written order. `file_of`: path, whether it is an env file, mode and owner.

    Raises BackendError where one file is named both ways.
    """
    found: dict[str, File] = {}
    for item in items:
        path, environment, written = file_of(item.spec)
        kind = EnvFile if environment else ValueFile
        file = found.setdefault(path, File(path, kind(), []))
        if type(file.kind) is not kind:
            raise BackendError(f"{path} is named both as a file with one value and as an env file")
        own = written.model_dump(include={"mode", "owner"}, exclude_unset=True)
        spec = replace(item.spec, settings={"path": path, **own}, read=Read.PER_USE)
        slot = Slot(item.slot.removeprefix(path).removeprefix(":"))
        file.pairs.append((item, replace(item, slot=slot, spec=spec)))
    return list(found.values())


def deliver(found: Sequence[File], group: GroupKey, ctx: DeliveryContext) -> Result:
    """Write all of them. Refused is told only while none is written, so that it means what it says."""
    for file in found if len(found) > 1 else ():
        rehearsed = file.kind.prepare(group, file.inner, ctx)
        if not isinstance(rehearsed, Prepared):
            return rehearsed
    for number, file in enumerate(found):
        written = file.kind.deliver(group, file.inner, ctx)
        if isinstance(written, Refused) and number:
            return Unknown(Login.UNREACHABLE, written.detail)
        if not isinstance(written, Done):
            return written
    return Done()
