"""All commands, put together, and the one place that turns an invocation into an exit code."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command

import vaultkeeper
from vaultkeeper.cli import (
    adopt,
    audit,
    check,
    doctor,
    env,
    get,
    importing,
    init,
    keep,
    keys,
    kinds,
    plan,
    reconcile,
    rotate,
    status,
)
from vaultkeeper.cli.command import global_parameters
from vaultkeeper.cli.guard import INTERRUPTED, as_error, quiet_hooks
from vaultkeeper.cli.output import Output, silence
from vaultkeeper.cli.session import Globals
from vaultkeeper.errors import UsageError, VaultkeeperError

USAGE = 2
CLICK_ERROR = next(c for c in typer.BadParameter.__mro__ if c.__name__ in {"ClickException", "TyperException"})
FAMILIES = (init, check, plan, adopt, importing, rotate, reconcile, status, get, env, keep, keys, audit, doctor, kinds)


@cache
def build() -> TyperGroup:
    """The whole command line, put together once: that takes a third as long as a rotation."""
    app = typer.Typer(
        name="vaultkeeper",
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # they print local variables
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback(help="Rotate the passwords and tokens of a self-hosted stack without locking anyone out.")(_globals())
    for family in FAMILIES:
        family.register(app)
    return cast("TyperGroup", get_command(app))


def _version(asked: bool) -> None:
    if asked:
        Output().data(f"vaultkeeper {vaultkeeper.__version__}")
        raise typer.Exit


def _globals() -> Callable[..., None]:
    """The options before the command's name."""

    def before(ctx: typer.Context, **given: Any) -> None:
        ctx.obj = Globals(**{f.name: given[f.name] for f in fields(Globals)})

    version = inspect.Parameter(
        "version",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool, typer.Option("--version", help="The version, and nothing else.", is_eager=True, callback=_version)
        ],
    )
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, version, *global_parameters()]
    before.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    before.__annotations__ = {p.name: p.annotation for p in parameters}
    return before


def run(arguments: Sequence[str]) -> int:
    """One invocation, to its exit code. Prints; never raises, never a traceback."""
    quiet_hooks()
    try:
        code = build()(args=list(arguments), prog_name="vaultkeeper", standalone_mode=False)
        return _flushed(code if isinstance(code, int) else 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except typer.Abort:
        return INTERRUPTED
    except SystemExit:  # how click and rich end where the reader of a help text has gone away
        return 0
    except Exception as raised:  # noqa: BLE001 - the last line before the user
        error = _usage(raised) if isinstance(raised, CLICK_ERROR) else as_error(raised)
        out = Output(json="--json" in arguments)
        if error is None:  # a group without a command has shown its help
            return USAGE
        if out.json:
            out.document({"error": out.error_document(error)})
        out.error(error)
        return error.exit_code


def _usage(raised: Any) -> VaultkeeperError | None:
    message = raised.format_message()
    context = getattr(raised, "ctx", None)
    if type(raised).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message + "\n" if message else "")
        return None
    path = context.command_path if context else "vaultkeeper"
    return UsageError(message, next=f"{path} --help")


def _flushed(code: int) -> int:
    """Output that could not be written is an error, except where the reader has gone away."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as error:
        with contextlib.suppress(OSError):
            silence(sys.stdout)
        Output().error(VaultkeeperError("the output could not be written", why=error.strerror or ""))
        return code or 1
    return code
