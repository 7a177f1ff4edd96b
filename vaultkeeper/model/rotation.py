"""A rotation as the journal keeps it: which phases it has, where it stands, what it waits for.

Everything here is a value; `engine/plan.py` makes the phases, `engine/judge.py` moves from one `Rotation` to the
next, the store keeps each of them. State that can be derived (a batch, a group's desired state) is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from vaultkeeper.model.outcome import Proof
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.secret import GroupKey, Slot


class Step(Enum):
    """What a phase does. `retire` is `set` with the old version refused."""

    OBSERVE = "observe"
    CREATE = "create"
    MINT = "mint"
    PREPARE = "prepare"
    BARRIER = "barrier"
    SET = "set"
    TEST = "test"
    DELIVER = "deliver"
    CONFIRM = "confirm"
    FINISH = "finish"
    GRACE = "grace"
    RELEASE = "release"
    EVIDENCE = "evidence"
    RETIRE = "retire"
    PROVE = "prove"


class End(Enum):
    """The two versions of a rotation: the one it leaves and the one it goes to. Their labels move, these do not."""

    FROM = "from"
    TO = "to"


class Audience(Enum):
    """Whom a delivery serves."""

    CONSUMERS = "consumers"
    CHECKER = "checker"  #: the `via` destination that the checking system itself reads


@dataclass(frozen=True)
class Phase:
    """`carry`, first is primary: what a set accepts, what a delivery hands over, what a release or proof is about."""

    step: Step
    carry: tuple[End, ...] = ()
    refuse: tuple[End, ...] = ()
    audience: Audience = Audience.CONSUMERS


class Purpose(Enum):
    """Why a rotation was opened."""

    ROTATE = "rotate"
    REHEARSE = "rehearse"
    ROLLBACK = "rollback"  #: a new version with PREVIOUS's fields
    EMERGENCY = "emergency"  #: a leak: no grace, no evidence


class Direction(Enum):
    """Forward to P, or back to C."""

    FORWARD = "forward"
    BACK = "back"


class State(Enum):
    """What a user sees."""

    RUNNING = "running"
    WAITING = "waiting"  #: wakes by itself at `not_before`
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    PARKED = "parked"  #: needs a person; blocks no other secret
    AMBIGUOUS = "ambiguous"  #: no stored version was accepted


ENDED = frozenset({State.DONE, State.ROLLED_BACK})
"""States in which a rotation is closed. Parked and ambiguous ones stay open: a person has the next word."""


class Waiting(Enum):
    """Reasons of `State.WAITING`."""

    GRACE = "grace"
    EVIDENCE = "evidence"
    CONFIRM = "confirm"
    INPUT = "input"
    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"
    WINDOW = "window"
    DEPENDENCY = "dependency"


class Cause(Enum):
    """Why a rotation is parked, ambiguous or was rolled back."""

    VALUE = "value"  #: the target refuses the value by its own rules
    PRIVILEGE = "privilege"
    CAPACITY = "capacity"
    UNSUPPORTED = "unsupported"
    STALE = "stale"  #: the target carries a newer generation than the store
    CONFLICT = "conflict"  #: somebody else kept changing it
    TARGET_WENT_BACK = "target_went_back"  #: a restored target
    CHECKS_NOTHING = "checks_nothing"  #: a wrong value was accepted
    REJECTED = "rejected"  #: the new value was not accepted after it was set
    DELIVERY = "delivery"  #: a consumer cannot run on it
    CONFIRM_TIMEOUT = "confirm_timeout"
    STILL_ACCEPTED = "still_accepted"  #: the old value survives its retirement
    IN_USE = "in_use"
    NONE_ACCEPTED = "none_accepted"
    NO_WAY_BACK = "no_way_back"
    OLD_REFUSED = "old_refused"  #: going back would hand out a value that the target refuses now
    DRIFT = "drift"  #: a consumer holds an older version: somebody put it back, or it came later
    ACCOUNT_IN_USE = "account_in_use"  #: first rotation of an account that can log in already, without `--replace`
    LAGGARDS = "laggards"  #: emergency: consumers not confirmed, or a way back not closed, in time; `--cut` not given
    ASKED = "asked"  #: a person asked to go back
    BINDING = "binding"  #: the old version's own target is out of reach after a policy change


@dataclass(frozen=True)
class Placed:
    """One slot of one destination of this rotation's policy. `destination` indexes the policy's; -1 is its `via`."""

    destination: int
    group: GroupKey
    slot: Slot
    value: str  #: the name in the destination's `values`
    name: str  #: for people: "shop_api: /run/secrets/db"
    audience: Audience = Audience.CONSUMERS


@dataclass(frozen=True)
class SealedReceipt:
    """A `Receipt` whose secret part is sealed by the engine."""

    public: Mapping[str, object]
    sealed: bytes | None


@dataclass(frozen=True)
class Options:
    """What a person asked for when the rotation was opened."""

    reason: str = ""
    replace: bool = False  #: take over an account that can log in already, with no way back
    cut: bool = False  #: emergency: do not wait for laggards, nor for ways back to be closed
    deadline: timedelta = timedelta(minutes=10)  #: emergency: for consumers to be confirmed
    keep_old_key: bool = False
    data_loss: bool = False
    forget_old: bool = False  #: the old binding's target is gone for good
    revoked: bool = False  #: a person's word that the old value is dead, where nothing can prove it


@dataclass(frozen=True)
class Rotation:
    """One run from observe to retire. Immutable: every change is a new value, committed under `epoch`."""

    id: str
    secret: str
    policy: RotationPolicy  #: the snapshot it keeps
    phases: tuple[Phase, ...]
    opened_at: datetime
    entered_at: datetime  #: when the present phase was entered; confirm time-outs and grace count from here
    purpose: Purpose = Purpose.ROTATE
    options: Options = Options()
    from_version: int | None = None
    to_version: int | None = None
    previous_version: int | None = None  #: PREVIOUS when it opened: tells a restored target
    back: tuple[Phase, ...] = ()  #: the way back, once it was taken
    at: int = 0  #: index into `track`
    reached: int = -1  #: the furthest forward phase that may have changed something outside; decides the way back
    direction: Direction = Direction.FORWARD
    state: State = State.RUNNING
    begun: bool = False  #: the present phase's outward call may have been made
    outcome_unknown: bool = False  #: observe before anything else
    doubted: bool = False  #: an earlier try of the present phase had an unknown outcome
    gone: Cause | None = None  #: why the version it leaves is refused, as seen by a rotation that went on
    rejected: tuple[int, ...] = ()  #: versions found rejected by an observation that a login budget interrupted
    settled: tuple[GroupKey, ...] = ()  #: groups that this delivery, confirm or release has behind it, sorted
    proof: Proof | None = None  #: the weakest proof among its confirmed groups
    tries: int = 0  #: refused conflicts in this phase
    looked_into: bool = False  #: a refusal in this phase, by observing the target
    failed_proofs: int = 0  #: how often the old value was found alive after its retirement
    value_refusals: int = 0  #: rotations of this secret in a row that ended because the target refused the value
    places: tuple[Placed, ...] = ()
    receipts: Mapping[str, SealedReceipt] = field(default_factory=dict)  #: key: "<group>\n<slot>"
    waiting: Waiting | None = None
    waiting_for: tuple[str, ...] = ()
    not_before: datetime | None = None
    cause: Cause | None = None
    detail: str = ""
    why_back: str = ""  #: the `detail` with which it turned back; waiting on the way back has its own
    ended_at: datetime | None = None
    superseded: bool = False  #: ended by what a person chose instead: rollback in grace, reconcile, adopt
    unverified: str = ""  #: why something could not be proven; shown everywhere, never "done" alone
    gap_opened_at: datetime | None = None  #: when it was begun to take the only value that consumers had from them
    gap: timedelta | None = None  #: how long that lasted, until all of them had one that works: measured
    epoch: int = 0  #: fencing token; the store raises EpochLost for an older one
    unaudited: tuple[Mapping[str, object], ...] = ()  #: what the audit log may still lack of a gap, oldest first

    @property
    def track(self) -> tuple[Phase, ...]:
        return self.phases if self.direction is Direction.FORWARD else self.back

    @property
    def phase(self) -> Phase | None:
        """None: the track is behind it."""
        return self.track[self.at] if self.at < len(self.track) else None

    @property
    def open(self) -> bool:
        return self.state not in ENDED

    @property
    def finished(self) -> bool:
        """Have the labels moved? After that nothing goes back: only forward, or parked."""
        return self.direction is Direction.FORWARD and any(p.step is Step.FINISH for p in self.phases[: self.at])

    @property
    def leaking(self) -> bool:
        """An emergency whose consumers have the new value, and whose leaked one is still to be taken away."""
        left = {phase.step for phase in self.phases[self.at :]}
        return self.purpose is Purpose.EMERGENCY and self.finished and bool(left & {Step.RETIRE, Step.PROVE})

    def number(self, end: End) -> int | None:
        return self.to_version if end is End.TO else self.from_version

    def receipt_key(self, group: GroupKey, slot: Slot) -> str:
        return f"{group}\n{slot}"
