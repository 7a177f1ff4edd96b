"""A credential that only a person can make and revoke, such as a vendor's API key: vaultkeeper reminds and carries.

Nothing is ever written there: the owner makes the new value at `link`, gives it with `vaultkeeper import`, and revokes
the old one when every consumer runs on the new one. A `probe` with the value itself shows whether the system accepts
it; without one the secret is *unverified*, and a person says that the old value is dead.
Written for any HTTP API that answers a good and a bad key differently; Stripe, for one, answers 200 and 401.

Privileges: none at the system. The probe uses the value itself, so that value needs the right to make one harmless
call.
https://docs.stripe.com/api/authentication
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from vaultkeeper.access import probe
from vaultkeeper.access.probe import HttpProbe, Provable
from vaultkeeper.access.settings import Command, Url
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.outcome import Basis, Finding, Login, No, Observation, Refused, Result
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

Prefixes = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Length = Annotated[int, Field(ge=1)]

_PLACEHOLDER = re.compile(
    r"<.*>|\$\{.*\}|\{\{.*\}\}|(.)\1{5,}"
    r"|(?:your|my|the)[ _-]?(?:new[ _-]?)?(?:api[ _-]?)?(?:key|token|secret|password)(?:[ _-]?(?:here|goes here))?"
    r"|(?:change|replace|fill|insert)[ _-]?(?:me|this|in|it|here)?|placeholder|example|dummy|todo|tbd|null|none",
    re.IGNORECASE | re.DOTALL,
)
_MASKED = re.compile(r"[•●*]{3,}|…|\.{3,}|[xX]{8,}")
_ALPHABET = string.ascii_letters + string.digits


class FieldProbe(HttpProbe):
    """The request carries one field of the value."""

    field: str | None = Field(default=None, description="which one, where a value has several; default: the main one")


class ManualSettings(Provable):
    """What a policy may say beside `kind: manual`."""

    link: Url | None = Field(default=None, description="the page on which a person makes and revokes values")
    probe: FieldProbe | Command | None = Field(default=None, description="how to see whether a value is accepted")
    prefix: Prefixes | dict[str, Prefixes] | None = Field(
        default=None, description="what a value begins with: one text, several to choose from, or by field"
    )
    min_length: Length | dict[str, Length] | None = Field(default=None, description="in characters; or by field")
    max_length: Length | dict[str, Length] | None = Field(default=None, description="in characters; or by field")

    @model_validator(mode="after")
    def _plain_header(self) -> Self:
        if isinstance(self.probe, FieldProbe) and self.probe.scheme.lower() == "basic":
            raise ValueError("Basic wants user and password together: expected a `{command: …}` that builds it")
        return self


class ManualTarget:
    """Asks whether a value is accepted; changes nothing."""

    kind: ClassVar[str] = "manual"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.MANUAL}),
        observes=frozenset({Basis.LOGIN, Basis.NONE}),
        max_accepted=None,
    )
    Settings: ClassVar[type[ManualSettings]] = ManualSettings

    def __init__(self, settings: ManualSettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of manual have codec {codec}, this release knows {cls.codec}")
        return cls(ManualSettings.model_validate(settings))

    def check(self, ctx: Context) -> Sequence[Finding]:
        """Without a login: what a wrong value is told is found out by `test`, before anybody is given the new one."""
        findings = []
        if self.settings.link is None:
            text = "without a `link` nobody is told where to make the new value"
            findings.append(Finding("warn", text, "give `link`, the page with the keys"))
        if self.settings.probe is None:
            findings.append(Finding("unchecked", "without a `probe` nothing shows what is accepted", "give `probe`"))
        else:
            findings += probe.unfit(self.settings.probe)
        return findings or [Finding("ok", f"a person changes it at {self.page()}, and a probe shows what is accepted")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return given

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        """The engine asks `test`."""
        return Observation({}, Basis.LOGIN if self.settings.probe else Basis.NONE)

    def system(self) -> str:
        """Another page or probe at the same site is the same system."""
        link = self.settings.link
        return (urlsplit(link).hostname or "") if link else probe.address_of(self.settings.probe)

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return f"manual:{version.secret}", probe.address_of(self.settings.probe)

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        """A value that nobody has, of the same looks: what is malformed is often refused by another rule."""
        return replace(version, fields={name: self._decoy(name, value) for name, value in version.fields.items()})

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """Never: what is accepted there is a person's business."""
        return Refused(No.UNSUPPORTED, f"only a person can change what is accepted{self._at()}")

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """Raises ConfigurationInvalid for an address that may not be asked."""
        asks = self.settings.probe
        if asks is None:
            return Login.UNREACHABLE
        values = [value.reveal() for value in version.fields.values()]
        return probe.ask(asks, self._shown(asks, version.fields), ctx.deadline, secrets=values)

    def page(self) -> str:
        return self.settings.link or ""

    def misfits(self, names: Sequence[str]) -> Sequence[str]:
        """Rules for fields that there are not; a request that does not know which field to carry."""
        found = []
        for rule in ("prefix", "min_length", "max_length"):
            by_field = getattr(self.settings, rule)
            strange = sorted(set(by_field) - set(names)) if isinstance(by_field, dict) else []
            found += [f"`{rule}` names the field {name}, expected {' or '.join(names)}" for name in strange]
        asks = self.settings.probe
        if isinstance(asks, FieldProbe) and asks.field is not None and asks.field not in names:
            found.append(f"the probe carries the field {asks.field}, expected {' or '.join(names)}")
        if isinstance(asks, FieldProbe) and asks.field is None and not _has_main(names):
            found.append(f"the probe carries one field: expected `field`, one of {', '.join(names)}")
        return found

    def faults(self, given: Fields) -> Sequence[str]:
        return [
            (f"`{name}` {fault}" if len(given) > 1 else f"it {fault}")
            for name, value in given.items()
            for fault in self._faults(name, value)
        ]

    # ---------------------------------------------------------------------------------------------------- small parts

    def _at(self) -> str:
        return f", at {self.page()}" if self.page() else ""

    def _shown(self, asks: FieldProbe | Command, fields: Fields) -> bytes:
        """What the probe is given: one field of a request's; a command reads the bare value, or all fields as JSON."""
        if isinstance(asks, FieldProbe):
            return fields[asks.field or main_field(set(fields))].reveal()
        if len(fields) == 1:
            return next(iter(fields.values())).reveal()
        return json.dumps({name: value.text() for name, value in fields.items()}).encode()

    def _decoy(self, name: str, value: SecretBytes) -> SecretBytes:
        prefixes = [p.encode() for p in _prefixes(_for(self.settings.prefix, name))]
        kept = next((p for p in prefixes if value.reveal().startswith(p)), b"")
        length = max(len(value.reveal()) - len(kept), 16)
        return SecretBytes(kept + "".join(secrets.choice(_ALPHABET) for _ in range(length)).encode())

    def _faults(self, name: str, value: SecretBytes) -> list[str]:
        raw = value.reveal()
        text = value.text() if value.is_text() else raw.decode("latin-1")
        found = []
        prefixes = _prefixes(_for(self.settings.prefix, name))
        if prefixes and not text.startswith(tuple(prefixes)):
            found.append(f"does not begin with {' or '.join(f'`{p}`' for p in prefixes)}")
        least, most = _for(self.settings.min_length, name), _for(self.settings.max_length, name)
        if least is not None and len(text) < least:
            found.append(f"is shorter than min_length, {least}: was it cut when it was copied?")
        if most is not None and len(text) > most:
            found.append(f"is longer than max_length, {most}: was something copied along with it?")
        if text != text.strip():
            found.append("begins or ends with white space (of newlines at the end only one is dropped)")
        if any(ord(c) < 0x20 and c not in "\t\r\n" for c in text):
            found.append("holds control characters")
        bare = text[len(next((p for p in prefixes if text.startswith(p)), "")) :]
        if _PLACEHOLDER.fullmatch(bare.strip()):
            found.append("looks like a placeholder")
        elif len(text) < 512 and _MASKED.search(bare):  # a long one is a document, which may say anything
            found.append("looks masked: a page often shows a part of a key, and the whole one only once")
        carried = isinstance(self.settings.probe, FieldProbe) and self.settings.probe.field in (None, name)
        if carried and not all(0x20 <= byte <= 0x7E for byte in raw):
            found.append("holds what the header of the probe cannot carry; use a `{command: …}`")
        return found


def _for(rule: Mapping[str, object] | object, name: str) -> Any:
    """A rule for all fields, or this field's own."""
    return rule.get(name) if isinstance(rule, Mapping) else rule


def _prefixes(rule: str | Sequence[str] | None) -> Sequence[str]:
    return () if rule is None else (rule,) if isinstance(rule, str) else rule


def _has_main(names: Sequence[str]) -> bool:
    try:
        main_field(set(names))
    except ValueError:
        return False
    return True
