"""Credentials in a data source of Grafana, so that a database's password and Grafana's copy of it change together.

Values are keys of its `secureJsonData` (`password`, `basicAuthPassword`, …), written by uid in one request with the
`version` that was read: whoever else wrote since is not overwritten, and the delivery begins anew. `user` and
`basicAuthUser` are keys of the data source itself, for accounts that take turns. Stored values cannot be read, so a
note in its `jsonData` says which version is there. Grafana's own health check of the data source, past its cache, is
the confirm: it logs in with what is stored now.

A provisioned data source is refused before anything is set: its next reload would put the old value back. One that is
provisioned with `editable: true` looks like any other, and is for its operator to know.

Privileges: `datasources:read` and `datasources:write` on the data source; in the open source edition the role Admin of
its organisation. https://grafana.com/docs/grafana/latest/developers/http_api/data_source/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Self, TypeVar

from pydantic import Field

from vaultkeeper.access import slots
from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.access.grafana import Connection, Grafana, refuse_without
from vaultkeeper.access.grafana import datasource as sources
from vaultkeeper.access.grafana.datasource import Stored
from vaultkeeper.access.grafana.errors import LoginRefused, NotThere
from vaultkeeper.access.grafana.login import Asker, with_login
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import (
    Confirmation,
    Confirmed,
    Done,
    Failed,
    Finding,
    Held,
    Holds,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import GroupKey, SecretVersion, Slot
from vaultkeeper.model.template import Template
from vaultkeeper.ports import DeliveryContext, Item, Spot

T = TypeVar("T")

RECENT_S = 2.0
"""From one hook of a rotation to the next. What is read so is written with its `version` only."""

AGAIN = timedelta(seconds=5)
"""Until a data source is asked again that is not well for another reason than its credential."""

PROVISIONED = "its next reload would put the file's value back"
WAY_OUT = (
    "keep the value in a file that its provisioning names, `password: $__file{/path}`: destination `file`, with a "
    "`reload` command that posts to /api/admin/provisioning/datasources/reload"
)


class Settings(Connection):
    """What a policy may say beside `kind: grafana_datasource` and `values: {key: template}`; `value` is `password`."""

    uid: str = Field(min_length=1, description="of the data source; it stands in the address of its page")
    org: int = Field(default=1, ge=1, description="number of its organisation")
    auth: Asker = Field(description="a user with the role Admin there, or a service account's token")


class GrafanaDatasourceDestination:
    """The group is the data source, its slots are keys."""

    kind: ClassVar[str] = "grafana_datasource"
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.DEMONSTRATED
    puts_back: ClassVar[bool] = True
    forbidden: ClassVar[frozenset[str]] = frozenset()
    max_bytes: ClassVar[int | None] = 64 << 10
    Settings: ClassVar[type[Settings]] = Settings

    def __init__(self) -> None:
        self._seen: dict[GroupKey, Stored] = {}  #: what was read last; see RECENT_S

    @classmethod
    def open(cls) -> Self:
        return cls()

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        """Raises PolicyInvalid for values that one data source cannot have."""
        settings = _settings(spec)
        if "" in spec.values and len(spec.values) > 1:
            raise PolicyInvalid("a data source has `value` or `values`", next="write `values: {password: template}`")
        for text in spec.values.values():
            if any(insert.previous or insert.index for insert in Template.parse(text).inserts()):
                raise PolicyInvalid("a data source logs in with one version at a time", next="write `{password}`")
        where = f"{settings.host}/{settings.org}/{settings.uid}"
        return [
            Spot(
                GroupKey(f"grafana_datasource:{where}"),
                Slot(name or "password"),
                name,
                f"{where}: {name or 'password'}",
            )
            for name in spec.values
        ]

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        settings = _settings(items[0].spec)
        try:
            stored = self._permitted(group, items, ctx)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what, error.next)]
        findings = [Finding("ok", f"data source {settings.uid} can be written")]
        secret = [item for item in items if item.slot not in sources.PLAIN]
        unread = [item.slot for item in secret if item.primary is None and stored.has(item.slot)]
        if unread:
            text = f"what {settings.uid} has as {', '.join(unread)} cannot be read: a first delivery cannot be undone"
            findings.append(Finding("warn", text, "adopt what works today before the first rotation"))
        return findings

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held] | Unknown:
        try:
            stored = self._look(group, items, ctx)
        except LoginRefused as error:  # asked again each moment, by new processes, it would be locked
            return error.later if isinstance(error.later, Unknown) else error.unknown
        except Answered as error:
            return error.unknown
        return {item.slot: _held(stored, item) for item in items}

    def prepare(
        self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext
    ) -> Prepared | Refused | NotYet | Unknown:
        """Asks what this login may do, so that a missing right is found before anything is set."""
        try:
            stored = self._permitted(group, items, ctx)
            for item in items:
                _refuse_stale(stored, item, ctx)
            sources.edited(stored, items, ctx)
        except Answered as error:
            return error.result
        return Prepared({item.slot: slots.receipt_of(item) or sources.receipt(stored, item) for item in items})

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        uid = _settings(items[0].spec).uid
        try:
            stored = self._recent(group, items, ctx)
            if all(stored.carries(item) for item in items) or stored.soon() is not None:
                stored = self._look(group, items, ctx)
            if all(stored.carries(item) for item in items):
                return Done()
            if (soon := stored.soon()) is not None:
                return NotYet(f"data source {uid} was written a moment ago, and Grafana tells seconds apart", soon)
            body = sources.edited(stored, items, ctx)
            self._seen.pop(group, None)
            _ask(items, ctx, lambda server: sources.write(server, uid, body))
        except LoginRefused as error:
            return error.later
        except Answered as error:
            return error.result
        return Done()

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        """Grafana logs in at the data source with what is stored."""
        uid = _settings(items[0].spec).uid
        try:
            stored = self._look(group, items, ctx)
            if not all(stored.carries(item) for item in items):
                return NotYet(f"data source {uid} was changed by somebody else", AGAIN, (uid,))
            health = _ask(items, ctx, lambda server: sources.health(server, uid))
        except LoginRefused as error:
            return error.later if isinstance(error.later, Unknown) else error.unknown
        except Answered as error:
            return error.unknown  # that it cannot be looked at says nothing of its consumers
        if health.well:
            return Confirmed(Proof.DEMONSTRATED)
        if health.by_login:
            return Failed(f"data source {uid}", f"its health check says: {health.said}")
        return NotYet(f"data source {uid} is not well: {health.said}", AGAIN, (uid,))

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        return timedelta(minutes=2)

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds | Unknown:
        try:
            stored = self._recent(group, [item], ctx)
        except Answered as error:
            return error.unknown
        return Holds.RUNNING if stored.holds(item, version) else Holds.NOTHING

    # ------------------------------------------------------------------------------------------------------ looking

    def _look(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Stored:
        uid = _settings(items[0].spec).uid
        self._seen[group] = stored = _ask(items, ctx, lambda server: sources.read(server, uid))
        return stored

    def _recent(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Stored:
        found = self._seen.get(group)
        if found is not None and time.monotonic() - found.read_at_monotonic_s < RECENT_S:
            return found
        return self._look(group, items, ctx)

    def _permitted(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Stored:
        """What is there, where it may be written. Raises Answered."""
        settings = _settings(items[0].spec)

        def act(server: Grafana) -> Stored:
            try:
                stored = sources.read(server, settings.uid)
            except NotThere:
                what = f"{server.host}: organisation {settings.org} has no data source with the uid {settings.uid}"
                raise refused(No.UNSUPPORTED, what, next="compare `uid` and `org` with its page in Grafana") from None
            if stored.read_only:
                what = f"data source {settings.uid} is provisioned from a file, and read-only: {PROVISIONED}"
                raise refused(No.UNSUPPORTED, what, next=WAY_OUT)
            wrong = [item.slot for item in items if sources.misspelt(stored, item.slot)]
            if wrong:
                kept = ", ".join(sorted(stored.document["secureJsonFields"]))
                what = f"data source {settings.uid} stores {kept}, and nobody reads {', '.join(wrong)}"
                raise refused(No.UNSUPPORTED, what, next="name the key that it logs in with")
            refuse_without(server, "datasources:write", f"datasources:uid:{settings.uid}")
            return stored

        self._seen[group] = stored = _ask(items, ctx, act)
        return stored


# ---------------------------------------------------------------------------------------------------------- small parts


def _settings(spec: DestinationSpec) -> Settings:
    return Settings.model_validate(spec.settings)


def _ask(items: Sequence[Item], ctx: DeliveryContext, act: Callable[[Grafana], T]) -> T:
    settings = _settings(items[0].spec)
    return with_login(settings, settings.auth, ctx.credentials, ctx.deadline, act, org=settings.org)


def _held(stored: Stored, item: Item) -> Held:
    if not stored.has(item.slot):
        return Held(None)
    found = next((version for version in item.accepted if stored.holds(item, version)), None)
    return Held(None, foreign=True) if found is None else Held(found.number)


def _refuse_stale(stored: Stored, item: Item, ctx: DeliveryContext) -> None:
    """Invariant 12: a newer generation than any of ours was written by a later state of this store."""
    ours = max((version.number for version in (item.primary, *item.accepted) if version), default=0)
    theirs = sources.newest(stored, item, ctx)
    if ours and theirs > ours:
        raise refused(No.STALE, f"{item.slot} carries v{theirs}, and this store knows v{ours} at most")
