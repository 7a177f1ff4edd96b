"""Real servers for tests: one module per kind, all with the same face.

``tests/servers/<kind>.py`` has ``start(**options) -> Server``. The contract suite, the kill sweep and the leak hunt use
nothing but this face, so a new kind joins them by adding its module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol


class ServerMissing(Exception):
    """The system cannot be started here (no binary); a skipped test, and with CI=true a failed one."""


@dataclass(frozen=True)
class TestAccount:
    """An account made for one test, and what a policy file's ``target:`` needs to rotate it."""

    __test__ = False  # not a test class, whatever its name

    username: str
    password: str
    settings: Mapping[str, object] = field(default_factory=dict)


class Server(Protocol):
    """A running system that checks credentials."""

    kind: str

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        """Make an account with a known password. ``name`` None: a fresh one, so that tests do not meet."""

    def login(self, username: str, password: str) -> bool:
        """Log in as a client would that knows nothing of vaultkeeper: True accepted, False refused, else it raises."""

    def fault(self, name: str, **options: object) -> AbstractContextManager[object]:
        """Break the server for a ``with`` block; a module lists its faults in ``FAULTS``."""

    def stop(self) -> None:
        """Stop and remove everything. Idempotent."""


def in_ci() -> bool:
    """Tell whether a missing server must fail the run."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}
