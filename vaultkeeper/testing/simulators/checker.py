"""A checker that reads its list from a `via` destination, like an OTel Collector with tokens in a Swarm secret.

Its list has lines "<secret>=<value>"; those of other secrets, and of people, are kept. `reads` names the destination:
(system, consumer, slot).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vaultkeeper.model.outcome import Basis, No, Observation, Refused
from vaultkeeper.model.secret import SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context
from vaultkeeper.testing.simulators.base import FORBIDDEN, Bare, Settings
from vaultkeeper.testing.world import secret_value


class CheckerSettings(Settings):
    reads: tuple[str, str, str]


class CheckerTarget(Bare):
    kind = "sim_checker"
    Settings = CheckerSettings
    capabilities = Capabilities(
        strategies=frozenset({Strategy.OVERLAP, Strategy.SINGLE}),
        observes=frozenset({Basis.LOGIN}),
        max_accepted=None,
        interrupts=True,
        forbidden=FORBIDDEN,
    )

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.state["reads"] = list(settings.reads)

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        return Observation({}, Basis.LOGIN)

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Refused:
        return Refused(No.UNSUPPORTED, "its list is carried by a destination: render and deliver")

    def render(
        self, accept: Sequence[SecretVersion], existing: SecretBytes | None, refuse: Sequence[SecretVersion] = ()
    ) -> SecretBytes:
        ours = accept[0].secret.encode() + b"="
        foreign = [line for line in (existing.reveal() if existing else b"").splitlines() if not line.startswith(ours)]
        return SecretBytes(b"\n".join([*(ours + secret_value(v) for v in accept), *foreign]))
