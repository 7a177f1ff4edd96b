"""How a policy says which Redis or Valkey nodes are meant, and who changes the account there."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vaultkeeper.access.redis.connection import Address, Tls
from vaultkeeper.access.settings import OFF, PolicyPath, Reference, Seconds, Shape

_SPACES = frozenset(" \t\n\v\f\r\0")  # ACLStringHasSpaces in Redis' acl.c


def _account(name: object) -> object:
    if isinstance(name, str) and (not name or set(name) & _SPACES):
        raise ValueError("a Redis account's name holds no blank and no NUL")
    return name


Account = Annotated[str, BeforeValidator(_account)]


class Admin(Shape):
    """The account that changes the other one; the same at every node."""

    username: Account = Field(description="its name")
    password: Reference = Field(description="a reference: {file: PATH}, {env: NAME}, {secret: NAME} …")


class TlsSettings(Shape):
    """An authority of one's own, and what a server with `tls-auth-clients yes` asks for."""

    ca: PolicyPath | None = Field(default=None, description="PEM file of the authority; default: the system's")
    certificate: PolicyPath | None = Field(default=None, description="PEM file: our own, with its chain")
    key: PolicyPath | None = Field(default=None, description="PEM file: its key, where `certificate` does not hold it")


class NodeSettings(Shape):
    """One more node with the same account."""

    host: str = Field(min_length=1)
    port: int = Field(default=6379, ge=1, le=65535)


class RedisSettings(Shape):
    """What a policy says beside `kind: redis`."""

    host: str = Field(min_length=1, description="a name, an IP address, or the absolute path of a Unix socket")
    port: int = Field(default=6379, ge=1, le=65535)
    nodes: tuple[NodeSettings, ...] = Field(
        default=(), strict=False, description="replicas, Sentinels and cluster nodes: each has accounts of its own"
    )
    user: Account = Field(description="the account; `default` is the one of requirepass")
    admin: Admin | Literal["self"] = Field(description="who changes it; `self`: the account itself")
    tls: Annotated[TlsSettings | Literal["off"] | None, OFF] = Field(
        default=None, description="default: verify-full, on loopback and Unix sockets none; there is no fallback"
    )
    timeout: Seconds = Field(
        default=10, gt=0, le=600, description="for one hook's talk with all nodes, in seconds or as `10s`"
    )
    replication: Literal["delivered"] | None = Field(
        default=None,
        description="delivered: replicas and Sentinels log in as the account, and a destination tells them",
    )
    close_sessions: bool = Field(default=False, description="end the account's sessions when a value is retired")
    persisted_by: bool = Field(default=False, description="a destination keeps the change over a restart")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.admin, Admin) and self.admin.username == self.user:
            raise ValueError("an account that is its own admin needs `admin: self`")
        if len(set(map(str, self.addresses))) <= len(self.nodes):
            raise ValueError("`nodes` are further ones: each is named once, and not the one of `host`")
        return self

    @property
    def addresses(self) -> list[Address]:
        """Every node, the one of `host` first."""
        return [self._address(self.host, self.port), *(self._address(each.host, each.port) for each in self.nodes)]

    def _address(self, host: str, port: int) -> Address:
        plain = Address(host, port)
        if plain.is_socket or self.tls == "off" or (self.tls is None and plain.is_local):
            return plain
        said = self.tls if isinstance(self.tls, TlsSettings) else TlsSettings()
        return Address(host, port, Tls(said.ca, said.certificate, said.key))
