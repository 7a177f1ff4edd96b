"""Files with one value each, read as any program reads a file."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from vaultkeeper.model.policy import DestinationSpec, Read


class FilePlace:
    """A folder of its own, in which every `spec` is a new file."""

    kind = "file"
    names: tuple[str, ...] = ("",)
    suffix = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vk-place-"))
        self._made = 0

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        self._made += 1
        path = self.folder / f"file{self._made}{self.suffix}"
        return DestinationSpec(self.kind, values, Read.PER_USE, {"path": str(path), **self.settings()})

    def settings(self) -> dict[str, object]:
        """What `spec` says beside the path."""
        return {}

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        path = self.path(spec)
        return path.read_bytes() if path.exists() else None

    def path(self, spec: DestinationSpec) -> Path:
        return Path(str(spec.settings["path"]))

    def pass_time(self, duration: timedelta) -> None:
        time.sleep(min(duration.total_seconds(), 1))

    def stop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def start() -> FilePlace:
    return FilePlace()
