"""The password of a user of Grafana, set by a server admin or, with `admin: self`, by the user with its old one.

One password at a time, so consumers have a gap between `set` and `deliver`, which run back to back. Five failed logins
in five minutes lock a name for everybody, the right password included, and Grafana then says what it says of a wrong
one. So a rejection counts only beside something that shows that the name is not locked: another value of ours that is
let in under it, or the same refusal under the user's e-mail address, whose failures are counted apart. A right value
whose name is locked logs in under that address. Where nothing tells, the answer is THROTTLED, and nothing is undone.
A rotation makes one failed login on purpose, with the old password.

The user must have its password in Grafana (no LDAP, no OAuth), and basic auth must be on.

Privileges of the admin account: server admin (`users.password:write`, `users:read`, `settings:read`); a token cannot be
one. `admin: self` needs none.
https://grafana.com/docs/grafana/latest/developers/http_api/admin/
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.access.grafana import Connection, Grafana
from vaultkeeper.access.grafana.errors import LOCKED_FOR, LoginRefused, ServerFailed, form_is_off
from vaultkeeper.access.grafana.login import ByPassword, LoginName, with_login
from vaultkeeper.access.grafana.users import SHORTEST, Account, Configuration, User, looked_up, overwrite, unwelcome
from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused, Result, Unknown
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

T = TypeVar("T")

FIRST_START = Finding(
    "warn",
    "GF_SECURITY_ADMIN_PASSWORD acts only when Grafana makes its database: after a rotation it is not what works",
    "where it is set, deliver there with `read: first_start`, for the next empty volume",
)
BLIND = "a locked name cannot be told from a wrong password, so a refusal is waited out"


class GrafanaAdminSettings(Connection):
    """What a policy may say beside `kind: grafana_admin`."""

    user: LoginName = Field(default="admin", description="the login name whose password is rotated")
    email: LoginName | None = Field(
        default=None, description="its e-mail address; found out by itself unless `admin: self`"
    )
    admin: ByPassword | Literal["self"] = Field(description="a server admin; `self`: the user changes its own")

    @model_validator(mode="after")
    def _somebody_else(self) -> Self:
        """Grafana reads login names without regard to case."""
        names = {self.user.lower(), (self.email or self.user).lower()}
        if isinstance(self.admin, ByPassword) and self.admin.username.lower() in names:
            raise ValueError("a user that is its own admin needs `admin: self`")
        return self


class GrafanaAdminTarget:
    """Accepts one password at a time."""

    kind: ClassVar[str] = "grafana_admin"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.SINGLE}),
        observes=frozenset({Basis.LOGIN}),
        max_accepted=1,
        login_budget=(2, LOCKED_FOR),
        tells_lockouts=True,
        max_bytes=1024,
    )
    Settings: ClassVar[type[GrafanaAdminSettings]] = GrafanaAdminSettings

    def __init__(self, settings: GrafanaAdminSettings) -> None:
        self.settings = settings
        self._user: User | None = None  #: as the admin looked it up
        self._refused: set[tuple[str, int]] = set()  #: (name, version) since the last change

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of {cls.kind} have codec {codec}, this release knows {cls.codec}")
        return cls(GrafanaAdminSettings.model_validate(settings))

    def system(self) -> str:
        return f"{self.settings.base} {self.settings.user.lower()}"

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        """Grafana locks names; addresses only where somebody turned that on."""
        name = f"grafana:{self.settings.host}:{_username(version).lower()}"
        return name, name

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        """A user that nobody has: refused in the same words, and counted to no real name."""
        nobody = f"vk-probe-{secrets.token_hex(8)}".encode()
        return replace(version, fields={**version.fields, "username": SecretBytes(nobody)})

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Raises ConfigurationInvalid for the password of somebody else."""
        if "username" in given and given["username"].text().lower() != self.settings.user.lower():
            what = f"the value is for {given['username'].text()}, and the policy's user is {self.settings.user}"
            raise ConfigurationInvalid(what, next="name one user")
        return {"username": SecretBytes(self.settings.user.encode()), **given}

    # ------------------------------------------------------------------------------------------------------ looking

    def check(self, ctx: Context) -> Sequence[Finding]:
        try:
            if self.settings.admin == "self":
                return list(self._findings_of_its_own(ctx))
            return list(self._findings(*self._as_admin(ctx, lambda at: (Configuration.of(at), self._found(at)))))
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what, error.next)]

    def _findings(self, told: Configuration, user: User | None) -> Iterator[Finding]:
        name = self.settings.user
        if user is None:
            raise refused(No.UNSUPPORTED, f"nobody has the login name {name}", next="give a login name as `user`")
        if user.external or user.disabled:
            why = "is disabled" if user.disabled else "logs in by another system (LDAP, OAuth), which checks it"
            raise refused(No.UNSUPPORTED, f"{name} {why}", next="name a user of Grafana's own")
        if told.value("auth", "disable_login_form") == "true":
            raise form_is_off(self.settings.host)
        if told.value("security", "disable_ip_address_login_protection") == "false":
            text = "five failed logins, of whatever names, block this machine's address, and a rotation makes one"
            yield Finding("warn", text, "leave five minutes between rotations at this server")
        if not (self.settings.email or user.email):
            yield Finding("warn", f"{name} has no e-mail address: {BLIND}", "give it one in Grafana")
        if told.value("security", "admin_user") in ("", name):
            yield FIRST_START
        yield Finding("ok", f"the password of {name} can be set; a rotation makes one failed login on purpose")

    def _findings_of_its_own(self, ctx: Context) -> Iterator[Finding]:
        name = self.settings.user
        if ctx.current is None:
            yield Finding("unchecked", "with `admin: self` there is nobody to log in as before the first version")
            return
        if name == "admin":
            yield FIRST_START
        if self.settings.email is None:
            yield Finding("warn", f"without `email`: {BLIND}", f"say the e-mail address of {name}")
        if self._judged(ctx.current, ctx) is Login.ACCEPTED:
            yield Finding("ok", f"{name} can log in; its sessions stay; a rotation makes one failed login on purpose")
        else:
            yield Finding("unchecked", f"{name} cannot log in with its current password now")

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """The engine logs in. Before a first version: is there such a user, whom a new password would cut off?"""
        usable = None
        if ctx.current is None and self.settings.admin != "self":
            try:
                usable = self._as_admin(ctx, self._found) is not None
            except Answered as error:
                if isinstance(error.result, Refused):
                    raise NotAuthorised(error.what, next=error.next) from None
                return error.unknown
        return Observation({}, Basis.LOGIN, account_usable=usable)

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """Raises Answered where Grafana cannot be used like this (basic auth is off, the user is disabled)."""
        try:
            return self._judged(version, ctx)
        except Answered as error:
            if isinstance(error.result, Unknown):
                return error.result.reason
            raise

    def _judged(self, version: SecretVersion, ctx: Context) -> Login:
        name = _username(version)
        if name.lower() != self.settings.user.lower():
            nobody = Account(self.settings, name, ctx.deadline)
            return Login.ACCEPTED if nobody.accepts(name, _password(version)) else Login.REJECTED
        other = next((v for v in (ctx.pending, ctx.current) if v is not None and not _same(v, version)), None)
        asked = 0
        for known in self._names(ctx):
            if self._accepts(known, version, ctx):
                return Login.ACCEPTED
            if other is not None and (known, other.number) not in self._refused and self._accepts(known, other, ctx):
                return Login.REJECTED  # the name is not locked: it was let in this very moment
            asked += 1
        # While a rotation has a new value out, that or the old one works, unless the names are locked.
        return Login.REJECTED if asked > 1 and ctx.pending is None else Login.THROTTLED

    def _names(self, ctx: Context) -> Iterator[str]:
        """The login name; then the e-mail address, whose failed logins are counted apart."""
        yield self.settings.user
        email = self.settings.email or self._looked_up_email(ctx)
        if email.lower() not in ("", self.settings.user.lower()):
            yield email

    def _looked_up_email(self, ctx: Context) -> str:
        if self.settings.admin == "self":
            return ""
        try:
            user = self._user or self._as_admin(ctx, self._found)
        except Answered:
            return ""
        return user.email if user else ""

    def _accepts(self, name: str, version: SecretVersion, ctx: Context) -> bool:
        accepted = Account(self.settings, self.settings.user, ctx.deadline).accepts(name, _password(version))
        if not accepted:
            self._refused.add((name, version.number))
        return accepted

    # ------------------------------------------------------------------------------------------------------ writing

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """Overwrites; what it refuses is refused by that alone."""
        if not accept or any(not _same(version, accept[0]) for version in accept):
            return Refused(No.UNSUPPORTED, "a user of Grafana has exactly one password at a time")
        if not _password(accept[0]).is_text() or len(_password(accept[0]).reveal()) < SHORTEST:
            return Refused(No.VALUE, f"a password of Grafana is text of at least {SHORTEST} bytes")
        others: list[SecretVersion] = []
        for version in (*refuse, ctx.current, ctx.pending):
            if version is not None and not any(_same(version, known) for known in (accept[0], *others)):
                others.append(version)
        change = self._change_its_own if self.settings.admin == "self" else self._overwrite
        try:
            done = change(accept[0], others, ctx)
        except LoginRefused as error:
            return error.later
        except Answered as error:
            return error.result
        self._refused.clear()
        return done

    def _overwrite(self, wanted: SecretVersion, others: Sequence[SecretVersion], ctx: Context) -> Result:
        """By the admin. It is told 500 where the password policy refuses: then the old value still logs in."""

        def act(server: Grafana) -> None:
            user = self._user or self._found(server)
            if user is None:
                raise refused(No.UNSUPPORTED, f"nobody has the login name {self.settings.user}")
            overwrite(server, user, _password(wanted))

        try:
            self._as_admin(ctx, act)
        except ServerFailed as error:
            unchanged = not others or any(self._accepts(self.settings.user, old, ctx) for old in others[:1])
            return (unwelcome(_password(wanted)) if unchanged else None) or error.result
        return Done()

    def _change_its_own(self, wanted: SecretVersion, others: Sequence[SecretVersion], ctx: Context) -> Result:
        """As whoever is let in: the value that is to go first, for a failed login is counted."""
        account = Account(self.settings, self.settings.user, ctx.deadline)
        for name in self._names(ctx):
            for old in others:
                if (name, old.number) in self._refused:
                    continue
                try:
                    return account.change(name, _password(old), _password(wanted))
                except LoginRefused:
                    self._refused.add((name, old.number))
            if self._accepts(name, wanted, ctx):
                return Done()
        return Unknown(Login.THROTTLED, f"{self.settings.user} cannot log in to change its own password", LOCKED_FOR)

    # ---------------------------------------------------------------------------------------------------- the admin

    def _as_admin(self, ctx: Context, act: Callable[[Grafana], T]) -> T:
        if not isinstance(self.settings.admin, ByPassword):
            raise ConfigurationInvalid("with `admin: self` there is no admin to ask")
        return with_login(self.settings, self.settings.admin, ctx.credentials, ctx.deadline, act)

    def _found(self, server: Grafana) -> User | None:
        self._user = looked_up(server, self.settings.user)
        return self._user


def _username(version: SecretVersion) -> str:
    return version.fields["username"].text()


def _password(version: SecretVersion) -> SecretBytes:
    return version.fields[main_field(set(version.fields) - {"username"})]


def _same(one: SecretVersion, other: SecretVersion) -> bool:
    return _password(one) == _password(other)
