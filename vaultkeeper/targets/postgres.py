"""PostgreSQL roles, versions 12 to 18: one account, two that take turns, or an account that changes its own password.

A password reaches the server only as a SCRAM-SHA-256 verifier that was made here once and is stored with the version,
so that every later set writes the same bytes. Who wrote last stands as a tag in the role's comment, changed in the
same transaction.

Privileges of the admin account: a superuser; or CREATEROLE and, from version 16, ADMIN OPTION on each account; or
three SECURITY DEFINER functions. `doctor_sql` prints the statements. With `admin: self` none.
https://www.postgresql.org/docs/current/sql-alterrole.html, auth-password.html, protocol-error-fields.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vaultkeeper.access import accounts, refused
from vaultkeeper.access import postgres as pg
from vaultkeeper.access.address import Address
from vaultkeeper.access.kept import Kept
from vaultkeeper.access.postgres import advice, roles
from vaultkeeper.access.settings import OFF, Authority, Seconds, Shape, judge_accounts
from vaultkeeper.errors import BackendError, ChecksNothing, ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import (
    Basis,
    Done,
    Finding,
    Login,
    No,
    Observation,
    Refused,
    Result,
    Tag,
    Unknown,
    Usage,
)
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context


def _account(name: str) -> str:
    if not 1 <= len(name.encode()) <= 63 or "\0" in name:
        raise ValueError("a PostgreSQL role name has 1 to 63 bytes")
    return name


Account = Annotated[str, BeforeValidator(lambda name: _account(name) if isinstance(name, str) else name)]


class Admin(Shape):
    """The account that changes the others."""

    username: Account = Field(description="its role name")
    password: dict[str, Any] = Field(description="a reference: {file: PATH}, {env: NAME}, {secret: NAME} …")
    database: str = Field(default="postgres", description="the database it logs in to")


class PostgresSettings(Shape):
    """What a policy says beside `kind: postgres`."""

    host: str = Field(min_length=1, description="a name, an IP address, or the absolute folder of a Unix socket")
    port: int = Field(default=5432, ge=1, le=65535)
    database: str = Field(default="postgres", min_length=1, description="where test logins go")
    user: Account | None = Field(default=None, description="the account of `strategy: single`")
    users: tuple[Account, Account] | None = Field(
        default=None, strict=False, description="the two of `alternating_users`"
    )
    admin: Admin | Literal["self"] = Field(description="who changes the password; `self`: the account itself")
    owner_role: Account | None = Field(
        default=None, description="the role that both users act as and that owns objects"
    )
    create_users: bool = Field(default=False, description="make a missing user, as a member of `owner_role`")
    retire_first_owner: Literal["keep", "nologin"] | None = Field(
        default=None, description="what becomes of the login of an account outside `users` that was adopted first"
    )
    tls: Annotated[Authority | Literal["off"] | None, OFF] = Field(
        default=None, description="default: verify-full, on loopback and Unix sockets none; there is no fallback"
    )
    timeout: Seconds = Field(default=10, gt=0, le=600, description="for one call of the server, in seconds or as `10s`")
    close_sessions: bool = Field(default=False, description="end sessions of the retired account")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        judge_accounts(self.user, self.users)
        if self.users and self.admin == "self":
            raise ValueError("`admin: self` changes its own account only: use `user` and `strategy: single`")
        if isinstance(self.admin, Admin) and self.admin.username in self.accounts:
            raise ValueError("an account that is its own admin needs `admin: self`")
        if self.owner_role in self.accounts:
            raise ValueError("`owner_role` is a role of its own, not one of the users")
        if self.create_users and self.users is None:
            raise ValueError("`create_users` goes with `users`")
        if isinstance(self.tls, Authority) and self.host.startswith("/"):
            raise ValueError("`tls` means nothing on a Unix socket")
        return self

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that the policy names."""
        return self.users or (self.user or "",)

    @property
    def address(self) -> Address:
        """Where the server is."""
        plain = Address(self.host, self.port, tls=False)
        if isinstance(self.tls, Authority):
            return Address(self.host, self.port, ca=self.tls.ca)
        return plain if self.tls == "off" or plain.is_local else Address(self.host, self.port)


