"""An API key of Dokploy, which may make and delete keys of its own user: vaultkeeper rotates its own.

Dokploy makes the value, shows it once, and lists keys by name. A new key is made without a rate limit, because the
default one allows five calls in 24 hours, and with an end; its name holds the version's id, so that one which was made
and whose reply was lost is found and deleted. Deleting a key that is gone already is success.

Written for Dokploy v0.30.2 (`user.createApiKey`, `user.get`, `user.deleteApiKey`); tried on the simulator in
`vaultkeeper.testing`, not on a real server by this test suite.

Privileges: none beyond being a user of the organisation whose keys may use the API.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self, TypeVar

from pydantic import Field

from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.access.dokploy import (
    Connection,
    Dokploy,
    KeyRefused,
    NotDokploy,
    NotThere,
    ProcedureMissing,
    ServerFailed,
)
from vaultkeeper.access.settings import host_of
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, NotYet, Observation, Refused, Result, Unknown
from vaultkeeper.model.secret import Fields, Handle, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

T = TypeVar("T")

_NAME = "vk-{}"
_ID_CHARS = 28  # a name has at most 32
_PREFIX = "vk_"
_SHORTEST, _LONGEST = timedelta(days=1), timedelta(days=365)  # what better-auth accepts beneath Dokploy
_FIRST_NEXT = "give `first_key:` the name that it, and no other key, has in Dokploy's list of keys"


class DokployApiKeySettings(Connection):
    """What a policy may say beside `kind: dokploy_api_key`."""

    first_key: str | None = Field(
        default=None, description="name in Dokploy of the key that a person made and that is adopted first"
    )


class DokployApiKeyTarget:
    """Any number of keys at once; each deletes itself or another of the same user."""

    kind: ClassVar[str] = "dokploy_api_key"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.MINTED}), observes=frozenset({Basis.LISTING}), max_accepted=None
    )
    Settings: ClassVar[type[DokployApiKeySettings]] = DokployApiKeySettings

    def __init__(self, settings: DokployApiKeySettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(
                f"settings of dokploy_api_key have codec {codec}, this release knows {cls.codec}"
            )
        return cls(DokployApiKeySettings.model_validate(settings))

    def check(self, ctx: Context) -> Sequence[Finding]:
        try:
            listed = self._with_key(ctx, (), _listed)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what, error.next)]
        if ctx.current is not None and ctx.current.handle is None and self._first(listed) is None:
            text = "nothing says which of the keys in Dokploy is the adopted one, so it could not be deleted"
            return [Finding("refuse", text, _FIRST_NEXT)]
        return [Finding("ok", f"{len(listed.keys)} keys of this user can be listed")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return given

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By id in the list of keys; one without an id (adopted) by using it."""
        try:
            listed = self._with_key(ctx, candidates, _listed)
            answers = {version.number: self._accepted(version, listed, ctx) for version in candidates}
        except KeyRefused as error:
            if all(version.handle is not None for version in candidates) and candidates:
                return Observation(dict.fromkeys((v.number for v in candidates), Login.REJECTED), Basis.LISTING)
            return Unknown(Login.THROTTLED, error.what)  # a key made by hand may only have spent its limit
        except Answered as error:
            return error.unknown
        handles = {v.number: h for v in candidates if (h := self._handle(v, listed, answers[v.number])) is not None}
        ours = {_id(handle) for handle in handles.values()}
        return Observation(
            answers,
            Basis.LISTING,
            handles=handles,
            foreign=len([row for row in listed.keys if row["id"] not in ours]),
            durable=True,
        )

    def system(self) -> str:
        return host_of(self.settings.url)

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return f"dokploy:{host_of(self.settings.url)}", host_of(self.settings.url)

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """Delete what is refused. What is accepted must be there already: a deleted key cannot be made again."""
        kept = {_value(version) for version in accept}
        try:
            listed = self._with_key(ctx, accept, _listed)
            for version in accept:
                if self._accepted(version, listed, ctx) is not Login.ACCEPTED:
                    return Refused(No.UNSUPPORTED, "a deleted key cannot be made again")
            for version in refuse:
                if _value(version) not in kept:
                    self._delete(version, accept, listed, ctx)
        except Answered as error:
            return error.result
        return Done()

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        try:
            return self._login(version, ctx)
        except Answered as error:
            return error.result.reason if isinstance(error.result, Unknown) else Login.UNREACHABLE

    def mint(
        self, version_id: str, expires_at: datetime | None, ctx: Context
    ) -> tuple[Fields, Handle] | Refused | NotYet | Unknown:
        def make(server: Dokploy) -> Any:
            user = _user(server)
            body = {"name": _name(version_id), "prefix": _PREFIX, "rateLimitEnabled": False}
            lasts = {} if expires_at is None else {"expiresIn": _seconds(expires_at)}
            return server.post(
                "user.createApiKey", {**body, **lasts, "metadata": {"organizationId": user["organizationId"]}}
            )

        try:
            made = self._with_key(ctx, (), make)
            return _minted(made)
        except ServerFailed as error:
            return Unknown(Login.UNREACHABLE, f"{error.what}; was it made? it will be looked for by its name")
        except Answered as error:
            return error.result if not isinstance(error.result, NotYet) else error.unknown

    def find(self, version_id: str, ctx: Context) -> tuple[Fields | None, Handle] | Unknown | None:
        """A key's value is never shown again: only an orphan's id."""
        try:
            listed = self._with_key(ctx, (), _listed)
        except Answered as error:
            return error.unknown
        return next(((None, _to_handle(r["id"])) for r in listed.keys if r["name"] == _name(version_id)), None)

    def drop(self, handle: Handle, ctx: Context) -> Result:
        try:
            self._with_key(ctx, (), lambda server: _delete(server, _id(handle)))
        except Answered as error:
            return error.result
        return Done()

    # ---------------------------------------------------------------------------------------------------- small parts

    def _with_key(self, ctx: Context, first: Sequence[SecretVersion], act: Callable[[Dokploy], T]) -> T:
        """With the first key that works: of `first`, then the new one, then the present one. Raises Answered."""
        error: KeyRefused | None = None
        for value in dict.fromkeys(_values([*first, ctx.pending, ctx.current])):
            try:
                with Dokploy(self.settings, SecretBytes(value), ctx.deadline) as server:
                    return act(server)
            except KeyRefused as other:
                error = error or other
        raise error or refused(
            No.PRIVILEGE,
            "there is no key of Dokploy yet to work with",
            next="vaultkeeper adopt   with a key made by hand",
        )

    def _login(self, version: SecretVersion, ctx: Context) -> Login:
        with Dokploy(self.settings, version.fields[main_field(set(version.fields))], ctx.deadline) as server:
            try:
                server.get("settings.getDokployVersion")
            except KeyRefused:
                return Login.REJECTED
        return Login.ACCEPTED

    def _accepted(self, version: SecretVersion, listed: _Listed, ctx: Context) -> Login:
        if version.handle is None:
            return Login.ACCEPTED if listed.by == _value(version) else self._login(version, ctx)
        return Login.ACCEPTED if _id(version.handle) in listed.living else Login.REJECTED

    def _handle(self, version: SecretVersion, listed: _Listed, answer: Login) -> Handle | None:
        if version.handle is not None or answer is not Login.ACCEPTED:
            return version.handle
        return self._first(listed)

    def _first(self, listed: _Listed) -> Handle | None:
        """The one key of the policy's `first_key`; none where several have that name: they may be somebody else's."""
        named = [row["id"] for row in listed.keys if row["name"] == self.settings.first_key]
        return _to_handle(named[0]) if len(named) == 1 else None

    def _delete(self, version: SecretVersion, accept: Sequence[SecretVersion], listed: _Listed, ctx: Context) -> None:
        """An adopted key has no id: it is the one of the policy's `first_key`, unless that one is to stay."""
        handle = version.handle
        if handle is None:
            first_stays = any(other.handle is None for other in accept)
            accepted = self._login(version, ctx)
            handle = None if first_stays else self._handle(version, listed, Login.ACCEPTED)
            if handle is None and accepted is Login.ACCEPTED:
                raise refused(
                    No.UNSUPPORTED,
                    "which key in Dokploy is the adopted one is not known, so it cannot be deleted",
                    next=_FIRST_NEXT,
                )
        if handle is not None:
            id_ = _id(handle)
            self._with_key(ctx, accept, lambda server: _delete(server, id_))


