"""Every way in which a command can end becomes an exit code and at most one clear message. Never a traceback.

`VAULTKEEPER_DEBUG` adds where an unexpected error happened: frames only, neither the error's text nor local
variables, because both may hold a value.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import closing

from vaultkeeper.cli.output import Output
from vaultkeeper.cli.session import Globals, Session, session
from vaultkeeper.errors import NotAuthorised, VaultkeeperError

INTERRUPTED = 130
WORST_FIRST = (6, 5, 1, 4, 3, 2, 7, 10, 0)


class Interrupted(VaultkeeperError):
    """Ctrl-C."""

    code = "VK-INTERRUPTED"
    exit_code = INTERRUPTED

    def __init__(self) -> None:
        going_on = "vaultkeeper status   shows what is open, vaultkeeper resume --all   goes on"
        super().__init__("interrupted", works="what the journal says: nothing is lost", next=going_on)


class Unexpected(VaultkeeperError):
    """An error that vaultkeeper did not foresee: a bug."""


def worst(codes: Iterable[int]) -> int:
    """The exit code of several outcomes."""
    return min(codes, key=WORST_FIRST.index, default=0)


def guarded(options: Globals, body: Callable[[Session], int | None]) -> int:
    """Run one command's body."""
    out = Output(json=bool(options.json))
    try:
        with closing(session(options)) as current:
            out = current.out
            return body(current) or 0
    except KeyboardInterrupt:
        out.error(Interrupted())
        return INTERRUPTED
    except Exception as raised:  # noqa: BLE001 - the last line before the user
        error = as_error(raised)
        if out.json:
            out.document({"error": out.error_document(error)})
        out.error(error)
        return error.exit_code


def as_error(raised: BaseException) -> VaultkeeperError:
    """What is shown for an exception. Its text is dropped unless it is ours: a driver's may quote a value."""
    if isinstance(raised, VaultkeeperError):
        return raised
    if isinstance(raised, PermissionError):
        return NotAuthorised(f"no permission for {raised.filename or 'a file'}", next="run as the user who owns it")
    return Unexpected(
        f"unexpected {type(raised).__name__}",
        why=where(raised),
        next="VAULTKEEPER_DEBUG=1 shows where it happened; please report that to the project (CONTRIBUTING.md)",
    )


def where(raised: BaseException) -> str:
    """With VAULTKEEPER_DEBUG the frames, innermost last: file, line and function."""
    from vaultkeeper.wiring.places import debugging

    try:
        wanted = debugging()
    except VaultkeeperError:
        wanted = False
    if not wanted:
        return ""
    frames = traceback.extract_tb(raised.__traceback__)
    return "\n".join(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)


def quiet_hooks() -> None:
    """Python's own hooks print tracebacks with exception texts; these name the class only."""

    def unhandled(kind: type[BaseException], value: BaseException, _trace: object) -> None:
        Output().error(
            as_error(value) if isinstance(value, VaultkeeperError) else Unexpected(f"unexpected {kind.__name__}")
        )

    sys.excepthook = unhandled
    threading.excepthook = lambda args: unhandled(args.exc_type, args.exc_value or args.exc_type(), None)
    sys.unraisablehook = lambda _args: None
