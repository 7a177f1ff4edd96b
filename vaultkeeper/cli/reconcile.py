"""`reconcile`: where store and world disagree, show what could be done, ask, and do it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vaultkeeper.cli import progress
from vaultkeeper.cli.command import command
from vaultkeeper.cli.select import Name, named
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "reconcile", panel="Change")(reconcile)


def reconcile(
    session: Session,
    name: Name,
    apply: Annotated[
        str | None, typer.Option("--apply", metavar="KEY", help="Do this proposal, without asking.")
    ] = None,
) -> None:
    """Compare the store with target and destinations, propose a direction, and apply the chosen one.

    For a store restored from a backup, a target that went back, a destination added to a policy.
    """
    parts = session.parts
    named([name], {*parts.policies, *parts.store.secrets()})
    from vaultkeeper.engine import reconcile as engine

    proposals = engine.reconcile(name, parts)
    keys = [proposal.key for proposal in proposals]
    if session.out.json and apply is None:
        session.out.document({"secret": name, "proposals": [{"key": p.key, "text": p.text} for p in proposals]})
        return
    if not proposals:
        session.out.say(f"{name}: store, target and destinations agree.")
        return
    if apply is None:
        session.out.table(("KEY", "PROPOSAL"), [(p.key, p.text) for p in proposals])
        if not session.out.interactive:
            session.out.say(f"To do one:  vaultkeeper reconcile {name} --apply {keys[0]}")
            return
        apply = _answer(keys)
        if not apply:
            session.out.say("Nothing was changed.")
            return
    if apply not in keys:
        raise UsageError(
            f"{apply!r} is not among the proposals for {name}", why=f"they are: {', '.join(keys) or 'none'}"
        )
    with progress.shown(session):
        engine.apply(name, apply, parts)
    if session.out.json:
        session.out.document({"secret": name, "applied": apply})
    else:
        session.out.say(f"{name}: {apply} is done.")


def _answer(keys: list[str]) -> str:
    sys.stderr.write(f"Which one? [{'/'.join(keys)}, or nothing] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()
