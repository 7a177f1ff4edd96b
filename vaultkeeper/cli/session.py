"""What every command has: the global options, the output, and the installation once it asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaultkeeper.cli.output import Output

if TYPE_CHECKING:
    from vaultkeeper.engine.parts import Event, Parts
    from vaultkeeper.wiring import Installed
    from vaultkeeper.wiring.places import Wishes

PANEL = "Global options (before or after the command)"


@dataclass(frozen=True)
class Globals:
    """The global options; None: not given."""

    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", help="Where the state lives. VAULTKEEPER_STATE_DIR.", rich_help_panel=PANEL),
    ] = None
    policies: Annotated[
        Path | None,
        typer.Option("--policies", help="Policy file or folder. VAULTKEEPER_POLICIES.", rich_help_panel=PANEL),
    ] = None
    identity: Annotated[
        Path | None,
        typer.Option("--identity", help="The age identity file. VAULTKEEPER_IDENTITY.", rich_help_panel=PANEL),
    ] = None
    json: Annotated[
        bool | None,
        typer.Option("--json", help="Data as one JSON document.", rich_help_panel=PANEL, show_default=False),
    ] = None
    verbose: Annotated[
        int | None,
        typer.Option("-v", "--verbose", count=True, help="Log to stderr; -vv: more.", rich_help_panel=PANEL),
    ] = None
    quiet: Annotated[
        bool | None, typer.Option("-q", "--quiet", help="Errors only.", rich_help_panel=PANEL, show_default=False)
    ] = None
    no_color: Annotated[
        bool | None,
        typer.Option("--no-color", help="No colours. NO_COLOR.", rich_help_panel=PANEL, show_default=False),
    ] = None

    def over(self, earlier: Globals) -> Globals:
        """These, and what was given earlier where these say nothing."""
        return Globals(**{f.name: getattr(self, f.name) or getattr(earlier, f.name) for f in fields(Globals)})


@dataclass
class Session:
    """One invocation. `watch` is told the engine's progress."""

    options: Globals
    out: Output
    watch: Callable[[Event], None] = field(default=lambda _event: None)
    parallel: int = 4

    @property
    def wishes(self) -> Wishes:
        from vaultkeeper.wiring.places import Wishes

        return Wishes(self.options.state_dir, self.options.policies, self.options.identity)

    @cached_property
    def installed(self) -> Installed:
        """The opened installation: identity, store, audit log. Raises what `wiring.open_installed` raises."""
        from vaultkeeper import wiring

        return wiring.open_installed(self.wishes, self._passphrase if self.out.interactive else None)

    def close(self) -> None:
        """Close the store, if it was opened: its write-ahead log goes back into the database."""
        if "installed" in vars(self):
            self.installed.store.close()

    def _passphrase(self, path: Path) -> str:
        import getpass

        return getpass.getpass(f"Passphrase of {path}: ", stream=sys.stderr)

    def _tell(self, event: Event) -> None:
        """To whoever watches by then: the parts are older than the progress bar."""
        self.watch(event)

    @cached_property
    def parts(self) -> Parts:
        """All of it, policies included."""
        from vaultkeeper import wiring

        made = wiring.parts(self.installed, self.wishes, watch=self._tell, parallel=self.parallel)
        self.out.redact = made.redactor.clean
        return made


def session(options: Globals) -> Session:
    """The process made ready: hardened, logging set up."""
    from vaultkeeper.wiring import logs, places, process

    process.harden()
    logs.configure(verbose=options.verbose or 0, quiet=bool(options.quiet))
    color = not options.no_color and not places.colourless()
    return Session(options, Output(json=bool(options.json), quiet=bool(options.quiet), color=color))
