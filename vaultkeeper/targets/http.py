"""Any system whose credentials are changed by HTTP requests: `set`, `refuse` and `test`.

For systems that vaultkeeper has no target for. `set` makes the system accept one value: it is sent for the primary, and
for another one that shall be accepted beside it where a login shows that it is not. `refuse` ends one value, and says
which: by the value in its body, or by {version_id} in its address. Where `user` has one value at a time, setting the
new one ends the old, and there is no `refuse`. Nor is there one for `users` that take turns: the retired account is
given a random value, which nobody knows. `test` logs in once, on a new connection.

Names that may be filled in: the fields of the value ({password}, {token}, {username} …), {value} for its main field,
{version_id} and {version_number}. An address takes the last two and {username}; a value never stands there.

What answers to a change mean: `done` (200, 201, 204; of `refuse` 200, 204, 404, 410), `refused` this value (400, 422);
401 and 403 a missing privilege, 409 a conflict, 507 no room, 307 and 308 a wrong address: all of them definite. 429,
and 503 with Retry-After: throttled. Any other says nothing for certain. Redirects are not followed.

Privileges: those that the system asks for; `admin` names the account or the token that has them.
https://www.rfc-editor.org/rfc/rfc9110.html#section-15
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaultkeeper.access import accounts, request
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.request import Asked, Auth, Changing, Removing, Request
from vaultkeeper.access.settings import Codes, host_of
from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused, Result, Unknown
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

if TYPE_CHECKING:
    from vaultkeeper.access.http import Reply

AccountName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]

_PUBLIC = frozenset({"username", "version_id", "version_number"})
_SAID_IN_ADDRESS = "an address takes {username}, {version_id} and {version_number}; a value belongs into the body"
_RANDOM_BYTES = 32


class LoginRequest(Request):
    """A request that tells a good value from a bad one and changes nothing."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    login: Literal["basic", "token"] | None = Field(default=None, description="how it shows the value; none: its body")
    header: str = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]+$", description="that carries the token")
    scheme: str = Field(default="Bearer", pattern=r"^[!-~]*$", description="before the token; empty: the bare token")
    accepted: Codes = (200, 204)
    rejected: Codes = (401,)

    @model_validator(mode="after")
    def _shows_the_value(self) -> Self:
        if (self.login is None) == (not self.in_body() - _PUBLIC):
            raise ValueError("say how it shows the value: `login: basic`, `login: token`, or a `body` that names it")
        return self


class HttpSettings(Asked):
    """What a policy may say beside `kind: http` and `strategy`."""

    set: Changing = Field(description="makes the system accept a value")
    refuse: Removing | None = Field(default=None, description="ends a value; absent where setting another one does")
    test: LoginRequest | None = Field(default=None, description="one login; absent only with `verify: none`")
    check: Request | None = Field(default=None, description="a read-only request of `admin` that must be answered 200")
    user: AccountName | None = Field(default=None, description="the account, where values have a user name")
    users: tuple[AccountName, AccountName] | None = Field(
        default=None, strict=False, description="the two of `alternating_users`"
    )
    admin: Auth | None = Field(default=None, description="who sends `set`, `refuse` and `check`")
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
        if self.test and self.test.login == "basic" and any(":" in name for name in self.accounts):
            raise ValueError("with `login: basic` a user name holds no `:`, which would end it (RFC 7617)")
        if not all(one.in_address() <= _PUBLIC for one in self.requests):
            raise ValueError(_SAID_IN_ADDRESS)
        if not self.set.in_body() - _PUBLIC:
            raise ValueError("`set` needs a `body` that names the value: {value}, {password} …")
        if self.refuse and self.users:
            raise ValueError("`users` need no `refuse`: the retired account is given a random value by `set`")
        if self.refuse and not (self.refuse.in_address() | self.refuse.in_body()) - {"username"}:
            raise ValueError(
                "`refuse` does not say which value it ends, and would end the new one too: name the value in its body, "
                "or {version_id}"
            )
        return self

    @property
    def accounts(self) -> tuple[str, ...]:
        """Those that are named."""
        return self.users or ((self.user,) if self.user else ())

    @property
    def requests(self) -> Sequence[Request]:
        """Those that are given."""
        given = (self.set, self.refuse, self.test, self.check)
        return tuple(one for one in given if one is not None)


