"""A login at Vault or OpenBao, lent to one call at a time, and ended: what vaultkeeper obtained, it revokes.

A token that a policy refers to is renewed in its second half and never revoked, because it is not ours. A login by
AppRole is made once for a rotation and kept for the calls after it; its token is revoked when the rotation sleeps or
ends (`end`), or after `KEPT_S` of idleness at the next call, or as the process ends. A wrapped secret id is unwrapped
once, and then remembered by this process only.

Needs: AppRole login, `auth/token/lookup-self`, `renew-self` and `revoke-self`, which the policy `default` allows.
https://openbao.org/api-docs/auth/approle/, https://openbao.org/api-docs/auth/token/
"""

from __future__ import annotations

import atexit
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from vaultkeeper.access.vault.errors import LoginLocked, PermissionDenied, TokenDead, Unanswered, VaultError
from vaultkeeper.access.vault.settings import Auth, VaultSettings
from vaultkeeper.errors import BackendError
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.ports import Credentials, Deadline

if TYPE_CHECKING:
    from vaultkeeper.access.vault.transport import Transport

T = TypeVar("T")

KEPT_S = 30.0
"""How long a login may lie idle between two calls of a rotation."""

FAREWELL_S = 3.0
"""How long revoking may take: it never holds up what is done."""

LEAST_LEFT_S = 5.0
"""A token that lives no longer is replaced before it is used."""


@dataclass
class Login:
    """A token at a server, used by one call at a time."""

    settings: VaultSettings
    transport: Transport
    ours: bool = False  #: we logged in, so we revoke
    dies_at_s: float = float("inf")  #: on the monotonic clock
    renew_at_s: float = float("inf")
    idle_since_s: float = 0.0

    def renew(self) -> None:
        """Where half of its life is over. A token that may not renew itself serves until it ends. Raises VaultError."""
        if time.monotonic() < self.renew_at_s:
            return
        from hvac.api.auth_methods import Token

        try:
            self.learn(Token(self.transport).renew_self().get("auth") or {})
        except PermissionDenied:
            self.renew_at_s = float("inf")

    def learn(self, auth: Mapping[str, Any]) -> None:
        """At its longest possible life a token is given less than was asked, and in the end nothing more."""
        now, lives_s = time.monotonic(), float(auth.get("lease_duration") or 0)
        if lives_s > 0:
            self.dies_at_s = now + lives_s
            self.renew_at_s = now + lives_s / 2 if auth.get("renewable") else float("inf")

    @property
    def usable(self) -> bool:
        now = time.monotonic()
        return now - self.idle_since_s < KEPT_S and self.dies_at_s - now > LEAST_LEFT_S

    def end(self) -> None:
        """Revoke what is ours. Whatever goes wrong, the token's own time ends it."""
        if self.ours:
            from hvac.api.auth_methods import Token

            self.transport.deadline = Deadline(time.monotonic() + FAREWELL_S)
            with suppress(BackendError):
                Token(self.transport).revoke_self()
        self.transport.token = ""
        self.transport.close()


