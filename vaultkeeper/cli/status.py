"""`status` and `history`: how every secret stands, and what happened to one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from vaultkeeper.cli import spell
from vaultkeeper.cli.audit import head_document
from vaultkeeper.cli.command import command
from vaultkeeper.cli.output import STATE_STYLES
from vaultkeeper.cli.select import Name, named
from vaultkeeper.cli.session import Session

if TYPE_CHECKING:
    from vaultkeeper.engine.status import SecretStatus
    from vaultkeeper.model.rotation import Rotation

PANEL = "Look"


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "status", panel=PANEL)(status)
    command(app, "history", panel=PANEL)(history)


def status(
    session: Session,
    observe: Annotated[bool, typer.Option("--observe", help="Ask targets and destinations too, read-only.")] = False,
) -> None:
    """Every secret: version, state, age, when it is due, and what comes next."""
    parts = session.parts
    from vaultkeeper.engine import status as engine

    secrets = engine.status(parts, observe=observe)
    if session.out.json:
        head = head_document(session.installed.store.audit_head())
        session.out.document({"secrets": [_document(s) for s in secrets], "audit_head": head})
        return
    now = parts.clock.now()
    rows = []
    for s in secrets:
        age = spell.span(timedelta(seconds=s.age_seconds)) if s.age_seconds is not None else "–"
        version = f"v{s.version}" if s.version else "–"
        rows.append((s.name, s.state, version, age, spell.from_now(s.due_at, now), s.last_result, _remarks(s)))
    session.out.table(("SECRET", "STATE", "VERSION", "AGE", "DUE", "LAST", "REMARKS"), rows, STATE_STYLES)


def _remarks(s: SecretStatus) -> str:
    remarks = []
    if s.paused:
        remarks.append("paused")
    if s.drift:
        remarks.append(f"drift: {s.drift}")
    if s.waits_for:
        remarks.append(s.waits_for)
    elif s.page and s.state == "due":
        remarks.append(f"{s.owner or 'a person'} makes a new value at {s.page}")
    if s.unverified:
        remarks.append(f"unverified: {s.unverified}")
    if s.next:
        remarks.append(f"next: {s.next}")
    return "; ".join(remarks)


def _document(s: SecretStatus) -> dict[str, object]:
    return {
        "name": s.name,
        "version": s.version,
        "state": s.state,
        "age_seconds": s.age_seconds,
        "due_at": spell.moment(s.due_at),
        "last_result": s.last_result,
        "next": s.next,
        "paused": s.paused,
        "owner": s.owner,
        "drift": s.drift,
        "unverified": s.unverified,
        "page": s.page,
        "waits_for": s.waits_for,
    }


def history(
    session: Session,
    name: Name,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many, newest first.")] = 20,
) -> None:
    """The rotations of one secret, newest first."""
    store = session.installed.store
    named([name], store.secrets())
    rotations = store.rotations(name, limit)
    if session.out.json:
        session.out.document({"secret": name, "rotations": [_rotation(r) for r in rotations]})
        return
    rows = [
        (
            spell.moment(r.opened_at) or "",
            r.purpose.value,
            r.state.value,
            _versions(r),
            _why(r),
        )
        for r in rotations
    ]
    session.out.table(("OPENED", "PURPOSE", "STATE", "VERSION", ""), rows, STATE_STYLES)


def _versions(r: Rotation) -> str:
    """The new one may not have been made."""
    old, new = (f"v{number}" if number else "–" for number in (r.from_version, r.to_version))
    return f"{old} → {new}" if r.from_version else new


def _why(r: Rotation) -> str:
    texts = [r.options.reason, r.waiting.value if r.waiting else "", r.cause.value.replace("_", " ") if r.cause else ""]
    texts += [f"gap {spell.seconds(r.gap)}"] if r.gap is not None else []
    texts += [r.detail, "superseded" if r.superseded else "", f"unverified: {r.unverified}" if r.unverified else ""]
    return "; ".join(text for text in texts if text)


def _rotation(r: Rotation) -> dict[str, object]:
    return {
        "rotation": r.id,
        "purpose": r.purpose.value,
        "state": r.state.value,
        "waiting": r.waiting.value if r.waiting else None,
        "cause": r.cause.value if r.cause else None,
        "detail": r.detail,
        "from_version": r.from_version,
        "to_version": r.to_version,
        "opened_at": spell.moment(r.opened_at),
        "ended_at": spell.moment(r.ended_at),
        "gap_seconds": r.gap.total_seconds() if r.gap is not None else None,
        "proof": r.proof.value if r.proof else None,
        "unverified": r.unverified,
        "superseded": r.superseded,
        "reason": r.options.reason,
    }
