"""What a policy says of a password file: where it is, who reads it, whose lines are ours."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vaultkeeper.access.htpasswd import Format
from vaultkeeper.access.probe import BasicProbe, Provable
from vaultkeeper.access.settings import Command, PolicyPath, Signal, Written, judge_accounts

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _account(name: str) -> str:
    if not 1 <= len(name.encode()) <= 255 or ":" in name or _CONTROL.search(name):
        raise ValueError("a user has 1 to 255 bytes, no colon and no control characters: HTTP could not carry it")
    if name.startswith("#") or name != name.strip():
        raise ValueError("a user does not begin with `#`, and neither begins nor ends with a blank")
    return name


AccountName = Annotated[str, BeforeValidator(lambda name: _account(name) if isinstance(name, str) else name)]


class HtpasswdSettings(Written, Provable):
    """What a policy may say beside `kind: htpasswd`, `strategy` and `via`."""

    format: Format = Field(description="who reads the file: its spelling, and which of two equal users counts")
    path: PolicyPath | None = Field(default=None, description="of the file; absent with `via`")
    user: AccountName | None = Field(default=None, description="the account of `strategy: single`")
    users: tuple[AccountName, AccountName] | None = Field(
        default=None, strict=False, description="the two of `alternating_users`"
    )
    cost: int = Field(
        default=5, ge=4, le=15, description="of bcrypt; as `htpasswd -B`: most readers pay it per request"
    )
    probe: BasicProbe | Command | None = Field(default=None, description="how to see what the checker accepts")
    reload: Literal["none"] | Signal | Command = Field(default="none", description="how the checker reads it again")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        judge_accounts(self.user, self.users)
        if self.path is None and self.reload != "none":
            raise ValueError("`reload` goes with `path`; what `via` carries it to has its own")
        if self.format == "traefik" and self.path and "reload" not in self.model_fields_set:
            raise ValueError(
                "Traefik does not look at `usersFile` by itself: say how it is told with `reload`, or `reload: none`"
            )
        return self

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that the policy names."""
        return self.users or (self.user or "",)

    @property
    def tells(self) -> str | None:
        """The path of a file that shows what its reader accepts. One that has to be told may hold something else."""
        return self.path if self.reload == "none" else None
