"""`check`: are the policies valid, and do the servers allow what they ask for? Read-only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.session import Session
from vaultkeeper.model.policy import RotationPolicy

LEVEL_STYLES = {"ok": "green", "warn": "yellow", "unchecked": "yellow", "refuse": "bold red"}
INVALID = 3


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "check", panel="Look")(check)


def check(
    session: Session,
    offline: Annotated[bool, typer.Option("--offline", help="Read the files only; needs no init.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the policies with everything merged.")] = False,
) -> int:
    """Check the policies, then ask the servers, read-only. An unreachable server is a warning."""
    from vaultkeeper import wiring

    if show:
        session.out.data(wiring.shown_policies(session.wishes).rstrip("\n"))
        return 0
    if offline:
        policies = wiring.policies(session.wishes)
        findings = []
    else:
        from vaultkeeper.engine import preview

        policies = session.parts.policies
        findings = list(preview.check(session.parts, offline=False))
    refused = [name for name, finding in findings if finding.level == "refuse"]
    if session.out.json:
        session.out.document(
            {
                "secrets": sorted(policies),
                "findings": [
                    {"secret": name, "level": f.level, "text": f.text, "next": f.next} for name, f in findings
                ],
            }
        )
    else:
        if findings:
            rows = [(name, f.level, f.text, f.next) for name, f in findings]
            session.out.table(("SECRET", "LEVEL", "FINDING", "NEXT"), rows, LEVEL_STYLES)
        session.out.say(_verdict(list(policies.values()), len(refused)))
    return INVALID if refused else 0


def _verdict(policies: Sequence[RotationPolicy], refused: int) -> str:
    disabled = sum(not policy.enabled for policy in policies)
    text = "1 policy is" if len(policies) == 1 else f"{len(policies)} policies are"
    text += " valid" + (f", {disabled} of them disabled" if disabled else "")
    return text + (f", but not ready to rotate: put right what is refused above ({refused})." if refused else ".")
