"""Looks for known values in bytes, in every spelling in which a value may get lost. Shares no code with vaultkeeper."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CALLS = "execve,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,mkdir,mkdirat,open,openat,rename,symlink,link"
_HEX = re.compile(rb"(?:\\x[0-9a-f]{2})+")
_WRITE = re.compile(rb"^(?:\d+ +)?(write|pwrite64|writev|pwritev2?|sendto|sendmsg)\(\d+<([^>]*)>")


@dataclass
class Hunter:
    """`values`: what to look for, by the phase that it belongs to."""

    values: Mapping[str, str] = field(repr=False)  # a test that fails shows none
    hits: list[str] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)  #: bytes by sink: nothing was searched is no proof

    def __post_init__(self) -> None:
        self._forms = [
            (f"{phase} as {name}", form) for phase, value in self.values.items() for name, form in forms(value)
        ]

    def look(self, sink: str, content: bytes | str) -> None:
        raw = content.encode() if isinstance(content, str) else content
        self.looked_at[sink] = self.looked_at.get(sink, 0) + len(raw)
        self.hits += [f"{sink}: {what}" for what, form in self._forms if form in raw]

    def look_into(self, sink: str, folder: Path) -> None:
        """Every file below it, as it lies on the disk: WAL and free pages too."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.look(sink, path.name)
                self.look(sink, path.read_bytes())

    def look_at_calls(self, trace: Path, *declared: Path) -> None:
        """What strace saw: arguments and environment of every program, and what was written outside `declared`.

        A pipe to a child's standard input and a memory file are how values travel; they are no place where one stays.
        """
        for line in trace.read_bytes().splitlines():
            said = _HEX.sub(lambda match: bytes.fromhex(match.group().decode().replace("\\x", "")), line)
            written = _WRITE.match(said)
            if written is None:
                self.look("arguments, environment and names", said)
            elif written[2].startswith((b"pipe:", b"/memfd:", b"memfd:", *map(bytes, declared))):
                continue
            else:
                self.look("writes to " + ("files" if written[2].startswith(b"/") else "sockets"), said)


def forms(value: str) -> Iterator[tuple[str, bytes]]:
    """(name, spelling) of a value."""
    raw = value.encode()
    yield "itself", raw
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield "URL", urllib.parse.quote(value, safe="").encode()
    yield "form", urllib.parse.quote_plus(value).encode()
    yield "JSON", json.dumps(value)[1:-1].encode()
    yield "JSON in UTF-8", json.dumps(value, ensure_ascii=False)[1:-1].encode()
    yield "repr", repr(value)[1:-1].encode()
    yield "repr of bytes", repr(raw)[2:-1].encode()
    yield "SQL", value.replace("'", "''").encode()
    yield "SQL with escapes", value.replace("\\", "\\\\").replace("'", "''").encode()
    for before in range(3):
        for name, encode in (("base64", base64.b64encode), ("URL-safe base64", base64.urlsafe_b64encode)):
            # what stays the same whatever stands before and behind it
            inner = [encode(bytes([other]) * before + raw + bytes([other]) * 3).decode() for other in (0, 255)]
            same = [i for i, (a, b) in enumerate(zip(*inner, strict=True)) if a == b]
            start = before and next(i for i in range(len(inner[0])) if inner[0][i:][:8] == inner[1][i:][:8])
            end = next((i for i in range(start, len(inner[0])) if i not in same), len(inner[0]))
            yield f"{name} at {before}", inner[0][start:end].encode()
