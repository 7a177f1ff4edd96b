"""The Protocols between the engine and everything else. A back end implements its Protocol in one file.

Hooks are synchronous and short, hand `ctx.deadline` to every call they make, and never wait: they answer `NotYet`.
They may raise: `engine/guard.py` turns whatever they raise into a typed, redacted answer.

Optional powers are separate Protocols (`Mints`, `Rendered`, `ByHand`, `Explains`, `ReportsUse`, `ClosesSessions`,
`Closes`, `ReadsBack`, `Releases`, `NamesObjects`, `Fetches`): a plain back end needs none of them. A kind joins by
existing: a module in `vaultkeeper.targets`, `.destinations` or `.generators` with one public class, or an entry point
in the group of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from vaultkeeper.model.outcome import (
    Basis,
    Confirmation,
    Finding,
    Held,
    Holds,
    Login,
    NotYet,
    Observation,
    Prepared,
    Proof,
    Refused,
    Result,
    Unknown,
    Usage,
)
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.rotation import Rotation
from vaultkeeper.model.secret import (
    Fields,
    GroupKey,
    Handle,
    SecretBytes,
    SecretVersion,
    Slot,
    StagingLabel,
    Strategy,
    VersionRecord,
)

# ------------------------------------------------------------------------------------------------- what hooks are given


@dataclass(frozen=True)
class Capabilities:
    """What a kind of target can do. Static data: it drives the plan and the contract tests."""

    strategies: frozenset[Strategy]
    observes: frozenset[Basis]  #: empty: cannot; then `set` must be idempotent with a chosen value
    probes: bool = True  #: can log in as the account; False: "unverified" in plan and history
    tags: bool = False  #: can hold a generation tag: invariant 12 applies
    fences: bool = False  #: can refuse an old epoch atomically
    max_accepted: int | None = 1  #: how many versions it accepts at once; None: any number
    login_budget: tuple[int, timedelta] | None = (
        None  #: failed logins per window where it locks accounts; None: what every address has (engine/budget.py)
    )
    tells_lockouts: bool = False  #: an account that is locked answers THROTTLED, never REJECTED
    mutual: bool = False  #: the protocol proves that the server checks: no negative control
    interrupts: bool = False  #: `set` restarts the checker
    forbidden: frozenset[str] = frozenset()  #: characters the system cannot take
    max_bytes: int | None = None


@dataclass(frozen=True)
class Deadline:
    """Until when a hook may work, on the monotonic clock, in seconds."""

    at_monotonic_s: float

    def left_s(self, now_monotonic_s: float) -> float:
        """Seconds left, never below 0.001: zero means "no limit" to most drivers."""
        return max(self.at_monotonic_s - now_monotonic_s, 0.001)


class Credentials(Protocol):
    """Turns references into values at the moment they are used."""

    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        """{file: PATH}, {env: NAME}, {credential: NAME}, {secret: NAME}: its fields; a bare value is called `value`.

        `{secret: NAME}` is the newest version whose `test` passed and that was not reverted.
        Raises NotAuthorised, NotFound or ConfigurationInvalid, naming the reference and never the value.
        """


@dataclass(frozen=True)
class Context:
    """One secret's hook call."""

    installation: str
    secret: str
    epoch: int  #: 0 outside a rotation: a person asks
    deadline: Deadline
    credentials: Credentials
    current: SecretVersion | None  #: for self-service logins: PENDING first, then CURRENT
    pending: SecretVersion | None


@dataclass(frozen=True)
class DeliveryContext:
    """One group's hook call. A group serves several secrets, so it has no single pending version."""

    installation: str
    epochs: Mapping[str, int]  #: secret → epoch; in `spots` the one secret that is asked for, with 0 outside a rotation
    deadline: Deadline
    credentials: Credentials


# -------------------------------------------------------------------------------------------------------------- targets


