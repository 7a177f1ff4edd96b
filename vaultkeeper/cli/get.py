"""`get`: hand a value to a person or a pipe. The only command whose data is a secret."""

from __future__ import annotations

import base64
import sys
from typing import Annotated

import typer

from vaultkeeper.cli import spell
from vaultkeeper.cli.command import command
from vaultkeeper.cli.output import write_bytes
from vaultkeeper.cli.select import Name, named
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import NotFound, UsageError
from vaultkeeper.model.secret import SecretBytes, SecretVersion, main_field


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "get", panel="Look")(get)


def get(
    session: Session,
    name: Name,
    field: Annotated[str | None, typer.Option("--field", help="Which field; default: the main one.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Needed to show a value on a terminal.")] = False,
    version: Annotated[int | None, typer.Option("--version", min=1, help="This version, by number.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="DATE", help="The one current then: for an old backup.")
    ] = None,
) -> None:
    """Print one field of a secret's newest proven version: exactly its bytes into a pipe, a line on a terminal."""
    if version is not None and at is not None:
        raise UsageError("--version and --at exclude each other")
    if sys.stdout.isatty() and not reveal:
        raise UsageError(
            f"the value of {name} would be shown on this terminal", next=f"vaultkeeper get {name} --reveal"
        )
    when = spell.read_moment(at, "--at")
    parts = session.parts
    named([name], {*parts.policies, *parts.store.secrets()})
    from vaultkeeper.engine import read

    found = read.value(name, parts, version=version, at=when)
    chosen, value = _field(found, field)
    if session.out.json:
        session.out.document({"secret": name, "version": found.number, "field": chosen, **_spelled(value)})
    else:
        write_bytes(value.reveal() + (b"\n" if sys.stdout.isatty() else b""))


def _field(found: SecretVersion, wanted: str | None) -> tuple[str, SecretBytes]:
    names = ", ".join(sorted(found.fields))
    try:
        chosen = wanted or main_field(set(found.fields))
    except ValueError:
        raise UsageError(f"{found.secret} has several fields", next=f"--field one of: {names}") from None
    if chosen not in found.fields:
        raise NotFound(f"{found.secret} v{found.number} has no field {chosen!r}", next=f"--field one of: {names}")
    return chosen, found.fields[chosen]


def _spelled(value: SecretBytes) -> dict[str, str]:
    try:
        return {"value": value.text()}
    except ValueError:
        return {"value_base64": base64.b64encode(value.reveal()).decode()}
