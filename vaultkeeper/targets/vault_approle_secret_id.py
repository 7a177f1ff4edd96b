"""Secret ids of an AppRole role of Vault or OpenBao: several are valid at once, so none is cut off.

Each value is registered as a custom secret id and known by its accessor afterwards; the old accessor is destroyed when
the old value is retired. Tokens that were issued for it live on until their own time ends. A login that proves a value
is made without any token of ours, and the token that it yields is revoked.

Five failed logins in a row lock a role for 15 minutes, for everybody and with the right secret id too (tried on OpenBao
2.6.2). So failed logins are counted beforehand, four in that time, and the login that must fail uses a role that nobody
has: it locks nothing. What it cannot show, that the role asks for a secret id at all, is read from the role. A role
whose secret ids are used up by logins (`secret_id_num_uses`) is refused, because proving would use them up.

Privileges: read on the role and its `role-id`, list on `secret-id`, update on
`custom-secret-id`, `secret-id/lookup` and `secret-id-accessor/destroy`.
https://openbao.org/api-docs/auth/approle/
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field

from vaultkeeper.access import vault
from vaultkeeper.access.answer import Answered, unknown
from vaultkeeper.access.vault.errors import LoginLocked, LoginRefused, NotThere, PermissionDenied, VaultError
from vaultkeeper.access.vault.settings import VaultPath, VaultSettings
from vaultkeeper.errors import ChecksNothing, ConfigurationInvalid
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused, Result, Unknown
from vaultkeeper.model.secret import Fields, Handle, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

if TYPE_CHECKING:
    from vaultkeeper.access.vault.transport import Transport

T = TypeVar("T")
NOBODY = "role_id"
"""The field of a decoy that names its role."""

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time: a secret id without an end."""


class AppRoleSettings(VaultSettings):
    """What a policy may say beside `kind: vault_approle_secret_id`."""

    role: VaultPath = Field(description="the role whose secret ids are rotated")
    mount: VaultPath = Field(default="approle", description="of the AppRole method that has the role")


