"""`schema`, `targets`, `destinations`, `generators`: what policy files may say."""

from __future__ import annotations

import json
from collections.abc import Mapping

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
    from vaultkeeper import wiring

    _show(session, "targets", wiring.kinds().targets())


def destinations(session: Session) -> None:
    """The kinds of places where consumers read."""
    from vaultkeeper import wiring

    _show(session, "destinations", wiring.kinds().destinations())


def generators(session: Session) -> None:
    """The kinds of values that can be generated."""
    from vaultkeeper import wiring

    _show(session, "generators", wiring.kinds().generators())


def _show(session: Session, family: str, kinds: Mapping[str, str]) -> None:
    if session.out.json:
        session.out.document({family: [{"kind": kind, "summary": text} for kind, text in sorted(kinds.items())]})
    else:
        session.out.table(("KIND", "WHAT IT IS"), sorted(kinds.items()))
