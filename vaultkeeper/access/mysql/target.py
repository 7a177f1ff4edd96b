"""What the targets `mariadb` and `mysql` do alike: log in, find the account of a version, count and end sessions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import ClassVar

from vaultkeeper.access import accounts, refused
from vaultkeeper.access.kept import Kept
from vaultkeeper.access.mysql import Denial, LoginFailed, ReplyLost, Session, StatementFailed, connect, people
from vaultkeeper.access.mysql.people import Account
from vaultkeeper.access.mysql.settings import AccountSettings, Admin
from vaultkeeper.errors import BackendError, ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Done, Finding, Login, No, Refused, Result, Unknown, Usage
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, main_field
from vaultkeeper.ports import Context

CONTROL_CHARACTERS = frozenset(map(chr, [*range(32), 127]))  # option files of clients cannot carry them
MAX_BYTES = 255  # caching_sha2_password takes 256 with its end: sql/auth/sha2_password_common.h
_ALONE_S = 5
_UNFIT = {1819, 3638}  # validate_password, password_history
_SAYS_CURRENT, _NEED_NOT = 3892, "PASSWORD REQUIRE CURRENT OPTIONAL"
_PASSING = {1040, 1205, 1206, 1213, 1637, 1969, 3024}  # full, or waited too long for a lock


class Accounts:
    """Accounts of one server. A back end adds how it reads and writes what they accept."""

    kind: ClassVar[str]
    is_mariadb: ClassVar[bool]
    kills: ClassVar[str]  #: the privilege to end other people's sessions

    def __init__(self, settings: AccountSettings) -> None:
        self.settings = settings
        self._admin: Kept[Session] | None = None

    def close(self) -> None:
        kept, self._admin = self._admin, None
        if kept is not None:
            kept.leave()

    def system(self) -> str:
        return str(self.settings.address)

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return username(version), str(self.settings.address)

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    # ------------------------------------------------------------------------------------------------------- versions

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Adds `username`. Raises ConfigurationInvalid where it is none of the policy's, or is not told."""
        name = accounts.name_of(given, self.settings, ctx, adopting=adopting)
        return {**given, "username": SecretBytes(name.encode())}

    def _rows_of(self, name: str) -> list[Account]:
        return [Account(name, host) for host in self.settings.hosts]

    # ---------------------------------------------------------------------------------------------------------- logins

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """Raises LoginFailed where the server or the account cannot be used like this (TLS, an expired password)."""
        try:
            self._login(version, ctx, runs=False).end()
        except LoginFailed as error:
            if error.denial is Denial.CONFIGURATION:
                raise
            return Login(error.denial.value)
        return Login.ACCEPTED

    @property
    def _is_self(self) -> bool:
        return self.settings.admin == "self"

    def _until_s(self, ctx: Context) -> float:
        return min(ctx.deadline.at_monotonic_s, time.monotonic() + self.settings.timeout)

    def _login(self, version: SecretVersion, ctx: Context, *, runs: bool) -> Session:
        return self._connect(username(version), password(version.fields), self._until_s(ctx), runs=runs)

    def _connect(self, name: str, value: str, until_s: float, *, runs: bool) -> Session:
        limit_s = max((until_s - time.monotonic()) * 0.8, 1)  # a wait for somebody's lock ends in a definite answer

        def prepare(is_mariadb: bool) -> str:  # noqa: FBT001 - as `connect` calls it
            limit = f"max_statement_time = {limit_s:.1f}" if is_mariadb else f"lock_wait_timeout = {limit_s:.0f}"
            return f"SET NAMES utf8mb4, SESSION sql_mode = '', SESSION autocommit = 1, SESSION {limit}"

        address = self.settings.address
        return connect(address, username=name, password=value, until_s=until_s, prepare=prepare if runs else None)

    def _session(self, ctx: Context) -> AbstractContextManager[Session]:
        """As the admin; with `admin: self` as PENDING, then CURRENT.

        Raises LoginFailed, NotAuthorised where that is rejected, ConfigurationInvalid where it is the other system.
        """
        admin = self.settings.admin

        def make() -> Session:
            made = self._admin_session(admin, ctx) if isinstance(admin, Admin) else self._own_session(ctx)
            return self._of_this_kind(made)

        if self._admin is None:
            whose = admin.model_dump_json() if isinstance(admin, Admin) else object()  # its own, and nobody else's
            self._admin = Kept.join((self.kind, self.settings.address, whose))
        return self._admin.borrow(self._until_s(ctx), make)

    def _admin_session(self, admin: Admin, ctx: Context) -> Session:
        given = password(ctx.credentials.resolve(admin.password))

        def log_in() -> Session:
            try:
                return self._connect(admin.username, given, self._until_s(ctx), runs=True)
            except LoginFailed as error:
                if error.denial is Denial.REJECTED:
                    raise NotAuthorised(error.what, why=error.why or "it is the policy's `admin`") from None
                raise

        return refused.once(self.settings.address, admin.username, given.encode(), log_in)

    def _own_session(self, ctx: Context) -> Session:
        for version in (ctx.pending, ctx.current):
            if version is None:
                continue
            try:
                return self._login(version, ctx, runs=True)
            except LoginFailed as error:
                if error.denial is not Denial.REJECTED:
                    raise
        raise NotAuthorised(
            f"{self.settings.user} cannot log in to change its own password",
            why="neither the pending nor the current version is accepted",
            next="vaultkeeper adopt with the password that works",
        )

    def _of_this_kind(self, session: Session) -> Session:
        if session.is_mariadb != self.is_mariadb:
            session.end()
            is_it, say = ("MariaDB", "mariadb") if session.is_mariadb else ("MySQL", "mysql")
            raise ConfigurationInvalid(f"the server at {self.settings.address} is {is_it}", next=f"say kind: {say}")
        return session

    @contextmanager
    def _alone(self, ctx: Context) -> Iterator[Session]:
        """A session that nobody else of ours shares these accounts with, an abandoned one or a lost reply included.

        Raises StatementFailed(1205) where somebody holds them. The lock ends with its session.
        https://dev.mysql.com/doc/refman/8.4/en/locking-functions.html
        """
        with self._session(ctx) as session:
            mark = hashlib.sha256(repr(sorted(self.settings.accounts)).encode()).hexdigest()[:32]
            name = session.literal(f"vaultkeeper {mark}")
            wait_s = max(int(min(session.left_s / 2, _ALONE_S)), 1)  # MySQL takes whole seconds only
            if session.rows(f"SELECT GET_LOCK({name}, {wait_s})")[0][0] != 1:
                raise StatementFailed(1205)
            yield session
            session.rows(f"DO RELEASE_LOCK({name})")

    # --------------------------------------------------------------------------------------------------------- looking

    def check(self, ctx: Context) -> Sequence[Finding]:
        if self._is_self and ctx.current is None:
            return [Finding("unchecked", "with `admin: self` there is nobody to log in as before the first version")]
        try:
            with self._session(ctx) as session:
                return list(self._findings(session, ctx))
        except LoginFailed as error:
            passing = error.denial in (Denial.UNREACHABLE, Denial.THROTTLED)
            return [Finding("unchecked" if passing else "refuse", str(error), error.next)]
        except (NotAuthorised, ConfigurationInvalid) as error:
            return [Finding("refuse", str(error), error.next)]
        except (ReplyLost, StatementFailed) as error:
            return [Finding("unchecked", str(error), error.next)]

    def _findings(self, session: Session, ctx: Context) -> Iterator[Finding]:
        raise NotImplementedError

    def _privileges(self, session: Session, *needs: tuple[str, str]) -> Iterator[Finding]:
        """A refusal for each (privilege, level) that the admin lacks, with the statement that grants it."""
        may = people.grants(session)
        closing = [("PROCESS", "*.*"), (self.kills, "*.*")] if self.settings.close_sessions else []
        for privilege, level in (*needs, *closing):
            if not may.has(privilege, level):
                what = f"{may.grantee} lacks {privilege} ON {level}"
                yield Finding("refuse", what, may.statement(privilege, level=level))
        if not closing and not may.has("PROCESS"):
            text = "without PROCESS nobody's sessions are seen: grace alone decides when the old value goes"
            yield Finding("warn", text, may.statement("PROCESS"))

    # --------------------------------------------------------------------------------------------------------- writing

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """What is so already is not written again."""
        if any("\0" in password(version.fields) for version in accept):
            return Refused(No.VALUE, "a client cannot say a password with NUL in it")
        try:
            with self._alone(ctx) as session:
                if self._is_self:
                    return self._set_own(session, accept, refuse, ctx)
                return self._set(session, accept, refuse)
        except StatementFailed as error:
            return refusal(error, " and ".join(self.settings.accounts))
        except BackendError as error:
            return unknown(error)

    def _set(self, session: Session, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion]) -> Result:
        """As the admin."""
        raise NotImplementedError

    def _set_own(
        self, session: Session, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context
    ) -> Result:
        """As the account itself."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------------- sessions

    def usage(self, version: SecretVersion, since: datetime, ctx: Context) -> Usage | Unknown:
        """Alternating: every session of the account. Otherwise those that began before the newer version was made.

        Of the others nobody can say which value they came with. Without PROCESS nobody's sessions are seen.
        """
        name = username(version)
        try:
            with self._session(ctx) as session:
                if not (self._is_self or people.grants(session).has("PROCESS")):
                    return Usage(in_use=None)
                found = people.connected(session, name)
        except BackendError as error:
            return unknown(error)
        if not found or self.settings.users is not None:
            return Usage(in_use=bool(found), holders=people.holders(found, name))
        newer = [v for v in (ctx.pending, ctx.current) if v is not None and v.number > version.number]
        old = people.began_before(found, datetime.now(UTC) - newer[0].created_at) if newer else []
        return Usage(in_use=True if old else None, holders=people.holders(old, name))

    def disconnect(self, version: SecretVersion, ctx: Context) -> Result:
        """End the account's sessions, also those of a newer value, which log in again. None left is Done."""
        name = username(version)
        try:
            with self._session(ctx) as session:
                may = people.grants(session)
                if not (self._is_self or may.has("PROCESS")):
                    return Refused(No.PRIVILEGE, f"the admin sees no sessions: {may.statement('PROCESS')}")
                if not people.end_sessions(session, people.connected(session, name)):
                    needed = "SYSTEM_USER" if may.has(self.kills) else self.kills
                    return Refused(No.PRIVILEGE, f"the admin may not end sessions: {may.statement(needed)}")
        except BackendError as error:
            return unknown(error)
        return Done()


