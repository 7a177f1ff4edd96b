"""`plan`: what a rotation would do, step by step, and what stands in its way. Changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vaultkeeper.cli import spell
from vaultkeeper.cli.command import command
from vaultkeeper.cli.output import clean, write
from vaultkeeper.cli.select import Names, enabled, named
from vaultkeeper.cli.session import Session
from vaultkeeper.model import duration

if TYPE_CHECKING:
    from vaultkeeper.engine.budget import Deliberate
    from vaultkeeper.engine.preview import Gap, Preview
    from vaultkeeper.model.rotation import Purpose

CHANGES_DUE = 10


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "plan", panel="Look")(plan)


def plan(
    session: Session,
    names: Names = None,
    due: Annotated[bool, typer.Option("--due", help="Only what is due now.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 10 when something is due.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the servers.")] = False,
) -> int:
    """Show what a rotation would do. Without NAME: every enabled policy."""
    parts = session.parts
    selected = named(names, parts.policies) if names else None
    plans = planned(session, selected, offline=offline)
    now = parts.clock.now()
    are_due = [p for p in plans if p.due_at and p.due_at <= now]
    show_plans(session, are_due if due else plans)
    return CHANGES_DUE if exit_code and are_due else 0


def planned(
    session: Session, names: Sequence[str] | None, *, offline: bool = False, purpose: Purpose | None = None
) -> Sequence[Preview]:
    """The previews of `names`, by default of every enabled policy."""
    from vaultkeeper.engine import preview
    from vaultkeeper.model.rotation import Purpose

    parts = session.parts
    names = enabled(parts.policies) if names is None else names
    return preview.preview(names, parts, ask_servers=not offline, purpose=purpose or Purpose.ROTATE)


def show_plans(session: Session, plans: Sequence[Preview], *, to_stderr: bool = False) -> None:
    """As data, or as talk before a question."""
    now = session.parts.clock.now()
    if session.out.json and not to_stderr:
        due = sum(1 for p in plans if p.due_at and p.due_at <= now)
        session.out.document({"due": due, "plans": [_document(p) for p in plans]})
        return
    lines: list[str] = []
    for p in plans:
        lines += [*_text(p, spell.from_now(p.due_at, now)), ""]
    text = "\n".join(map(clean, lines)) if lines else "Nothing is due."
    write(sys.stderr if to_stderr else sys.stdout, text + "\n")


def _text(p: Preview, due: str) -> list[str]:
    versions = f"v{p.from_version} → v{p.to_version}" if p.from_version else f"first version, v{p.to_version}"
    lines = [f"{p.secret}  {versions}  due {due}"]
    if p.blocked:
        lines.append(f"  blocked  {p.blocked}")
    lines += [f"  {number:>2}  {step}" for number, step in enumerate(p.steps, 1)]
    if p.gap:
        lines.append(f"  gap        {_gap(p.gap)}")
    if p.deliberate:
        lines.append(f"  refusals   {_refusals(p.deliberate)}")
    for finding in p.findings:
        lines.append(f"  {finding.level:<9}  {finding.text}")
        if finding.next:
            lines.append(f"  {'':<9}  next: {finding.next}")
    return lines


def _gap(gap: Gap) -> str:
    said = "from set to confirm whoever still has the old value is refused"
    measured = "none was measured yet" if gap.last is None else f"the last one took {spell.seconds(gap.last)}"
    return f"{said}; {measured}"


def _refusals(d: Deliberate) -> str:
    """For whoever reads the target's log, or bans who fails too often."""
    if not d.refusals:
        return "none: no login fails on purpose"
    where = f" at {d.address}" if d.address else ""
    tried = ", ".join(
        f"{refusal.of}{f' of {refusal.account}' if refusal.account else ''} ({refusal.step.value})"
        for refusal in d.refusals
    )
    limit = f"; never more than {d.budget.failures} in {duration.show(d.budget.window)}" if d.budget else ""
    many = "1 login fails" if len(d.refusals) == 1 else f"{len(d.refusals)} logins fail"
    return f"{many} on purpose{where}: {tried}{limit}"


def _refusals_document(d: Deliberate) -> dict[str, object]:
    r = d.budget
    return {
        "count": len(d.refusals),
        "address": d.address,
        "logins": [{"step": one.step.value, "of": one.of, "account": one.account} for one in d.refusals],
        "limit": {"failures": r.failures, "window_seconds": r.window.total_seconds()} if r else None,
    }


def _document(p: Preview) -> dict[str, object]:
    return {
        "secret": p.secret,
        "from_version": p.from_version,
        "to_version": p.to_version,
        "due_at": spell.moment(p.due_at),
        "blocked": p.blocked or None,
        "phases": [phase.step.value for phase in p.phases],
        "steps": list(p.steps),
        "gap": {"last_seconds": p.gap.last.total_seconds() if p.gap.last is not None else None} if p.gap else None,
        "refusals": _refusals_document(p.deliberate) if p.deliberate else None,
        "findings": [{"level": f.level, "text": f.text, "next": f.next} for f in p.findings],
    }
