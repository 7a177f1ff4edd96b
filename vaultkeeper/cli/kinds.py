"""`schema`, `targets`, `destinations`, `generators`: what policy files may say."""

from __future__ import annotations

import json

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.session import Session

PANEL = "Reference"


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "schema", panel=PANEL)(schema)
    command(app, "targets", panel=PANEL)(targets)
    command(app, "destinations", panel=PANEL)(destinations)
    command(app, "generators", panel=PANEL)(generators)


def schema(session: Session) -> None:
    """The JSON Schema of policy files, for editors."""
    from vaultkeeper import wiring

    session.out.data(json.dumps(wiring.schema(), indent=2, ensure_ascii=False))


def targets(session: Session) -> None:
    """The kinds of systems whose credentials can be rotated."""
    _show(session, "targets")


def destinations(session: Session) -> None:
    """The kinds of places where consumers read."""
    _show(session, "destinations")


def generators(session: Session) -> None:
    """The kinds of values that can be generated."""
    _show(session, "generators")


def _show(session: Session, family: str) -> None:
    from vaultkeeper import wiring

    kinds = wiring.kinds().summaries(family)
    if session.out.json:
        session.out.document({family: [{"kind": kind, "summary": text} for kind, text in sorted(kinds.items())]})
    else:
        session.out.table(("KIND", "WHAT IT IS"), sorted(kinds.items()))