class Target(Protocol):
    """The system that checks. Opened from one Binding, today's or a version's own: one `set`, one binding."""

    kind: ClassVar[str]
    codec: ClassVar[int]  #: version of its Settings; `open` still reads older ones
    capabilities: ClassVar[Capabilities]
    Settings: ClassVar[type[Any]]  #: a frozen pydantic model; drives validation, JSON Schema and reference docs

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """From a document that `Settings` accepted. No I/O."""

    def check(self, ctx: Context) -> Sequence[Finding]:
        """Read-only: reachable, privileges, persistence, capacity. `refuse` findings stop a rotation before create."""

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Once, before the version is stored: pick the username (never when adopting), add derived fields.

        May use randomness (salts): the stored result makes every later set write the same bytes.
        """

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By verifier or listing, without logging in. Basis LOGIN or NONE: `answers` empty, the engine asks `test`."""

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        """(account, address): what a failed login is charged to. Of a version's fields it takes `username` at most."""

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        """A login that must fail without hurting the account. None: the engine uses a random value."""

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """Accept all of `accept`, first is primary; refuse all of `refuse`; touch nothing else. The one writing hook.

        Idempotent: "already so" and "already absent" are Done. A value that `accept` also holds is never refused.
        """

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """ONE login as the account on a new connection. The engine adds the negative control and spends the budget."""


@runtime_checkable
class Mints(Protocol):
    """The system makes the value (rotation.md section 14)."""

    def mint(
        self, version_id: str, expires_at: datetime | None, ctx: Context
    ) -> tuple[Fields, Handle] | Refused | NotYet | Unknown: ...

    def find(self, version_id: str, ctx: Context) -> tuple[Fields | None, Handle] | Unknown | None:
        """After a crash. Fields where readable again; None with a handle: an orphan, to be dropped and minted anew."""

    def drop(self, handle: Handle, ctx: Context) -> Result:
        """Delete an orphan. "Already absent" is Done."""


@runtime_checkable
class Rendered(Protocol):
    """The checker reads what a `via` destination carries; the engine performs `set` as deliver + confirm of this."""

    def render(
        self, accept: Sequence[SecretVersion], existing: SecretBytes | None, refuse: Sequence[SecretVersion] = ()
    ) -> SecretBytes:
        """The list for the checker: `accept`, and of `existing` whatever is neither of `accept` nor of `refuse`."""


@runtime_checkable
class NamesSystem(Protocol):
    """Some settings only say how to reach or ask a system. Without this, other settings mean another system."""

    def system(self) -> str:
        """Equal for all settings that lead to the same one ("db.internal:5432", a list's path). No I/O."""


@runtime_checkable
class Spares(Protocol):
    """Some versions stay accepted on purpose (PostgreSQL: the owner's own login, adopted first)."""

    def keeps(self, version: SecretVersion) -> bool:
        """Whatever `refuse` says. No I/O."""


@runtime_checkable
class Answers(Protocol):
    """An error that knows what the hook in which it was raised has to answer (`access.answer.Answered`)."""

    result: Refused | Unknown | NotYet


@runtime_checkable
class Explains(Protocol):
    """Knows why a login may be answered otherwise than was set (a collector that no longer reads its file)."""

    def explain(self, version: SecretVersion, said: Login, ctx: Context) -> str:
        """For people, with what to do about it; empty: nothing is known. Asked after an answer that is not wanted."""


@runtime_checkable
class ByHand(Protocol):
    """Only a person makes and revokes its values; the engine asks for them (`vaultkeeper import`). No I/O in these."""

    def page(self) -> str:
        """Where a person does that: an address to click. Empty where nobody said."""

    def misfits(self, names: Sequence[str]) -> Sequence[str]:
        """What its settings say that does not go with a version of these fields."""

    def faults(self, given: Fields) -> Sequence[str]:
        """What is wrong with a value that a person gave, by its looks. Never the value, nor a part of it."""


@runtime_checkable
class ReportsUse(Protocol):
    """Tells who still uses a version (rotation.md section 5)."""

    def usage(self, version: SecretVersion, since: datetime, ctx: Context) -> Usage | Unknown: ...


@runtime_checkable
class ClosesSessions(Protocol):
    """Ends what is still logged in with a version."""

    def disconnect(self, version: SecretVersion, ctx: Context) -> Result: ...


@runtime_checkable
class Closes(Protocol):
    """Keeps something open between the hooks of a rotation: a session, a cache."""

    def close(self) -> None:
        """Let go of it, before the rotation sleeps and when it ends; within a few seconds. Idempotent.

        A later hook opens it again. Destinations, generators and credentials are shared by rotations side by side:
        they let go of what nobody uses at that moment.
        """


# --------------------------------------------------------------------------------------------------------- destinations


