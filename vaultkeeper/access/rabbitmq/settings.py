"""What a policy says of a RabbitMQ server: its management interface, its brokers, its accounts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vaultkeeper.access.rabbitmq.amqp import Broker
from vaultkeeper.access.settings import OFF, PolicyPath, Shape, Url, judge_accounts

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _account(name: str) -> str:
    if not 1 <= len(name.encode()) <= 255 or _CONTROL.search(name):
        raise ValueError("a RabbitMQ user has 1 to 255 bytes and no control characters")
    return name


def _server(url: str) -> str:
    if urlsplit(url).path not in ("", "/") or urlsplit(url).query:
        raise ValueError("expected the management interface alone, https://rabbit.example.com:15671")
    return url.rstrip("/")


def _broker(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("expected amqps://HOST:PORT or amqp://HOST:PORT; `vhost` is a key of its own")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a login in it would be shown in logs")
    _ = parts.port  # raises ValueError for one that is no number up to 65535
    return url


AccountName = Annotated[str, BeforeValidator(lambda name: _account(name) if isinstance(name, str) else name)]


class Admin(Shape):
    """The account that changes the others."""

    username: AccountName = Field(description="its name, without a colon")
    password: dict[str, Any] = Field(description="a reference: {file: PATH}, {env: NAME}, {secret: NAME} …")


class RabbitmqSettings(Shape):
    """What a policy says beside `kind: rabbitmq`."""

    url: Annotated[Url, AfterValidator(_server)] = Field(description="of the management interface")
    amqp: Annotated[str, AfterValidator(_broker)] | None = Field(
        default=None, description="where test logins go; default: the host of `url`, with TLS where that has it"
    )
    vhost: str = Field(default="/", min_length=1, description="the virtual host of test logins")
    user: AccountName | None = Field(default=None, description="the account of `strategy: single`")
    users: tuple[AccountName, AccountName] | None = Field(
        default=None, strict=False, description="the two of `alternating_users`"
    )
    admin: Admin | Literal["self"] = Field(description="who changes the password; `self`: the account itself")
    create_users: bool = Field(default=False, description="make a missing user, with the tags of CURRENT's")
    tls: Annotated[Literal["off"] | None, OFF] = Field(
        default=None, description="off: plain http and amqp beyond this machine are meant"
    )
    ca: PolicyPath | None = Field(default=None, description="CA certificates to trust instead of the system's, PEM")
    close_sessions: bool = Field(default=False, description="close connections of the retired user")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        judge_accounts(self.user, self.users)
        if self.users and self.admin == "self":
            raise ValueError("`admin: self` changes its own account only: use `user` and `strategy: single`")
        if isinstance(self.admin, Admin) and self.admin.username in self.accounts:
            raise ValueError("an account that is its own admin needs `admin: self`")
        if any(":" in name for name in self._administrators):
            raise ValueError("an administrator's name with a colon cannot log in at the management interface")
        if self.create_users and self.users is None:
            raise ValueError("`create_users` goes with `users`")
        return self

    @property
    def _administrators(self) -> tuple[str, ...]:
        return self.accounts if isinstance(self.admin, str) else (self.admin.username,)

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that the policy names."""
        return self.users or (self.user or "",)

    @property
    def broker(self) -> Broker:
        """Where test logins go."""
        http = urlsplit(self.url)
        given = urlsplit(self.amqp) if self.amqp else http
        secure = given.scheme in ("amqps", "https")
        port = given.port if self.amqp and given.port else 5671 if secure else 5672
        return Broker(given.hostname or "", port, self.vhost, secure, self.tls == "off", self.ca)
