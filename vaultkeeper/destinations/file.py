"""A file that holds one value and nothing else: Docker-style secret files, `password_file`, `credentials_file`.

The value is written as it is, without a newline. Readers see the old file or the new one, never a part. The file may
not be a symbolic link; mount its *directory* into containers, because a single mounted file keeps the old inode.

Privileges: write permission in the file's directory; to keep another owner, CAP_CHOWN and CAP_FOWNER.
https://docs.docker.com/engine/storage/bind-mounts/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vaultkeeper.access.files import Snapshot
from vaultkeeper.access.written import FileSettings, Whole, WrittenFile, read_back
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import Unknown
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import GroupKey, SecretBytes, Slot
from vaultkeeper.ports import DeliveryContext, Item


class Settings(FileSettings):
    """What a policy may say beside `kind: file`, `value` and `read`."""


class FileDestination(WrittenFile):
    """One value per file. The group is the file, its only slot is the whole of it."""

    kind: ClassVar[str] = "file"
    Settings: ClassVar[type[FileSettings]] = Settings

    def slots(self, spec: DestinationSpec) -> Sequence[tuple[Slot, str]]:
        if len(spec.values) > 1:
            raise PolicyInvalid("a file holds one value", next="write one destination per file")
        return [(Slot(""), next(iter(spec.values), ""))]

    def load(self, was: Snapshot, items: Sequence[Item], ctx: DeliveryContext) -> Whole:
        return Whole(was.content)

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None:
        return read_back(self, item, ctx)
