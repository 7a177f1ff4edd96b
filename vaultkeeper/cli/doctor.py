"""`doctor`: is everything as it must be, here and at the systems of the policies? `--sql`: what an admin runs once."""

from __future__ import annotations

from typing import Annotated

import typer

from vaultkeeper.cli.check import LEVEL_STYLES
from vaultkeeper.cli.command import command
from vaultkeeper.cli.session import Session

UNHEALTHY = 3


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "doctor", panel="Look")(doctor)


def doctor(
    session: Session,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the statements that make a least-privilege account for rotations.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server.")] = False,
) -> int:
    """Look at state, identity, audit log, disk, policies and programs, then ask the servers. Changes nothing."""
    from vaultkeeper.wiring import health

    if sql:
        return _sql(session)
    findings = health.examine(session.wishes)
    broken = {subject for subject, finding in findings if finding.level == "refuse"}
    if not offline and not broken & {"installation", "policies"}:
        from vaultkeeper.engine import preview

        findings += preview.check(session.parts, offline=False)
    if session.out.json:
        session.out.document(
            {"findings": [{"subject": s, "level": f.level, "text": f.text, "next": f.next} for s, f in findings]}
        )
    else:
        rows = [(subject, f.level, f.text, f.next) for subject, f in findings]
        session.out.table(("SUBJECT", "LEVEL", "FINDING", "NEXT"), rows, LEVEL_STYLES)
    return UNHEALTHY if any(f.level == "refuse" for _, f in findings) else 0


def _sql(session: Session) -> int:
    from vaultkeeper import wiring

    statements = wiring.admin_statements(session.wishes)
    if session.out.json:
        session.out.document({"statements": [{"secret": name, "sql": text} for name, text in statements]})
    elif statements:
        session.out.data("\n\n".join(f"-- {name}\n{text}" for name, text in statements))
    else:
        session.out.say("No policy has a target that needs statements.")
    return 0
