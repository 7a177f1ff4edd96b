"""A target that makes the value itself and lists its tokens by id, like Grafana's service accounts.

With `readable` a token's value can be read again later (Meilisearch); without, an orphan is only an id (Grafana).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused
from vaultkeeper.model.secret import Fields, Handle, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context
from vaultkeeper.testing.simulators.base import Settings, SimulatedTarget
from vaultkeeper.testing.world import State


class MintingSettings(Settings):
    readable: bool = False


class MintingTarget(SimulatedTarget):
    kind = "sim_minting"
    Settings = MintingSettings
    capabilities = Capabilities(
        strategies=frozenset({Strategy.MINTED}), observes=frozenset({Basis.LISTING}), max_accepted=None
    )

    @property
    def tokens(self) -> dict[str, State]:
        tokens: dict[str, State] = self.state.setdefault("tokens", {})
        return tokens

    def check(self, ctx: Context) -> Sequence[Finding]:
        return [Finding("ok", f"{self.home} is there")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return given

    def mint(self, version_id: str, expires_at: datetime | None, ctx: Context) -> tuple[Fields, Handle] | Refused:
        if any(token["name"] == version_id for token in self.tokens.values()):
            return Refused(No.CONFLICT, "a token of that name exists")
        number = self.state["minted"] = self.state.get("minted", 0) + 1
        value = f"minted-token-{number}".encode()
        self.tokens[str(number)] = {"name": version_id, "value": value, "expires_at": expires_at}
        return {"token": SecretBytes(value)}, _handle(str(number))

    def find(self, version_id: str, ctx: Context) -> tuple[Fields | None, Handle] | None:
        for number, token in self.tokens.items():
            if token["name"] == version_id:
                return {"token": SecretBytes(token["value"])} if self.settings.readable else None, _handle(number)
        return None

    def drop(self, handle: Handle, ctx: Context) -> Done:
        self.tokens.pop(json.loads(handle)["id"], None)
        return Done()

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        there = self.world.accepted(self.home)
        return Observation(
            {v.number: Login.ACCEPTED if ("", self.pair(v)[1]) in there else Login.REJECTED for v in candidates},
            Basis.LISTING,
            handles={v.number: v.handle for v in candidates if v.handle},
            foreign=len({value for _, value in there} - {self.pair(v)[1] for v in candidates}),
            durable=True,
        )

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        wanted = {self.pair(v)[1] for v in accept}
        if not all(self.world.accepts(self.home, v) for v in accept):
            return Refused(No.UNSUPPORTED, "a deleted token cannot be made again")
        gone = {self.pair(v)[1] for v in refuse} - wanted
        self.state["tokens"] = {number: t for number, t in self.tokens.items() if t["value"] not in gone}
        return Done()

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        accepted = self.world.accepts(self.home, version) or self.state.get("trusting")
        return Login.ACCEPTED if accepted else Login.REJECTED


def _handle(number: str) -> Handle:
    return Handle(json.dumps({"id": number}))
