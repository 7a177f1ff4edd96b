"""A secret, its versions and what is known of them."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NewType, NoReturn


class SecretBytes:
    """A value that must not be seen. Bytes, because macaroons and key files are not text.

    `reveal()` is the only way out; `repr`, `str` and `format` are masked, pickling and hashing are refused.
    Comparison takes the same time whatever differs.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = bytes(raw)

    def reveal(self) -> bytes:
        """The bytes themselves. Whoever calls this hands them to a declared sink and nowhere else."""
        return self._raw

    def is_text(self) -> bool:
        """Is it UTF-8?"""
        try:
            self._raw.decode()
        except UnicodeDecodeError:
            return False
        return True

    def text(self) -> str:
        """As UTF-8 text, for protocols that carry text. Raises ValueError, without the value, where it is none."""
        try:
            return self._raw.decode()
        except UnicodeDecodeError:
            raise ValueError("this secret value is not UTF-8 text") from None

    def __repr__(self) -> str:
        return "SecretBytes(…)"

    def __format__(self, _spec: str) -> str:
        return "SecretBytes(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretBytes) and hmac.compare_digest(self._raw, other._raw)

    __hash__ = None  # type: ignore[assignment]  # a hash of a secret is a place where it leaks

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret value is never pickled")


Fields = Mapping[str, SecretBytes]
"""The named parts of one version: username, password, token, verifier …"""

Handle = NewType("Handle", str)
"""What the system calls a credential (a token's id), as canonical JSON. Not secret."""

GroupKey = NewType("GroupKey", str)
"""One consumer, delivered, confirmed and put back as one: "swarm:shop_api", "file:/etc/shop/.env"."""

Slot = NewType("Slot", str)
"""A place inside a group: a secret's mount, an env key, "" for a whole file."""

MAIN_FIELDS = ("password", "token", "value")


def main_field(names: frozenset[str] | set[str]) -> str:
    """The field that a bare template means: password, token or value, else the only one.

    Raises ValueError where that is not one field.
    """
    for name in MAIN_FIELDS:
        if name in names:
            return name
    if len(names) == 1:
        return next(iter(names))
    raise ValueError("several fields and none of them is the main one")


class Strategy(Enum):
    """How a rotation avoids cutting consumers off (DESIGN.md section 3)."""

    OVERLAP = "overlap"  #: the target accepts old and new until retire
    ALTERNATING_USERS = "alternating_users"  #: two accounts take turns
    SINGLE = "single"  #: one value at a time; the gap is stated and measured
    MINTED = "minted"  #: the system makes the value
    PREVIOUS_KEYS = "previous_keys"  #: consumers keep old keys in a fallback list
    MANUAL = "manual"  #: only a person can change it


class StagingLabel(Enum):
    """Marks one version each. Moving CURRENT moves PREVIOUS."""

    PENDING = "pending"
    CURRENT = "current"
    PREVIOUS = "previous"


class Acceptance(Enum):
    """The last *proven* fact about a version at its target, independent of labels."""

    UNKNOWN = "unknown"  #: never set, or the outcome of a call is unknown
    ACCEPTED = "accepted"  #: a login, verifier or listing showed it
    REFUSED = "refused"  #: proven refused, or discarded before any set


@dataclass(frozen=True)
class Binding:
    """What a version was made *for*. Retire, revert and rollback use this snapshot, not today's policy."""

    strategy: Strategy | None  #: None: nobody checks the secret and it has no strategy of its own
    target_kind: str | None
    target_settings: Mapping[str, object]  #: references, never values
    codec: int  #: version of the kind's Settings, so that an upgrade can still read it


@dataclass(frozen=True)
class SecretVersion:
    """One numbered generation of a secret. Its fields never change after create (minted: after mint)."""

    secret: str
    number: int  #: from the store, never reused, never a clock
    id: str  #: random; name and idempotency token at remote systems, because a restored store repeats numbers
    fields: Fields
    binding: Binding
    created_at: datetime
    handle: Handle | None = None
    expires_at: datetime | None = None
    acceptance: Acceptance = Acceptance.UNKNOWN
    verified: bool = False  #: its `test` passed and it was not reverted: `{secret: …}` and `get` resolve to it
    compromised: bool = False  #: never a rollback destination


@dataclass(frozen=True)
class VersionRecord:
    """What the store keeps of a version: everything but the fields, which are sealed. The store never sees a key."""

    secret: str
    number: int
    id: str
    binding: Binding
    created_at: datetime
    sealed: bytes | None  #: None: a minted version whose value the system has not made yet
    handle: Handle | None = None
    expires_at: datetime | None = None
    acceptance: Acceptance = Acceptance.UNKNOWN
    verified: bool = False
    compromised: bool = False


def in_use(records: Iterable[VersionRecord], labels: Mapping[StagingLabel, int]) -> VersionRecord | None:
    """What whoever needs the value now is given: PENDING once its `test` has passed, else CURRENT.

    Not simply the newest that was ever proven: a person may have gone back to an older one (`reconcile`, `adopt`).
    """
    usable = {record.number: record for record in records if record.verified and record.sealed is not None}
    marked = (usable.get(labels.get(label, 0)) for label in (StagingLabel.PENDING, StagingLabel.CURRENT))
    return next((record for record in marked if record is not None), None)
