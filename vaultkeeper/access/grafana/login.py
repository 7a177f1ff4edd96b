"""Who asks Grafana: a user with a password, or a service account's token.

Five failed logins in five minutes lock a name for everybody, so a password that was refused is not tried again for so
long by this process, however many secrets of a command need it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from vaultkeeper.access.grafana import Connection, Credential, Grafana, by_password, by_token
from vaultkeeper.access.grafana.errors import LOCKED_FOR, LoginRefused, login_refused
from vaultkeeper.access.settings import Reference, Shape
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.secret import SecretBytes, main_field
from vaultkeeper.ports import Credentials, Deadline

T = TypeVar("T")
_refused_until_s: dict[bytes, float] = {}  # digest of server and credential → monotonic time
_lock = threading.Lock()


def _login_name(name: str) -> str:
    if not name or ":" in name or not name.isprintable():
        raise ValueError("expected a login name or an e-mail address, without a colon: basic auth carries none")
    return name


LoginName = Annotated[str, AfterValidator(_login_name)]
"""A user, by login name or e-mail address."""


class ByPassword(Shape):
    """A user of Grafana."""

    username: LoginName
    password: Reference = Field(description="a reference: {file: PATH}, {env: NAME}, {secret: NAME} …")


class Asker(Shape):
    """A user with `username` and `password`, or a service account by its `token`."""

    username: LoginName | None = None
    password: Reference | None = None
    token: Reference | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_user = self.username is not None and self.password is not None
        if by_user == (self.token is not None) or (self.username is None) != (self.password is None):
            raise ValueError("expected `username` and `password`, or `token`")
        return self


def with_login(
    where: Connection,
    asker: ByPassword | Asker,
    credentials: Credentials,
    deadline: Deadline,
    act: Callable[[Grafana], T],
    *,
    org: int | None = None,
) -> T:
    """What `act` returns. Raises Answered; LoginRefused where this login itself is refused."""
    who = _credential(asker, credentials)
    key = hashlib.sha256(f"{where.base} {who.header}".encode()).digest()
    with _lock:
        waits = _refused_until_s.get(key, 0.0) > time.monotonic()
    if waits:
        raise login_refused(where.host, who.name)
    try:
        with Grafana(where, who, deadline, org) as server:
            return act(server)
    except LoginRefused:
        if who.name is not None:
            with _lock:
                _refused_until_s[key] = time.monotonic() + LOCKED_FOR.total_seconds()
        raise


def _credential(asker: ByPassword | Asker, credentials: Credentials) -> Credential:
    if isinstance(asker, Asker) and asker.token is not None:
        return by_token(_value(asker.token, credentials))
    if asker.username is None or asker.password is None:
        raise ConfigurationInvalid("Grafana is asked with `username` and `password`, or with `token`")
    return by_password(asker.username, _value(asker.password, credentials))


def _value(reference: Reference, credentials: Credentials) -> SecretBytes:
    fields = credentials.resolve(reference)
    value = fields[main_field(set(fields) - {"username"})]
    if not value.reveal():
        raise ConfigurationInvalid("the reference to Grafana's credential leads to an empty value")
    return value
