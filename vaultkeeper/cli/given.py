"""A value from a person: on stdin, or asked for on the terminal without echo. Never an argument, never quoted."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from vaultkeeper.cli.session import Session
from vaultkeeper.errors import UsageError
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.secret import Fields, SecretBytes, Strategy

MAX_BYTES = 1 << 20
BARE = ""  # the engine names it by the policy


def given(session: Session, policy: RotationPolicy, command: str) -> Fields:
    """By field, or a bare value under `BARE`. `command`: for hints, "vaultkeeper adopt" for example."""
    if sys.stdin.isatty():  # also where stderr is a file: reading the terminal bare would echo the value
        return _asked(session, policy.name, _field_names(session, policy))
    return read_fields(_stdin(), policy.fields, f"{command} {policy.name} < FILE")


def read_fields(raw: bytes, names: Sequence[str] = (), hint: str = "vaultkeeper adopt NAME < FILE") -> Fields:
    """A JSON object of strings is the fields; anything else is the bare value, under `BARE`. One newline is dropped.

    `names`: the fields of a manual secret. Where there is one, only an object of that one field is read as such: the
    value itself may be JSON. Raises UsageError, never quoting the input.
    """
    raw = raw[:-2] if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
    if not raw:
        raise UsageError("stdin holds no value", next=hint)
    if raw.lstrip().startswith(b"{"):
        try:
            document = json.loads(raw)
        except ValueError:
            document = None
        if isinstance(document, dict) and (len(names) != 1 or set(document) == set(names)):
            return _from_document(document, names)
    if len(names) > 1:
        raise UsageError(
            f"the value has the fields {', '.join(names)}, and stdin is no JSON object", next=_shape(names)
        )
    return {BARE: SecretBytes(raw)}


def _from_document(document: Mapping[str, object], names: Sequence[str]) -> Fields:
    fields = {}
    for key, value in document.items():
        if not isinstance(value, str) or not value:
            raise UsageError(f"the field {key!r} on stdin is no text, or empty", next=_shape(names))
        try:
            key.encode()
            fields[key] = SecretBytes(value.encode())
        except UnicodeEncodeError:  # JSON may write half of a pair as \ud800, UTF-8 may not
            raise UsageError("the JSON object on stdin holds half a character", next=_shape(names)) from None
    if not fields:
        raise UsageError("the JSON object on stdin has no fields", next=_shape(names))
    return fields


def _shape(names: Sequence[str]) -> str:
    return "{" + ", ".join(f'"{name}": "…"' for name in names or ("username", "password")) + "}"


def _stdin() -> bytes:
    raw = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise UsageError("stdin holds more than 1 MiB: that is no secret value")
    return raw


def _field_names(session: Session, policy: RotationPolicy) -> Sequence[str]:
    if policy.fields:
        return policy.fields
    if policy.generator and policy.target and policy.target.strategy is Strategy.ALTERNATING_USERS:
        return "username", policy.generator.field or session.parts.backends.generator(policy.generator.kind).field
    return (BARE,)


def _asked(session: Session, name: str, fields: Sequence[str]) -> Fields:
    import getpass

    found = {}
    for field in fields:
        text = getpass.getpass(f"{name} {field or 'value'}: ", stream=sys.stderr)
        if not text:
            raise UsageError(f"no {field or 'value'} was given")
        found[field] = SecretBytes(text.encode())
    session.out.say()
    return found
