"""What the contract suites need of an author: a running system with accounts, or places that consumers read.

In vaultkeeper's own tests these are the modules of `tests/servers/`; the kill sweep and the leak hunt use them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Protocol, runtime_checkable

from vaultkeeper.model.policy import DestinationSpec

UNREACHABLE = "unreachable"
"""A fault: nobody answers; connections are refused."""

SILENT = "silent"
"""A fault: connections are made, and then nothing ever comes. Hooks must end by their deadline."""

LOST_REPLY = "lost-reply"
"""A fault: what was asked is done, and its answer never arrives."""


class Account(Protocol):
    """An account made for one test, and what a policy's `target:` needs to rotate it."""

    @property
    def username(self) -> str:
        """Empty where the system knows only tokens."""

    @property
    def password(self) -> str:
        """What works today. Empty: the first value is still to come."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The keys of `target:`; `kind` and `strategy` may be among them."""


class Server(Protocol):
    """A running system that checks credentials."""

    @property
    def kind(self) -> str: ...

    def account(self) -> Account:
        """Make a fresh account that no other test knows, with a password that works."""

    def login(self, username: str, password: str) -> bool:
        """Log in as a client would that knows nothing of vaultkeeper: True accepted, False refused, else it raises."""

    def fault(self, name: str) -> AbstractContextManager[object]:
        """Break the server for a `with` block."""

    def stop(self) -> None:
        """Stop and remove everything. Idempotent."""


@runtime_checkable
class HoldsForeign(Protocol):
    """A server whose accounts accept several values: one of them may be a stranger's."""

    def foreign(self, account: Account) -> tuple[str, str]:
        """Add a credential that is not ours beside the account's own: (username, password)."""


@runtime_checkable
class Settles(Protocol):
    """A server that goes by a change a moment after it was made."""

    def settle(self) -> None:
        """Return when it does, or after a second or two where something keeps it from it; never raises."""


@runtime_checkable
class MadeByHand(Protocol):
    """A system whose values only a person makes and revokes, on a page that is no target's business."""

    def make(self, account: Account) -> str:
        """One more value of the account, beside those that work."""

    def revoke(self, account: Account, value: str) -> None:
        """Idempotent."""


class ReadingPlace(Protocol):
    """Somewhere that consumers read."""

    @property
    def kind(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names that `values` may have here, at least one: ("",) for a place with one lone value."""

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        """A fresh destination that no other test knows, with nothing in it yet."""

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        """What a consumer that knows nothing of vaultkeeper reads there; None: nothing."""

    def pass_time(self, duration: timedelta) -> None:
        """Wait, or move the simulated clock."""

    def stop(self) -> None:
        """Stop and remove everything. Idempotent."""


@runtime_checkable
class SharesWithForeign(Protocol):
    """A place that holds other people's content beside ours."""

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        """Write content that is not ours to where `spec` will deliver; returns it."""

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        """What is there now of it."""
