"""Stub kinds: policy files are judged without any back end of ours."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from vaultkeeper.errors import ConfigurationInvalid, PolicyInvalid
from vaultkeeper.model.outcome import Basis, Proof
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import GroupKey, SecretVersion, Slot, Strategy
from vaultkeeper.ports import Capabilities, Spot


def _absolute(text: str, info: ValidationInfo) -> str:
    return str(Path((info.context or {}).get("base", "/"), text))


FilePath = Annotated[str, AfterValidator(_absolute)]


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Admin(Shape):
    username: str
    password: dict[str, Any]


class DatabaseSettings(Shape):
    host: str
    port: int = 5432
    user: str | None = None
    users: tuple[str, str] | None = Field(default=None, strict=False)
    hosts: tuple[str, ...] | None = Field(default=None, strict=False)
    admin: Admin | Literal["self"] | None = None
    ca: FilePath | None = None
    cert: FilePath | None = None


class Database:
    kind = "database"
    codec = 1
    Settings = DatabaseSettings
    capabilities = Capabilities(
        strategies=frozenset({Strategy.SINGLE, Strategy.ALTERNATING_USERS, Strategy.OVERLAP}),
        observes=frozenset({Basis.VERIFIER}),
        forbidden=frozenset("%"),
    )

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        assert codec == cls.codec
        return cls(settings)

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return version.fields["username"].text(), f"{self.settings['host']}:{self.settings.get('port', 5432)}"


class ListSettings(Shape):
    path: FilePath | None = None


class TokenList:
    kind = "token_list"
    Settings = ListSettings
    capabilities = Capabilities(strategies=frozenset({Strategy.OVERLAP}), observes=frozenset({Basis.LISTING}))


class ManualSettings(Shape):
    link: str = ""


class Manual:
    kind = "manual"
    Settings = ManualSettings
    capabilities = Capabilities(strategies=frozenset({Strategy.MANUAL}), observes=frozenset())


class FileSettings(Shape):
    path: FilePath
    mode: str | None = None
    confirm: dict[str, Any] | None = None
    discover: bool = False


class File:
    kind: ClassVar[str] = "file"
    Settings = FileSettings
    proof = Proof.DEMONSTRATED
    forbidden: ClassVar[frozenset[str]] = frozenset("\n")

    def spots(self, spec: DestinationSpec, ctx: object) -> Sequence[Spot]:
        if len(spec.values) > 1:
            raise PolicyInvalid("a file holds one value")
        path = str(spec.settings["path"])
        return [Spot(GroupKey(f"{self.kind}:{path}"), Slot(name), name, f"{path}: {name}") for name in spec.values]


class Dotenv(File):
    kind = "dotenv"

    def spots(self, spec: DestinationSpec, ctx: object) -> Sequence[Spot]:
        path = str(spec.settings["path"])
        return [Spot(GroupKey(f"{self.kind}:{path}"), Slot(name), name, f"{path}: {name}") for name in spec.values]


class PasswordSettings(Shape):
    length: int = 32
    symbols: str = ""


class Password:
    kind: ClassVar[str] = "password"
    field: ClassVar[str] = "password"
    Settings = PasswordSettings

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        return frozenset(string.ascii_letters + string.digits + str(settings.get("symbols", "")))

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        return 5.95 * PasswordSettings.model_validate(settings).length


class Kinds:
    """What the registry offers."""

    groups: ClassVar[dict[str, dict[str, Any]]] = {
        "targets": {"database": Database, "token_list": TokenList, "manual": Manual},
        "destinations": {"file": File(), "dotenv": Dotenv()},
        "generators": {"password": Password()},
    }

    def kinds(self, group: str) -> Sequence[str]:
        return sorted(self.groups[group])

    def _get(self, group: str, kind: str) -> Any:
        if kind not in self.groups[group]:
            raise ConfigurationInvalid(f"unknown kind {kind}")
        return self.groups[group][kind]

    def target_class(self, kind: str) -> Any:
        return self._get("targets", kind)

    def destination(self, kind: str) -> Any:
        return self._get("destinations", kind)

    def generator(self, kind: str) -> Any:
        return self._get("generators", kind)
