"""`pause`, `unpause`, `forget`: leave a secret alone for a while, or for good."""

from __future__ import annotations

from typing import Annotated

import typer

from vaultkeeper.cli import spell
from vaultkeeper.cli.command import command
from vaultkeeper.cli.rotate import Yes
from vaultkeeper.cli.select import Name, named
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import UsageError

PANEL = "Keep"


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "pause", panel=PANEL)(pause)
    command(app, "unpause", panel=PANEL)(unpause)
    command(app, "forget", panel=PANEL)(forget)


def pause(
    session: Session,
    name: Name,
    length: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="How long, e.g. 2d; default: until unpause.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="DATE", help="Until then, UTC.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Shown in status.")] = "",
) -> None:
    """Start no rotation of this secret. One that is open goes on; --emergency overrides."""
    if length is not None and until is not None:
        raise UsageError("--for and --until exclude each other")
    parts = session.parts
    named([name], {*parts.policies, *parts.store.secrets()})
    from vaultkeeper.ports import Pause

    now = parts.clock.now()
    span = spell.read_duration(length, "--for")
    end = now + span if span else spell.read_moment(until, "--until")
    if end and end <= now:
        raise UsageError(f"--until {until} is past")
    parts.store.pause(name, Pause(until=end, reason=reason, since=now))
    _tell(session, name, paused=True, until=spell.moment(end))


def unpause(session: Session, name: Name) -> None:
    """Let the schedule have it again."""
    parts = session.parts
    named([name], {*parts.policies, *parts.store.secrets()})
    parts.store.pause(name, None)
    _tell(session, name, paused=False, until=None)


def _tell(session: Session, name: str, *, paused: bool, until: str | None) -> None:
    if session.out.json:
        session.out.document({"secret": name, "paused": paused, "until": until})
    elif paused:
        session.out.say(
            f"{name} is paused" + (f" until {until}." if until else f"; vaultkeeper unpause {name} ends it.")
        )
    else:
        session.out.say(f"{name} is not paused.")


def forget(session: Session, name: Name, yes: Yes = False) -> None:
    """Remove a secret and all its versions from the store. Nothing is changed at target or destinations.

    Values that no offline copy holds are lost: on a terminal it asks, without one it wants --yes.
    """
    parts = session.parts
    named([name], parts.store.secrets())
    if not yes:
        if not session.out.interactive:
            raise UsageError(f"forgetting {name} loses its stored values", next=f"vaultkeeper forget {name} --yes")
        if not session.out.confirmed(f"Forget {name} and every stored version of it, for good?"):
            session.out.say("Nothing was changed.")
            return
    from vaultkeeper.engine import read

    read.forget(name, parts)
    if session.out.json:
        session.out.document({"secret": name, "forgotten": True})
    else:
        session.out.say(f"{name} is forgotten. What was set at its target still works there.")
