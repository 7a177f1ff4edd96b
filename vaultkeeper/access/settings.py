"""Types that the settings of several kinds share. A settings document holds JSON types only."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from vaultkeeper.access.files import Owner, Snapshot
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model import duration

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _path(text: str, info: ValidationInfo) -> str:
    if not text or _CONTROL.search(text) or text.endswith("/"):
        raise ValueError("expected the path of a file")
    base = (info.context or {}).get("base")
    return os.path.normpath(os.path.join(base, text)) if base and not os.path.isabs(text) else text


def _mode(text: str) -> str:
    if not re.fullmatch(r"0?[0-7][0-7][0145]", text):
        raise ValueError('expected an octal mode in quotes, "0400" for example, that lets nobody else write')
    return text


def _argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not os.path.isabs(argv[0]):
        raise ValueError("a command begins with the absolute path of its program; no shell reads it")
    if any("\0" in word for word in argv):
        raise ValueError("a command holds no NUL")
    return argv


def _off(value: object) -> object:
    return "off" if value is False else value


def _seconds(value: object) -> object:
    return duration.parse(value).total_seconds() if isinstance(value, str) else value


def judge_accounts(user: str | None, users: tuple[str, str] | None, strategy: str = "single") -> None:
    """Raises ValueError unless it is one account, for `strategy`, or two that take turns."""
    if (user is None) == (users is None):
        raise ValueError(f"give `user` (strategy {strategy}) or `users` (alternating_users)")
    if users and users[0] == users[1]:
        raise ValueError("`users` must be two different accounts")


def host_of(url: str) -> str:
    """Host and port of a URL, as `host:port`: the address that a failed login is charged to."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def judge_url(url: str) -> str:
    """`url` itself if it is one that may stand in a policy. Raises ValueError."""
    parts = urlsplit(url)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("expected ASCII without blanks; percent-encode the rest")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected http://… or https://… with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a login in it would be shown in logs; name a credential instead")
    _ = parts.port  # raises ValueError for one that is no number up to 65535
    return url


OFF = BeforeValidator(_off)
"""For `off`: YAML 1.1 makes false of it where it stands without quotes."""

Seconds = Annotated[float, BeforeValidator(_seconds)]
"""A time in seconds, or a duration such as `10s`."""

PolicyPath = Annotated[str, AfterValidator(_path)]
"""A file. A relative one counts from `base` of the validation context (the policy file's folder)."""

Argv = Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(_argv)]
"""An argument list."""

Url = Annotated[str, AfterValidator(judge_url)]
"""An http or https URL without a login in it."""

Mode = Annotated[str, AfterValidator(_mode)]
"""Permission bits, in quotes: "0400"."""

OwnerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$")]
"""A user, or user:group; names or numbers."""

Reference = dict[str, Any]
"""Where a credential is found: {file: PATH}, {secret: NAME}, {vault: PATH, field: F, …}; never the credential."""

Codes = Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
"""HTTP status codes."""


class Verbatim:
    """Marks a field that holds a document of another system: nothing in it is a reference or a path."""


class Shape(BaseModel):
    """What every settings class is: frozen, and strict about unknown keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Authority(Shape):
    """An authority of one's own."""

    ca: PolicyPath = Field(description="PEM file of the authority that signed the server's certificate")


class Written(Shape):
    """Mode and owner of a written file."""

    mode: Mode | None = Field(default=None, description="octal, in quotes; default: the file's own, 0600 for a new one")
    owner: OwnerName | None = Field(default=None, description="user or user:group; default: the file's own")

    def mode_bits(self) -> int | None:
        return int(self.mode, 8) if self.mode else None

    def owner_ids(self) -> Owner | None:
        """Raises ConfigurationInvalid for a name that this machine does not know."""
        if self.owner is None:
            return None
        user, _, group = self.owner.partition(":")
        try:
            uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
            gid = -1 if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigurationInvalid(f"owner {self.owner!r}: this machine knows no such user or group") from None
        return Owner(uid, gid)

    def dressed(self, was: Snapshot) -> bool:
        """Whether an existing file has the mode and owner that the policy asks for."""
        owner, mode = self.owner_ids() or Owner(), self.mode_bits()
        return mode in (None, was.mode) and owner.uid in (-1, was.owner.uid) and owner.gid in (-1, was.owner.gid)


class Command(Shape):
    """A program of the user's. It never gets a value as an argument."""

    command: Argv


class Signal(Shape):
    """A signal to the process whose number a file holds."""

    signal: Literal["HUP", "INT", "TERM", "USR1", "USR2", "WINCH"]
    pid_file: PolicyPath


class HttpCheck(Shape):
    """A request that succeeds while the consumer is healthy."""

    http: Url
    method: Literal["GET", "HEAD"] = "GET"
    accepted: Codes = (200, 204)
    ca: PolicyPath | None = Field(default=None, description="CA certificates to trust instead of the system's, PEM")


class Consumers(Shape):
    """Who reads a place, as far as the policy says."""

    reload: Literal["none"] | Signal | Command = Field(default="none", description="how consumers read it again")
    confirm: HttpCheck | Command | None = Field(default=None, description="how to see that they run on it")


class Consumed(Written, Consumers):
    """A written file with consumers."""
