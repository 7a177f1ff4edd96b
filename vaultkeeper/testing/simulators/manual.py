"""A vendor whose values only people make and revoke, on a page of its own. It tells nothing but by a login.

`make` and `revoke` are what those people do; a value that begins with "no-" is one that nobody would mistake for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from vaultkeeper.model.outcome import Basis, No, Observation, Refused
from vaultkeeper.model.secret import Fields, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context
from vaultkeeper.testing.simulators.base import Plain
from vaultkeeper.testing.world import World


class ManualTarget(Plain):
    kind = "sim_manual"
    capabilities = Capabilities(
        strategies=frozenset({Strategy.MANUAL}), observes=frozenset({Basis.LOGIN}), max_accepted=None
    )

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        return Observation({}, Basis.LOGIN)

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Refused:
        return Refused(No.UNSUPPORTED, "only a person can change what is accepted")

    def page(self) -> str:
        return f"https://{self.home}.example/keys"

    def misfits(self, names: Sequence[str]) -> Sequence[str]:
        return []

    def faults(self, given: Fields) -> Sequence[str]:
        wrong = [name for name, value in given.items() if value.reveal().startswith(b"no-")]
        return [f"`{name}` is no key of this vendor" for name in wrong]


def make(world: World, system: str, value: bytes, account: str = "app") -> None:
    """One more value that works."""
    world.system(system).setdefault("accounts", {}).setdefault(account, []).append(value)


def revoke(world: World, system: str, value: bytes, account: str = "app") -> None:
    """Idempotent."""
    values = world.system(system).setdefault("accounts", {}).setdefault(account, [])
    values[:] = [other for other in values if other != value]
