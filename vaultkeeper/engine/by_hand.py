"""What only a person can do, make a value and revoke the old one, said in words: who, where, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence

from vaultkeeper.engine.parts import power
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Purpose, Rotation
from vaultkeeper.ports import ByHand, Target


def page(target: Target | None) -> str:
    """Where a person makes and revokes the values of this target; empty where nobody said."""
    found = power(target, ByHand)
    return found.page() if found else ""


def who_makes_it(policy: RotationPolicy, where: str) -> str:
    """One line for a plan: who, where, and the command after it."""
    return f"{_whom(policy)} makes a new value{_at(where)}; then   vaultkeeper import {policy.name}"


def asks_for_value(rotation: Rotation, where: str) -> str:
    """While it waits for the new value. After a leak every hour counts."""
    policy = rotation.policy
    if rotation.purpose is Purpose.EMERGENCY:
        return f"the value leaked: tell {_whom(policy)} now, who makes a new one{_at(where)}"
    return f"{_whom(policy)} makes a new value{_at(where)}"


def asks_to_revoke(rotation: Rotation, numbers: Sequence[int], where: str, *, seen: bool) -> str:
    """While the old value is not known to be dead. `seen`: it was accepted just now; else nobody can tell."""
    policy, old = rotation.policy, " and ".join(f"v{number}" for number in numbers)
    still = f"{old} is still accepted" if seen else f"whether {old} is still accepted cannot be seen"
    now = " now: it leaked" if rotation.purpose is Purpose.EMERGENCY else ""
    return f"{still}; {_whom(policy)} revokes it{_at(where)}{now}"


def who_revokes_it(policy: RotationPolicy, where: str) -> str:
    """The same for the old value, at its end."""
    blind = " --revoked" if policy.target and policy.target.unverified else ""
    return f"{_whom(policy)} revokes the old value{_at(where)}; then   vaultkeeper resume {policy.name}{blind}"


def _whom(policy: RotationPolicy) -> str:
    return policy.owner or "a person"


def _at(where: str) -> str:
    return f" at {where}" if where else ""
