"""Random environments, judged by the npm package that Dokploy reads them with.

The package is fetched by npm into a folder that is no part of this repository; one node process judges a whole batch.
`python -m tests.integration.dotenv_oracle FOLDER [N] [SEED]` compares N documents and N edits (100,000 by default).
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import ServerMissing
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.dokploy.env import EnvText, parse

PACKAGE = "dotenv@16.4.5"
BATCH = 20_000
_JUDGE = """
const {parse} = require(process.argv[1] + '/node_modules/dotenv')
let text = ''
process.stdin.setEncoding('utf8').on('data', part => text += part).on('end', () =>
  process.stdout.write(JSON.stringify(JSON.parse(text).map(one => Object.entries(parse(one))))))
"""
_LINES = (
    "KEY=old\n",
    "KEY='o#d'\r\n",
    "\nKEY=x # c\n",
    "A=1\n",
    "export KEY=v\r\n",
    "KEY: v\n",
    "# KEY=no\n",
    "A='x\\'\n",
)
_PIECES = (
    *("A", "B", "KEY", "x.y", "a-b", "export ", "v", "value", "é", "😀"),
    *("=", "=", "=", ":", ": ", " ", "\t", "\n", "\n", "\n", "\r\n", "\r", "#", " #"),
    *("'", '"', "`", "\\", "\\n", "\\r", "\\'", '\\"', "$", "${", "${{project.X}}"),
    *("\u2028", "\u2029", "\ufeff", "\xa0", "\v", "\f", "\x85", "\u180e", "\u200b"),
)
_VALUES = (
    "a",
    "B9",
    "#",
    " ",
    "'",
    '"',
    "`",
    "\\",
    "\\n",
    "\\r",
    "$",
    "{",
    "}",
    "\n",
    "\t",
    "é",
    "\u2028",
    "=",
    "😀",
    "x",
)


@dataclass
class Oracle:
    """dotenv 16.4.5 itself."""

    folder: Path

    @classmethod
    def install(cls, folder: Path) -> Oracle:
        """Once per folder. Raises ServerMissing without node, npm or the registry."""
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise ServerMissing("node and npm are not installed")
        manifest = folder / "node_modules/dotenv/package.json"
        if not manifest.exists():
            argv = [npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
            ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
            if ran.returncode != 0:
                raise ServerMissing(f"npm could not fetch {PACKAGE}")
        assert json.loads(manifest.read_text())["version"] == PACKAGE.partition("@")[2]
        return cls(folder)

    def parse(self, documents: Sequence[str]) -> list[dict[str, str]]:
        argv = ["node", "-e", _JUDGE, str(self.folder)]
        given = json.dumps(documents)
        ran = subprocess.run(argv, input=given, capture_output=True, text=True, check=True, timeout=300)
        return [dict(pairs) for pairs in json.loads(ran.stdout)]


@dataclass
class Comparison:
    """What was compared, and the first few documents that differ."""

    documents: int = 0
    edits: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        return f"{self.documents} documents, {self.edits} edits, {self.refused} refused, {len(self.wrong)} wrong"


def compare(oracle: Oracle, count: int, seed: int) -> Comparison:
    """`count` random documents parsed, and as many random values put into random documents and taken out again."""
    rng, found = random.Random(seed), Comparison()
    while found.documents < count:
        size = min(BATCH, count - found.documents)
        documents = [_document(rng) for _ in range(size)]
        said = oracle.parse(documents)
        found.wrong += [repr(d) for d, judged in zip(documents, said, strict=True) if parse(d) != judged]
        edits = [edit for _ in range(size) if (edit := _edit(rng, found)) is not None]
        said = oracle.parse([written for written, _ in edits])
        found.wrong += [repr(e) for e, judged in zip(edits, said, strict=True) if e[1] != judged]
        found.documents += size
        found.edits += len(edits)
    return found


def _document(rng: random.Random) -> str:
    return "".join(rng.choice(_LINES if rng.random() < 0.15 else _PIECES) for _ in range(rng.randint(0, 40)))


def _edit(rng: random.Random, found: Comparison) -> tuple[str, dict[str, str]] | None:
    """A document with a value put in, and what it must be read as. None: refused."""
    document, slot = _document(rng), rng.choice(("KEY", "A", "NEW.one"))
    value = "".join(rng.choice(_VALUES) for _ in range(rng.randint(0, 12)))
    text = EnvText(document)
    before = text.get(slot)
    try:
        text.put(slot, value.encode())
    except Answered:
        found.refused += 1
        return None
    back = EnvText(text.text)
    back.restore(slot, before)
    if back.text != document:
        found.wrong.append(f"not put back: {document!r}")
    return text.text, {**parse(document), slot: value}


def main() -> int:
    folder = Path(sys.argv[1])
    count, seed = (int(word) for word in (*sys.argv[2:], "100000", "1")[:2])
    result = compare(Oracle.install(folder), count, seed)
    print(result.line())
    print("\n".join(result.wrong[:5]))
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
