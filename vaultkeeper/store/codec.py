"""Journal documents: a `Rotation` with its whole policy snapshot, and a version's `Binding`, as JSON text.

Every later release must resume what an earlier one wrote. So documents carry a schema number, unknown keys are
refused (a newer vaultkeeper wrote them), and a field added with a default reads old documents as they are.
A change that old documents do not survive needs the next number and a reader of the old one here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar, Final, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vaultkeeper.errors import ConfigurationInvalid, StoreDamaged
from vaultkeeper.model.rotation import Rotation
from vaultkeeper.model.secret import Binding

SCHEMA: Final = 1

_CONFIG = ConfigDict(strict=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


@dataclass(frozen=True)
class _RotationDocument:
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG  # nested dataclasses without one inherit it
    schema: Literal[1]
    rotation: Rotation


@dataclass(frozen=True)
class _BindingDocument:
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    schema: Literal[1]
    binding: Binding


_Document = TypeVar("_Document")


def encode_rotation(rotation: Rotation) -> str:
    """One line of JSON. Equal rotations give equal text: there is no set in them."""
    return _rotations().dump_json(_RotationDocument(SCHEMA, rotation)).decode()


@lru_cache(maxsize=256)  # the last few of a secret are asked for several times, and what ended stays as it is
def decode_rotation(text: str) -> Rotation:
    """Raises ConfigurationInvalid for a newer schema, StoreDamaged for anything else that does not fit."""
    return _decode(_rotations(), text, "rotation").rotation


def encode_binding(binding: Binding) -> str:
    """As `encode_rotation`."""
    return _bindings().dump_json(_BindingDocument(SCHEMA, binding)).decode()


@lru_cache(maxsize=256)  # all versions of a secret have the same, but for a few
def decode_binding(text: str) -> Binding:
    """Raises as `decode_rotation` does."""
    return _decode(_bindings(), text, "binding").binding


# Building an adapter takes 70 ms: at first use, and once.


@cache
def _rotations() -> TypeAdapter[_RotationDocument]:
    return TypeAdapter(_RotationDocument)


@cache
def _bindings() -> TypeAdapter[_BindingDocument]:
    return TypeAdapter(_BindingDocument)


def _decode(adapter: TypeAdapter[_Document], text: str, what: str) -> _Document:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        # From None and by location only: pydantic quotes the input it refuses.
        places = [".".join(str(part) for part in one["loc"]) for one in error.errors(include_input=False)]
    schema = _schema_of(text)
    if schema is not None and schema > SCHEMA:
        raise ConfigurationInvalid(
            f"the journal holds a {what} of schema {schema}",
            why=f"this vaultkeeper reads up to schema {SCHEMA}: a newer one wrote it",
            next="install the newer vaultkeeper again",
        )
    raise StoreDamaged(f"the journal holds a {what} that cannot be read", why=f"at {', '.join(places[:3])}")


def _schema_of(text: str) -> int | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    schema = document.get("schema") if isinstance(document, dict) else None
    return schema if isinstance(schema, int) else None
