"""A target that makes the value itself and lists its tokens by id, like Grafana's service accounts.

With `readable` a token's value can be read again later (Meilisearch); without, an orphan is only an id (Grafana).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from vaultkeeper.model.outcome import Basis, Done, No, Observation, Refused
from vaultkeeper.model.secret import Fields, Handle, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context
from vaultkeeper.testing.simulators.base import Bare, Settings


class MintingSettings(Settings):
    readable: bool = False


class MintingTarget(Bare):
    kind = "sim_minting"
    Settings = MintingSettings
    capabilities = Capabilities(
        strategies=frozenset({Strategy.MINTED}), observes=frozenset({Basis.LISTING}), max_accepted=None
    )

    @property
    def tokens(self) -> Any:  # by handle: name, value, expires_at
        return self.state.setdefault("tokens", {})

    def mint(self, version_id: str, expires_at: datetime | None, ctx: Context) -> tuple[Fields, Handle] | Refused:
        if any(token["name"] == version_id for token in self.tokens.values()):
            return Refused(No.CONFLICT, "a token of that name exists")
        number = self.state["minted"] = self.state.get("minted", 0) + 1
        handle, value = Handle(json.dumps({"id": str(number)})), f"minted-token-{number}".encode()
        self.tokens[handle] = {"name": version_id, "value": value, "expires_at": expires_at}
        return {"token": SecretBytes(value)}, handle

    def find(self, version_id: str, ctx: Context) -> tuple[Fields | None, Handle] | None:
        for handle, token in self.tokens.items():
            if token["name"] == version_id:
                return {"token": SecretBytes(token["value"])} if self.settings.readable else None, handle
        return None

    def drop(self, handle: Handle, ctx: Context) -> Done:
        self.tokens.pop(handle, None)
        return Done()

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        return self.shown(candidates, Basis.LISTING)

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        if not all(self.world.accepts(self.home, v) for v in accept):
            return Refused(No.UNSUPPORTED, "a deleted token cannot be made again")
        gone = {self.pair(v)[1] for v in refuse} - {self.pair(v)[1] for v in accept}
        self.state["tokens"] = {handle: t for handle, t in self.tokens.items() if t["value"] not in gone}
        return Done()