@dataclass(frozen=True)
class Spot:
    """One slot that a destination's settings name. `value` is the name in the destination's `values`."""

    group: GroupKey
    slot: Slot
    value: str
    name: str  #: for people: "shop_api: /run/secrets/db"


@dataclass(frozen=True)
class Item:
    """What one slot shall carry. `primary` None: what the receipt holds (a first delivery going back)."""

    slot: Slot
    spec: DestinationSpec
    secret: str
    primary: SecretVersion | None
    content: SecretBytes | None = None  #: the template applied by the engine; None exactly when `primary` is
    accepted: Sequence[SecretVersion] = ()  #: primary and the others beside it (previous_keys, `via`)
    receipt: Any | None = None  #: model.outcome.Receipt of this slot, once prepared


class Destination(Protocol):
    """Where consumers read. `items` is the desired state of a group: every slot of ours in it."""

    kind: ClassVar[str]
    codec: ClassVar[int]
    proof: ClassVar[Proof]  #: the best it can give
    puts_back: ClassVar[bool]  #: can make its consumers run on the old version again (files, Swarm); False: clients
    forbidden: ClassVar[frozenset[str]]  #: characters it cannot carry
    max_bytes: ClassVar[int | None]
    Settings: ClassVar[type[Any]]

    @classmethod
    def open(cls) -> Self:
        """No I/O, no state."""

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        """Every slot of this destination. Pure unless the settings ask to discover.

        In the sequence of delivery. A setting `order` names the first groups of it: each is delivered only when the
        one before runs on its items, and the others together when the last of those does. The engine sees to that.
        """

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        """Read-only. `content` may be None here."""

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held] | Unknown:
        """What the slots hold now. Each item's `accepted` lists the versions to compare with, newest first."""

    def prepare(
        self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext
    ) -> Prepared | Refused | NotYet | Unknown:
        """Additive only: consumers see nothing. Returns what it takes to put each slot back. Idempotent.

        A kind that makes anything here implements `Releases` too: for others the engine counts this as a look.
        """

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        """Make every slot carry its item. Idempotent; foreign content in the group is kept.

        NotYet where enough consumers are being updated at once: no failure, and the other groups go on.
        """

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        """Do the consumers of this group run on these items, healthily?"""

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        """How long a confirm may take where the policy has no `timeout`."""

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds | Unknown: ...


