"""`keys show`, `keys check`: who can read the values, and whether this identity reads them all."""

from __future__ import annotations

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    group = typer.Typer(no_args_is_help=True, help="Who can read the values.")
    command(group, "show")(show)
    command(group, "check")(check)
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
        session.out.say(f"{opened} stored values open with {installed.identity}.")
    for secret, number, error in failed:
        session.out.say(f"{secret} v{number} does not open: {error}")
    return failed[0][2].exit_code if failed else 0
