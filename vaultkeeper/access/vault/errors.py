"""What Vault and OpenBao may answer instead of what was asked for, each an error of its own with the next step.

Texts of the server are compared and never quoted: some of them repeat what they were given. Tried on OpenBao 2.6.2.
Two kinds of 403 look alike: exactly `permission denied` means that the *token* is dead; `1 error occurred: …` that it
lives and its policy does not allow this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from vaultkeeper.access.answer import Answered
from vaultkeeper.model.outcome import Login, No, NotYet, Refused, Unknown

LAG = timedelta(seconds=1)
"""A standby answers reads from what it knew up to 0.25 s ago (three nodes, recorded)."""


class VaultError(Answered):
    """Root. A subclass says which of the two it is: definitely refused, or nothing known."""

    means: No | Login = Login.UNREACHABLE

    def __init__(self, what: str, *, next: str = "") -> None:  # noqa: A002 - as its base
        told = f"{what} ({next})" if next else what
        result = Refused(self.means, told) if isinstance(self.means, No) else Unknown(self.means, told)
        super().__init__(result, what, next=next)


class Unanswered(VaultError):
    """Nobody answered, or with something that tells nothing: the request may have been carried out."""


class Sealed(VaultError):
    """The server runs and cannot read its storage."""


class Standby(VaultError):
    """This node passes requests on by a redirect, which is never followed: it would carry the token elsewhere."""


class Throttled(VaultError):
    """Too many requests."""

    means = Login.THROTTLED


class TokenDead(VaultError):
    """The token is missing, wrong, expired, revoked or used up; nothing tells which."""

    means = No.PRIVILEGE


class PermissionDenied(VaultError):
    """The token lives, and its policy does not allow this. A missing mount looks the same to such a token."""

    means = No.PRIVILEGE


class LoginRefused(VaultError):
    """Role id or secret id are wrong, or the secret id is expired or used up."""

    means = No.PRIVILEGE


class LoginLocked(VaultError):
    """Too many failed logins of this role: even the right secret id is refused for a while."""

    means = Login.THROTTLED


class WrappingInvalid(VaultError):
    """The wrapping token was used before, has expired, or never was one."""

    means = No.PRIVILEGE


class MissingMount(VaultError):
    """Nothing is mounted there."""

    means = No.UNSUPPORTED


class MissingNamespace(VaultError):
    """There is no such namespace."""

    means = No.UNSUPPORTED


class NotVersioned(VaultError):
    """The mount is no key-value store of version 2."""

    means = No.UNSUPPORTED


class NotThere(VaultError):
    """Never written, pruned, or deleted with its metadata: one answer for all of them."""

    means = No.UNSUPPORTED


class Deleted(VaultError):
    """The version was deleted or destroyed. `version` counts for compare-and-set all the same."""

    means = No.UNSUPPORTED

    def __init__(self, what: str, *, next: str, version: int, destroyed: bool) -> None:  # noqa: A002 - as its base
        super().__init__(what, next=next)
        self.version = version
        self.destroyed = destroyed


class CasMismatch(VaultError):
    """Somebody wrote in between; or our own write, whose answer was lost; or a standby that lags behind."""

    means = No.CONFLICT


class Lagging(VaultError):
    """A standby shows an older version than was written a moment ago, and will not for long."""

    def __init__(self, what: str, *, next: str = "") -> None:  # noqa: A002 - as its base
        super().__init__(what, next=next)
        self.result = NotYet(what, LAG)


class TooLarge(VaultError):
    """More than the server takes."""

    means = No.VALUE


class Rejected(VaultError):
    """Any other 4xx. Its text is not shown."""

    means = No.UNSUPPORTED


CAS = "check-and-set parameter did not match the current version"
CAS_REQUIRED = "check-and-set parameter required for this call"
DEAD = ["permission denied"]
LOGIN = {"invalid role or secret ID", "missing secret_id", "missing role_id"}
WRAPPING = "wrapping token is not valid or does not exist"
_WHO = "is there a proxy or another program at this address?"


def judge(status: int, body: bytes, where: str, *, limit_bytes: int) -> Mapping[str, Any]:
    """The JSON document of a good answer, empty for 204. Raises VaultError; `where` names server and path."""
    if 200 <= status < 300:
        return _document(status, body, where, limit_bytes)
    if 300 <= status < 400:
        raise Standby(
            f"{where}: answered {status}, a redirect, which is never followed",
            next="give the `url` of the active node (`bao status` shows it), without a trailing slash",
        )
    document = _read(body)
    errors = document.get("errors")
    texts = [str(text) for text in errors] if isinstance(errors, list) else []
    if status == 404:
        raise _absent(document, texts, where)
    raise _refusal(status, texts, where)


def _document(status: int, body: bytes, where: str, limit_bytes: int) -> Mapping[str, Any]:
    if status == 204 or not body:
        return {}
    document = _read(body)
    if not document:
        what = f"more than {limit_bytes >> 20} MiB" if len(body) >= limit_bytes else "no JSON"
        raise Unanswered(f"{where}: the answer is {what}", next=_WHO)
    return document


def _read(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _absent(document: Mapping[str, Any], texts: list[str], where: str) -> VaultError:
    data = document.get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if isinstance(metadata, dict):
        version, destroyed = int(metadata.get("version") or 0), bool(metadata.get("destroyed"))
        how = "destroyed" if destroyed else "deleted"
        advice = "write it anew" if destroyed else f"bao kv undelete -versions={version} …   or write it anew"
        return Deleted(f"{where}: version {version} is {how}", next=advice, version=version, destroyed=destroyed)
    if any(text.startswith("no handler for route") for text in texts):
        return MissingMount(f"{where}: nothing is mounted there", next="correct `mount`   (bao secrets list)")
    if any("namespace not found" in text for text in texts):
        return MissingNamespace(f"{where}: there is no such namespace", next="correct `namespace`")
    if document.get("warnings"):
        return NotVersioned(
            f"{where}: this is no path of a key-value store of version 2", next="name a mount that is: bao secrets list"
        )
    if not isinstance(document.get("errors"), list):
        return Unanswered(f"{where}: answered 404 in words that are not the server's own", next=_WHO)
    return NotThere(f"{where}: there is nothing", next="correct the path, or write it first")


def _refusal(status: int, texts: list[str], where: str) -> VaultError:  # noqa: PLR0911 - one return a row
    if status == 403 and texts == DEAD:
        return TokenDead(
            f"{where}: the token is not valid (expired, revoked, used up or wrong)", next="give a new one in `auth`"
        )
    if status == 403:
        return PermissionDenied(
            f"{where}: the token's policy does not allow this, or there is no such mount",
            next="docs/how-to/vault.md lists what vaultkeeper needs",
        )
    if status == 400 and CAS in texts:
        return CasMismatch(f"{where}: somebody else wrote it meanwhile")
    if status == 400 and LOGIN & set(texts):
        return LoginRefused(
            f"{where}: role id and secret id are refused (wrong, expired or used up)", next="issue a new secret id"
        )
    if status == 400 and any(WRAPPING in text for text in texts):
        return WrappingInvalid(
            f"{where}: the wrapping token is spent or expired",
            next="if nobody of yours unwrapped it, the secret id may be stolen: destroy it, and issue a new one",
        )
    if status == 413:
        return TooLarge(f"{where}: the server takes no request as large as this")
    if status == 429:
        return Throttled(f"{where}: too many requests")
    if status == 503 and any("sealed" in text for text in texts):
        return Sealed(f"{where}: the server is sealed", next="unseal it   (bao operator unseal)")
    if status >= 500 or status in (408, 412, 472, 473):
        return Unanswered(f"{where}: answered {status}")
    return Rejected(f"{where}: answered {status}")
