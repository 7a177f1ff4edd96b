"""What is wrong with policy files: collected over all files, told at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.policy import Place


@dataclass(frozen=True, order=True)
class Finding:
    """One error. `path`: the keys that lead to it, `target.admin.password`. Never holds a value that may be secret."""

    file: str
    line: int
    column: int
    path: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where} {self.path}: {self.text}" if self.path else f"{where}: {self.text}"


@dataclass
class Findings:
    """Everything found so far."""

    found: list[Finding] = field(default_factory=list)

    def add(self, place: Place, path: str, text: str) -> None:
        self.found.append(Finding(place.file, place.line, place.column, path, text))

    def __len__(self) -> int:
        return len(self.found)

    def raise_if_any(self) -> None:
        """Raises PolicyInvalid with every finding in its `why`, one per line."""
        if not self.found:
            return
        told = sorted(set(self.found))
        files = len({finding.file for finding in told})
        raise PolicyInvalid(
            f"{_count(len(told), 'error')} in {_count(files, 'policy file')}",
            why="\n".join(map(str, told)),
            works="nothing was changed",
            next="correct them, then   vaultkeeper check --offline",
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest valid names, as the end of an error text: "did you mean `strategy`?", else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"expected one of {', '.join(names)}" if names else "nothing is expected here"
