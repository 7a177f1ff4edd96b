"""`audit verify`: whether the audit log is whole, in order and untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import StoreDamaged

if TYPE_CHECKING:
    from vaultkeeper.store.audit import Head


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    group = typer.Typer(no_args_is_help=True, help="The audit log.")
    command(group, "verify")(verify)
    app.add_typer(group, name="audit", rich_help_panel="Keep")


def verify(session: Session) -> None:
    """Recompute the chain from the first record on, and name the first bad one."""
    store = session.installed.store
    bad = store.verify_audit()
    if bad:
        raise StoreDamaged(
            f"the audit log is not what was written: record {bad.index} is {bad.fault.value}",
            why=_MEANING[bad.fault.value],
            works="targets and consumers: the log is a record, nothing depends on it",
            next="compare it with a backup; records before this one are sound",
        )
    head = store.audit_head()
    if session.out.json:
        session.out.document({"records": head.seq, "audit_head": head_document(head)})
    else:
        session.out.data(
            f"{head.seq} records, whole and in order" + (f"; the newest is sealed {head.mac}" if head.mac else "")
        )


def head_document(head: Head) -> dict[str, object]:
    """Keep it elsewhere: a log that was cut later shows by an older head."""
    return {"number": head.seq, "seal": head.mac}


_MEANING = {
    "edited": "its seal does not fit its text",
    "deleted": "a record is missing here",
    "reordered": "another record stands in this place",
    "replaced": "it does not follow its predecessor, or is not the one that the database knows",
    "truncated": "the database knows of records after the last one of the file",
    "torn": "the last line has no end: a crash, or a cut",
}
