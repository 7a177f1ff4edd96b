"""A statement cut into words, for a grammar of account management (15.7.1 of the manual)."""

from __future__ import annotations

import re
from collections.abc import Callable

from vaultkeeper.testing.mysql.state import SqlError

_WORD = re.compile(
    r"""\s*(?:
    '(?P<text>(?:[^'\\]|''|\\.)*)' | "(?P<also>(?:[^"\\]|""|\\.)*)" | `(?P<name>(?:[^`]|``)*)` |
    (?P<word>[A-Za-z_@][\w@.]*) | (?P<number>\d+) | (?P<mark>[^\w\s])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r", "t": "\t", "b": "\b", "Z": "\x1a"}


def syntax_error() -> SqlError:
    """The text of a real one quotes the statement from where it stopped."""
    return SqlError(1064, "42000", "You have an error in your SQL syntax")


class Words:
    """Read from the front. Keywords are compared without case; a string literal is never one."""

    def __init__(self, statement: str) -> None:
        self._rest: list[tuple[str, str]] = []
        at = 0
        while at < len(statement.rstrip()):
            found = _WORD.match(statement, at)
            if found is None:
                raise syntax_error()
            kind = str(found.lastgroup)
            self._rest.append((kind, _plain(kind, str(found[kind]))))
            at = found.end()

    @property
    def over(self) -> bool:
        return not self._rest

    def next_is(self, *keywords: str) -> bool:
        ahead = [text.upper() for kind, text in self._rest[: len(keywords)] if kind in {"word", "mark"}]
        return ahead == list(keywords)

    def skip(self, *keywords: str) -> bool:
        """Take these words if they come next."""
        if not self.next_is(*keywords):
            return False
        del self._rest[: len(keywords)]
        return True

    def demand(self, *keywords: str) -> None:
        if not self.skip(*keywords):
            raise syntax_error()

    def take(self, *kinds: str) -> str:
        if not self._rest or self._rest[0][0] not in kinds:
            raise syntax_error()
        return self._rest.pop(0)[1]

    def literal(self) -> str:
        return self.take("text", "also")

    def account(self) -> tuple[str, str]:
        """'user'@'host'; without a host it is '%' (8.2.4, "Specifying Account Names")."""
        name = self.take("text", "also", "name", "word")
        return name, self.take("text", "also", "name", "word") if self.skip("@") else "%"

    def separated(self, read: Callable[[], object]) -> None:
        """One or more, with commas between them."""
        read()
        while self.skip(","):
            read()


def _plain(kind: str, text: str) -> str:
    if kind == "name":
        return text.replace("``", "`")
    if kind not in {"text", "also"}:
        return text
    quote = "'" if kind == "text" else '"'
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text.replace(quote * 2, quote), flags=re.DOTALL)
