"""One installation with one secret of a real PostgreSQL, driven by the real command in subprocesses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.cli.conftest import Ran, Vk, command, environment
from tests.servers import TestAccount
from tests.servers.postgres import PostgresServer
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

NAME = "shop/db"
PATIENCE_S = 180  # for one command; nothing is judged by it


@cache
def _initialised() -> Path:
    """Made once in a process: scrypt and fsync cost a second."""
    home = Path(tempfile.mkdtemp(prefix="vk-home-"))
    initialise(Wishes(state_of(home), None, identity_of(home)), Recovery())
    return home


def state_of(home: Path) -> Path:
    return home / ".local/state/vaultkeeper"


def identity_of(home: Path) -> Path:
    return home / ".config/vaultkeeper/identity.txt"


@dataclass
class Shop:
    """`home` holds the state, the identity, `policies/shop.yaml`, and `out/db`, which consumers read."""

    home: Path
    server: PostgresServer
    account: TestAccount
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return state_of(self.home)

    @property
    def delivered_file(self) -> Path:
        return self.home / "out/db"

    @property
    def vk(self) -> Vk:
        return command(self.home)

    def policy(self, **keys: Any) -> None:
        """JSON is YAML."""
        self.keys |= keys
        grace = {} if self.account.settings["strategy"] == "single" else {"grace_period": "1h"}
        file = {"kind": "file", "path": "../out/db", "read": "per_use", "value": "{username} {password}"}
        secret = {
            "generator": {"kind": "password", "length": 32},
            "target": {**self.account.settings, "timeout": "1min"},
            "destinations": [file],
            "min_interval": "0s",
            **grace,
            **self.keys,
        }
        (self.home / "policies/shop.yaml").write_text(json.dumps({"secrets": {NAME: secret}}))

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "vaultkeeper", *arguments],
            **{"env": environment(self.home), "cwd": self.home, "stdin": subprocess.DEVNULL, **options},
        )

    def ok(self, *arguments: str, stdin: str = "", code: int = 0) -> Ran:
        ran = self.vk(*arguments, stdin=stdin)
        assert ran.code == code, f"{arguments} exited {ran.code}\n{ran.out}{ran.err}"
        return ran

    def adopt(self) -> None:
        given = json.dumps({"username": self.account.username, "password": self.account.password})
        self.ok("adopt", NAME, stdin=given)

    def rotated(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The one entry of `rotate --json`."""
        (entry,) = self.ok("rotate", NAME, "--json", *arguments, code=code).json["rotations"]
        return dict(entry)

    def resumed(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        (entry,) = self.ok("resume", NAME, "--json", *arguments, code=code).json["rotations"]
        return dict(entry)

    def status(self) -> dict[str, Any]:
        (entry,) = self.ok("status", "--json").json["secrets"]
        return dict(entry)

    def history(self) -> list[dict[str, Any]]:
        return list(self.ok("history", NAME, "--limit", "10000", "--json").json["rotations"])

    def delivered(self) -> tuple[str, str]:
        username, _, password = self.delivered_file.read_text().partition(" ")
        return username, password

    def stored(self, version: int | None = None) -> tuple[str, str]:
        chosen = ["--version", str(version)] if version else []
        return tuple(self.ok("get", NAME, "--field", name, *chosen).out for name in ("username", "password"))  # type: ignore[return-value]

    def logs_in(self, credential: tuple[str, str]) -> bool:
        return self.server.login(*credential)

    def agrees(self) -> str:
        """Empty where store, target and consumers hold one value that works; else what is wrong."""
        current = self.stored()
        if self.delivered() != current:
            return "the consumer does not hold the current value"
        if not self.logs_in(current):
            return "the current value is not accepted"
        proposals = self.ok("reconcile", NAME, "--json").json["proposals"]
        strays = [path.name for path in self.delivered_file.parent.iterdir() if path != self.delivered_file]
        return f"{proposals}{strays}" if proposals or strays else ""

    def backup(self) -> Path:
        """The state as it is now, as a person copies it."""
        kept = self.home / f"backup{len(list(self.home.glob('backup*')))}"
        shutil.copytree(self.state, kept)
        return kept

    def restore(self, kept: Path) -> None:
        shutil.rmtree(self.state)
        shutil.copytree(kept, self.state)


def installed(folder: Path) -> Path:
    """A home below `folder` with an installation and no policy."""
    home = folder / "home"
    shutil.copytree(_initialised(), home)
    for name in ("policies", "out"):
        (home / name).mkdir()
    return home


def shop(folder: Path, server: PostgresServer, account: TestAccount, *, adopted: bool = True, **keys: Any) -> Shop:
    """A shop below `folder`, its account's password adopted and delivered to nobody yet."""
    made = Shop(installed(folder), server, account)
    made.policy(**keys)
    if adopted:
        made.adopt()
    return made


def single(server: PostgresServer) -> TestAccount:
    """Faults strike it."""
    return server.account(through_proxy=True)


def taking_turns(server: PostgresServer) -> TestAccount:
    account = server.alternating(through_proxy=True)
    return TestAccount(account.username, account.password, {**account.settings, "create_users": True})


Kind = Callable[[PostgresServer], TestAccount]
KINDS: dict[str, Kind] = {"single": single, "alternating": taking_turns}


_CHANGING = {
    r" until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC": "",
    r"127\.0\.0\.1:\d+": "ADDRESS",
    r"rotation [0-9a-f]{8}\b": "rotation ID",
    r"/\S*/out/": "OUT/",
    r"(app|shop)_[0-9a-f]{8}": r"\1",
}


def told(ran: Ran) -> dict[str, str]:
    """An error as a person reads it: code, what, why, works, next; moments, ports and names of this run left out."""
    text = ran.err.partition("error[")[2]
    for pattern, instead in _CHANGING.items():
        text = re.sub(pattern, instead, text)
    head, *rest = text.splitlines()
    code, _, what = head.partition("] ")
    lines: dict[str, str] = {"code": code, "what": what}
    label = ""
    for line in rest:
        if not line.startswith("  "):
            break
        label = line[2:8].strip() or label
        lines[label] = f"{lines.get(label, '')} {line[9:]}".strip()
    return lines
