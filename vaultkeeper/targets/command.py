"""Any system that a program of yours can change: `set`, `test` and, where it can tell, `observe`.

For systems that vaultkeeper has no target for: an appliance with a command-line tool, an application with its own user
table. Each hook is an argument list with an absolute path; no shell reads it. It is run in `/` with an environment of
four constants and a deadline, at which its whole process group is killed. It reads one JSON document on stdin:

    {"hook": "set", "installation": …, "secret": …, "epoch": 3, "admin": {…} or null,
     "accept": [{"number": 8, "id": …, "fields": {"password": …}}], "refuse": […]}

`set` makes the system accept what `accept` lists (the first is primary) and refuse what `refuse` lists; it touches no
other credential. It is repeated after every doubt, so it must be safe to repeat. `test` logs in once, on a new
connection, with `version`. `observe` answers {"accepted": [8]}: which of `candidates` the system holds.

Exit codes of `test`: 0 accepted, 1 rejected, 75 throttled, any other: no answer. Of the others: 0 done; 64, 65, 73, 77
refused, nothing changed (unsupported, this value, no room, missing privilege); 75 throttled; any other: unknown.

Privileges: those that your program needs; vaultkeeper passes it `admin`, if the policy names one, on stdin.
https://man.freebsd.org/cgi/man.cgi?sysexits
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaultkeeper.access import accounts, program
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.process import Ran
from vaultkeeper.access.settings import Argv, Reference, Shape
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.outcome import (
    Basis,
    Done,
    Finding,
    Login,
    No,
    Observation,
    Refused,
    Result,
    Unknown,
    Usage,
)
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context

AccountName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]

Versions = SecretVersion | Sequence[SecretVersion]

_LOGINS = {program.OK: Login.ACCEPTED, program.REJECTED: Login.REJECTED, program.TEMPFAIL: Login.THROTTLED}


class Admin(Shape):
    """Who may change the account; told to the program on stdin."""

    username: str = Field(min_length=1)
    password: Reference


class CommandSettings(Shape):
    """What a policy may say beside `kind: command` and `strategy`."""

    set: Argv = Field(description="makes the system accept and refuse")
    test: Argv | None = Field(default=None, description="one login with `version`; absent only with `verify: none`")
    observe: Argv | None = Field(default=None, description="says which versions the system holds")
    check: Argv | None = Field(default=None, description="read-only: may `set` work? Its stderr is shown where not")
    usage: Argv | None = Field(default=None, description='{"in_use": true, "holders": […]}: who still uses `version`')
    disconnect: Argv | None = Field(default=None, description="ends sessions of `version`; for `close_sessions`")
    user: AccountName | None = Field(default=None, description="the account, where values have a user name")
    users: tuple[AccountName, AccountName] | None = Field(
        default=None, strict=False, description="the two of `alternating_users`"
    )
    admin: Admin | None = Field(default=None, description="passed to every program")
    address: str | None = Field(default=None, description="host:port that failed logins are charged to")
    close_sessions: bool = False
    verify: Literal["none"] | None = Field(default=None, description="none: nothing can be seen, and this is accepted")
    reason: str | None = Field(default=None, description="of `verify: none`")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.test is None and self.verify is None:
            raise ValueError("give `test`, or `verify: none` with a `reason`: nothing else shows what is accepted")
        if self.user and self.users:
            raise ValueError("give `user`, or `users` (alternating_users), not both")
        if self.users and self.users[0] == self.users[1]:
            raise ValueError("`users` must be two different accounts")
        if self.close_sessions and self.disconnect is None:
            raise ValueError("`close_sessions` needs `disconnect`: the program that ends them")
        return self

    @property
    def accounts(self) -> tuple[str, ...]:
        """Those that are named."""
        return self.users or ((self.user,) if self.user else ())

    @property
    def programs(self) -> tuple[Argv, ...]:
        """Every program that is named."""
        named = (self.set, self.test, self.observe, self.check, self.usage, self.disconnect)
        return tuple(argv for argv in named if argv is not None)


class CommandTarget:
    """Its programs decide what a value is; it chooses none itself."""

    kind: ClassVar[str] = "command"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.SINGLE, Strategy.OVERLAP, Strategy.ALTERNATING_USERS}),
        observes=frozenset({Basis.LISTING, Basis.LOGIN, Basis.NONE}),
        max_accepted=None,
    )
    Settings: ClassVar[type[CommandSettings]] = CommandSettings

    def __init__(self, settings: CommandSettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of command have codec {codec}, this release knows {cls.codec}")
        return cls(CommandSettings.model_validate(settings))

    # ------------------------------------------------------------------------------------------------------ looking

    def check(self, ctx: Context) -> Sequence[Finding]:
        findings = [finding for argv in self.settings.programs for finding in program.runnable(argv)]
        if findings or self.settings.check is None:
            return findings or [Finding("ok", f"{self.settings.set[0]} can be run")]
        try:
            ran = self._run(self.settings.check, "check", ctx, {})
        except Answered as error:
            return [Finding("unchecked", error.what)]
        if ran.code == program.OK:
            return [Finding("ok", f"{self.settings.check[0]} finds nothing wrong")]
        level = "unchecked" if ran.code == program.TEMPFAIL else "refuse"
        return [Finding(level, program.failure(self.settings.check, ran).detail)]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Adds `username` where the policy names accounts.

        Raises ConfigurationInvalid where an adopted value does not say whose it is, or is another account's.
        """
        name = accounts.name_of(given, self.settings, ctx, adopting=adopting)
        return {**given, "username": SecretBytes(name.encode())} if name else given

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By `observe`; without it the engine logs in."""
        if self.settings.observe is None:
            return Observation({}, Basis.LOGIN if self.settings.test else Basis.NONE)
        argv = self.settings.observe
        try:
            ran = self._run(argv, "observe", ctx, {"candidates": candidates})
            if ran.code != program.OK:
                found = program.failure(argv, ran)
                return found if isinstance(found, Unknown) else Unknown(Login.UNREACHABLE, found.detail)
            said = program.answered(argv, ran)
        except Answered as error:
            return error.unknown
        accepted, foreign = said.get("accepted"), said.get("foreign", 0)
        if not isinstance(accepted, list) or not isinstance(foreign, int):
            return Unknown(Login.UNREACHABLE, f'{argv[0]} did not answer {{"accepted": [numbers]}}')
        answers = {v.number: Login.ACCEPTED if v.number in accepted else Login.REJECTED for v in candidates}
        return Observation(answers, Basis.LISTING, foreign=foreign)

    def system(self) -> str:
        return " ".join(self.settings.set)

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        name = version.fields["username"].text() if "username" in version.fields else ""
        return f"command:{self.system()}:{name}", self.settings.address or "local"

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        if self.settings.test is None:
            return Login.UNREACHABLE
        try:
            ran = self._run(self.settings.test, "test", ctx, {"version": version})
        except Answered:
            return Login.UNREACHABLE
        return _LOGINS.get(ran.code, Login.UNREACHABLE)

    def usage(self, version: SecretVersion, since: datetime, ctx: Context) -> Usage | Unknown:
        argv = self.settings.usage
        if argv is None:
            return Usage(None)
        try:
            ran = self._run(argv, "usage", ctx, {"version": version}, since.isoformat())
            said = program.answered(argv, ran) if ran.code == program.OK else {}
        except Answered as error:
            return error.unknown
        in_use, holders = said.get("in_use"), said.get("holders", [])
        if not isinstance(in_use, bool) or not isinstance(holders, list):
            return Unknown(Login.UNREACHABLE, f'{argv[0]} did not answer {{"in_use": true or false}}')
        return Usage(in_use, tuple(str(holder)[:200] for holder in holders[:20]))

    # ------------------------------------------------------------------------------------------------------ writing

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """One run with both lists. A value that `accept` also holds is not told to be refused.

        A program that heeds the first of `accept` alone has ended the others: it is told the next one by itself, so
        that consumers are not cut off.
        """
        kept = [version.fields for version in accept]
        gone = [version for version in refuse if version.fields not in kept]
        done = self._change(self.settings.set, "set", ctx, {"accept": accept, "refuse": gone})
        for version in accept[1:] if isinstance(done, Done) else ():
            if self.test(version, ctx) is Login.REJECTED:
                again: Mapping[str, Versions] = {"accept": [version], "refuse": [*accept[:1], *gone]}
                back = self._change(self.settings.set, "set", ctx, again)
                text = f"{self.settings.set[0]} ended a value of `accept`; if it keeps one only, say `strategy: single`"
                return Refused(No.UNSUPPORTED, text) if isinstance(back, Done) else Unknown(Login.UNREACHABLE, text)
        return done

    def disconnect(self, version: SecretVersion, ctx: Context) -> Result:
        if self.settings.disconnect is None:
            return Done()
        return self._change(self.settings.disconnect, "disconnect", ctx, {"version": version})

    # --------------------------------------------------------------------------------------------------- small parts

    def _change(self, argv: Argv, hook: str, ctx: Context, told: Mapping[str, Versions]) -> Result:
        try:
            ran = self._run(argv, hook, ctx, told)
        except Answered as error:
            return error.result
        return Done() if ran.code == program.OK else program.failure(argv, ran)

    def _run(self, argv: Argv, hook: str, ctx: Context, told: Mapping[str, Versions], since: str = "") -> Ran:
        """Raises Answered, and NotAuthorised where `admin` cannot be read."""
        admin = self._admin(ctx)
        versions = [v for value in told.values() for v in ([value] if isinstance(value, SecretVersion) else value)]
        secrets = [value for fields in (*(v.fields for v in versions), admin or {}) for value in _values(fields)]
        document = {
            "hook": hook,
            "installation": ctx.installation,
            "secret": ctx.secret,
            "epoch": ctx.epoch,
            "admin": None if admin is None else program.spelt(admin),
            **({"since": since} if since else {}),
            **{name: _described(value) for name, value in told.items()},
        }
        return program.run(argv, document, ctx.deadline, secrets=secrets)

    def _admin(self, ctx: Context) -> Fields | None:
        if self.settings.admin is None:
            return None
        found = ctx.credentials.resolve(self.settings.admin.password)
        password = found["password"] if "password" in found else next(iter(found.values()))
        return {"username": SecretBytes(self.settings.admin.username.encode()), "password": password}


def _described(value: Versions) -> object:
    if isinstance(value, SecretVersion):
        return program.described(value)
    return [program.described(version) for version in value]


def _values(fields: Fields) -> Iterator[bytes]:
    return (value.reveal() for name, value in fields.items() if name != "username")
