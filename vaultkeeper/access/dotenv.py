r"""One key of an env file, every other byte left alone: broken encodings, CRLF, comments, order, duplicates.

An env file has no standard. A value is written so that Docker Compose (compose-go's dotenv package), python-dotenv and
a POSIX shell's `.` all read the same, and refused where no spelling of it does:

- bare, where only harmless characters occur;
- in single quotes, which nobody expands. python-dotenv still reads `\\` and `\'` there as escapes, Compose takes a
  backslash before the closing quote for one, and python-dotenv expands `${…}` in every quoting;
- in double quotes, where it holds a single quote and nothing that anybody expands between double quotes.

Of several assignments the last one wins in all three, so that one is edited.
Sources: github.com/compose-spec/compose-go/blob/main/dotenv/parser.go, github.com/theskumar/python-dotenv
(src/dotenv/parser.py, variables.py), POSIX.1-2017 XCU section 2.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.model.outcome import No

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BARE = re.compile(r"[A-Za-z0-9_@%+=:,./^!-]*")  # `*` and `?` are not here: dash expands them after `export`
_HEAD = re.compile(rb"[ \t]*(?:export[ \t]+)?(?P<key>[^\s=#'\"]+)[ \t]*=[ \t]*")
_QUOTED = re.compile(
    rb"""(?:'(?:\\'|[^'])*'|"(?:\\.|[^"\\])*")(?=[ \t]*(?:\#[^\r\n]*)?(?:[\r\n]|\Z))""",
    re.DOTALL,
)
_COMMENT = re.compile(rb"[ \t]\#")
_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class _Found:
    """One assignment: where its line and its value stand."""

    line: tuple[int, int]  #: with the line's end
    value: tuple[int, int]  #: with its quotes


class EnvText:
    """The text of an env file, with its keys as slots."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def get(self, slot: str) -> bytes | None:
        """As spelled in the file, quotes included. None: there is no such key. Raises Answered."""
        found = self._last(slot)
        return None if found is None else self.data[slice(*found.value)]

    def carries(self, slot: str, content: bytes) -> bool:
        stored = self.get(slot)
        return stored is not None and read(stored) == content

    def put(self, slot: str, content: bytes) -> None:
        """Raises Answered with Refused where the value or the key cannot be written."""
        self._write(slot, spell(content))

    def restore(self, slot: str, stored: bytes | None) -> None:
        if stored is not None:
            self._write(slot, stored)
            return
        found = self._last(slot)
        if found is not None:
            self.data = self.data[: found.line[0]] + self.data[found.line[1] :]

    def encode(self) -> bytes:
        return self.data

    def _write(self, slot: str, stored: bytes) -> None:
        if not KEY.fullmatch(slot):
            raise refused(No.UNSUPPORTED, f"{slot!r} is no name that a shell could assign to")
        found = self._last(slot)
        if found is not None:
            self.data = self.data[: found.value[0]] + stored + self.data[found.value[1] :]
            return
        ends = _END.findall(self.data)
        end = ends[-1] if ends else b"\n"
        if self.data and not self.data.endswith((b"\n", b"\r")):
            self.data += end
        self.data += slot.encode() + b"=" + stored + end

    def _last(self, slot: str) -> _Found | None:
        """The assignment that wins. Raises Answered where readers would not agree on what is an assignment."""
        key = slot.encode()
        found = None
        count = 0
        at = 0
        while at < len(self.data):
            start = at
            head = _HEAD.match(self.data, at)
            value = _value(self.data, head.end()) if head else (at, at)
            at = _line_end(self.data, value[1])
            if head and head["key"] == key:
                found, count = _Found((start, at), value), count + 1
        lines = re.findall(rb"(?:\A|(?<=[\r\n]))[ \t]*(?:export[ \t]+)?" + re.escape(key) + rb"[ \t]*=", self.data)
        if len(lines) != count:
            raise refused(No.UNSUPPORTED, f"an assignment to {slot} stands within quotes of another; edit that by hand")
        return found


def _value(data: bytes, start: int) -> tuple[int, int]:
    """Where the value that begins at `start` stands, without blanks and a comment behind it."""
    quoted = _QUOTED.match(data, start)
    if quoted:
        return quoted.span()
    newline = _END.search(data, start)
    end = newline.start() if newline else len(data)
    comment = _COMMENT.search(data, start, end)
    return start, start + len(data[start : comment.start() if comment else end].rstrip(b" \t"))


def _line_end(data: bytes, at: int) -> int:
    """The beginning of the next line."""
    newline = _END.search(data, at)
    return newline.end() if newline else len(data)


def spell(content: bytes) -> bytes:
    """The value as an env file writes it. Raises Answered with Refused(VALUE)."""
    text = _text(content)
    if _BARE.fullmatch(text):
        return content
    if "${" in text:
        raise _cannot("`${`, which python-dotenv expands in every quoting")
    if "'" not in text and "\\\\" not in text and not text.endswith("\\"):
        return b"'" + content + b"'"
    if not set(text) & set('"\\$`'):
        return b'"' + content + b'"'
    raise _cannot("quotes and backslashes of which readers make different values")


def bare(content: bytes) -> bytes:
    """The value without quotes, for readers that take quotes literally. Raises Answered with Refused(VALUE)."""
    if not _BARE.fullmatch(_text(content)):
        raise _cannot("characters that need quotes, which some readers of this kind of file take literally")
    return content


def read(stored: bytes) -> bytes | None:
    """What all three readers make of a spelled value; None where they may differ."""
    quote, inner = stored[:1], stored[1:-1]
    if quote in (b"'", b'"') and len(stored) > 1 and stored.endswith(quote):
        if quote == b"'":
            odd = b"'" in inner or b"\\\\" in inner or inner.endswith(b"\\") or b"${" in inner
        else:
            odd = bool(set(inner) & set(b'"\\$`'))
        return None if odd else inner
    return stored if _BARE.fullmatch(stored.decode(errors="replace")) else None


def _text(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _cannot("bytes that are no UTF-8 text") from None
    if "\n" in text or "\r" in text:
        raise _cannot("a line break")
    if any(c != "\t" and (c < " " or c == "\x7f") for c in text):
        raise _cannot("control characters")
    return text


def _cannot(what: str) -> Answered:
    return refused(No.VALUE, f"an env file cannot carry this value: it holds {what}")
