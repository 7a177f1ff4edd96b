"""ACME gateways: a file of `user:password` lines, of which every one is accepted. Privileges: write that file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context


class GatewaySettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    user: str


class AcmeGateway:
    kind = "acme_gateway"
    codec = 1
    Settings = GatewaySettings
    capabilities = Capabilities(
        frozenset({Strategy.OVERLAP}), frozenset({Basis.LISTING}), max_accepted=None, forbidden=frozenset("\r\n")
    )

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:  # noqa: ARG003 - there is one codec yet
        return cls(GatewaySettings.model_validate(settings))

    def lines(self) -> list[str]:
        return Path(self.settings.path).read_text().splitlines()

    def line(self, version: SecretVersion) -> str:
        return f"{version.fields['username'].text()}:{version.fields['password'].text()}"

    def check(self, ctx: Context) -> Sequence[Finding]:
        return [Finding("ok", f"{self.settings.path} has {len(self.lines())} lines")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return {"username": SecretBytes(self.settings.user.encode()), **given}

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation:
        lines = self.lines()
        answers = {v.number: Login.ACCEPTED if self.line(v) in lines else Login.REJECTED for v in candidates}
        return Observation(answers, Basis.LISTING, foreign=len(set(lines) - {self.line(v) for v in candidates}))

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return version.fields["username"].text(), self.settings.path

    def decoy(self, version: SecretVersion) -> None:
        return None

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Done | Refused:
        ours, gone = [self.line(v) for v in accept], [self.line(v) for v in refuse]
        if any(self.capabilities.forbidden & set(line) for line in ours):
            return Refused(No.VALUE, "a line break would make two lines")
        Path(self.settings.path).write_text("\n".join([*ours, *(o for o in self.lines() if o not in [*ours, *gone])]))
        return Done()

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        return Login.ACCEPTED if self.line(version) in self.lines() else Login.REJECTED
