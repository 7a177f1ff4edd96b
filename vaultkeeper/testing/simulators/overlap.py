"""A target that accepts any number of values per account and lists them exactly, like a Redis ACL user."""

from __future__ import annotations

from collections.abc import Sequence

from vaultkeeper.model.outcome import Basis, Done, Observation, Refused
from vaultkeeper.model.secret import SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context
from vaultkeeper.testing.simulators.base import FORBIDDEN, Plain


class OverlapTarget(Plain):
    kind = "sim_overlap"
    capabilities = Capabilities(
        strategies=frozenset({Strategy.OVERLAP}),
        observes=frozenset({Basis.LISTING}),
        tags=True,
        fences=True,
        max_accepted=None,
        forbidden=FORBIDDEN,
    )

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        return self.shown(candidates, Basis.LISTING, self.settings.user)

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        no = self.unfit(accept) or self.stale([*accept, *refuse], ctx)
        if no:
            return no
        wanted = [self.pair(v) for v in accept]
        for account, value in (pair for pair in map(self.pair, refuse) if pair not in wanted):
            if value in self.accounts.get(account, []):
                self.accounts[account].remove(value)
        for account, value in reversed(wanted):
            others = [v for v in self.accounts.get(account, []) if v != value]
            self.accounts[account] = [value, *others]
        return Done()
