"""`adopt`: take over what works today. Proven at the target, stored as CURRENT; nothing is changed anywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.rotate import Yes
from vaultkeeper.cli.select import Name, named
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import UsageError
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.secret import Fields, SecretBytes, StagingLabel, Strategy

MAX_BYTES = 1 << 20
BARE = ""  # the engine names it by the policy


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "adopt", panel="Change")(adopt)


def adopt(session: Session, name: Name, yes: Yes = False) -> None:
    """Store the value that works today, read from stdin, as CURRENT. It is proven first and nothing is changed.

    The bare value (one trailing newline is dropped), or a JSON object where a version has several fields:
    an object with username and password, for example. On a terminal each field is asked for without echo.
    """
    parts = session.parts
    named([name], parts.policies)
    policy = parts.policies[name]
    if sys.stdin.isatty():  # also where stderr is a file: reading the terminal bare would echo the value
        given = _asked(session, name, _field_names(session, policy))
        question = f"Prove this value of {name}, and store it as current? Nothing is changed at the target."
        if session.out.interactive and not yes and not session.out.confirmed(question):
            session.out.say("Nothing was stored.")
            return
    else:
        given = read_fields(_stdin())
    from vaultkeeper.engine import adopt as engine

    before = parts.store.labels(name).get(StagingLabel.CURRENT)
    version = engine.adopt(name, given, parts)
    if session.out.json:
        session.out.document({"secret": name, "version": version.number, "fields": sorted(version.fields)})
    else:
        which = "is already current" if version.number == before else "is now current"
        session.out.say(f"{name}: v{version.number} works and {which}. Nothing was changed at the target.")


def read_fields(raw: bytes) -> Fields:
    """A JSON object of strings is the fields; anything else is the bare value, under `BARE`.

    Raises UsageError, never quoting the input.
    """
    raw = raw[:-2] if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
    if not raw:
        raise UsageError("stdin holds no value", next="vaultkeeper adopt NAME < FILE")
    if raw.lstrip().startswith(b"{"):
        try:
            document = json.loads(raw)
        except ValueError:
            document = None
        if isinstance(document, dict):
            return _from_document(document)
    return {BARE: SecretBytes(raw)}


def _from_document(document: Mapping[str, object]) -> Fields:
    fields = {}
    for key, value in document.items():
        if not isinstance(value, str) or not value:
            raise UsageError(
                f"the field {key!r} on stdin is no text, or empty", next='{"username": "…", "password": "…"}'
            )
        fields[key] = SecretBytes(value.encode())
    if not fields:
        raise UsageError("the JSON object on stdin has no fields", next='{"username": "…", "password": "…"}')
    return fields


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

    given = {}
    for field in fields:
        text = getpass.getpass(f"{name} {field or 'value'}: ", stream=sys.stderr)
        if not text:
            raise UsageError(f"no {field or 'value'} was given")
        given[field] = SecretBytes(text.encode())
    session.out.say()
    return given