class _Listed:
    """The keys of a user, as one of them lists them."""

    def __init__(self, keys: Sequence[Mapping[str, Any]], by: bytes) -> None:
        self.keys, self.by = keys, by

    @property
    def living(self) -> frozenset[str]:
        now = datetime.now(UTC)
        return frozenset(str(row["id"]) for row in self.keys if row.get("enabled") is not False and _ends(row) > now)


def _user(server: Dokploy) -> Mapping[str, Any]:
    found = server.get("user.get")
    if not isinstance(found, dict) or not isinstance(found.get("organizationId"), str):
        what = f"{server.host}: user.get answered with something else than a user"
        raise NotDokploy(Unknown(Login.UNREACHABLE, what), what)
    return found


def _listed(server: Dokploy) -> _Listed:
    inner = _user(server).get("user")
    rows = inner.get("apiKeys") if isinstance(inner, dict) else None
    if not isinstance(rows, list):
        what = f"{server.host}: user.get names no keys"
        raise NotDokploy(Unknown(Login.UNREACHABLE, what), what)
    return _Listed([row for row in rows if isinstance(row, dict) and "id" in row], server.key.reveal())


def _minted(made: Any) -> tuple[Fields, Handle] | Unknown:
    """A key with a limit would fail at its sixth call: it is none."""
    if not isinstance(made, dict) or not isinstance(made.get("key"), str) or not isinstance(made.get("id"), str):
        return Unknown(Login.UNREACHABLE, "user.createApiKey answered without a key")
    if made.get("rateLimitEnabled") is not False:
        return Unknown(Login.UNREACHABLE, "Dokploy made a key with a rate limit although none was asked for")
    return {"token": SecretBytes(made["key"].encode())}, _to_handle(made["id"])


