"""How the command line speaks: data on stdout, talk on stderr, plain without a terminal or with `NO_COLOR`.

Texts from servers are shown without their control characters: a hostile reply must not drive the terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from vaultkeeper.errors import VaultkeeperError

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000  # columns where there is no terminal: nothing is ever cut off for a script
STATE_STYLES = {
    "ok": "green",
    "due": "yellow",
    "failed": "red",
    "done": "green",
    "repaired": "green",
    "waiting": "yellow",
    "rolled_back": "red",
    "parked": "red",
    "ambiguous": "bold red",
}


def clean(text: str) -> str:
    """One line without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


@dataclass
class Output:
    """`json`: data is one JSON document instead of text."""

    json: bool = False
    quiet: bool = False
    color: bool = True
    redact: Callable[[str], str] = str  #: applied to errors: they are the only texts that come from outside

    @property
    def interactive(self) -> bool:
        """Whether there is a person who can be asked."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def data(self, text: str) -> None:
        write(sys.stdout, text + "\n")

    def document(self, document: Mapping[str, object]) -> None:
        self.data(json.dumps(document, indent=2, ensure_ascii=False))

    def error_document(self, error: VaultkeeperError) -> dict[str, str]:
        """An error in JSON."""
        texts = {"what": error.what, "why": error.why, "works": error.works, "next": error.next}
        return {"code": error.code, **{name: self.redact(text) for name, text in texts.items()}}

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Mapping[str, str] | None = None
    ) -> None:
        """`styles`: a cell's text → its style, where there are colours."""
        from rich.table import Table
        from rich.text import Text

        console = self.console(sys.stdout)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            cells = [clean(cell) for cell in row]
            table.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in cells))
        with console.capture() as captured:
            console.print(table)
        write(sys.stdout, "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")

    def say(self, text: str = "") -> None:
        if not self.quiet:
            write(sys.stderr, text + "\n")

    def error(self, error: VaultkeeperError) -> None:
        """An error as a person reads it. `--json` puts the same on stdout too."""
        if self.color and sys.stderr.isatty():
            head = f"\x1b[1;31merror[{error.code}]\x1b[0m {clean(error.what)}"
        else:
            head = f"error[{error.code}] {clean(error.what)}"
        lines = [head]
        for label, text in (("why", error.why), ("works", error.works), ("next", error.next)):
            for number, line in enumerate(text.splitlines()):
                lines.append(f"  {label if number == 0 else '':<6} {clean(line)}")
        write(sys.stderr, self.redact("\n".join(lines)) + "\n")

    def confirmed(self, question: str) -> bool:
        """Ask on the terminal; no answer is no."""
        write(sys.stderr, f"{question} [y/N] ")
        answer = sys.stdin.readline()
        return answer.strip().lower() in {"y", "yes"}

    def console(self, stream: TextIO) -> Console:
        from rich.console import Console

        plain = not (self.color and stream.isatty())
        return Console(
            file=stream,
            no_color=plain,
            color_system=None if plain else "auto",
            markup=False,
            highlight=False,
            emoji=False,
            width=None if stream.isatty() else WIDE,
        )


def write(stream: TextIO, text: str) -> None:
    """Write now. A reader that has gone away (`| head`) ends the output, not the command."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        silence(stream)
    except UnicodeEncodeError:  # LANG=C
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()


def write_bytes(raw: bytes) -> None:
    """Exactly these bytes to stdout."""
    try:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        silence(sys.stdout)


def silence(stream: TextIO) -> None:
    """Point a stream at /dev/null, so that Python's own flush at exit stays quiet too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
