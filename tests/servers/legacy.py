"""The legacy application of `command.py`, and the programs of a user who wrote hooks for it: `legacy.py HOOK FOLDER`.

Few imports: it is started for every hook.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNAVAILABLE = 69


def hashed(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


class Application:
    """Accounts and what they accept, in a folder. A file `fault` there breaks it."""

    def __init__(self, folder: Path) -> None:
        self.table = folder / "accounts.json"
        self.broken = folder / "fault"

    @contextmanager
    def edited(self) -> Iterator[dict[str, list[str]]]:
        with (self.table.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            accounts: dict[str, list[str]] = self.accounts()
            yield accounts
            beside = self.table.with_suffix(".new")
            beside.write_text(json.dumps(accounts))
            beside.rename(self.table)

    def accounts(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads(self.table.read_text()) if self.table.exists() else {}
        return found

    def accepts(self, name: str, value: str) -> bool:
        return hashed(value) in self.accounts().get(name, [])

    @property
    def fault(self) -> str:
        return self.broken.read_text() if self.broken.exists() else ""


def _password(version: Any) -> tuple[str, str]:
    return version["fields"]["username"], version["fields"]["password"]


def hook(name: str, folder: Path, told: Any) -> int:
    """What a user's program does."""
    application = Application(folder)
    if application.fault == "silent":
        time.sleep(3600)  # until the deadline of whoever asked
    if application.fault == "unreachable":
        return UNAVAILABLE
    code = HOOKS[name](application, told)
    return UNAVAILABLE if application.fault == "lost-reply" else code


def _set(application: Application, told: Any) -> int:
    wanted = [_password(version) for version in told["accept"]]
    with application.edited() as accounts:
        for user, value in (_password(version) for version in told["refuse"]):
            if (user, value) not in wanted:
                accounts[user] = [held for held in accounts.get(user, []) if held != hashed(value)]
        for user, value in wanted:
            held = accounts.setdefault(user, [])
            if hashed(value) not in held:
                held.insert(0, hashed(value))
    return 0


def _test(application: Application, told: Any) -> int:
    return 0 if application.accepts(*_password(told["version"])) else 1


def _observe(application: Application, told: Any) -> int:
    held = [v for v in told["candidates"] if application.accepts(*_password(v))]
    users = {user for user, _ in map(_password, told["candidates"])}
    accepted = sum(len(application.accounts().get(user, [])) for user in users)
    ours = {_password(v) for v in held}
    print(json.dumps({"accepted": [v["number"] for v in held], "foreign": max(accepted - len(ours), 0)}))
    return 0


def _usage(application: Application, told: Any) -> int:
    print(json.dumps({"in_use": False}))
    return 0


def _check(application: Application, told: Any) -> int:
    return 0 if os.access(application.table.parent, os.W_OK) else 77


HOOKS: Mapping[str, Callable[[Application, Any], int]] = {
    "set": _set,
    "test": _test,
    "observe": _observe,
    "usage": _usage,
    "check": _check,
}


if __name__ == "__main__":
    sys.exit(hook(sys.argv[1], Path(sys.argv[2]), json.load(sys.stdin)))
