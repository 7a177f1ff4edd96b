"""A target that takes one value at a time and shows nothing: only a login tells, like RabbitMQ alone."""

from __future__ import annotations

from collections.abc import Sequence

from vaultkeeper.model.outcome import Basis, Done, No, Observation, Refused
from vaultkeeper.model.secret import SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context
from vaultkeeper.testing.simulators.base import FORBIDDEN, Plain


class SingleTarget(Plain):
    kind = "sim_single"
    capabilities = Capabilities(
        strategies=frozenset({Strategy.SINGLE}), observes=frozenset({Basis.LOGIN}), forbidden=FORBIDDEN
    )

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        return Observation({}, Basis.LOGIN, account_usable=bool(self.accounts.get(self.settings.user)))

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        pairs = {self.pair(v) for v in accept}
        if len(pairs) > 1:
            return Refused(No.UNSUPPORTED, "one value at a time")
        no = self.unfit(accept)
        if no:
            return no
        self.exchange(dict(pairs), refuse)
        return Done()
