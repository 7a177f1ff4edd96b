"""`import`: the next value of a secret that only a person can change, and everything that follows from it."""

from __future__ import annotations

import typer

from vaultkeeper.cli import progress, reports, spell
from vaultkeeper.cli.command import command
from vaultkeeper.cli.given import given
from vaultkeeper.cli.plan import planned, show_plans
from vaultkeeper.cli.rotate import Reason, Wait, Yes
from vaultkeeper.cli.select import Name, named
from vaultkeeper.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "import", panel="Change")(import_)


def import_(session: Session, name: Name, yes: Yes = False, reason: Reason = "", wait: Wait = None) -> int:
    """Take the new value of a manual secret from stdin; prove it, deliver it, and see the old one dead.

    The bare value (one trailing newline is dropped), or a JSON object where the policy names several fields.
    On a terminal each field is asked for without echo. Works whether a rotation waits for the value already or not.
    """
    waiting = spell.read_duration(wait, "--wait")
    parts = session.parts
    named([name], parts.policies)
    from vaultkeeper.engine import importing as engine

    engine.refuse_machine_made(name, parts)
    value = given(session, parts.policies[name], "vaultkeeper import")
    if session.out.interactive and not yes:
        show_plans(session, planned(session, [name]), to_stderr=True)
        if not session.out.confirmed(f"Import this value of {name} and deliver it now?"):
            session.out.say("Nothing was stored.")
            return 0
    with progress.shown(session):
        report = engine.import_value(name, value, parts, wait=waiting, reason=reason)
    return reports.show(session, [report])