def _delete(server: Dokploy, id_: str) -> None:
    try:
        server.post("user.deleteApiKey", {"apiKeyId": id_})
    except ProcedureMissing:
        raise
    except NotThere:
        return


def _seconds(expires_at: datetime) -> int:
    """Raises Answered for an end that Dokploy does not accept."""
    left = expires_at - datetime.now(UTC)
    if left > _LONGEST:
        raise refused(
            No.UNSUPPORTED,
            f"a key of Dokploy lives at most {_LONGEST.days} days, and is made for two periods and a day",
            next="give the secret a rotation_period of 182 days or less",
        )
    return int(max(left, _SHORTEST).total_seconds()) + 1


def _ends(row: Mapping[str, Any]) -> datetime:
    text = row.get("expiresAt")
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else datetime.max.replace(tzinfo=UTC)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


def _name(version_id: str) -> str:
    return _NAME.format(version_id[:_ID_CHARS])


def _to_handle(id_: object) -> Handle:
    return Handle(json.dumps({"id": str(id_)}))


def _id(handle: Handle) -> str:
    return str(json.loads(handle)["id"])


def _value(version: SecretVersion) -> bytes:
    return version.fields[main_field(set(version.fields))].reveal()


def _values(versions: Sequence[SecretVersion | None]) -> Iterator[bytes]:
    return (_value(version) for version in versions if version is not None and version.fields)
