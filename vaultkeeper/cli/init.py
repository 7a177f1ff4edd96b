"""`init`: make the state, the identity, and somebody who can read everything when both are lost."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import UsageError

if TYPE_CHECKING:
    from vaultkeeper.wiring.beginning import Recovery

THREE_WAYS = """\
--recovery-recipient age1…   an age key that you keep offline; only its public half is needed here
--new-recovery-key FILE      make one now, and move FILE offline
--without-recovery           nobody else can ever read the values"""


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "init", panel="Begin")(init)


def init(
    session: Session,
    recovery_recipient: Annotated[
        str | None, typer.Option("--recovery-recipient", metavar="age1…", help="An offline age key's public half.")
    ] = None,
    new_recovery_key: Annotated[
        Path | None, typer.Option("--new-recovery-key", metavar="FILE", help="Make an offline key into this new file.")
    ] = None,
    without_recovery: Annotated[
        bool, typer.Option("--without-recovery", help="If the identity is lost, everything is.")
    ] = False,
) -> None:
    """Make the state directory, the age identity and the recovery recipient. Refuses where there is one already."""
    from vaultkeeper.wiring import beginning

    beginning.refuse_second(session.wishes)
    recovery = _recovery(recovery_recipient, new_recovery_key, waived=without_recovery)
    if recovery is None:
        recovery = _asked(session)
    made = beginning.initialise(session.wishes, recovery)
    if session.out.json:
        session.out.document(
            {
                "state_dir": str(made.state_dir),
                "identity": str(made.identity),
                "recipients": list(made.recipients),
                "recovery_key": str(recovery.new_key) if recovery.new_key else None,
            }
        )
        return
    session.out.say(f"state      {made.state_dir}")
    session.out.say(
        f"identity   {made.identity}" + ("" if made.identity_is_new else "   (was there already, and is used)")
    )
    if recovery.new_key:
        session.out.say(
            f"recovery   {recovery.new_key}   test it, then move it offline: "
            f"vaultkeeper keys check --identity {shlex.quote(str(recovery.new_key))}"
        )
    elif recovery.recipient:
        session.out.say(f"recovery   {recovery.recipient}")
    else:
        session.out.say("recovery   none: if the identity is lost, every value is")
    session.out.say("next       write a policy (docs/how-to/first-policy.md), then   vaultkeeper check")


def _recovery(recipient: str | None, new_key: Path | None, *, waived: bool) -> Recovery | None:
    from vaultkeeper.wiring.beginning import Recovery

    ways = sum((recipient is not None, new_key is not None, waived))
    if ways > 1:
        raise UsageError("say one way of recovery", next=THREE_WAYS)
    if ways == 0:
        return None
    return Recovery(recipient, new_key.absolute() if new_key else None)


def _asked(session: Session) -> Recovery:
    from vaultkeeper.wiring.beginning import Recovery

    if not session.out.interactive:
        raise UsageError("who can read the values when the identity is lost?", why="say one of", next=THREE_WAYS)
    sys.stderr.write(
        "Who can read the values when this machine is lost? Keep an age key offline for that.\n"
        "  its public half (age1…), or the path of a file to make one in, or `none`: "
    )
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    if not answer:
        raise UsageError("nothing was chosen, and nothing was made", next=THREE_WAYS)
    if answer == "none":
        return Recovery(None, None)
    if answer.startswith("age1"):
        return Recovery(answer, None)
    return Recovery(None, Path(answer).expanduser().absolute())
