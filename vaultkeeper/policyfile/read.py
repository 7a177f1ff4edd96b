"""One YAML file to plain data in which every key remembers its place.

Built from libyaml's events, not from its composer: the composer calls itself for every level, and a megabyte of `[`
ends the process. Events also show anchors, aliases and tags as such. Plain scalars follow YAML 1.2's core schema, so
`no`, `off`, `12:30` and `0400` are text.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vaultkeeper.model.policy import Place
from vaultkeeper.policyfile.findings import Findings

MAX_BYTES = 1 << 20
MAX_DEPTH = 20

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{0,18}")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Map(dict[str, Any]):
    """A mapping; `marks` holds the place of each key, `place` its own."""

    __slots__ = ("marks", "place")

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.marks: dict[str, Place] = {}

    def put(self, key: str, value: object, place: Place) -> None:
        self[key] = value
        self.marks[key] = place

    def where(self, key: str) -> Place:
        """Of the key, or of the mapping where the key is missing."""
        return self.marks.get(key, self.place)


class Seq(list[Any]):
    """A list; `marks` holds the place of each item."""

    __slots__ = ("marks", "place")

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.marks: list[Place] = []


@dataclass
class Document:
    """A file's content. `usable` is False where its structure is refused; its keys are still there to be named."""

    file: str
    root: Map
    usable: bool = True


def read(path: Path, findings: Findings) -> Document | None:
    """The file's document; None where there is none to speak of. All that is wrong is added to `findings`."""
    text = _text(path, findings)
    if text is None:
        return None
    builder = _Builder(str(path), findings)
    try:
        for event in yaml.parse(text, Loader=yaml.CBaseLoader):
            builder.take(event)
    except _Stop:
        pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(str(path), mark.line + 1 if mark else 0, mark.column + 1 if mark else 0)
        findings.add(place, "", _explained(error, text, place))
        builder.broken = True
    except yaml.YAMLError:
        findings.add(_at_control(path, text), "", "a control character: expected printable text")
        builder.broken = True
    if isinstance(builder.root, Map):
        return Document(str(path), builder.root, not builder.broken)
    if not builder.broken:
        found = "the file is empty" if builder.root is None else "something else stands here"
        findings.add(Place(str(path), 1, 1), "", f"expected keys such as `secrets:`; {found}")
    return None


def _text(path: Path, findings: Findings) -> str | None:
    """The file as text, or None with a finding."""
    try:
        raw = _bytes(path)
    except OSError as error:
        findings.add(Place(str(path)), "", f"cannot be read: {error.strerror}")
        return None
    except ValueError as error:
        findings.add(Place(str(path)), "", str(error))
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        findings.add(_end(path, before), "", "not UTF-8: expected a text file")
        return None


def _bytes(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang us
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("expected a regular file")
        if status.st_mode & stat.S_IWOTH:
            raise ValueError("every user may write this file: expected mode 0644 or less (chmod o-w)")
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError("larger than 1 MiB: expected several smaller files")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("UTF-16: expected UTF-8")
    return raw


def _end(path: Path, before: str) -> Place:
    """Where a text ends that begins the file."""
    return Place(str(path), before.count("\n") + 1, len(before) - before.rfind("\n"))


def _at_control(path: Path, text: str) -> Place:
    match = _CONTROL.search(text)
    return _end(path, text[: match.start()] if match else "")


def _explained(error: yaml.MarkedYAMLError, text: str, place: Place) -> str:
    lines = text.splitlines()
    if 0 < place.line <= len(lines) and lines[place.line - 1][place.column - 1 : place.column] == "\t":
        return "a tab: expected spaces for indentation"
    return ", ".join(part for part in (error.context, error.problem) if part) or "not YAML"


class _Stop(Exception):
    """No more of this file is looked at."""


@dataclass
class _Builder:
    """Takes events, one after another; no recursion, whatever the file holds."""

    file: str
    findings: Findings
    root: object = None
    broken: bool = False
    _stack: list[Map | Seq] = field(default_factory=list)
    _keys: list[tuple[str, Place] | None] = field(default_factory=list)  #: of each open mapping: the key that waits
    _documents: int = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._judge(event)
            self._value(event, self._scalar(event))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._judge(event)
            place = self._place(event)
            self._open(event, Map(place) if isinstance(event, yaml.MappingStartEvent) else Seq(place))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._stack.pop()
            self._keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            self._refuse(event, "an alias (`*`): expected the value itself, or a part from `connections`")
            self._value(event, None)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse(event, "a second document: expected one per file")
                raise _Stop

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1)

    def _refuse(self, event: Any, text: str) -> None:
        self.findings.add(self._place(event), "", text)
        self.broken = True

    def _judge(self, event: Any) -> None:
        if event.anchor is not None:
            self._refuse(event, "an anchor (`&`): expected `connections` and `use` for parts that are shared")
        if event.tag is not None:
            self._refuse(event, "a tag (`!`): expected a plain value")

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        value: str = event.value
        if _CONTROL.search(value):
            self._refuse(event, "a control character: expected printable text")
        if event.style is not None and event.style != "":
            return value
        if value in _WORDS:
            return _WORDS[value]
        if _INTEGER.fullmatch(value):
            return int(value)
        return float(value) if _FLOAT.fullmatch(value) else value

    def _open(self, event: yaml.Event, container: Map | Seq) -> None:
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
            raise _Stop
        self._value(event, container)
        self._stack.append(container)
        self._keys.append(None)

    def _value(self, event: Any, value: object) -> None:
        if not self._stack:
            self.root = value
            return
        parent = self._stack[-1]
        if isinstance(parent, Seq):
            parent.append(value)
            parent.marks.append(self._place(event))
            return
        waiting = self._keys[-1]
        if waiting is None:
            self._keys[-1] = (self._key(event), self._place(event))
            return
        self._keys[-1] = None
        key, place = waiting
        if key in parent:
            first = parent.where(key).line
            self.findings.add(place, key, f"a duplicate key; the first one stands in line {first}")
        else:
            parent.put(key, value, place)

    def _key(self, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "expected a name as key")
            return ""
        if event.value == "<<" and not event.style:
            self._refuse(event, "a merge key (`<<`): expected `use:` with a part from `connections`")
        return str(event.value)
