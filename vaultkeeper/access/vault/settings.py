"""How a policy says which Vault or OpenBao is meant, and who asks it. Nothing is taken from the environment."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from vaultkeeper.access.settings import OFF, PolicyPath, Reference, Shape, judge_url

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _server(url: str) -> str:
    judge_url(url)
    parts = urlsplit(url)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("expected the server alone, https://bao.example.com:8200; `path` is a key of its own")
    return url.rstrip("/")


def _path(text: str) -> str:
    """`..` would leave the mount, and an empty segment is answered by a redirect or a 500."""
    if not text or _CONTROL.search(text) or any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError("expected a path such as shop/db, without / at an end, // or ..")
    return text


VaultPath = Annotated[str, AfterValidator(_path)]
"""A path below a mount, or a mount: no segment is empty, `.` or `..`."""

ServerUrl = Annotated[str, AfterValidator(_server)]
"""Scheme, host and port, nothing else."""


class Auth(Shape):
    """Who asks: `token`, or `role_id` with `secret_id` or `wrapped_secret_id`. All of them are references."""

    token: Reference | None = None
    role_id: Reference | None = None
    secret_id: Reference | None = None
    wrapped_secret_id: Reference | None = Field(
        default=None, description="a response-wrapping token; unwrapped once, its creation path checked"
    )
    mount: VaultPath = Field(default="approle", description="of the AppRole method")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        secret_ids = [reference for reference in (self.secret_id, self.wrapped_secret_id) if reference is not None]
        by_role = self.role_id is not None and len(secret_ids) == 1
        if (self.token is None) != by_role or (self.token is not None and (self.role_id or secret_ids)):
            raise ValueError("expected `token`, or `role_id` with either `secret_id` or `wrapped_secret_id`")
        return self


class VaultSettings(Shape):
    """A server and a login."""

    url: ServerUrl = Field(description="https://host:port of the server, or of the active node")
    namespace: VaultPath | None = None
    auth: Auth
    ca: PolicyPath | None = Field(default=None, description="CA certificates to trust instead of the system's, PEM")
    tls: Annotated[Literal["off"] | None, OFF] = Field(
        default=None, description="off: plain http beyond this machine is meant"
    )

    def connection(self) -> VaultSettings:
        """The server and the login alone: settings of one connection may differ in what is asked there."""
        return VaultSettings.model_validate({key: getattr(self, key) for key in VaultSettings.model_fields})


class VaultReference(VaultSettings):
    """What stands in `{vault: PATH, field: F}`, with its connection."""

    vault: VaultPath
    field: str
    mount: VaultPath = "secret"


CONNECTION_KEYS = ("url", "namespace", "auth", "ca", "tls", "mount")
"""What may stand beside `vault` and `field` in a reference, or come from `use`."""
