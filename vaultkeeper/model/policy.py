"""One secret's declaration, as the engine knows it: merged, validated, with every reference still a reference.

`policyfile` makes these from YAML; the journal keeps a rotation's own copy, so an edit never changes an open
rotation. Kind-specific settings are plain documents (JSON types) that the kind's `Settings` accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum

from vaultkeeper.model.secret import Strategy

DEFAULT_GRACE = timedelta(hours=24)
DEFAULT_MIN_INTERVAL = timedelta(minutes=5)


@dataclass(frozen=True)
class Place:
    """Where something stands in a policy file, for error messages. Lines and columns count from 1."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class GeneratorSpec:
    """How values are made. `settings`: the kind's own keys."""

    kind: str
    settings: Mapping[str, object] = field(default_factory=dict)
    field: str | None = None  #: renames the field that the kind yields
    weak_ok: str | None = None  #: reason for less than 128 bits


class Read(Enum):
    """What consumers do with a destination."""

    PER_USE = "per_use"  #: nothing needed
    AT_START = "at_start"  #: must restart or reload
    FIRST_START = "first_start"  #: once in its life: kept true, never restarted, never waited for
    COPY = "copy"  #: nobody reads it in operation


@dataclass(frozen=True)
class DestinationSpec:
    """`values`: name → template. A lone `value` has the name "". `settings`: the kind's own keys (path, mode, …)."""

    kind: str
    values: Mapping[str, str]
    read: Read
    settings: Mapping[str, object] = field(default_factory=dict)
    timeout: timedelta | None = None  #: None: the destination's own confirm deadline
    healthy_for: timedelta = timedelta(seconds=10)


@dataclass(frozen=True)
class TargetSpec:
    """`settings`: the kind's own keys, references included, values never."""

    kind: str
    strategy: Strategy
    settings: Mapping[str, object] = field(default_factory=dict)
    via: DestinationSpec | None = None  #: the checker reads its value or list from here
    persisted_by: DestinationSpec | None = None
    unverified: str | None = None  #: reason of `verify: none`
    close_sessions: bool = False
    self_service: bool = False  #: `admin: self`


@dataclass(frozen=True)
class Cron:
    """A 5-field standard cron expression, already checked; Sunday is 0 or 7."""

    expression: str


@dataclass(frozen=True)
class Window:
    """When a due rotation may start. `at` None: within `length` after the scheduled time."""

    length: timedelta
    at: Cron | None = None


@dataclass(frozen=True)
class KeepVersions:
    """How many old versions keep their value, for old backups."""

    at_least: int = 5
    keep_for: timedelta | None = timedelta(days=400)  #: None: forever


@dataclass(frozen=True)
class RotationPolicy:
    """One secret: what makes it, what checks it, who reads it, how often it changes."""

    name: str
    place: Place
    generator: GeneratorSpec | None = None  #: None: manual, minted or static
    static: str | None = None
    fields: tuple[str, ...] = ()  #: parts of a manual secret
    target: TargetSpec | None = None
    strategy: Strategy | None = None  #: the target's; `previous_keys` needs none
    destinations: tuple[DestinationSpec, ...] = ()
    rotation_period: timedelta | None = None
    rotation_schedule: Cron | None = None
    rotation_window: Window | None = None
    timezone: str = "UTC"
    jitter: timedelta = timedelta(0)
    min_interval: timedelta = DEFAULT_MIN_INTERVAL
    grace_period: timedelta = timedelta(0)  #: already settled: default 24 h, none for `single` and without a target
    on_drift_repair: bool = False
    depends_on: tuple[str, ...] = ()
    keep_versions: KeepVersions = KeepVersions()
    owner: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