class HttpTarget:
    """The requests of a policy decide what is accepted; it chooses no value but the random one of a retired account."""

    kind: ClassVar[str] = "http"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.SINGLE, Strategy.OVERLAP, Strategy.ALTERNATING_USERS}),
        observes=frozenset({Basis.LOGIN, Basis.NONE}),
        max_accepted=None,
    )
    Settings: ClassVar[type[HttpSettings]] = HttpSettings

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of http have codec {codec}, this release knows {cls.codec}")
        return cls(HttpSettings.model_validate(settings))

    # ------------------------------------------------------------------------------------------------------ looking

    def check(self, ctx: Context) -> Sequence[Finding]:
        """Where requests may go, and whether `admin` is let in; no login is tried."""
        forbidden = dict.fromkeys(self.settings.forbids(one) for one in self.settings.requests)
        findings = [Finding("refuse", text) for text in forbidden if text] or list(self._asked(ctx))
        current = ctx.current
        if current is not None and current.binding.strategy is Strategy.OVERLAP and self.settings.refuse is None:
            findings.append(Finding("warn", "without `refuse` nothing ends an old value", "give `refuse`"))
        return findings

    def _asked(self, ctx: Context) -> Iterator[Finding]:
        asked, host = self.settings.check, host_of(self.settings.set.http)
        who = {} if self.settings.admin is None else self.settings.admin.spelt(ctx.credentials)
        if asked is None:
            yield Finding("unchecked", f"whether {host} lets `set` through is seen only then", "give `check`")
            return
        try:
            reply = self.settings.send(asked, {}, {}, who, ctx.deadline)
        except BackendError as error:
            yield Finding("unchecked", str(error))
            return
        said = f"{host_of(asked.http)} answered {reply.status} to {self._who}"
        level = {200: "ok", 401: "refuse", 403: "refuse"}.get(reply.status, "unchecked")
        yield Finding(level, said)

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Adds `username` where the policy names accounts.

        Raises ConfigurationInvalid where an adopted value does not say whose it is, or is another account's.
        """
        name = accounts.name_of(given, self.settings, ctx, adopting=adopting)
        return {**given, "username": SecretBytes(name.encode())} if name else given

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """The engine logs in."""
        return Observation({}, Basis.LOGIN if self.settings.test else Basis.NONE)

    def system(self) -> str:
        return self.settings.set.http

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        asked = self.settings.test or self.settings.set
        return f"http:{self.system()}:{_username(version)}", host_of(asked.http)

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """Raises ConfigurationInvalid for an address that may not be asked."""
        asked = self.settings.test
        if asked is None:
            return Login.UNREACHABLE
        value = version.fields[main_field(set(version.fields))]
        shown: Mapping[str, str] | None = {}
        if asked.login == "basic":
            shown = request.basic(_username(version), value)
        elif asked.login == "token":
            shown = request.token(asked.header, asked.scheme, value)
        if shown is None:
            return Login.REJECTED  # no header can carry it
        try:
            reply = self._sent(asked, version, shown, ctx)
        except BackendError:
            return Login.UNREACHABLE
        if reply.status in asked.accepted:
            return Login.ACCEPTED
        if reply.status in asked.rejected:
            return Login.REJECTED
        return Login.THROTTLED if request.throttles(reply) else Login.UNREACHABLE

    # ------------------------------------------------------------------------------------------------------ writing

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """The primary last, so that it stays so at a system that goes by the order. Nothing is ended in doubt.

        A value that works already is not sent again where that can be seen: many systems end sessions at every change.
        """
        gone = self._to_end(accept, refuse)
        doubt: Unknown | None = None
        for version in reversed(accept):
            comes = version is accept[0] and not gone  # a login with it would only fail
            answer = (None if comes else self._works(version, ctx)) or self._change(self.settings.set, version, ctx)
            if isinstance(answer, Refused):
                return answer
            if isinstance(answer, Unknown):
                doubt = doubt or answer
        if doubt is None and (lost := self._ended_by_the_primary(accept, ctx)):
            return lost
        for version in gone:
            if doubt is None:
                ended = self._end(version, ctx)
                doubt = ended if isinstance(ended, Unknown) else None
                if isinstance(ended, Refused):
                    return ended
        return doubt or Done()

    def _ended_by_the_primary(self, accept: Sequence[SecretVersion], ctx: Context) -> Refused | Unknown | None:
        """A system that takes one value at a time is told before consumers are cut off, and has the old one again."""
        if self.settings.test is None:
            return None
        for version in accept[1:]:
            if self._works(version, ctx) is None:
                back = self._change(self.settings.set, version, ctx)
                text = f"{host_of(self.settings.set.http)} takes one value at a time: say `strategy: single`"
                return Refused(No.UNSUPPORTED, text) if isinstance(back, Done) else Unknown(Login.UNREACHABLE, text)
        return None

    def _to_end(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion]) -> list[SecretVersion]:
        """Those of `refuse` that another request has to end."""
        if self.settings.users:
            kept = {_username(version) for version in accept}
            return [version for version in refuse if _username(version) not in kept]
        if self.settings.refuse is None:
            return []
        values = [version.fields for version in accept]
        return [version for version in refuse if version.fields not in values]

    def _works(self, version: SecretVersion, ctx: Context) -> Done | Unknown | None:
        """None: it does not, or that cannot be seen here at all."""
        if self.settings.test is None:
            return None
        said = self.test(version, ctx)
        if said is Login.ACCEPTED:
            return Done()
        host = host_of(self.settings.test.http)
        return None if said is Login.REJECTED else Unknown(said, f"{host} does not say whether a value is accepted")

    def _end(self, version: SecretVersion, ctx: Context) -> Done | Refused | Unknown:
        if self.settings.refuse is not None:
            return self._change(self.settings.refuse, version, ctx)
        nobodys = {name: SecretBytes(secrets.token_urlsafe(_RANDOM_BYTES).encode()) for name in version.fields}
        named = {name: value for name, value in version.fields.items() if name == "username"}
        return self._change(self.settings.set, replace(version, fields={**nobodys, **named}), ctx)

    # --------------------------------------------------------------------------------------------------- small parts

    def _change(self, asked: Changing | Removing, version: SecretVersion, ctx: Context) -> Done | Refused | Unknown:
        """Raises NotAuthorised where `admin` cannot be read."""
        try:
            who = {} if self.settings.admin is None else self.settings.admin.spelt(ctx.credentials)
            reply = self._sent(asked, version, who, ctx)
        except Answered as error:
            return error.result if isinstance(error.result, Refused) else error.unknown
        except BackendError as error:
            return Unknown(Login.UNREACHABLE, str(error))
        return Done() if reply.status in asked.done else request.failure(asked, reply, self._who)

    def _sent(self, asked: Request, version: SecretVersion, who: Mapping[str, str], ctx: Context) -> Reply:
        public = {"version_id": version.id, "version_number": str(version.number)}
        names = {**public, "username": _username(version)}
        own = {name: SecretBytes(text.encode()) for name, text in public.items()}
        fields = {**own, "value": version.fields[main_field(set(version.fields))], **version.fields}
        return self.settings.send(asked, names, fields, who, ctx.deadline)

    @property
    def _who(self) -> str:
        return self.settings.admin.who if self.settings.admin else "nobody (the policy names no `admin`)"


def _username(version: SecretVersion) -> str:
    return version.fields["username"].text() if "username" in version.fields else ""
