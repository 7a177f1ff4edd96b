"""One delivery group in Dokploy: what a policy says of it, what Dokploy holds, and how its text is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from pydantic import Field, model_validator

from vaultkeeper.access import slots
from vaultkeeper.access.answer import refused, unknown
from vaultkeeper.access.dokploy import Connection, Dokploy, DokployError, opened
from vaultkeeper.access.dokploy.env import EnvText, only_reference, references, resolve, spliced
from vaultkeeper.access.dokploy.running import Wanted
from vaultkeeper.access.dokploy.service import (
    DATABASES,
    KINDS,
    SHARED,
    Holder,
    How,
    Kind,
    apply,
    find,
    read,
    referring,
    save,
)
from vaultkeeper.access.settings import Command, HttpCheck, Reference
from vaultkeeper.errors import VaultkeeperError
from vaultkeeper.model.outcome import No, Receipt
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.ports import DeliveryContext, Item

NOBODY_WAITS = frozenset({Read.PER_USE, Read.COPY, Read.FIRST_START})


class Settings(Connection):
    """What a policy may say beside `kind: dokploy` and `values: {KEY: template}`."""

    api_key: Reference = Field(description="reference to the key; its user needs access to this service only")
    application: str | None = Field(default=None, description="its id, or project/environment/name")
    compose: str | None = Field(default=None, description="its id, or project/environment/name")
    postgres: str | None = Field(default=None, description="its id, or project/environment/name")
    mysql: str | None = Field(default=None, description="its id, or project/environment/name")
    mariadb: str | None = Field(default=None, description="its id, or project/environment/name")
    mongo: str | None = Field(default=None, description="its id, or project/environment/name")
    redis: str | None = Field(default=None, description="its id, or project/environment/name")
    project: str | None = Field(default=None, description="shared variables of a project: its id or name")
    environment: str | None = Field(default=None, description="shared variables: its id, or project/environment")
    apply: How | None = Field(default=None, description="default: reload, for Compose redeploy; a database must say")
    by_reference: bool = Field(
        default=False, description="the key holds ${{vault.…}}: it is left alone and only applied anew"
    )
    confirm: HttpCheck | Command | None = Field(default=None, description="how to see that consumers run on it")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        named = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(named) != 1:
            raise ValueError(f"give one of {', '.join(KINDS)}")
        if named[0] in DATABASES and self.apply not in ("deploy", "none"):
            raise ValueError("a database must say `apply: deploy`, which restarts it, or `apply: none`")
        if named[0] in SHARED and self.by_reference:
            raise ValueError("`by_reference` goes with a service, not with shared variables")
        if named[0] == "compose" and self.apply == "reload":
            raise ValueError("a Compose service has no `reload`; expected redeploy, deploy or none")
        return self

    @property
    def what(self) -> tuple[Kind, str]:
        """The kind and what the policy calls it."""
        return next((kind, said) for kind in KINDS if (said := getattr(self, kind)) is not None)


@dataclass(frozen=True)
class Group:
    """Everything that a group's items say together, and what Dokploy holds now."""

    settings: Settings
    spec: DestinationSpec
    server: Dokploy
    holder: Holder
    text: EnvText
    items: Sequence[Item]

    @property
    def names(self) -> list[str]:
        return [str(item.slot) for item in self.items]

    def how(self, service: Holder) -> How:
        """How this service is made to read its environment."""
        if self.spec.read in NOBODY_WAITS and self.settings.apply is None:
            return "none"
        if self.spec.read is Read.FIRST_START or self.settings.apply == "none":
            return "none"
        if service.kind == "compose":
            return "deploy" if self.settings.apply == "deploy" else "redeploy"
        if service.kind in DATABASES:
            return "deploy"
        return self.settings.apply or "reload"

    @cached_property
    def services(self) -> list[Holder]:
        """Whoever is given these variables: the service itself, or everyone who refers to a shared one."""
        if self.holder.kind in SHARED:
            return referring(self.server, self.holder, self.names)
        return [self.holder]

    def wanted(self, service: Holder) -> Wanted:
        """What its containers shall have, by key. Raises Answered where a reference names nothing."""
        if self.settings.by_reference:
            return {item.slot: content.decode() for item in self.items if (content := content_of(item)) is not None}
        project, environment = service.project_env, service.environment_env
        found = resolve(service.env, project, environment)
        keys = self.names
        if self.holder.kind in SHARED:
            keys = [k for k, scope, name in references(service.env) if scope == self.holder.kind and name in keys]
        return {key: found.get(key) for key in keys}

    @property
    def title(self) -> str:
        """By which a queued deployment is known again."""
        told = [f"{i.secret} v{i.primary.number} {i.primary.id[:8]}" for i in self.items if i.primary]
        return f"vaultkeeper: {', '.join(sorted(told)) or 'as it was before'}"[:200]

    @property
    def forward(self) -> bool:
        """Is a version handed over that was prepared, and not the one before it put back?"""
        receipts = [(slots.receipt_of(item), item.primary) for item in self.items]
        return any(r is None or (v is not None and r.public.get("to") == v.number) for r, v in receipts)


