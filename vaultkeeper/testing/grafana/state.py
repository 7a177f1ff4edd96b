"""What the simulated Grafana holds: the clock, users, service accounts, tokens, data sources and its own settings."""

from __future__ import annotations

import secrets
import string
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]
LogIn = Callable[[Mapping[str, Any], Mapping[str, str]], str | None]
"""A data source's settings and secrets → None where it lets us in, else what Grafana would say."""

WINDOW = timedelta(seconds=300)  # a failed login counts so long
USE_GRAIN = timedelta(minutes=5)  # a use sooner after the one before is not written down
GRANTS_SHOW_AFTER = timedelta(seconds=60)
_ALPHABET = string.ascii_lowercase + string.digits


def new_uid() -> str:
    """As Grafana makes them: short, a letter first."""
    return secrets.choice(string.ascii_lowercase) + "".join(secrets.choice(_ALPHABET) for _ in range(13))


def new_token() -> str:
    """Its last part is a checksum: a token without it is refused as malformed."""
    body = "glsa_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))
    return f"{body}_{zlib.crc32(body.encode()):08x}"


def well_formed(token: str) -> bool:
    """Has it its checksum?"""
    body, _, checksum = token.rpartition("_")
    return body.startswith("glsa_") and checksum == f"{zlib.crc32(body.encode()):08x}"


@dataclass
class User:
    """`roles`: organisation → role. `using`: the organisation that it looked at last."""

    id: int
    login: str
    email: str
    password: str = field(repr=False)
    is_admin: bool
    roles: dict[int, str]
    using: int = 1
    uid: str = field(default_factory=new_uid)
    disabled: bool = False
    external: bool = False
    sessions: dict[str, datetime] = field(default_factory=dict, repr=False)


@dataclass
class ServiceAccount:
    """`edits`: ids of accounts that it may edit; what it is seen to may is up to a minute older."""

    id: int
    name: str
    org: int
    role: str
    uid: str = field(default_factory=new_uid)
    disabled: bool = False
    edits: set[int] = field(default_factory=set)
    seen_edits: set[int] = field(default_factory=set)
    seen_at: datetime | None = None


@dataclass
class Token:
    """Of a service account. Expired ones stay, and keep their name."""

    id: int
    name: str
    account: int
    value: str = field(repr=False)
    created: datetime
    expires: datetime | None = None
    used_at: datetime | None = None


@dataclass
class Source:
    """`row` is what can be read, `secure` what cannot. By `updated`, in whole seconds, instances are told apart."""

    org: int
    row: Row
    secure: dict[str, str] = field(repr=False)
    updated: int = 0
    cached: tuple[datetime, Row, dict[str, str], int] | None = field(default=None, repr=False)
    instance: tuple[Row, dict[str, str], int] | None = field(default=None, repr=False)
    pooled: bool = False
    dropped: bool = False  #: its database ended the pool's connections


def _settings() -> dict[str, dict[str, str]]:
    """As `/api/admin/settings` tells them, cut to what matters here."""
    return {
        "security": {
            "admin_user": "admin",
            "brute_force_login_protection_max_attempts": "5",
            "disable_brute_force_login_protection": "false",
            "disable_ip_address_login_protection": "true",
            "disable_username_login_protection": "false",
        },
        "auth.basic": {"enabled": "true", "password_policy": "false"},
        "auth.anonymous": {"enabled": "false", "org_role": "Viewer"},
        "auth": {"disable_login_form": "false", "api_key_max_seconds_to_live": "-1"},
        "service_accounts": {"token_expiration_day_limit": "-1"},
    }