@runtime_checkable
class Releases(Protocol):
    """Leaves more than its content behind: objects, rollback paths, settings that a rollout needed."""

    def release(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Result:
        """Close rollback paths that name `version` and collect its objects. Also called for a discarded PENDING."""


@runtime_checkable
class ReadsBack(Protocol):
    """A place whose content can be read again."""

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None: ...


@runtime_checkable
class NamesObjects(Protocol):
    """A place that carries each version in an object of its own, whose name others must know to deploy it."""

    def names(self, spec: DestinationSpec, ctx: DeliveryContext) -> Mapping[str, str] | Unknown:
        """Variable (`VK_DB_PASSWORD`) → name of the object that consumers carry now. Read-only; never a value."""


# ---------------------------------------------------------------------------------------------- generators, keys, clock


class Generator(Protocol):
    """Makes values. Opened without arguments."""

    kind: ClassVar[str]
    field: ClassVar[str]  #: the field it yields unless the policy renames it
    Settings: ClassVar[type[Any]]

    def generate(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields: ...

    def entropy_bits(self, settings: Mapping[str, object], forbidden: frozenset[str]) -> float:
        """Of the values it may yield, class rules counted in."""

    def alphabet(self, settings: Mapping[str, object]) -> frozenset[str]:
        """Every character a value may hold; drives the refusal of raw templates."""


@runtime_checkable
class Fetches(Protocol):
    """A generator whose values another system makes. The engine calls this instead of `generate`."""

    def fetch(
        self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None, ctx: Context
    ) -> Fields | Refused | NotYet | Unknown:
        """A lost answer costs nothing: the value was in use nowhere, and the next one is another."""


class Encryptor(Protocol):
    """Bytes to ciphertext for all recipients, and back with the identity at hand."""

    def encrypt(self, document: bytes) -> bytes: ...
    def decrypt(self, ciphertext: bytes) -> bytes:
        """Raises NoKey or EnvelopeInvalid."""

    def recipients(self) -> Sequence[str]: ...


class Envelope(Protocol):
    """Seals named fields so that they open only here and only as what they were made for (invariant 10)."""

    def seal(self, fields: Fields, *, secret: str, bound_to: str) -> bytes:
        """`bound_to`: a version's "<number>:<id>", or "receipt:<rotation id>:<place>"."""

    def open(self, sealed: bytes, *, secret: str, bound_to: str) -> Fields:
        """Raises NoKey, or EnvelopeInvalid where it was sealed for something else or by another installation."""

    def fingerprint(self, value: SecretBytes) -> str:
        """Keyed, for the audit log: equal values of this installation have equal fingerprints, nothing else shows."""


class Clock(Protocol):
    """Time, so that a test can turn it."""

    def now(self) -> datetime:
        """UTC, aware."""

    def monotonic_s(self) -> float: ...

    def sleep(self, duration: timedelta) -> None:
        """In the foreground commands only; hooks never sleep."""


# ---------------------------------------------------------------------------------------------------------------- store


@dataclass(frozen=True)
class VersionChange:
    """New facts about a stored version; None leaves a fact as it is."""

    acceptance: Any | None = None
    verified: bool | None = None
    compromised: bool | None = None
    handle: Handle | None = None
    expires_at: datetime | None = None
    sealed: bytes | None = None  #: minted: the value, once made


@dataclass(frozen=True)
class Change:
    """One fsynced transaction. Everything in it becomes durable together or not at all."""

    rotation: Rotation | None = None
    new_version: VersionRecord | None = None
    facts: Mapping[int, VersionChange] | None = None  #: version number of the rotation's secret → change
    labels: Mapping[StagingLabel, int | None] | None = None  #: of the rotation's secret


@dataclass(frozen=True)
class Pause:
    """Nobody rotates this secret until then, or until it is lifted."""

    until: datetime | None
    reason: str
    since: datetime


class Store(Protocol):
    """Every write is one durable transaction. `secret` of a Change is its rotation's, or given to `amend`."""

    installation: str

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Exclusive among all processes while the context lasts ("secret:…", "group:…"). Raises Locked at once."""

    def open_rotation(self, rotation: Rotation, change: Change) -> Rotation:
        """Journal a new rotation with its first epoch. Raises AlreadyOpen (a unique index decides).

        `change.rotation` is the predecessor that it supersedes, closed in the same transaction, or None.
        """

    def take(self, rotation_id: str) -> Rotation:
        """Take an open rotation over: next epoch, so that an earlier holder is fenced. Raises NotFound."""

    def commit(self, change: Change) -> None:
        """Raises EpochLost where the rotation's epoch is no longer the newest, StoreFull."""

    def amend(self, secret: str, change: Change) -> None:
        """The same without a rotation: adopt, forget, reconcile. Raises AlreadyOpen where one is open."""

    def rotation(self, rotation_id: str) -> Rotation: ...
    def open_rotations(self) -> Sequence[Rotation]: ...
    def rotations(self, secret: str, limit: int = 50) -> Sequence[Rotation]:
        """Newest first."""

    def next_number(self, secret: str, at_least: int = 1) -> int:
        """For who holds the secret: above every number that a version was ever written with, and not below `at_least`.

        Nothing is reserved: a number is taken by the write that makes its version durable, before which it has left
        this process nowhere.
        """

    def versions(self, secret: str) -> Sequence[VersionRecord]:
        """Oldest first."""

    def labels(self, secret: str) -> Mapping[StagingLabel, int]: ...
    def secrets(self) -> Sequence[str]: ...
    def discard_sealed(self, secret: str, numbers: Sequence[int]) -> None:
        """Forget the values of old versions that are kept no longer; their records stay."""

    def forget(self, secret: str) -> None: ...
    def spend_login(self, account: str, address: str, budget: tuple[int, timedelta], now: datetime) -> timedelta | None:
        """Charge one failed login before it is tried, to the account and the address. None: go; else wait so long."""

    def refund_login(self, account: str, address: str) -> None:
        """The login just charged succeeded."""

    def failed_logins(self, account: str, address: str, window: timedelta, now: datetime) -> int: ...
    def pause(self, secret: str, pause: Pause | None) -> None: ...
    def pauses(self) -> Mapping[str, Pause]: ...
    def audit(self, record: Mapping[str, object]) -> None:
        """Append and fsync. Raises AuditUnwritable, and then nothing may change at a target."""
