"""Failed logins have a budget, per account and per address: charged durably before they are tried (section 6).

Whoever watches a server's log for failed logins bans the address that they come from, whatever the account was. So
every target has a budget, and not only those that lock accounts; except on this machine, where nobody is banned.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vaultkeeper.model.policy import TargetSpec
from vaultkeeper.model.rotation import End, Phase, Step
from vaultkeeper.model.secret import SecretVersion
from vaultkeeper.ports import Capabilities, Store, Target

EVERYWHERE = (4, timedelta(seconds=60))  # fail2ban bans an address at its fifth failure within a minute
PUT_OFF = "as many logins as may fail in that time have failed"
LOCAL = "local"  # what a target calls the address of something that is reached without a network


@dataclass(frozen=True)
class Budget:
    """What a login is charged to, and how many may fail. `own`: the kind says so, because accounts are locked."""

    account: str
    address: str
    failures: int
    window: timedelta
    own: bool

    def charge(self, store: Store, now: datetime) -> timedelta | None:
        """One failure that may come. None: go; else wait so long."""
        return store.spend_login(self.account, self.address, (self.failures, self.window), now)

    def spent(self, store: Store, now: datetime) -> int:
        return store.failed_logins(self.account, self.address, self.window, now)

    def refund(self, store: Store) -> None:
        store.refund_login(self.account, self.address)


def budget_of(target: Target, version: SecretVersion) -> Budget | None:
    """None: nobody counts."""
    account, address = target.login_key(version)
    own = target.capabilities.login_budget
    if own is not None:
        return Budget(account, address, *own, own=True)
    return None if is_here(address) else Budget(account, address, *EVERYWHERE, own=False)


def is_here(address: str) -> bool:
    """This machine, a Unix socket or a program? fail2ban ignores its own machine (`ignoreself`, on by default)."""
    if address in {"", LOCAL} or address.startswith("/"):
        return True
    host = address[1:].partition("]")[0] if address.startswith("[") else address.rpartition(":")[0] or address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


# ------------------------------------------------------------------------------------------------- refused on purpose


@dataclass(frozen=True)
class Refusal:
    """A login that must fail. `of`: for people, what it is tried with; `end`: as whose account."""

    step: Step
    of: str
    end: End
    account: str = ""  #: "": not known before the first version


@dataclass(frozen=True)
class Deliberate:
    """What the log of a target will show of a rotation. `address` "" where the first version tells it only."""

    refusals: tuple[Refusal, ...]
    address: str = ""
    budget: Budget | None = None  #: None: nobody counts there


OWN_ADMIN = "the new value, before it is set"
WRONG = "a wrong value"


def refusals(phases: Sequence[Phase], spec: TargetSpec | None, can: Capabilities | None) -> tuple[Refusal, ...]:
    """Every login of a rotation that fails where nothing goes wrong. Pure."""
    if spec is None or can is None:
        return ()
    asks = can.probes and not spec.unverified
    found = []
    for number, phase in enumerate(phases):
        if phase.step is Step.SET and spec.self_service and can.login_budget is None and End.TO in phase.carry:
            found.append(Refusal(phase.step, OWN_ADMIN, End.TO))
        if phase.step is Step.TEST and asks and not can.mutual:
            old = any(p.step is Step.SET and End.FROM in p.refuse for p in phases[:number])
            found.append(Refusal(phase.step, _named(End.FROM), End.FROM) if old else Refusal(phase.step, WRONG, End.TO))
        if phase.step is Step.PROVE and asks:
            found.append(Refusal(phase.step, _named(phase.carry[0]), phase.carry[0]))
    return tuple(found)


def _named(end: End) -> str:
    return "the old value" if end is End.FROM else "the new value"
