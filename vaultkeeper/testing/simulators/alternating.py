"""A target where two accounts take turns, with readable verifiers, tags, sessions and mutual proof, like PostgreSQL.

`state["sessions"]` maps an account to the addresses that are logged in with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from vaultkeeper.model.outcome import Basis, Done, No, Observation, Refused, Usage
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context
from vaultkeeper.testing.simulators.base import FORBIDDEN, Plain, Settings


class AlternatingSettings(Settings):
    users: tuple[str, str] = ("app_a", "app_b")


class AlternatingTarget(Plain):
    kind = "sim_alternating"
    Settings = AlternatingSettings
    capabilities = Capabilities(
        strategies=frozenset({Strategy.ALTERNATING_USERS}),
        observes=frozenset({Basis.VERIFIER}),
        tags=True,
        max_accepted=2,
        mutual=True,
        forbidden=FORBIDDEN,
    )

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        if adopting:
            return given
        first, second = self.settings.users
        busy = ctx.current.fields["username"].text() if ctx.current else second
        return {**given, "username": SecretBytes((second if busy == first else first).encode())}

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        return self.shown(candidates, Basis.VERIFIER, *self.settings.users)

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        wanted = dict(self.pair(v) for v in reversed(accept))
        if len(wanted) < len({self.pair(v) for v in accept}):
            return Refused(No.UNSUPPORTED, "one account takes one value")
        no = self.unfit(accept) or self.stale([*accept, *refuse], ctx)
        if no:
            return no
        self.exchange(wanted, refuse)
        return Done()

    def usage(self, version: SecretVersion, since: datetime, ctx: Context) -> Usage:
        sessions = self.state.get("sessions", {}).get(self.pair(version)[0], [])
        return Usage(bool(sessions), tuple(sessions))

    def disconnect(self, version: SecretVersion, ctx: Context) -> Done:
        self.state.setdefault("sessions", {})[self.pair(version)[0]] = []
        return Done()
