"""`keys show`, `keys check`, `keys recover`: who can read the values, and a way back when the identity is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    group = typer.Typer(no_args_is_help=True, help="Who can read the values.")
    command(group, "show")(show)
    command(group, "check")(check)
    command(group, "recover")(recover)
    app.add_typer(group, name="keys", rich_help_panel="Keep")


def show(session: Session) -> None:
    """The installation and every recipient of its values. Needs no identity."""
    from vaultkeeper.encryption.installation import Public
    from vaultkeeper.wiring import places

    public = Public.read(places.state_dir(session.wishes))
    roles = [(text, "service") for text in public.service] + [(text, "recovery") for text in public.recovery]
    if session.out.json:
        session.out.document(
            {
                "installation": public.id,
                "recipients": [{"recipient": text, "role": role} for text, role in roles],
                "recovery_waived": public.waived or None,
            }
        )
        return
    session.out.say(f"installation {public.id}")
    session.out.table(("ROLE", "RECIPIENT"), [(role, text) for text, role in roles])
    if public.waived:
        session.out.say(f"no recovery recipient: {public.waived}")


def check(session: Session) -> int:
    """Open every stored value with the identity at hand. Prints none of them."""
    installed = session.installed
    opened, failed = 0, []
    for secret in installed.store.secrets():
        for record in installed.store.versions(secret):
            if record.sealed is None:
                continue
            error = installed.unreadable(record)
            if error is None:
                opened += 1
            else:
                failed.append((secret, record.number, error))
    if session.out.json:
        session.out.document(
            {
                "opened": opened,
                "unreadable": [{"secret": s, "version": n, "error": error.what} for s, n, error in failed],
            }
        )
    else:
        counted = "1 stored value opens" if opened == 1 else f"{opened} stored values open"
        session.out.say(f"{counted} with {installed.identity}.")
    for secret, number, error in failed:
        session.out.say(f"{secret} v{number} does not open: {error}")
    return failed[0][2].exit_code if failed else 0


def recover(
    session: Session,
    recovery_key: Annotated[Path, typer.Argument(metavar="RECOVERY_KEY", help="The offline recovery key's file.")],
) -> None:
    """The identity is lost: make a new one, with a backup of the state and the offline recovery key.

    Every stored value is encrypted for it again. Safe to repeat.
    """
    from vaultkeeper.wiring import recovery

    done = recovery.recover(session.wishes, recovery_key)
    if session.out.json:
        session.out.document({"installation": done.installation, "identity": str(done.identity), "values": done.values})
        return
    session.out.say(f"identity   {done.identity}   is new, and opens all {done.values} stored values")
    session.out.say("next       vaultkeeper keys check, put the recovery key offline again, then   vaultkeeper status")