class VaultAppRoleTarget:
    """Accepts any number of secret ids; those of others are kept."""

    kind: ClassVar[str] = "vault_approle_secret_id"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.OVERLAP}),
        observes=frozenset({Basis.LISTING}),
        max_accepted=None,
        login_budget=(4, timedelta(minutes=15)),
        tells_lockouts=True,
        max_bytes=4096,
    )
    Settings: ClassVar[type[AppRoleSettings]] = AppRoleSettings

    def __init__(self, settings: AppRoleSettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of {cls.kind} have codec {codec}, this release knows {cls.codec}")
        return cls(AppRoleSettings.model_validate(settings))

    def system(self) -> str:
        place = self.settings
        return f"{place.url}/{place.namespace or ''}/{place.mount}/{place.role}"

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        role = "nobody" if NOBODY in version.fields else self.system()
        return f"approle:{role}", role  # roles are locked, addresses are not

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        """Of a role that does not exist."""
        nobody, value = SecretBytes(str(uuid.uuid4()).encode()), SecretBytes(secrets.token_urlsafe(32).encode())
        return replace(version, fields={main_field(set(version.fields)): value, NOBODY: nobody})

    def check(self, ctx: Context) -> Sequence[Finding]:
        try:
            role = self._ask(ctx, lambda role: role.settings())
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what, error.next)]
        name, findings = self.settings.role, []
        if role.get("bind_secret_id") is False:
            findings.append(Finding("refuse", f"role {name} takes no secret id", "set bind_secret_id=true"))
        if role.get("secret_id_num_uses"):
            findings.append(
                Finding("refuse", f"logins use up the secret ids of role {name}", "set secret_id_num_uses=0")
            )
        if role.get("secret_id_ttl"):
            days = role["secret_id_ttl"] / 86400
            findings.append(Finding("warn", f"secret ids of role {name} die after {days:.3g} days", "rotate sooner"))
        if role.get("secret_id_bound_cidrs") or role.get("token_bound_cidrs"):
            findings.append(Finding("warn", f"role {name} allows logins from some networks only; ours is tried too"))
        return findings or [Finding("ok", f"role {name} takes any number of secret ids")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return given

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By looking up each candidate, without a login."""
        try:
            found = self._ask(ctx, lambda role: {v.number: role.accessor(_value(v)) for v in candidates})
            listed = self._ask(ctx, lambda role: role.accessors())
        except Answered as error:
            return error.unknown
        handles = {number: _handle(accessor) for number, accessor in found.items() if accessor}
        return Observation(
            {number: Login.ACCEPTED if accessor else Login.REJECTED for number, accessor in found.items()},
            Basis.LISTING,
            handles=handles,
            foreign=len(listed - set(found.values())),
            durable=True,
            account_usable=False,  # a new secret id takes nothing over: the others stay
        )

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """Registers what is missing, then destroys; each is looked up first: the server refuses to do either twice."""
        wanted = {_value(version).reveal() for version in accept}
        gone = [_value(version) for version in refuse if _value(version).reveal() not in wanted]
        if not all(_value(version).is_text() and wanted for version in accept):
            return Refused(No.VALUE, "a secret id is text")
        try:
            accessors = [self._ask(ctx, lambda role, v=version: role.register(v, ctx)) for version in accept]  # type: ignore[misc]
            for value in gone:
                self._ask(ctx, lambda role, v=value: role.destroy(v))  # type: ignore[misc]
        except Answered as error:
            return error.result
        return Done(_handle(accessors[0]) if accessors else None)

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """A login as an application makes it. Raises ChecksNothing where the role asks for no secret id."""
        from vaultkeeper.access.vault.transport import Transport

        try:
            if self._ask(ctx, lambda role: role.settings()).get("bind_secret_id") is False:
                raise ChecksNothing(f"role {self.settings.role} takes no secret id", next="set bind_secret_id=true")
            nobody = version.fields.get(NOBODY)
            role_id = nobody.text() if nobody is not None else self._ask(ctx, lambda role: role.id())
        except VaultError:
            return Login.UNREACHABLE
        login = vault.Login(self.settings.connection(), Transport(self.settings))
        login.transport.deadline = ctx.deadline
        try:
            told = vault.log_in(login, self.settings.mount, role_id, _value(version))
            login.transport.token, login.ours = told["client_token"], True
            return Login.ACCEPTED
        except LoginRefused:
            return Login.REJECTED
        except LoginLocked:
            return Login.THROTTLED
        except VaultError:
            return Login.UNREACHABLE
        finally:
            login.end()

    def close(self) -> None:
        vault.end()

    def _ask(self, ctx: Context, act: Callable[[_Role], T]) -> T:
        settings = self.settings
        return vault.ask(
            settings, ctx.credentials, ctx.deadline, lambda at: act(_Role(at, settings.mount, settings.role))
        )


class _Role:
    """One role, reached with our token. Every method raises VaultError."""

    def __init__(self, transport: Transport, mount: str, name: str) -> None:
        from hvac.api.auth_methods import AppRole

        self.api = AppRole(transport)
        self.where: dict[str, str] = {"role_name": name, "mount_point": mount}

    def settings(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.api.read_role(**self.where)["data"]
        return found

    def id(self) -> str:
        return str(self.api.read_role_id(**self.where)["data"]["role_id"])

    def accessors(self) -> set[str]:
        """Of everybody's secret ids; empty where the policy does not let us list them."""
        try:
            return set(self.api.list_secret_id_accessors(**self.where)["data"]["keys"])
        except (NotThere, PermissionDenied):
            return set()

    def accessor(self, value: SecretBytes) -> str | None:
        """None: this secret id does not work. One that has expired is kept for a while, and does not count."""
        accessor, works = self.entry(value)
        return accessor if works else None

    def entry(self, value: SecretBytes) -> tuple[str | None, bool]:
        """The accessor, where the server knows this secret id, and whether it works."""
        told = self.api.read_secret_id(secret_id=value.text(), **self.where).get("data") if value.is_text() else None
        if not told:
            return None, False
        until = str(told["expiration_time"])
        ended = until != NEVER and datetime.fromisoformat(until[:19]).replace(tzinfo=UTC) <= datetime.now(UTC)
        return str(told["secret_id_accessor"]), not ended

    def register(self, version: SecretVersion, ctx: Context) -> str:
        """Its accessor. What is noted beside it stands in the metadata of every token that it yields."""
        found, works = self.entry(_value(version))
        if found is not None and not works:  # the server would call an expired one registered already (500)
            self.api.destroy_secret_id_accessor(secret_id_accessor=found, **self.where)
        if found is None or not works:
            note = {"vaultkeeper": f"{ctx.installation} {ctx.secret} v{version.number}"}
            told = self.api.create_custom_secret_id(secret_id=_value(version).text(), metadata=note, **self.where)
            found = str(told["data"]["secret_id_accessor"])
        return found

    def destroy(self, value: SecretBytes) -> None:
        """Looked up again afterwards: the answer alone proves nothing."""
        accessor = self.accessor(value)
        if accessor is None:
            return
        self.api.destroy_secret_id_accessor(secret_id_accessor=accessor, **self.where)
        if self.accessor(value) is not None:
            raise unknown("a destroyed secret id is still there")


def _value(version: SecretVersion) -> SecretBytes:
    return version.fields[main_field(set(version.fields))]


def _handle(accessor: str) -> Handle:
    return Handle(json.dumps({"accessor": accessor}))
