"""Templates of destinations: `postgresql://{username}:{password|url}@db/shop`.

`{field}` inserts a field of the version a slot carries; filters follow with `|`: `url` percent-encodes, `json` writes
a JSON string with its quotes, `base64`, `sh` writes one shell word, `compose` doubles `$`. `{previous.key|join(',')}`
lists a field of the versions accepted beside it, `{accepted[0]}` and `{accepted[-1]}` are the main field of the first
and the last accepted one. `{{` and `}}` are braces.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self
from urllib.parse import quote

from vaultkeeper.model.secret import Fields, SecretBytes, main_field

FILTERS: Mapping[str, Callable[[str], str]] = {
    "url": lambda text: quote(text, safe=""),
    "json": json.dumps,
    "sh": shlex.quote,
    "compose": lambda text: text.replace("$", "$$"),
}
FILTER_NAMES = ("url", "json", "base64", "sh", "compose", "join")
_ESCAPES = frozenset({"url", "json", "base64", "sh"})
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_SOURCE = re.compile(rf"(?:(?P<previous>previous)\.)?(?P<field>{_NAME})|accepted\[(?P<index>-?[0-9]+)\]")
_JOIN = re.compile(r"join\((?P<quote>['\"])(?P<by>.*)(?P=quote)\)", re.DOTALL)

_URL_SAFE = frozenset(string.ascii_letters + string.digits + "-._~")
_JSON_SAFE = frozenset(map(chr, range(0x20, 0x7F))) - {'"', "\\"}
_IN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s\"'<>]*\Z")
_IN_PAIRS = re.compile(r"(?:\A|[\s;])[A-Za-z][A-Za-z0-9_ ]*=['\"]?\Z")
_PAIR = re.compile(r"(?:\A|[\s;])[A-Za-z][A-Za-z0-9_]*=")


@dataclass(frozen=True)
class Insert:
    """One `{…}`. `field` None: the main field of `accepted[index]`; `previous`: of all accepted ones but the first."""

    position: int  #: of its opening brace in the template, from 0
    field: str | None
    index: int = 0
    previous: bool = False
    before_join: tuple[str, ...] = ()
    joined_by: str | None = None
    filters: tuple[str, ...] = ()

    @property
    def raw(self) -> bool:
        """Nothing escapes the value. `compose` does not: it only undoes Compose's own reading of `$`."""
        return not _ESCAPES & {*self.before_join, *self.filters}


@dataclass(frozen=True)
class Risk:
    """A raw insert whose value could break out of what stands around it."""

    field: str
    position: int
    into: str  #: "a URL", "a connection string", "JSON"
    remedy: str
    characters: str  #: a few of those that break out


