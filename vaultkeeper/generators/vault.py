"""Values that Vault or OpenBao makes: random bytes of its own source, or whatever a path of its API answers.

By default `sys/tools/random`. Any other path may be asked by GET or POST, and `take` says where in the answer the value
stands; how random such a value is cannot be seen from here, so the policy says it (`bits`). A token that was made this
way and was lost with its answer ends by its own time.

Privileges: update on `sys/tools/random/*`, or what the path needs. https://openbao.org/api-docs/system/tools/
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self

from pydantic import Field, model_validator

from vaultkeeper.access import vault
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.vault.errors import Rejected
from vaultkeeper.access.vault.settings import VaultPath, VaultSettings
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.outcome import No, Refused, Unknown
from vaultkeeper.model.secret import Fields, SecretBytes
from vaultkeeper.ports import Context

if TYPE_CHECKING:
    from vaultkeeper.access.vault.transport import Transport

RANDOM = "sys/tools/random"
PRINTABLE = frozenset(map(chr, range(0x21, 0x7F)))
ALPHABETS = {
    "hex": frozenset(string.digits + "abcdef"),
    "base64": frozenset(string.ascii_letters + string.digits + "+/="),
}


class Settings(VaultSettings):
    """What a policy may say beside `kind: vault`."""

    path: VaultPath = Field(default=RANDOM, description="what is asked, below /v1/")
    bytes: int = Field(default=32, ge=1, le=4096, description="of sys/tools/random: how many random bytes")
    format: Literal["hex", "base64"] = Field(default="hex", description="of sys/tools/random")
    method: Literal["GET", "POST"] = Field(default="POST", description="of any other path")
    body: dict[str, Any] | None = Field(default=None, description="of a POST to any other path; no secrets")
    take: str = Field(
        default="data.random_bytes",
        pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$",
        description="where in the answer the value stands: data.token, auth.client_token",
    )
    bits: int | None = Field(default=None, ge=1, le=4096, description="how random the values of any other path are")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.path == RANDOM and (self.bits or self.body or self.method == "GET"):
            raise ValueError("sys/tools/random takes `bytes` and `format` only")
        if self.path != RANDOM and (self.bits is None or "take" not in self.model_fields_set):
            raise ValueError("another path needs `take: data.FIELD` and `bits`, how random its values are")
        return self


class VaultGenerator:
    """Asks for one value. A value with a character that target or destination cannot take is refused."""

    kind: ClassVar[str] = "vault"
    field: ClassVar[str] = "value"
    Settings: ClassVar[type[Settings]] = Settings

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> NoReturn:
        """Raises ConfigurationInvalid: without credentials and a deadline there is nobody to ask; see `fetch`."""
        raise ConfigurationInvalid("generator vault: its values are fetched, not made here")

    def fetch(
        self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None, ctx: Context
    ) -> Fields | Refused | Unknown:
        asked = Settings.model_validate(settings)
        try:
            value = vault.ask(asked, ctx.credentials, ctx.deadline, lambda at: _value(at, asked))
        except Answered as error:
            return error.result if isinstance(error.result, Refused) else error.unknown
        strange = set(value) & forbidden
        if strange:
            detail = f"its value holds {''.join(sorted(strange))!r}, which the target or a destination cannot take"
            return Refused(No.VALUE, f"generator vault: {detail}")
        if max_bytes is not None and len(value.encode()) > max_bytes:
            return Refused(No.VALUE, f"generator vault: its value is longer than the {max_bytes} bytes that fit")
        return {self.field: SecretBytes(value.encode())}

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        asked = Settings.model_validate(settings)
        return float(asked.bits or asked.bytes * 8)

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        asked = Settings.model_validate(settings)
        return ALPHABETS[asked.format] if asked.path == RANDOM else PRINTABLE

    def close(self) -> None:
        vault.end()


def _value(at: Transport, asked: Settings) -> str:
    """Raises VaultError."""
    if asked.path == RANDOM:
        found = at.request("post", f"/v1/{RANDOM}/{asked.bytes}", json={"format": asked.format})
    elif asked.method == "POST":
        found = at.request("post", f"/v1/{asked.path}", json=asked.body or {})
    else:
        found = at.request("get", f"/v1/{asked.path}")
    value: Any = found
    for name in asked.take.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value or not set(value) <= PRINTABLE:
        raise Rejected(f"{asked.path}: the answer has no printable text at {asked.take}", next="correct `take`")
    return value
