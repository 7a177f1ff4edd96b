"""A vault of a user's own, with the two programs that write and show it: `command_place.py HOOK FOLDER`."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any


class OwnVault:
    """A folder in which every `spec` is a new drawer, a file of names and values."""

    kind = "command"
    names: tuple[str, ...] = ("db_password", "db user")
    show = "show"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vk-own-vault-"))
        self._made = 0

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        self._made += 1
        drawer = str(self.folder / f"drawer{self._made}.json")
        program = [sys.executable, "-S", "-E", __file__]
        settings = {"write": [*program, "write", drawer], "show": [*program, self.show, drawer]}
        return DestinationSpec(self.kind, values, Read.PER_USE, settings)

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        found = drawer_of(self.path(spec)).get(name or "value")
        return None if found is None else base64.b64decode(found)

    def path(self, spec: DestinationSpec) -> Path:
        argv: Any = spec.settings["write"]
        return Path(argv[-1])

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        self.path(spec).write_text(json.dumps({"somebody's": base64.b64encode(b"else").decode()}))
        return self.read_foreign(spec)

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        return repr(drawer_of(self.path(spec)).get("somebody's")).encode()

    def pass_time(self, duration: timedelta) -> None:
        time.sleep(min(duration.total_seconds(), 1))

    def stop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class LoneValue(OwnVault):
    names: tuple[str, ...] = ("",)


def start() -> OwnVault:
    return OwnVault()


VARIANTS: Mapping[str, Callable[[], OwnVault]] = {"drawer": OwnVault, "lone": LoneValue}
UNSWEPT = ("lone",)


# --------------------------------------------------------------------------------------------------- the programs


def drawer_of(path: Path) -> dict[str, str]:
    """Name → value in base64: it may be no text."""
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return found


def write(path: Path, told: Any) -> dict[str, Any]:
    drawer = drawer_of(path)
    for name, value in told["values"].items():
        if value is None:
            drawer.pop(name, None)
        else:
            raw = base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()
            drawer[name] = base64.b64encode(raw).decode()
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(drawer))
    beside.rename(path)
    return {}


def show(path: Path, told: Any) -> dict[str, Any]:
    drawer = drawer_of(path)
    values = {name: {"base64": drawer[name]} if name in drawer else None for name in told["names"]}
    return {"values": values, "changed_at": path.stat().st_mtime if path.exists() else 0}


def show_hashed(path: Path, told: Any) -> dict[str, Any]:
    """As one does that keeps its values to itself."""
    drawer = drawer_of(path)
    return {
        "values": {
            name: {"sha256": hashlib.sha256(base64.b64decode(drawer[name])).hexdigest()} if name in drawer else None
            for name in told["names"]
        }
    }


HOOKS: Mapping[str, Callable[[Path, Any], dict[str, Any]]] = {"write": write, "show": show, "show-hashed": show_hashed}

if __name__ == "__main__":
    print(json.dumps(HOOKS[sys.argv[1]](Path(sys.argv[2]), json.load(sys.stdin))))
else:
    from vaultkeeper.model.policy import DestinationSpec, Read