@dataclass(frozen=True)
class Template:
    """A parsed template; equal texts make equal templates."""

    text: str
    parts: tuple[str | Insert, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, saying at which character (from 1) and what was expected."""
        return cls(text, _parts(text))

    def inserts(self) -> tuple[Insert, ...]:
        return tuple(part for part in self.parts if isinstance(part, Insert))

    def fields(self) -> frozenset[str]:
        """Names of the fields it uses, of previous versions too. The main field behind `accepted[…]` is not named."""
        return frozenset(insert.field for insert in self.inserts() if insert.field is not None)

    def raw_uses(self) -> tuple[Insert, ...]:
        """Inserts that nothing escapes."""
        return tuple(insert for insert in self.inserts() if insert.raw)

    def render(self, primary: Fields, accepted: Sequence[Fields] = ()) -> SecretBytes:
        """The content for a slot that carries `primary`. `accepted`: primary first, then the others beside it.

        A lone raw `{field}` passes any bytes; everything else is text. Raises ValueError, never with a value, where a
        field is missing or is no UTF-8 text.
        """
        versions = accepted or (primary,)
        lone = self.parts[0] if len(self.parts) == 1 else None
        if isinstance(lone, Insert) and lone.raw and not lone.previous and not lone.filters:
            return self._pick(lone, primary if lone.field is not None else versions[lone.index])
        out = (part if isinstance(part, str) else self._text(part, primary, versions) for part in self.parts)
        return SecretBytes("".join(out).encode())

    def _text(self, insert: Insert, primary: Fields, accepted: Sequence[Fields]) -> str:
        if insert.previous:
            values = [_apply(insert.before_join, self._pick(insert, one)) for one in accepted[1:]]
            return _apply(insert.filters, SecretBytes((insert.joined_by or "").join(values).encode()))
        fields = primary if insert.field is not None else accepted[insert.index]
        return _apply(insert.filters, self._pick(insert, fields))

    def _pick(self, insert: Insert, fields: Fields) -> SecretBytes:
        try:
            return fields[insert.field if insert.field is not None else main_field(set(fields))]
        except KeyError:
            known = ", ".join(sorted(fields))
            raise ValueError(f"the version has no field `{insert.field}`, only {known}") from None

    def risks(self, characters: Mapping[str, frozenset[str]]) -> list[Risk]:
        """Raw inserts that could break out of a URL, a connection string or JSON.

        `characters`: for each field every character that it may hold; fields whose characters are unknown are left
        out, and judged when a value is known (`adopt`, `import`).
        """
        found = []
        for number, part in enumerate(self.parts):
            if isinstance(part, str) or not part.raw or part.field is None or part.field not in characters:
                continue
            before = "".join(p if isinstance(p, str) else "x" for p in self.parts[:number])
            after = "".join(p if isinstance(p, str) else "x" for p in self.parts[number + 1 :])
            context = _context(before, after)
            breaking = context.breaks(characters[part.field]) if context else frozenset()
            if context and breaking:
                some = "".join(sorted(breaking))[:8]
                found.append(Risk(part.field, part.position, context.into, context.remedy(part.field), some))
        return found


@lru_cache(maxsize=1024)  # the same few texts are filled at every look at a place
def _parts(text: str) -> tuple[str | Insert, ...]:
    parts: list[str | Insert] = []
    literal: list[str] = []
    at = 0
    while at < len(text):
        if text[at : at + 2] in ("{{", "}}"):
            literal.append(text[at])
            at += 2
        elif text[at] == "}":
            raise ValueError(f"character {at + 1}: a lone `}}`; write `}}}}` for a brace")
        elif text[at] == "{":
            end = _closing(text, at)
            if literal:
                parts.append("".join(literal))
                literal = []
            parts.append(_insert(text[at + 1 : end], at))
            at = end + 1
        else:
            literal.append(text[at])
            at += 1
    if literal:
        parts.append("".join(literal))
    return tuple(parts)


def _closing(text: str, start: int) -> int:
    """Index of the `}` that ends the insert opened at `start`; quotes of a join may hold a brace."""
    quoted = ""
    for at in range(start + 1, len(text)):
        char = text[at]
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "'\"" and "join(" in text[start:at]:
            quoted = char
        elif char == "}":
            return at
        elif char == "{":
            break
    raise ValueError(f"character {start + 1}: a `{{` that is not closed; write `{{{{` for a brace")


def _split(inside: str) -> list[str]:
    """`inside` at its `|`, but not at one within the quotes of a join."""
    pieces, quoted = [""], ""
    for char in inside:
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "'\"":
            quoted = char
        if char == "|" and not quoted:
            pieces.append("")
        else:
            pieces[-1] += char
    return [piece.strip() for piece in pieces]


def _insert(inside: str, position: int) -> Insert:
    source, *filters = _split(inside)
    match = _SOURCE.fullmatch(source)
    at = f"character {position + 1}: "
    if match is None:
        raise ValueError(f"{at}`{{{source}}}` names no field; write `{{{{` for a brace")
    if match["index"] is not None and int(match["index"]) not in (0, -1):
        raise ValueError(f"{at}expected accepted[0] (the first) or accepted[-1] (the last)")
    before: tuple[str, ...] = ()
    joined: str | None = None
    names: list[str] = []
    for name in filters:
        join = _JOIN.fullmatch(name)
        if join is not None and match["previous"] and joined is None:
            joined, before, names = join["by"], tuple(names), []
        elif join is not None:
            raise ValueError(f"{at}`join` belongs once, to `previous.{match['field'] or 'value'}`")
        elif name not in FILTERS and name != "base64":
            raise ValueError(f"{at}`{name}` is no filter; expected one of {', '.join(FILTER_NAMES)}")
        else:
            names.append(name)
    if match["previous"] and joined is None:
        raise ValueError(f"{at}a list needs a separator: `{{{source}|join(',')}}`")
    index = int(match["index"] or 0)
    return Insert(position, match["field"], index, bool(match["previous"]), before, joined, tuple(names))


def _apply(filters: Sequence[str], value: SecretBytes) -> str:
    if filters and filters[0] == "base64":  # the one filter that takes bytes which are no text
        text, filters = base64.b64encode(value.reveal()).decode(), filters[1:]
    else:
        text = value.text()
    for name in filters:
        text = base64.b64encode(text.encode()).decode() if name == "base64" else FILTERS[name](text)
    return text


@dataclass(frozen=True)
class _Context:
    into: str
    breaks: Callable[[frozenset[str]], frozenset[str]]
    remedy: Callable[[str], str]


def _context(before: str, after: str) -> _Context | None:
    """What the text around an insert is, as far as a raw value could break it."""
    if _IN_URL.search(before):
        return _Context("a URL", lambda chars: chars - _URL_SAFE, lambda name: f"write {{{name}|url}}")
    if before.lstrip()[:1] in ("{", "[") and after.rstrip()[-1:] in ("}", "]"):
        harmless = _JSON_SAFE if before.endswith('"') and after.startswith('"') else frozenset(string.digits)
        return _Context(
            "JSON",
            lambda chars: chars - harmless,
            lambda name: f"write {{{name}|json}}, which brings its own quotes",
        )
    if _IN_PAIRS.search(before) and (len(_PAIR.findall(before)) > 1 or _PAIR.search(after)):
        return _Context(
            "a connection string",
            lambda chars: frozenset(c for c in chars if c in "'\"\\;={}" or c <= " "),
            lambda name: f"write it as a URL with {{{name}|url}}, or give the generator a plainer alphabet",
        )
    return None