def username(version: SecretVersion) -> str:
    """Whose password it is."""
    return version.fields["username"].text()


def password(fields: Fields) -> str:
    """The value itself."""
    return fields[main_field(set(fields) - {"username", "verifier"})].text()


def unknown(error: BackendError) -> Unknown:
    """What passes by itself. Raises the others again: wrong settings are for a person."""
    if isinstance(error, LoginFailed) and error.denial is Denial.THROTTLED:
        return Unknown(Login.THROTTLED, f"{error} ({error.next})")
    if isinstance(error, LoginFailed) and error.denial is not Denial.UNREACHABLE:
        raise error
    if isinstance(error, StatementFailed) and error.number not in _PASSING:
        raise error
    return Unknown(Login.UNREACHABLE, str(error))


def refusal(error: StatementFailed, what: str) -> Refused:
    """What a failed statement means: it changed nothing."""
    if error.number in _PASSING:
        return Refused(No.CONFLICT, f"somebody else is changing {what} (error {error.number})")
    if error.number in _UNFIT:
        return Refused(No.VALUE, f"the server's rules for passwords refuse this one for {what} (error {error.number})")
    if error.number == _SAYS_CURRENT:
        return Refused(No.UNSUPPORTED, f"{what} must say its current password: ALTER USER … {_NEED_NOT}")
    return Refused(
        No.UNSUPPORTED, f"the server refused to change {what} (error {error.number}); vaultkeeper check may say why"
    )
