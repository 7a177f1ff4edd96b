"""A target that locks an account after failed logins and then rejects the right value too, like Grafana's admin.

The account is locked while three failures of it lie within five minutes; the budget stays below that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from vaultkeeper.model.outcome import Basis, Done, Login, No, Observation, Refused
from vaultkeeper.model.secret import SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context
from vaultkeeper.testing.simulators.base import FORBIDDEN, Plain

WINDOW = timedelta(minutes=5)
LOCKS_AT = 3


class ThrottlingTarget(Plain):
    kind = "sim_throttling"
    capabilities = Capabilities(
        strategies=frozenset({Strategy.SINGLE}),
        observes=frozenset({Basis.LOGIN}),
        login_budget=(LOCKS_AT - 1, WINDOW),
        forbidden=FORBIDDEN,
    )

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        return Observation({}, Basis.LOGIN)

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return replace(version, fields={**version.fields, "username": SecretBytes(b"nobody-of-that-name")})

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        pairs = {self.pair(v) for v in accept}
        if len(pairs) > 1:
            return Refused(No.UNSUPPORTED, "one value at a time")
        no = self.unfit(accept)
        if no:
            return no
        self.exchange(dict(pairs), refuse)
        return Done()

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        account, now = self.pair(version)[0], self.world.clock.now()
        failures = self.state.setdefault("failures", {}).setdefault(account, [])
        failures[:] = [at for at in failures if at > now - WINDOW]
        if len(failures) < LOCKS_AT and self.pair(version) in self.world.accepted(self.home):
            return Login.ACCEPTED
        failures.append(now)
        return Login.REJECTED
