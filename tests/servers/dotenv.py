"""Env files, read by a POSIX shell, with other people's lines in an encoding that is not UTF-8."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers.file import FilePlace
from vaultkeeper.model.policy import DestinationSpec

OURS = (b"DB_PASSWORD", b"API_TOKEN")
FOREIGN = b"# caf\xe9\r\nOTHER='kept'\r\n\r\nexport LAST=\"x y\"\r\n"


class DotenvPlace(FilePlace):
    kind = "dotenv"
    names: tuple[str, ...] = ("DB_PASSWORD", "API_TOKEN")
    suffix = ".env"

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        path = self.path(spec)
        if not path.exists() or name.encode() + b"=" not in path.read_bytes():
            return None
        script = f'. "$1" >/dev/null 2>&1; printf "%s." "${{{name}}}"'
        text = path.with_name(path.name + ".unix")  # a shell reads no CRLF
        text.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
        told = subprocess.run(["/bin/sh", "-c", script, "sh", str(text)], capture_output=True, check=True).stdout
        Path(text).unlink()
        return told[:-1]

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        self.path(spec).write_bytes(FOREIGN)
        return FOREIGN

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        lines = self.path(spec).read_bytes().splitlines(keepends=True)
        return b"".join(line for line in lines if not line.startswith(OURS))


def start() -> DotenvPlace:
    return DotenvPlace()