class PostgresTarget:
    """Roles of one server."""

    kind: ClassVar[str] = "postgres"
    codec: ClassVar[int] = 1
    Settings: ClassVar[type[PostgresSettings]] = PostgresSettings
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.SINGLE, Strategy.ALTERNATING_USERS}),
        observes=frozenset({Basis.VERIFIER, Basis.LOGIN}),
        tags=True,
        fences=True,
        max_accepted=2,
        mutual=True,
        # SASLprep forbids them, and clients differ in what they do then (RFC 4013 section 2.3)
        forbidden=frozenset(map(chr, [*range(32), 127])),
    )

    def __init__(self, settings: PostgresSettings) -> None:
        self.settings = settings
        self._admin: Kept[pg.Session] | None = None

    def close(self) -> None:
        kept, self._admin = self._admin, None
        if kept is not None:
            kept.leave()

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of postgres have codec {codec}, this release knows {cls.codec}")
        return cls(PostgresSettings.model_validate(settings))

    @classmethod
    def doctor_sql(cls, settings: Mapping[str, object]) -> str:
        """The statements that make a least-privilege admin account for these settings, for a superuser to run."""
        asked = PostgresSettings.model_validate(settings)
        return advice.doctor_sql(_plan(asked))

    # ------------------------------------------------------------------------------------------------------ looking

    def check(self, ctx: Context) -> Sequence[Finding]:
        if self._is_self and ctx.current is None:
            return [Finding("unchecked", "with `admin: self` there is nobody to log in as before the first version")]
        try:
            with self._session(ctx) as session:
                findings = [*advice.findings(session, _plan(self.settings)), *self._taken(session, ctx)]
        except pg.LoginFailed as error:
            level = "unchecked" if error.denial is pg.Denial.UNREACHABLE else "refuse"
            return [Finding(level, str(error), error.next)]
        except NotAuthorised as error:
            return [Finding("refuse", str(error), error.next)]
        except (pg.ReplyLost, pg.StatementFailed) as error:
            return [Finding("unchecked", str(error), error.next)]
        first = _username(ctx.current) if ctx.current else None
        if first and self._is_first_owner(first) and self.settings.retire_first_owner is None:
            question = f"{first}, whose password is current, is none of `users`: what becomes of it after the change?"
            findings.append(Finding("refuse", question, "say retire_first_owner: keep, or nologin"))
        return findings

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Adds `username` and `verifier`; what was given stays, a verifier of another password excepted.

        Raises ConfigurationInvalid where an adopted value does not say whose it is.
        """
        name = accounts.name_of(given, self.settings, ctx, adopting=adopting, outsiders=True)
        password = _password(given)
        kept = given["verifier"].text() if "verifier" in given else ""
        verifier = kept if pg.is_scram(kept) and pg.matches(kept, password, name) else pg.encrypt(password, name)
        return {**given, "username": SecretBytes(name.encode()), "verifier": SecretBytes(verifier.encode())}

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By stored verifier where the admin may read it. Otherwise, and with `admin: self`, the engine logs in."""
        if self._is_self:
            return Observation({}, Basis.LOGIN)
        names = sorted({*self.settings.accounts, *map(_username, candidates)})
        try:
            with self._session(ctx) as session:
                state = roles.read(session, names)
        except BackendError as error:
            return _unknown(error)
        following = state.found.get(accounts.next_one(self.settings, ctx))
        tag, usable = state.tag, following is not None and following.usable
        stored = _stored_passwords(candidates, state)
        answers = {version.number: _stored_as(version, state, stored) for version in candidates}
        if not state.readable or None in answers.values():
            return Observation({}, Basis.LOGIN, tag=tag, account_usable=usable)
        accepted = {_username(v) for v in candidates if answers[v.number]}
        foreign = sum(role.usable and bool(role.stored) and name not in accepted for name, role in state.found.items())
        logins = {number: Login.ACCEPTED if yes else Login.REJECTED for number, yes in answers.items()}
        return Observation(logins, Basis.VERIFIER, tag=tag, foreign=foreign, account_usable=usable)

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return _username(version), str(self.settings.address)

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def system(self) -> str:
        return str(self.settings.address)

    def keeps(self, version: SecretVersion) -> bool:
        """Stays this version accepted on purpose, whatever `refuse` says? (`retire_first_owner: keep`)."""
        return self._left_alone(_username(version))

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """Raises ChecksNothing (trust, md5), LoginFailed where the server cannot be used like this (pg_hba, TLS)."""
        try:
            with self._login(version, ctx):
                return Login.ACCEPTED
        except pg.LoginFailed as error:
            if error.denial is pg.Denial.REJECTED:
                return Login.REJECTED
            if error.denial is pg.Denial.UNREACHABLE:
                return Login.UNREACHABLE
            if error.denial is pg.Denial.UNCHECKED:
                raise ChecksNothing(error.what, why=error.why, next=error.next) from None
            raise

    # ------------------------------------------------------------------------------------------------------ writing

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """One transaction: all accounts and their tags, or nothing."""
        wanted = self._wanted(accept, refuse)
        if isinstance(wanted, Refused):
            return wanted
        if not wanted:
            return Done()
        known = [v.number for v in (*accept, *refuse, ctx.current, ctx.pending) if v is not None]
        tag = Tag(ctx.installation, ctx.secret, max(known), ctx.epoch)
        try:
            with self._session(ctx) as session:
                if self._is_self:
                    return roles.apply_own(session, wanted[0])
                return roles.apply(
                    session,
                    wanted,
                    tag,
                    also=self.settings.accounts,
                    create=self.settings.create_users,
                    owner=self.settings.owner_role,
                )
        except BackendError as error:
            return _unknown(error)

    def _wanted(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion]) -> list[roles.Change] | Refused:
        """One change per account. An account that `accept` names refuses its older passwords by that alone."""
        wanted: dict[str, str | None] = {}
        for version in accept:
            name, verifier = _username(version), version.fields["verifier"].text()
            if wanted.setdefault(name, verifier) != verifier:
                return Refused(No.UNSUPPORTED, f"the account {name} can have only one password at a time")
        for version in refuse:
            wanted.setdefault(_username(version), None)
        if self._is_self and (list(wanted) != [self.settings.user] or None in wanted.values()):
            return Refused(No.UNSUPPORTED, "with `admin: self` an account can only give itself another password")
        return [
            roles.Change(
                name,
                verifier,
                login=None if self.settings.users is None else verifier is not None,
                takes=tuple(_credential(v) for v in refuse if _username(v) == name),
            )
            for name, verifier in sorted(wanted.items())
            if not self._left_alone(name)
        ]

    # ----------------------------------------------------------------------------------------------------- sessions

    def usage(self, version: SecretVersion, since: datetime, ctx: Context) -> Usage | Unknown:
        """Every session of the account counts, whenever it began: its start cannot be read without pg_monitor.

        With `single` old and new sessions have one name, so nothing can be said.
        """
        if self.settings.users is None:
            return Usage(in_use=None)
        try:
            with self._session(ctx) as session:
                holders = advice.holders(session, _username(version))
        except BackendError as error:
            return _unknown(error)
        return Usage(in_use=bool(holders), holders=holders)

    def disconnect(self, version: SecretVersion, ctx: Context) -> Result:
        """End the account's sessions. None left is Done."""
        try:
            with self._session(ctx) as session:
                advice.terminate(session, _username(version))
        except BackendError as error:
            if isinstance(error, pg.StatementFailed) and error.sqlstate == "42501":
                return Refused(No.PRIVILEGE, "the admin may not end sessions: GRANT pg_signal_backend to it")
            return _unknown(error)
        return Done()

    # ------------------------------------------------------------------------------------------------------ logging in

    @property
    def _is_self(self) -> bool:
        return self.settings.admin == "self"

    def _is_first_owner(self, name: str) -> bool:
        return self.settings.users is not None and name not in self.settings.users

    def _taken(self, session: pg.Session, ctx: Context) -> Sequence[Finding]:
        """An idle user that can log in may be somebody's: the next version takes its password away."""
        name = accounts.next_one(self.settings, ctx)
        if self.settings.users is None or ctx.current is None or ctx.pending is not None:
            return []
        role = roles.read(session, [name]).found.get(name)
        if role is None or not role.usable:
            return []
        text = f"{name} can log in today: its password will be replaced, and whoever uses it is cut off"
        return [Finding("warn", text, f"where nobody does: ALTER ROLE {advice.quoted(name)} NOLOGIN")]

    def _left_alone(self, name: str) -> bool:
        return self._is_first_owner(name) and self.settings.retire_first_owner != "nologin"

    def _until_s(self, ctx: Context) -> float:
        return min(ctx.deadline.at_monotonic_s, time.monotonic() + self.settings.timeout)

    def _login(self, version: SecretVersion, ctx: Context) -> pg.Session:
        return pg.connect(
            self.settings.address,
            username=_username(version),
            password=_password(version.fields),
            database=self.settings.database,
            until_s=self._until_s(ctx),
        )

    def _session(self, ctx: Context) -> AbstractContextManager[pg.Session]:
        """As the admin; with `admin: self` as PENDING, then CURRENT. Raises NotAuthorised where that is rejected."""
        admin = self.settings.admin
        if not isinstance(admin, Admin):
            return self._own_session(ctx)
        if self._admin is None:
            self._admin = Kept.join((self.kind, self.settings.address, admin.model_dump_json()))
        return self._admin.borrow(self._until_s(ctx), lambda: self._admin_session(admin, ctx))

    def _admin_session(self, admin: Admin, ctx: Context) -> pg.Session:
        password = _password(ctx.credentials.resolve(admin.password))

        def log_in() -> pg.Session:
            try:
                return pg.connect(
                    self.settings.address,
                    username=admin.username,
                    password=password,
                    database=admin.database,
                    until_s=self._until_s(ctx),
                    require=pg.SCRAM_OR_NOTHING,
                )
            except pg.LoginFailed as error:
                if error.denial is pg.Denial.REJECTED:
                    raise NotAuthorised(error.what, why=error.why or "it is the policy's `admin`") from None
                raise

        return refused.once(self.settings.address, admin.username, password.encode(), log_in)

    def _own_session(self, ctx: Context) -> pg.Session:
        for version in (ctx.pending, ctx.current):
            if version is None:
                continue
            try:
                return self._login(version, ctx)
            except pg.LoginFailed as error:
                if error.denial is not pg.Denial.REJECTED:
                    raise
        raise NotAuthorised(
            f"{self.settings.user} cannot log in to change its own password",
            why="neither the pending nor the current version is accepted",
            next="vaultkeeper adopt with the password that works",
        )


