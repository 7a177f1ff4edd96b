"""What a hook may answer. Hooks answer, the engine waits (rotation.md section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from vaultkeeper.model.secret import Handle, SecretBytes, Slot


class Login(Enum):
    """One attempt to use a credential."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  #: this credential, definitely: the only negative that may undo anything
    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"  #: also "locked out", where a system does not tell the two apart


class Basis(Enum):
    """How a target knows what it accepts."""

    VERIFIER = "verifier"  #: stored hash read back and compared
    LISTING = "listing"  #: exact list of what is accepted
    LOGIN = "login"
    NONE = "none"  #: the target cannot say


@dataclass(frozen=True)
class Tag:
    """Who wrote last. World-readable at most targets, so it holds no fingerprint. Never evidence of acceptance."""

    installation: str
    secret: str
    generation: int
    epoch: int


@dataclass(frozen=True)
class Observation:
    """What a target holds now. Several nodes: the worst answer. With basis LOGIN or NONE `answers` stays empty."""

    answers: Mapping[int, Login]  #: version number → answer; not asked = absent
    basis: Basis
    tag: Tag | None = None
    handles: Mapping[int, Handle] = field(default_factory=dict)
    foreign: int = 0  #: accepted credentials that are not ours: kept and reported
    durable: bool | None = None  #: survives a restart of the target?
    account_usable: bool | None = None  #: can the account log in at all today, with whatever value? (first rotation)
    retry_after: timedelta | None = None


class No(Enum):
    """Why a hook refused, for certain, with nothing changed."""

    VALUE = "value"  #: the target's own rules refuse this value
    PRIVILEGE = "privilege"
    CAPACITY = "capacity"  #: a slot is taken by something that is not ours
    STALE = "stale"  #: a tag newer than the store, or a lost fencing epoch
    CONFLICT = "conflict"  #: someone else changed it between reading and writing
    UNSUPPORTED = "unsupported"
    UNCHECKED = "unchecked"  #: the target lets anybody in, so nothing can be proven there


@dataclass(frozen=True)
class Done:
    """It is so now, whether this call or an earlier one made it so."""

    handle: Handle | None = None


@dataclass(frozen=True)
class Refused:
    """Definite: nothing changed."""

    why: No
    detail: str


@dataclass(frozen=True)
class NotYet:
    """Nothing is wrong; ask again after `after`."""

    reason: str
    after: timedelta
    waiting_for: Sequence[str] = ()


@dataclass(frozen=True)
class Unknown:
    """A time-out, a lost reply, a server error: observe before anything else."""

    reason: Login  #: UNREACHABLE or THROTTLED
    detail: str = ""
    retry_after: timedelta | None = None


Result = Done | Refused | NotYet | Unknown


class Proof(Enum):
    """What a confirm is worth."""

    DEMONSTRATED = "demonstrated"  #: the consumer was seen running on it
    WRITTEN = "written"  #: read back from the place only


@dataclass(frozen=True)
class Confirmed:
    """Every consumer of the group runs on it, healthily."""

    proof: Proof


@dataclass(frozen=True)
class Failed:
    """Definite: a consumer cannot run on it. The only delivery outcome that sends a rotation back."""

    consumer: str
    why: str


Confirmation = Confirmed | NotYet | Failed | Unknown


@dataclass(frozen=True)
class Usage:
    """Evidence for retire. `in_use` None: the system cannot say; then grace alone governs, and history says so."""

    in_use: bool | None
    holders: Sequence[str] = ()
    last_used_at: datetime | None = None


class Holds(Enum):
    """How a destination still holds a version."""

    NOTHING = "nothing"
    ROLLBACK_PATH = "rollback_path"
    RUNNING = "running"


@dataclass(frozen=True)
class Held:
    """What one slot carries now."""

    version: int | None  #: ours; None: nothing, or not ours
    foreign: bool = False  #: something is there that is not ours


@dataclass(frozen=True)
class Receipt:
    """What it takes to put one slot back. Journalled before deliver; the engine seals `sealed`."""

    public: Mapping[str, object] = field(default_factory=dict)
    sealed: SecretBytes | None = None


@dataclass(frozen=True)
class Prepared:
    """Everything is there that a delivery needs; how to put each slot back."""

    receipts: Mapping[Slot, Receipt]


@dataclass(frozen=True)
class Finding:
    """One line of `check`, `plan` or `doctor`."""

    level: str  #: ok | warn | refuse | unchecked
    text: str
    next: str = ""
