"""`env`: a file with the names of the objects that services carry, for stacks that are deployed by other means."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import BackendError

_HEAD = "# Names of Docker secrets as services carry them now; no values. Kept by `vaultkeeper env`.\n"
_NEW_MODE = 0o644  # names are no secrets, and who deploys may be another user


class Format(Enum):
    """How a line is written."""

    STACK = "stack"
    SHELL = "shell"


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "env", panel="Look")(env)


def env(
    session: Session,
    file: Annotated[Path, typer.Argument(help="The file to keep.", metavar="FILE")],
    form: Annotated[
        Format, typer.Option("--format", help="stack: KEY=value, for `set -a; . FILE`. shell: export KEY='value'.")
    ] = Format.STACK,
) -> None:
    """Keep a file of the names of Docker secrets, so that `docker stack deploy` puts no old version back.

    Written whole or not at all, and only where something changed.
    """
    from vaultkeeper.access import files
    from vaultkeeper.access.answer import Answered
    from vaultkeeper.engine.naming import names

    found = names(session.parts)
    lines = [f"{key}={name}" if form is Format.STACK else f"export {key}='{name}'" for key, name in found.items()]
    content = "".join([_HEAD, *(f"{line}\n" for line in lines)]).encode()
    path = str(file.absolute())
    try:
        was = files.read(path)
        changed = was.content != content
        if changed:
            files.replace(path, content, was, mode=None if was.exists else _NEW_MODE)
    except Answered as error:
        raise BackendError(f"{path} was not written", why=error.what, next=error.next) from None
    if session.out.json:
        session.out.document({"file": path, "changed": changed, "names": found})
    else:
        session.out.say(f"{path} {'names' if changed else 'already named'} {len(found)} objects.")