class State:
    """All of it, under one lock. The clock runs `speed` times as fast as ours."""

    def __init__(self, *, speed: float = 1.0, log_in: LogIn | None = None) -> None:
        self.lock = threading.RLock()
        self.log_in: LogIn = log_in or (lambda _row, _secure: None)
        self.settings = _settings()
        self.prefix = ""  #: served from a sub-path, too
        self.database_fails = False
        self.orgs: dict[int, str] = {1: "Main Org."}
        self.users: dict[int, User] = {}
        self.accounts: dict[int, ServiceAccount] = {}
        self.tokens: dict[int, Token] = {}
        self.sources: dict[str, Source] = {}
        self.failures: dict[str, list[datetime]] = {}  #: lower-cased name → failed logins
        self._speed, self._began, self._ahead = speed, time.monotonic(), timedelta(0)
        self._start = datetime.now(UTC)
        self._last_id = {"person": 0, "token": 0, "source": 0}
        self.admin = self.user("admin", "admin@localhost", is_admin=True)

    # ---------------------------------------------------------------------------------------------------------- time

    def now(self) -> datetime:
        return self._start + timedelta(seconds=(time.monotonic() - self._began) * self._speed) + self._ahead

    def advance(self, seconds: float) -> None:
        with self.lock:
            self._ahead += timedelta(seconds=seconds)

    def stamp(self, at: datetime | None = None) -> str:
        return (at or self.now()).strftime("%Y-%m-%dT%H:%M:%SZ")

    # ------------------------------------------------------------------------------------------------- making things

    def id_for(self, what: str) -> int:
        self._last_id[what] += 1
        return self._last_id[what]

    def org(self, name: str) -> int:
        number = max(self.orgs) + 1
        self.orgs[number] = name
        return number

    def user(self, login: str, email: str = "", *, is_admin: bool = False, role: str = "Viewer", org: int = 1) -> User:
        with self.lock:
            roles = {org: "Admin" if is_admin else role}
            made = User(self.id_for("person"), login, email, secrets.token_urlsafe(18), is_admin, roles, using=org)
            self.users[made.id] = made
            return made

    def account(self, name: str, role: str = "Viewer", org: int = 1) -> ServiceAccount:
        with self.lock:
            made = ServiceAccount(self.id_for("person"), name, org, role)
            self.accounts[made.id] = made
            return made

    def token(self, account: ServiceAccount, name: str, seconds: int | None = None) -> Token:
        with self.lock:
            expires = None if seconds is None else self.now() + timedelta(seconds=seconds)
            made = Token(self.id_for("token"), name, account.id, new_token(), self.now(), expires)
            self.tokens[made.id] = made
            return made

    def source(self, name: str, type_: str, secure: Mapping[str, str], *, org: int = 1, **row: object) -> Source:
        with self.lock:
            first = not any(known.org == org for known in self.sources.values())
            whole: Row = {"id": self.id_for("source"), "uid": new_uid(), "orgId": org, "name": name, "type": type_}
            whole |= {"access": "proxy", "url": "", "user": "", "database": "", "basicAuth": False}
            whole |= {"basicAuthUser": "", "withCredentials": False, "isDefault": first, "jsonData": {}}
            made = Source(org, whole | {"version": 1, "readOnly": False} | row, dict(secure))
            made.updated = int(self.now().timestamp())
            self.sources[made.row["uid"]] = made
            return made

    # ------------------------------------------------------------------------------------------------- failed logins

    def says(self, section: str, key: str, value: str = "true") -> bool:
        return self.settings[section].get(key) == value

    def failed(self, name: str) -> int:
        """How many failed logins of that name count now."""
        kept = [at for at in self.failures.get(name.lower(), []) if at > self.now() - WINDOW]
        self.failures[name.lower()] = kept
        return len(kept)

    def locked(self, name: str) -> bool:
        off = self.says("security", "disable_brute_force_login_protection") or self.says(
            "security", "disable_username_login_protection"
        )
        return not off and self.failed(name) >= self.most_failures

    def address_blocked(self) -> bool:
        """Everybody comes from one address here."""
        on = self.says("security", "disable_ip_address_login_protection", "false")
        return on and sum(self.failed(name) for name in list(self.failures)) >= self.most_failures

    @property
    def most_failures(self) -> int:
        return int(self.settings["security"]["brute_force_login_protection_max_attempts"])

    def fail(self, name: str) -> None:
        self.failures.setdefault(name.lower(), []).append(self.now())

    # ---------------------------------------------------------------------------------------------------------- looking

    def called(self, name: str) -> User | None:
        """By login name or e-mail address, without regard to case."""
        wanted = name.lower()
        by_login = (user for user in self.users.values() if user.login.lower() == wanted)
        by_email = (user for user in self.users.values() if user.email and user.email.lower() == wanted)
        return next(by_login, None) or next(by_email, None)

    def edits_of(self, account: ServiceAccount, *, fresh: bool = False) -> set[int]:
        """What it is seen to may edit: a grant shows after a minute, unless it is asked past the cache."""
        now = self.now()
        if fresh or account.seen_at is None or now - account.seen_at >= GRANTS_SHOW_AFTER:
            account.seen_edits, account.seen_at = set(account.edits), now
        return account.seen_edits
