"""How a function becomes a command: it is given a `Session` first, and the global options beside its own.

The global options work before and after the command's name; the later one wins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, Concatenate, ParamSpec

import typer

from vaultkeeper.cli.guard import guarded
from vaultkeeper.cli.session import Globals, Session

P = ParamSpec("P")
Body = Callable[Concatenate[Session, P], int | None]


def command(app: typer.Typer, name: str, *, panel: str | None = None) -> Callable[[Body[P]], Body[P]]:
    """Register `body(session, …)` under `name`. It returns its exit code; None is 0."""

    def register(body: Body[P]) -> Body[P]:
        def run(ctx: typer.Context, **given: Any) -> int:
            said = Globals(**{f.name: given.pop(f.name) for f in fields(Globals)})
            options = said.over(ctx.obj or Globals())
            return guarded(options, lambda session: body(session, **given))  # type: ignore[call-arg]

        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *global_parameters()]
        run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__ = body.__name__, body.__doc__
        app.command(name, rich_help_panel=panel)(run)
        return body

    return register


@cache
def global_parameters() -> tuple[inspect.Parameter, ...]:
    """The global options as typer reads them."""
    hints = inspect.get_annotations(Globals, eval_str=True)
    return tuple(
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(Globals)
    )
