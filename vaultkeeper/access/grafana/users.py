"""Users of Grafana and their passwords: looking one up, logging in as one, changing its password."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vaultkeeper.access.answer import refused
from vaultkeeper.access.grafana import Connection, Grafana, by_password, path_of
from vaultkeeper.access.grafana.errors import LoginRefused, Misunderstood, NotThere
from vaultkeeper.model.outcome import Done, No, Refused, Result
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.ports import Deadline

SHORTEST = 4
"""Bytes of a password, whatever is configured."""

_WISHES = "its password_policy, where that is on, wants 12 characters with upper, lower, a digit and a symbol"


@dataclass(frozen=True)
class User:
    """What an admin is told of a user."""

    id: int
    email: str
    external: bool  #: another system (LDAP, OAuth) checks the password
    disabled: bool


def looked_up(server: Grafana, login: str) -> User | None:
    """None: nobody has that login name. Raises GrafanaError."""
    try:
        found = server.get("/api/users/lookup", loginOrEmail=login)
    except NotThere:
        return None
    if not isinstance(found, dict) or str(found.get("login", "")).lower() != login.lower():
        return None  # somebody's e-mail address
    return User(
        int(found["id"]), str(found.get("email", "")), bool(found.get("isExternal")), bool(found.get("isDisabled"))
    )


@dataclass(frozen=True)
class Configuration:
    """Grafana's own settings, as `/api/admin/settings` tells them. Every value is text."""

    sections: Mapping[str, Any]

    @classmethod
    def of(cls, server: Grafana) -> Configuration:
        found = server.get("/api/admin/settings")
        return cls(found if isinstance(found, dict) else {})

    def value(self, section: str, key: str) -> str:
        """Empty where it is not told."""
        return str((self.sections.get(section) or {}).get(key, ""))


@dataclass(frozen=True)
class Account:
    """One user, by its login name, as itself."""

    where: Connection
    login: str
    deadline: Deadline

    def accepts(self, name: str, password: SecretBytes) -> bool:
        """One login under `name`, the login name or the e-mail address. False may mean that `name` is locked.

        Raises Answered where it was neither let in nor refused, or where `name` is somebody else's.
        """
        try:
            with Grafana(self.where, by_password(name, password), self.deadline) as server:
                found = str(server.me()["login"])
        except LoginRefused:
            return False
        if found.lower() != self.login.lower():
            raise refused(No.UNSUPPORTED, f"{name} is another user, {found}", next="correct `email`")
        return True

    def change(self, name: str, old: SecretBytes, new: SecretBytes) -> Result:
        """Compare-and-set, logged in under `name` with `old`. Raises LoginRefused where that is refused."""
        body = {"oldPassword": old.text(), "newPassword": new.text()}
        try:
            with Grafana(self.where, by_password(name, old), self.deadline) as server:
                server.call("PUT", "/api/user/password", body)
        except Misunderstood as error:
            if error.message_id == "user.password-missmatch":
                return Refused(No.CONFLICT, "somebody else changed the password meanwhile")
            if error.message_id.startswith("password.password-policy"):
                return Refused(No.VALUE, f"Grafana does not take this password: {_WISHES}")
            raise
        return Done()


def overwrite(server: Grafana, user: User, password: SecretBytes) -> None:
    """As a server admin. Ends the user's sessions, and frees its login name. Raises GrafanaError.

    ServerFailed may mean that the password policy refuses the password.
    """
    server.call("PUT", path_of("admin", "users", user.id, "password"), {"password": password.text()})


def unwelcome(password: SecretBytes) -> Refused | None:
    """Why Grafana's password policy would refuse it; None: it would not."""
    text = password.text()
    classes = (string.ascii_uppercase, string.ascii_lowercase, string.digits)
    plain = all(any(character in members for character in text) for members in classes)
    if len(text) >= 12 and plain and not text.isalnum():
        return None
    return Refused(No.VALUE, f"Grafana does not take this password: {_WISHES}")
