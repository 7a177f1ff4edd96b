from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.policyfile.kinds import Kinds
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.policyfile import load


class Folder:
    """A folder of policy files, loaded with the stub kinds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str | bytes) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def load(self, text: str | None = None) -> dict[str, RotationPolicy]:
        if text is not None:
            self.write("shop.yaml", text)
        return load([self.path], Kinds())

    def one(self, body: str, name: str = "shop/db") -> RotationPolicy:
        """The policy of one secret; `body` in flow style, without the outer braces."""
        return self.load(f"secrets:\n  {name}: {{{body}}}\n")[name]

    def errors(self, text: str | None = None) -> list[str]:
        """Each error, its file without the folder."""
        with pytest.raises(PolicyInvalid) as caught:
            self.load(text)
        assert caught.value.exit_code == 3
        return [line.replace(f"{self.path}/", "") for line in caught.value.why.splitlines()]

    def error(self, body: str) -> str:
        """The only error of one secret, without place and name."""
        told = self.errors(f"secrets:\n  s: {{{body}}}\n")
        assert len(told) == 1, told
        return told[0].split(" ", 1)[1]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