@contextmanager
def looked(items: Sequence[Item], ctx: DeliveryContext) -> Iterator[Group]:
    """What Dokploy holds, found by the id that a receipt pinned. Raises Answered."""
    every = [Settings.model_validate(item.spec.settings) for item in items]
    settings = every[0]
    if any((s.apply, s.by_reference, s.what) != (settings.apply, settings.by_reference, settings.what) for s in every):
        raise refused(No.UNSUPPORTED, "one service is given several ways to be applied", next="write the same `apply`")
    kind, said = settings.what
    with opened(settings, settings.api_key, ctx.credentials, ctx.deadline) as server:
        pinned = next((r.public.get("id") for i in items if (r := slots.receipt_of(i)) is not None), None)
        holder = read(server, kind, str(pinned or find(server, kind, said)))
        yield Group(settings, items[0].spec, server, holder, text_of(holder), items)


def text_of(holder: Holder) -> EnvText:
    """Raises Answered for a text that must not be touched."""
    return EnvText(holder.env, bare_only=holder.kind == "compose")


def content_of(item: Item) -> bytes | None:
    """None: what the receipt holds."""
    return slots.new_content(item) if item.primary is not None else None


def may_hold(here: Group) -> None:
    """Raises Answered where the value that is there must be changed somewhere else."""
    for name in here.names:
        found = only_reference(here.text.value(name) or "")
        scope, what = found or (None, "")
        if here.settings.by_reference:
            if scope != "vault":
                raise refused(
                    No.UNSUPPORTED,
                    f"{here.holder.name}: {name} holds no reference to a secrets provider",
                    next=f"write {name}='${{{{vault.PROVIDER.PATH}}}}' there, or take `by_reference` out of the policy",
                )
        elif scope == "vault":
            raise refused(
                No.UNSUPPORTED,
                f"{here.holder.name}: {name} is a reference to a secrets provider",
                next="deliver to that provider (vault_kv), and say `by_reference: true` here",
            )
        elif scope is not None:
            where = f"the {scope}'s variable {what}" if scope else f"its key {what}"
            told = f"`{scope}:` instead of `{here.holder.kind}:` and" if scope else "the same place and"
            raise refused(
                No.UNSUPPORTED,
                f"{here.holder.name}: {name} is a reference to {where}, which is what must be rotated",
                next=f"write {told} `values: {{{what}: …}}` in the policy",
            )


def was(receipt: Receipt, item: Item) -> bool:
    """Did the slot carry this item's content before, by its receipt?"""
    content = content_of(item)
    return content is not None and saved(receipt).carries(item.slot, content)


def saved(receipt: Receipt) -> EnvText:
    """The text as it was before the rotation."""
    return EnvText(receipt.sealed.reveal().decode(errors="surrogatepass") if receipt.sealed else "")


def edit(here: Group) -> None:
    """Every slot as its item says. Going back, as it was spelled before; what others changed since stays."""
    for item in here.items:
        receipt, content = slots.receipt_of(item), content_of(item)
        if here.settings.by_reference:
            if content is not None:
                spliced(here.text.text, item.slot, content)
        elif receipt is not None and (content is None or was(receipt, item)):
            stored = saved(receipt).get(item.slot)
            if here.text.get(item.slot) != stored:
                here.text.restore(item.slot, stored)
        elif content is not None and not here.text.carries(item.slot, content):
            here.text.put(item.slot, content)


@contextmanager
def unsure() -> Iterator[None]:
    """Looking after a save: whatever fails now leaves the new text behind, so nobody may take it for untouched."""
    try:
        yield
    except VaultkeeperError as error:
        raise unknown(error.what) from None


def read_back(here: Group) -> Group:
    """What was saved stands there. Raises Answered with CONFLICT where somebody else's save took its place."""
    with unsure():
        holder = read(here.server, here.holder.kind, here.holder.id)
        found = Group(here.settings, here.spec, here.server, holder, text_of(holder), here.items)
        list(found.services)  # looked up here, and kept
    if any(found.text.get(name) != here.text.get(name) for name in here.names):
        raise refused(No.CONFLICT, f"{holder.name} was saved by somebody else at the same moment")
    return found


def apply_to(here: Group, service: Holder, put_back: str | None, earlier: Sequence[Holder] = ()) -> None:
    """Raises Answered. Where Dokploy certainly refuses, the text `put_back` returns, for those applied `earlier` too.

    A failed reload (500) is judged by confirm, from the status that it leaves: it may have changed the service.
    """
    how = here.how(service)
    try:
        apply(here.server, service, how, here.title)
    except DokployError as error:
        if not error.definite:
            with unsure():
                failed = how == "reload" and read(here.server, service.kind, service.id).failed
            if service.kind in DATABASES or failed:
                return
            raise
        if put_back is not None:
            _put_back(here, put_back, earlier, error)
        raise


def _put_back(here: Group, env: str, applied: Sequence[Holder], why: DokployError) -> None:
    """As if nothing had been delivered; what others saved meanwhile stays. Raises Answered where that is unsure."""
    try:
        holder, before = read(here.server, here.holder.kind, here.holder.id), EnvText(env)
        text = text_of(holder)
        for name in here.names:
            if text.get(name) == here.text.get(name) != before.get(name):
                text.restore(name, before.get(name))
        save(here.server, holder, text.text)
        certain = read(here.server, holder.kind, holder.id).env == text.text
        for service in applied:
            apply(here.server, service, here.how(service), f"{here.title} (put back)"[:200])
    except VaultkeeperError:
        certain = False
    if not certain:
        raise unknown(f"{why.what}; the variables could not be put back") from None
