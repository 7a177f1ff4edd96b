"""A legacy application with a user table of its own, and the programs of a user who wrote hooks for it.

The application is a file of accounts, each with the values that it accepts; a login reads that file (`legacy.py`).
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers import TestAccount, legacy

FAULTS = ("unreachable", "silent", "lost-reply")


class LegacyServer:
    """The application, for one test after the other."""

    kind = "command"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vk-legacy-"))
        self.application = legacy.Application(self.folder)

    def hook(self, name: str) -> list[str]:
        return [sys.executable, "-S", "-E", legacy.__file__, name, str(self.folder)]

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        """An account that accepts several values, and programs for every hook."""
        name, password = name or f"app_{secrets.token_hex(4)}", secrets.token_urlsafe(24)
        with self.application.edited() as accounts:
            accounts[name] = [legacy.hashed(password)]
        hooks = {hook: self.hook(hook) for hook in ("set", "test", "observe", "check", "usage")}
        return TestAccount(name, password, {"strategy": "overlap", "user": name, **hooks, **options})

    def foreign(self, account: TestAccount) -> tuple[str, str]:
        value = secrets.token_urlsafe(24)
        with self.application.edited() as accounts:
            accounts[account.username].append(legacy.hashed(value))
        return account.username, value

    def login(self, username: str, password: str) -> bool:
        """As the application does it."""
        return self.application.accepts(username, password)

    @contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        self.application.broken.write_text(name)
        yield
        self.application.broken.unlink()

    def stop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def start() -> LegacyServer:
    return LegacyServer()


def _by_login(server: LegacyServer) -> TestAccount:
    account = server.account()
    settings = {key: value for key, value in account.settings.items() if key in ("strategy", "user", "set", "test")}
    return TestAccount(account.username, account.password, settings)


def _taking_turns(server: LegacyServer) -> TestAccount:
    first, second = server.account(), server.account()
    settings = {**first.settings, "strategy": "alternating_users", "users": [first.username, second.username]}
    del settings["user"]
    return TestAccount(first.username, first.password, settings)


def _single(server: LegacyServer) -> TestAccount:
    account = server.account(strategy="single")
    return TestAccount(account.username, account.password, account.settings)


VARIANTS: Mapping[str, Callable[[LegacyServer], TestAccount] | None] = {
    "overlap": None,
    "by_login": _by_login,
    "alternating": _taking_turns,
    "single": _single,
}
UNSWEPT = ("alternating", "by_login", "single")
