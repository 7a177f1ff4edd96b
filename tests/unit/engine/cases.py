"""Which rotations the exhaustive search walks: every strategy, with what changes its plan or its world."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from vaultkeeper.model.policy import DestinationSpec, Place, Read, RotationPolicy, TargetSpec
from vaultkeeper.model.rotation import Options, Purpose
from vaultkeeper.model.secret import GroupKey, Strategy

T0 = datetime(2026, 1, 1, tzinfo=UTC)
"""Every instant of the search. What time decides (grace, time-outs) is a choice of the search, not of a clock."""
LATER = T0 + timedelta(days=30)
GRACE = timedelta(hours=1)
CHECKER_GROUP = GroupKey("checker")


@dataclass(frozen=True)
class Case:
    """One secret and the command it starts with. `account_usable`: an account that logs in with a value not ours."""

    name: str
    strategy: Strategy | None
    via: bool = False
    groups: int = 1
    first: bool = False
    purpose: Purpose = Purpose.ROTATE
    cut: bool = False
    replace: bool = False
    dead: bool = False  #: CURRENT is refused from the start, as the rotation that this one takes the place of saw
    back: bool = False  #: PREVIOUS, once refused, is accepted from the start
    data_loss: bool = False
    account_usable: bool = False
    self_service: bool = False
    sees_use: bool = False
    puts_back: bool = True  #: can its destination put consumers back?
    unverified: str | None = None
    faults: int = 2

    @cached_property
    def checked(self) -> bool:
        """Does a target check the secret?"""
        return self.strategy not in {None, Strategy.PREVIOUS_KEYS}

    @cached_property
    def consumers(self) -> frozenset[GroupKey]:
        return frozenset(GroupKey(f"group {n}") for n in range(self.groups))

    @cached_property
    def options(self) -> Options:
        return Options(cut=self.cut, replace=self.replace, data_loss=self.data_loss)

    @cached_property
    def policy(self) -> RotationPolicy:
        spec = DestinationSpec("file", {"": "{password}"}, Read.PER_USE)
        target = None
        if self.checked and self.strategy is not None:
            target = TargetSpec(
                "sim",
                self.strategy,
                via=spec if self.via else None,
                unverified=self.unverified,
                self_service=self.self_service,
            )
        lasting = self.strategy not in {None, Strategy.PREVIOUS_KEYS, Strategy.SINGLE}
        return RotationPolicy(
            "secret",
            Place("search.yaml"),
            target=target,
            strategy=self.strategy,
            destinations=(spec,) * self.groups,
            grace_period=GRACE if lasting else timedelta(0),
        )


CASES = [
    Case("overlap", Strategy.OVERLAP, groups=2),
    Case("overlap, first", Strategy.OVERLAP, first=True),
    Case("overlap, first, without --replace", Strategy.OVERLAP, first=True, account_usable=True),
    Case("overlap, no destination", Strategy.OVERLAP, groups=0),
    Case("overlap, rehearsal", Strategy.OVERLAP, purpose=Purpose.REHEARSE),
    Case("overlap, dead, --replace", Strategy.OVERLAP, replace=True, dead=True),
    Case("overlap, via, dead, --replace", Strategy.OVERLAP, via=True, replace=True, dead=True),
    Case("overlap, emergency", Strategy.OVERLAP, groups=2, purpose=Purpose.EMERGENCY),
    Case("overlap, emergency, --cut", Strategy.OVERLAP, purpose=Purpose.EMERGENCY, cut=True),
    Case("overlap, clients that cannot be put back", Strategy.OVERLAP, puts_back=False, sees_use=True),
    Case("overlap, unverified", Strategy.OVERLAP, unverified="nobody may log in"),
    Case("overlap, via", Strategy.OVERLAP, via=True, groups=2),
    Case("overlap, via, first", Strategy.OVERLAP, via=True, first=True),
    Case("overlap, via, emergency", Strategy.OVERLAP, via=True, purpose=Purpose.EMERGENCY),
    Case("alternating users", Strategy.ALTERNATING_USERS, groups=2, sees_use=True),
    Case("alternating users, first", Strategy.ALTERNATING_USERS, first=True),
    Case("alternating users, rehearsal", Strategy.ALTERNATING_USERS, purpose=Purpose.REHEARSE),
    Case("alternating users, emergency", Strategy.ALTERNATING_USERS, purpose=Purpose.EMERGENCY),
    Case("minted", Strategy.MINTED, groups=2),
    Case("minted, first", Strategy.MINTED, first=True),
    Case("minted, dead, --replace", Strategy.MINTED, replace=True, dead=True),
    Case("minted, put back, --replace", Strategy.MINTED, replace=True, dead=True, back=True),
    Case("minted, emergency", Strategy.MINTED, purpose=Purpose.EMERGENCY),
    Case("single", Strategy.SINGLE, groups=2),
    Case("single, first", Strategy.SINGLE, first=True),
    Case("single, first, --replace", Strategy.SINGLE, first=True, account_usable=True, replace=True),
    Case("single, first, without --replace", Strategy.SINGLE, first=True, account_usable=True),
    Case("single, self-service", Strategy.SINGLE, self_service=True),
    Case("single, dead, --replace", Strategy.SINGLE, replace=True, dead=True),
    Case("single, emergency", Strategy.SINGLE, purpose=Purpose.EMERGENCY),
    Case("single, via", Strategy.SINGLE, via=True, groups=2),
    Case("single, via, first", Strategy.SINGLE, via=True, first=True),
    Case("previous keys", Strategy.PREVIOUS_KEYS, groups=2),
    Case("previous keys, first", Strategy.PREVIOUS_KEYS, first=True),
    Case("previous keys, emergency", Strategy.PREVIOUS_KEYS, purpose=Purpose.EMERGENCY),
    Case("previous keys, --data-loss", Strategy.PREVIOUS_KEYS, groups=2, purpose=Purpose.EMERGENCY, data_loss=True),
    Case("manual", Strategy.MANUAL, groups=2),
    Case("manual, first", Strategy.MANUAL, first=True),
    Case("manual, imported", Strategy.MANUAL, replace=True),
    Case("manual, dead, --replace", Strategy.MANUAL, replace=True, dead=True),
    Case("manual, emergency", Strategy.MANUAL, purpose=Purpose.EMERGENCY),
    Case("manual, unverified", Strategy.MANUAL, unverified="no harmless call"),
    Case("nobody checks", None, groups=2),
    Case("nobody checks, first", None, first=True),
]
