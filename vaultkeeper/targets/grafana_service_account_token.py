"""Tokens of a service account of Grafana: Grafana makes the value, shows it once, and several work side by side.

A token has an end, and is named after its version, so that one whose reply was lost is found and deleted. Before the
old one is deleted its last use must lie far enough back: Grafana writes a use down only five minutes after the one
before. With `admin: self` the account's own token makes its successor, and that one deletes it: Edit on itself is all
that it needs, with the role None. Tokens may be tried freely; they lock nothing.

Privileges: `serviceaccounts:read` and `serviceaccounts:write` on the service account. The role Admin has them on all,
a permission Edit on this account alone. https://grafana.com/docs/grafana/latest/administration/service-accounts/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import Field

from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.access.grafana import Connection, Grafana, by_token, refuse_without, tokens
from vaultkeeper.access.grafana.errors import LoginRefused, Misunderstood, RightMissing
from vaultkeeper.access.grafana.login import Asker, with_login
from vaultkeeper.access.grafana.tokens import Token, Tokens
from vaultkeeper.access.settings import Seconds
from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import (
    Basis,
    Done,
    Finding,
    Login,
    No,
    NotYet,
    Observation,
    Refused,
    Result,
    Unknown,
    Usage,
)
from vaultkeeper.model.secret import Fields, Handle, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

T = TypeVar("T")

GRAIN = timedelta(minutes=5)
"""A use within so long after the one that is written down is not written down."""

WHICH = "which token is the adopted one is not known, so it could not be deleted"
WHICH_NEXT = "say `first_token:` and the name that it has in Grafana"


class GrafanaTokenSettings(Connection):
    """What a policy may say beside `kind: grafana_service_account_token`."""

    service_account: str = Field(min_length=1, description="name of the service account")
    org: int = Field(default=1, ge=1, description="number of its organisation")
    admin: Asker | Literal["self"] = Field(description="who makes and deletes tokens; `self`: the account's own token")
    first_token: str | None = Field(
        default=None, description="name in Grafana of the token that is adopted first, where the account has several"
    )
    unused_for: Seconds = Field(
        default=3600.0, ge=0, description="how long nobody may have used the old token before it is deleted"
    )


class GrafanaTokenTarget:
    """Any number of tokens at once."""

    kind: ClassVar[str] = "grafana_service_account_token"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.MINTED}), observes=frozenset({Basis.LISTING}), max_accepted=None
    )
    Settings: ClassVar[type[GrafanaTokenSettings]] = GrafanaTokenSettings

    def __init__(self, settings: GrafanaTokenSettings) -> None:
        self.settings = settings
        self._account: int | None = None

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of {cls.kind} have codec {codec}, this release knows {cls.codec}")
        return cls(GrafanaTokenSettings.model_validate(settings))

    def system(self) -> str:
        return f"{self.settings.base} {self.settings.org} {self.settings.service_account}"

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return f"grafana:{self.system()}", self.settings.host

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return given

    def check(self, ctx: Context) -> Sequence[Finding]:
        if self.settings.admin == "self" and ctx.current is None and ctx.pending is None:
            return [Finding("unchecked", "with `admin: self` there is no token to ask with before the first version")]

        def act(server: Grafana) -> Tokens:
            found = self._listed(server)
            refuse_without(server, "serviceaccounts:write", f"serviceaccounts:id:{found.account}")
            return found

        try:
            found = self._ask(ctx, act)
            if ctx.current is not None and self._token_of(ctx.current, found, ctx) is None:
                raise refused(No.UNSUPPORTED, WHICH, next=WHICH_NEXT)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what, error.next)]
        return [Finding("ok", f"{self.settings.service_account} has {len(found.listed)} tokens; more can be made")]

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By id in the account's list; one without an id (adopted) by using it."""
        try:
            found = self._ask(ctx, self._listed, first=candidates)
            answers = {v.number: self._accepted(v, found, ctx) for v in candidates}
        except LoginRefused as error:
            return self._unlisted(candidates, error, ctx)
        except RightMissing as error:
            if ctx.pending is None:  # nothing is made yet, and waiting gives no right
                raise NotAuthorised(error.what, next=error.next) from None
            return error.unknown
        except Answered as error:
            return error.unknown
        known = {v.number: token for v in candidates if (token := self._token_of(v, found, ctx)) is not None}
        ours = {token.id for token in known.values()}
        return Observation(
            answers,
            Basis.LISTING,
            handles={number: _to_handle(token.id) for number, token in known.items()},
            foreign=len([token for token in found.listed if token.lives and token.id not in ours]),
            durable=True,
            account_usable=False,  # a new token takes nothing over: the others stay
        )

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """Raises Answered for a token of another account, or of one that is disabled."""
        try:
            return self._login(version, ctx)
        except Answered as error:
            if isinstance(error.result, Unknown):
                return error.result.reason
            raise

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """Deletes what is refused. What is accepted must be there: a deleted token cannot be made again."""
        kept = [_value(version) for version in accept]
        going = [version for version in refuse if _value(version) not in kept]

        def act(server: Grafana) -> None:
            found = self._listed(server)
            for version in accept:
                if self._accepted(version, found, ctx) is not Login.ACCEPTED:
                    raise refused(No.UNSUPPORTED, "a token that was deleted or has expired cannot be made again")
            for version in going:
                self._delete(server, version, found, ctx)

        try:
            self._ask(ctx, act, first=accept, never=going)
        except LoginRefused as error:
            return error.later
        except Answered as error:
            return error.result
        return Done()

    def usage(self, version: SecretVersion, since: datetime, ctx: Context) -> Usage | Unknown:
        """By Grafana's clock alone, so that ours may differ: `since` is not needed where a silence is asked for."""
        try:
            found = self._ask(ctx, self._listed, never=(version,))
        except Answered as error:
            return error.unknown
        token = self._token_of(version, found, ctx)
        if token is None:
            return Usage(in_use=None)
        silence = GRAIN + timedelta(seconds=self.settings.unused_for)
        if token.used_at is None or found.now - token.used_at >= silence:
            return Usage(in_use=False, last_used_at=token.used_at)
        told = f"the token {token.name}, used at {token.used_at:%Y-%m-%d %H:%M:%S} UTC"
        return Usage(in_use=True, holders=(told,), last_used_at=token.used_at)

    # ---------------------------------------------------------------------------------------------------------- minting

    def mint(
        self, version_id: str, expires_at: datetime | None, ctx: Context
    ) -> tuple[Fields, Handle] | Refused | NotYet | Unknown:
        seconds = None if expires_at is None else int((expires_at - datetime.now(UTC)).total_seconds())
        if seconds is not None and seconds < 1:
            return Refused(No.UNSUPPORTED, "the token would have expired already")

        def act(server: Grafana) -> tuple[int, SecretBytes]:
            return tokens.make(server, self._id(server), _name(version_id), seconds)

        try:
            id_, value = self._ask(ctx, act)
        except Misunderstood as error:
            if error.message_id == tokens.TAKEN:  # by an earlier call whose reply was lost: `find` comes first again
                return Unknown(Login.UNREACHABLE, f"{error.what}; it will be looked for by its name")
            return error.result if isinstance(error.result, Refused) else error.unknown
        except LoginRefused as error:
            return error.later
        except Answered as error:
            return error.result
        return {"token": value}, _to_handle(id_)

    def find(self, version_id: str, ctx: Context) -> tuple[Fields | None, Handle] | Unknown | None:
        """A token's value is never shown again: only an orphan's id."""
        try:
            token = self._ask(ctx, self._listed).called(_name(version_id))
        except Answered as error:
            return error.unknown
        return None if token is None else (None, _to_handle(token.id))

    def drop(self, handle: Handle, ctx: Context) -> Result:
        try:
            self._ask(ctx, lambda server: tokens.delete(server, self._id(server), _id(handle)))
        except LoginRefused as error:
            return error.later
        except Answered as error:
            return error.result
        return Done()

    # ---------------------------------------------------------------------------------------------------- small parts

    def _ask(
        self,
        ctx: Context,
        act: Callable[[Grafana], T],
        first: Sequence[SecretVersion] = (),
        never: Sequence[SecretVersion] = (),
    ) -> T:
        """As the admin; with `admin: self` by the first token that works: of `first`, then the new one, then CURRENT.

        One of `never` is not asked with: that would be a use of it. Raises Answered.
        """
        where = self.settings
        if isinstance(where.admin, Asker):
            return with_login(where, where.admin, ctx.credentials, ctx.deadline, act, org=where.org)
        error: LoginRefused | None = None
        for version in self._own([*first, ctx.pending, ctx.current], never):
            try:
                with Grafana(where, by_token(_value(version)), ctx.deadline, where.org) as server:
                    return act(server)
            except LoginRefused as other:
                error = error or other
        raise error or refused(
            No.PRIVILEGE,
            "there is no token of Grafana yet to work with",
            next="vaultkeeper adopt   with one made by hand",
        )

    def _own(self, versions: Sequence[SecretVersion | None], never: Sequence[SecretVersion]) -> Iterator[SecretVersion]:
        tried = [_value(version) for version in never]
        for version in versions:
            if version is not None and version.fields and _value(version) not in tried:
                tried.append(_value(version))
                yield version

    def _id(self, server: Grafana) -> int:
        if self._account is None:
            look = tokens.account_of if self.settings.admin == "self" else tokens.account_called
            self._account = look(server, self.settings.service_account)
        return self._account

    def _listed(self, server: Grafana) -> Tokens:
        return tokens.listed(server, self._id(server))

    def _unlisted(
        self, candidates: Sequence[SecretVersion], error: LoginRefused, ctx: Context
    ) -> Observation | Unknown:
        """Whoever asks was refused. With `admin: self` that is every token of ours."""
        if self.settings.admin == "self" and candidates:
            if error.unsaid and not tokens.reads_its_database(self.settings, ctx.deadline):
                return error.unknown
            return Observation({v.number: Login.REJECTED for v in candidates}, Basis.LISTING)
        if ctx.pending is None:
            raise NotAuthorised(error.what, next=error.next)
        return error.later if isinstance(error.later, Unknown) else error.unknown

    def _login(self, version: SecretVersion, ctx: Context, found: Tokens | None = None) -> Login:
        """As the account. A deleted token is refused without a reason: the list, or what strangers hear, must agree.

        `found`: the list, where it was asked for a moment ago.
        """
        try:
            with Grafana(self.settings, by_token(_value(version)), ctx.deadline, self.settings.org) as server:
                tokens.account_of(server, self.settings.service_account)
        except LoginRefused as error:
            return self._refused(version, error, ctx, found)
        return Login.ACCEPTED

    def _refused(self, version: SecretVersion, error: LoginRefused, ctx: Context, found: Tokens | None) -> Login:
        if not error.unsaid:
            return Login.REJECTED
        try:
            found = found or self._ask(ctx, self._listed, never=(version,))
        except Answered:
            dead = tokens.reads_its_database(self.settings, ctx.deadline)
        else:
            token = found.of(_id(version.handle)) if version.handle is not None else None
            dead = token is None or not token.lives
        return Login.REJECTED if dead else Login.UNREACHABLE

    def _accepted(self, version: SecretVersion, found: Tokens, ctx: Context) -> Login:
        if version.handle is None:
            return self._login(version, ctx, found)
        token = found.of(_id(version.handle))
        return Login.ACCEPTED if token is not None and token.lives else Login.REJECTED

    def _token_of(self, version: SecretVersion, found: Tokens, ctx: Context) -> Token | None:
        """An adopted one has no id: it is called `first_token`, or is the only one that lives and is not ours."""
        if version.handle is not None:
            return found.of(_id(version.handle))
        if self.settings.first_token is not None:
            return found.called(self.settings.first_token)
        ours = {_id(v.handle) for v in (ctx.pending, ctx.current) if v is not None and v.handle is not None}
        others = [token for token in found.listed if token.lives and token.id not in ours]
        return others[0] if len(others) == 1 else None

    def _delete(self, server: Grafana, version: SecretVersion, found: Tokens, ctx: Context) -> None:
        if version.handle is not None:
            tokens.delete(server, found.account, _id(version.handle))
        elif self._login(version, ctx, found) is not Login.REJECTED:
            token = self._token_of(version, found, ctx)
            if token is None:
                raise refused(No.UNSUPPORTED, WHICH, next=WHICH_NEXT)
            tokens.delete(server, found.account, token.id)


def _value(version: SecretVersion) -> SecretBytes:
    return version.fields[main_field(set(version.fields))]


def _name(version_id: str) -> str:
    return f"vk-{version_id}"


def _to_handle(id_: int) -> Handle:
    return Handle(json.dumps({"id": id_}))


def _id(handle: Handle) -> int:
    return int(json.loads(handle)["id"])