def _plan(settings: PostgresSettings) -> advice.Plan:
    admin = settings.admin
    return advice.Plan(
        accounts=settings.accounts,
        admin=admin.username if isinstance(admin, Admin) else None,
        database=admin.database if isinstance(admin, Admin) else settings.database,
        owner=settings.owner_role,
        create=settings.create_users,
        alternating=settings.users is not None,
        close_sessions=settings.close_sessions,
        exposed=not settings.address.tls and not settings.address.is_local,
    )


def _username(version: SecretVersion) -> str:
    return version.fields["username"].text()


def _password(fields: Fields) -> str:
    return fields[main_field(set(fields) - {"username", "verifier"})].text()


def _credential(version: SecretVersion) -> roles.Credential:
    return roles.Credential(version.fields["verifier"].text(), _password(version.fields))


def _stored_passwords(versions: Sequence[SecretVersion], state: roles.Roles) -> Mapping[str, str]:
    """Account → password, where the stored form is the very verifier of a version: hashing others tells nothing new.

    Only in ASCII: elsewhere two spellings may be one password (SASLprep).
    """
    found = ((_username(v), _credential(v)) for v in versions if _username(v) in state.found)
    ours = {name: one.password for name, one in found if one.verifier == state.found[name].stored}
    return {name: password for name, password in ours.items() if password.isascii()}


def _stored_as(version: SecretVersion, state: roles.Roles, stored: Mapping[str, str]) -> bool | None:
    name, credential = _username(version), _credential(version)
    role = state.found.get(name)
    if role is None:
        return False
    if not role.readable:
        return None
    if name in stored and credential.password.isascii():
        return role.usable and credential.password == stored[name]
    return role.usable and role.holds(credential)


def _unknown(error: BackendError) -> Unknown:
    """What passes by itself. Raises the others again: wrong settings are for a person."""
    if isinstance(error, pg.LoginFailed) and error.denial is not pg.Denial.UNREACHABLE:
        raise error
    return Unknown(Login.UNREACHABLE, str(error))
