"""Keys of an env file: `.env` of Compose and of applications, `EnvironmentFile=` of systemd, files read by `.`.

Every byte but the value stays, in existing and missing files, whatever their encoding. `access/dotenv.py` says how a
value is written so that Compose, python-dotenv and a shell read the same.

Privileges: write permission in the file's directory; to keep another owner, CAP_CHOWN and CAP_FOWNER.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vaultkeeper.access.dotenv import KEY, EnvText
from vaultkeeper.access.files import Snapshot
from vaultkeeper.access.written import FileSettings, WrittenFile
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import Slot
from vaultkeeper.ports import DeliveryContext, Item


class Settings(FileSettings):
    """What a policy may say beside `kind: dotenv` and `values: {KEY: template}`."""


class DotenvDestination(WrittenFile):
    """The group is the file, its slots are keys."""

    kind: ClassVar[str] = "dotenv"
    #: what not every quoting carries; a value with one of them is refused only where it really cannot be written
    forbidden: ClassVar[frozenset[str]] = frozenset("\0\n\r'\\$")
    Settings: ClassVar[type[FileSettings]] = Settings

    def slots(self, spec: DestinationSpec) -> Sequence[tuple[Slot, str]]:
        for name in spec.values:
            if not KEY.fullmatch(name):
                raise PolicyInvalid(
                    f"{name!r} is no name of an environment variable", next="write `values: {KEY: template}`"
                )
        return [(Slot(name), name) for name in spec.values]

    def load(self, was: Snapshot, items: Sequence[Item], ctx: DeliveryContext) -> EnvText:
        return EnvText(was.content or b"")