@dataclass
class Logins:
    """Those that lie idle, by server and references."""

    _idle: dict[str, list[Login]] = field(default_factory=dict)
    _unwrapped: dict[str, SecretBytes] = field(default_factory=dict)  #: by the hash of the wrapping token
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, settings: VaultSettings) -> Login | None:
        """One that lies idle and lives on; the others are ended."""
        while True:
            with self._lock:
                idle = self._idle.get(settings.model_dump_json())
                login = idle.pop() if idle else None
            if login is None or login.usable:
                return login
            login.end()

    def keep(self, login: Login) -> None:
        login.idle_since_s = time.monotonic()
        with self._lock:
            self._idle.setdefault(login.settings.model_dump_json(), []).append(login)

    def end(self) -> None:
        """All that lie idle. Idempotent."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for logins in idle.values():
            for login in logins:
                login.end()

    def secret_id(self, wrapping: SecretBytes, unwrap: Callable[[], SecretBytes]) -> SecretBytes:
        """Unwrapped now or earlier. Raises what `unwrap` raises."""
        key = hashlib.sha256(wrapping.reveal()).hexdigest()
        with self._lock:
            if key not in self._unwrapped:
                self._unwrapped[key] = unwrap()
            return self._unwrapped[key]


_LOGINS = Logins()
atexit.register(_LOGINS.end)


def end() -> None:
    """End every login that nobody uses now. For `Closes`."""
    _LOGINS.end()


def ask(settings: VaultSettings, credentials: Credentials, deadline: Deadline, act: Callable[[Transport], T]) -> T:
    """`act` with a transport that is logged in; once more with a new login where the old one was ended meanwhile.

    A dead token means that nothing was done; a reference to one is read again, as it may lead to a new one by now.
    Raises VaultError, and what resolving a reference raises.
    """
    connection = settings.connection()
    with suppress(TokenDead), _lent(connection, credentials, deadline) as login:
        return _guarded(login, act)
    with _lent(connection, credentials, deadline, anew=True) as login:
        return _guarded(login, act)


@contextmanager
def _lent(
    settings: VaultSettings, credentials: Credentials, deadline: Deadline, *, anew: bool = False
) -> Iterator[Login]:
    """Kept again only after a call that ended well, or was refused: after anything else its connection is in doubt."""
    login = None if anew else _LOGINS.take(settings)
    if login is None:
        login = _logged_in(settings, credentials, deadline)
    login.transport.deadline = deadline
    try:
        login.renew()
        yield login
    except TokenDead:
        login.ours = False  # nothing is left to revoke
        login.end()
        raise
    except Unanswered:
        login.transport.close()
        _LOGINS.keep(login)
        raise
    except VaultError:
        _LOGINS.keep(login)
        raise
    except BaseException:
        login.end()
        raise
    _LOGINS.keep(login)


def _guarded(login: Login, act: Callable[[Transport], T]) -> T:
    """What hvac complains of itself may quote what it was given."""
    from hvac import exceptions

    try:
        return act(login.transport)
    except exceptions.VaultError as error:
        raise Unanswered(f"hvac: {type(error).__name__}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unanswered(
            f"{login.settings.url}: an answer of another shape ({type(error).__name__})",
            next="is it Vault or OpenBao that answers there?",
        ) from None


# ---------------------------------------------------------------------------------------------------------- logging in


def _logged_in(settings: VaultSettings, credentials: Credentials, deadline: Deadline) -> Login:
    from vaultkeeper.access.vault.transport import Transport

    login = Login(settings, Transport(settings))
    login.transport.deadline = deadline
    login.idle_since_s = time.monotonic()
    try:
        if settings.auth.token is not None:
            _by_token(login, _resolved(settings.auth.token, credentials))
        else:
            _by_role(login, settings.auth, credentials)
    except BaseException:
        login.transport.close()
        raise
    return login


def _by_token(login: Login, token: SecretBytes) -> None:
    """The server is asked how long it lives; a policy without that right means that it is not renewed."""
    from hvac.api.auth_methods import Token

    login.transport.token = _header(token)
    with suppress(PermissionDenied):
        told = _guarded(login, lambda transport: Token(transport).lookup_self()["data"])
        if told.get("ttl"):
            login.learn({"lease_duration": told["ttl"], "renewable": told.get("renewable")})
            if told["ttl"] < (told.get("creation_ttl") or 0) / 2 and told.get("renewable"):
                login.renew_at_s = 0.0


def _by_role(login: Login, auth: Auth, credentials: Credentials) -> None:
    role_id = _resolved(auth.role_id or {}, credentials).text()
    if auth.secret_id is not None:
        secret_id = _resolved(auth.secret_id, credentials)
    else:
        wrapping = _resolved(auth.wrapped_secret_id or {}, credentials)
        secret_id = _LOGINS.secret_id(wrapping, lambda: _guarded(login, lambda at: unwrapped(at, auth, wrapping)))
    answer = log_in(login, auth.mount, role_id, secret_id)
    login.transport.token = answer["client_token"]
    login.ours = True
    login.learn(answer)


def log_in(login: Login, mount: str, role_id: str, secret_id: SecretBytes) -> Mapping[str, Any]:
    """One login by AppRole, whose answer's `auth` this is. Raises LoginRefused and LoginLocked beside others."""
    from hvac.api.auth_methods import AppRole

    def act(transport: Transport) -> Mapping[str, Any]:
        told = AppRole(transport).login(role_id, secret_id.text(), use_token=False, mount_point=mount)["auth"]
        if not isinstance(told["client_token"], str):
            raise TypeError
        found: Mapping[str, Any] = told
        return found

    try:
        return _guarded(login, act)
    except (TokenDead, PermissionDenied):
        raise LoginLocked(
            f"{login.settings.url}: logins of this role are locked after too many failures, or not allowed from here",
            next="wait 15 minutes   or   bao write -f sys/locked-users/ACCESSOR/unlock/ROLE_ID",
        ) from None


def unwrapped(transport: Transport, auth: Auth, wrapping: SecretBytes) -> SecretBytes:
    """The secret id of a wrapping token, once it is sure that it was made as one. Raises VaultError."""
    from hvac.api.system_backend import Wrapping

    token = _header(wrapping)
    made_at = transport.post("/v1/sys/wrapping/lookup", json={"token": token})["data"]["creation_path"]
    parts = str(made_at).split("/")
    if parts[:-3] != ["auth", *auth.mount.split("/")] or parts[-3] != "role" or parts[-1] not in _WRAPS:
        raise VaultError(
            "the wrapping token holds no secret id of this AppRole mount",
            next="somebody may have replaced it: find out who wrote it, and issue a new one",
        )
    transport.token = token  # the server takes it as the caller's own only
    try:
        return SecretBytes(Wrapping(transport).unwrap()["data"]["secret_id"].encode())
    finally:
        transport.token = ""


_WRAPS = ("secret-id", "custom-secret-id")


def _header(token: SecretBytes) -> str:
    """Raises VaultError for what no header carries."""
    text = token.text() if token.is_text() else ""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise VaultError("a token in `auth` is no token: expected printable ASCII")
    return text


def _resolved(reference: Mapping[str, Any], credentials: Credentials) -> SecretBytes:
    fields = credentials.resolve(reference)
    if "value" not in fields:
        raise BackendError("a reference in `auth` names a secret with several fields", next="add `field: NAME`")
    return fields["value"]
