"""What a policy says of accounts at MySQL or MariaDB."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from vaultkeeper.access.address import Address
from vaultkeeper.access.settings import OFF, Authority, Reference, Seconds, Shape, judge_accounts


def _name(name: str) -> str:
    if not 1 <= len(name) <= 80 or "\0" in name:
        raise ValueError("a user name has 1 to 80 characters")
    if max(name) > "\uffff":  # columns of utf8mb3: the server would keep a `?` in its place, and compare with nothing
        raise ValueError("a user name holds no character beyond U+FFFF (emoji): the server cannot store it")
    return name


def _host(host: str) -> str:
    if not 1 <= len(host) <= 255 or not host.isascii() or not host.isprintable() or set(host) & set("@ '`\""):
        raise ValueError("the host part of an account is a name, an address or a pattern: 10.0.%, localhost, %")
    return host


UserName = Annotated[str, AfterValidator(_name)]
HostPart = Annotated[str, AfterValidator(_host)]


class Admin(Shape):
    """The account that changes the others."""

    username: UserName = Field(description="its name; the server finds the host part by where we come from")
    password: Reference = Field(description="a reference: {file: PATH}, {env: NAME}, {secret: NAME} …")


class AccountSettings(Shape):
    """What both kinds share."""

    host: str = Field(min_length=1, description="a name, an IP address, or the absolute path of a Unix socket")
    port: int = Field(default=3306, ge=1, le=65535)
    user: UserName | None = Field(default=None, description="the account of `overlap` and `single`")
    users: tuple[UserName, UserName] | None = Field(
        default=None, strict=False, description="the two of `alternating_users`"
    )
    hosts: tuple[HostPart, ...] = Field(
        default=("%",), strict=False, min_length=1, description="the host parts that the accounts have at the server"
    )
    admin: Admin | Literal["self"] = Field(description="who changes the password; `self`: the account itself")
    tls: Annotated[Authority | Literal["off"] | None, OFF] = Field(
        default=None, description="default: chain and name verified; loopback and Unix sockets none; no fallback"
    )
    timeout: Seconds = Field(default=10, gt=0, le=600, description="for one call of the server, in seconds or as `10s`")
    close_sessions: bool = Field(default=False, description="end sessions of the account when a version is retired")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        judge_accounts(self.user, self.users, "overlap")
        if self.users and self.admin == "self":
            raise ValueError("`admin: self` changes its own account only: use `user`")
        if isinstance(self.admin, Admin) and self.admin.username in self.accounts:
            raise ValueError("an account that is its own admin needs `admin: self`")
        if self.admin == "self" and len(self.hosts) > 1:
            raise ValueError(
                "`admin: self` changes the one account that it logs in as: name an admin for several hosts"
            )
        if len(set(self.hosts)) != len(self.hosts):
            raise ValueError("`hosts` names one twice")
        if isinstance(self.tls, Authority) and self.host.startswith("/"):
            raise ValueError("`tls` means nothing on a Unix socket")
        return self

    @property
    def accounts(self) -> tuple[str, ...]:
        """The names that the policy gives."""
        return self.users or (self.user or "",)

    @property
    def address(self) -> Address:
        """Where the server is."""
        plain = Address(self.host, self.port, tls=False)
        if isinstance(self.tls, Authority):
            return Address(self.host, self.port, ca=self.tls.ca)
        return plain if self.tls == "off" or plain.is_local else Address(self.host, self.port)

    @property
    def is_exposed(self) -> bool:
        """Neither TLS nor local: what is sent can be read on the way."""
        return not self.address.tls and not self.address.is_local
