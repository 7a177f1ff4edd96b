"""Keys of one secret in a key-value store of version 2 of Vault or OpenBao.

A write is a read, an edit and a write by compare-and-set, so that keys that are not ours stay, whoever writes them at
the same time. Nothing is written where the secret carries everything already: a repeat adopts what an earlier call
wrote, its answer lost or not. With `destroy_old`, versions of the secret that hold a retired value are destroyed, never
its current one. With `custom_metadata`, the secret says who wrote each key, and a store that was restored from an older
copy writes nothing over it.

Privileges: create, read and update on `MOUNT/data/PATH`; for `custom_metadata` patch on
`MOUNT/metadata/PATH`; for `destroy_old` read there and update on `MOUNT/destroy/PATH`.
https://openbao.org/api-docs/secret/kv/kv-v2/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field

from vaultkeeper.access import slots, vault
from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.access.vault import kv as vault_kv
from vaultkeeper.access.vault.errors import LAG, CasMismatch
from vaultkeeper.access.vault.kv import Stored
from vaultkeeper.access.vault.settings import VaultPath, VaultSettings
from vaultkeeper.errors import PolicyInvalid, VaultkeeperError
from vaultkeeper.model.outcome import (
    Confirmation,
    Confirmed,
    Done,
    Finding,
    Held,
    Holds,
    Login,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import DeliveryContext, Item, Spot

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultkeeper.access.vault.transport import Transport

T = TypeVar("T")

TRIES = 3
"""Writes by compare-and-set in one call, each after a fresh look."""


class Settings(VaultSettings):
    """What a policy may say beside `kind: vault_kv` and `values: {key: template}`; `value` is the key `value`."""

    mount: VaultPath = "secret"
    path: VaultPath = Field(description="of the secret, below the mount")
    merge: bool = Field(default=True, description="keep keys that are not ours; false: refuse a secret that has some")
    custom_metadata: bool = Field(default=False, description="note in the secret's metadata who wrote each key")
    destroy_old: bool = Field(default=False, description="destroy old versions of the secret that hold a retired value")


class VaultKvDestination:
    """The group is the secret, its slots are keys."""

    kind: ClassVar[str] = "vault_kv"
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.WRITTEN
    puts_back: ClassVar[bool] = True
    forbidden: ClassVar[frozenset[str]] = frozenset()
    max_bytes: ClassVar[int | None] = 512 << 10
    Settings: ClassVar[type[Settings]] = Settings

    @classmethod
    def open(cls) -> Self:
        return cls()

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        settings = _settings(spec)
        where = f"{settings.namespace or ''}/{settings.mount}/{settings.path}".lstrip("/")
        if "" in spec.values and len(spec.values) > 1:
            raise PolicyInvalid("a secret has `value` or `values`", next="write `values: {key: template}`")
        return [
            Spot(
                GroupKey(f"vault_kv:{settings.url}/{where}"), Slot(name or "value"), name, f"{where}: {name or 'value'}"
            )
            for name in spec.values
        ]

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        settings = _settings(items[0].spec)
        try:
            stored = _ask(items, ctx, lambda at: _permitted(at, items))
            _alone(stored, items)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what, error.next)]
        if stored.deleted:
            return [
                Finding(
                    "warn",
                    f"{settings.path}: version {stored.version} was deleted; the next delivery writes our keys only",
                    f"bao kv undelete -versions={stored.version} …   brings the others back",
                )
            ]
        return [Finding("ok", f"{settings.path} can be read and written")]

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held] | Unknown:
        try:
            stored = _look(items, ctx)
        except Answered as error:
            return error.unknown
        held = {item.slot: slots.held(item, _name(item), stored.carries(item.slot)) for item in items}
        return {slot: found if slot in stored.keys else Held(None) for slot, found in held.items()}

    def prepare(
        self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext
    ) -> Prepared | Refused | NotYet | Unknown:
        """Asks the server what this login may do: a missing right is found before anything is set."""
        settings = _settings(items[0].spec)
        try:
            stored = _ask(items, ctx, lambda at: _permitted(at, items))
            if stored.version == 0:
                _ask(items, ctx, lambda at: vault_kv.refuse_other_mounts(at, settings))
            _alone(stored, items)
            _newest(stored, items, ctx)
            _edited(stored, items)
        except Answered as error:
            return error.result
        return Prepared({item.slot: slots.receipt_of(item) or slots.receipt(stored.json(item.slot)) for item in items})

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        settings = _settings(items[0].spec)
        try:
            stored = _ask(items, ctx, lambda at: vault_kv.recent(at, settings))  # as `prepare` saw it
            for _ in range(TRIES):
                if _edited(stored, items) == stored.keys:
                    stored = _look(items, ctx)
                _alone(stored, items)
                wanted = _edited(stored, items)
                if wanted == stored.keys:
                    return self._tag(stored, items, ctx)
                try:
                    version = _ask(items, ctx, partial(vault_kv.write, where=settings, keys=wanted, cas=stored.version))
                except CasMismatch:
                    before, stored = stored, _look(items, ctx)
                    if stored.version == before.version:
                        return NotYet(f"{settings.path}: a standby lags behind the active node", LAG)
                    continue
                return self._tagged(Stored(version, wanted, stored.notes), items, ctx)
        except Answered as error:
            return error.result
        return Refused(No.CONFLICT, f"{settings.path} is written by somebody else all the time")

    def _tagged(self, stored: Stored, items: Sequence[Item], ctx: DeliveryContext) -> Done | Unknown:
        """After a write: a note that fails leaves the new value behind, so it is not as if nothing was done."""
        try:
            return self._tag(stored, items, ctx)
        except VaultkeeperError as error:
            return Unknown(Login.UNREACHABLE, error.what)

    def _tag(self, stored: Stored, items: Sequence[Item], ctx: DeliveryContext) -> Done:
        """One note for each key. Raises Answered; the delivery is repeated then, and finds everything written."""
        tagged = [item for item in items if _settings(item.spec).custom_metadata]
        notes = {vault_kv.note_of(item.slot): vault_kv.note(ctx, item) for item in tagged}
        if any(stored.notes.get(name) != text for name, text in notes.items()):
            _ask(items, ctx, lambda at: vault_kv.annotate(at, _settings(items[0].spec), notes))
        return Done()

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        """Reads it again. Consumers read at each use; what they run on is not seen."""
        try:
            stored = _look(items, ctx)
            carried = _edited(stored, items) == stored.keys
        except Answered as error:
            # nobody was seen failing on it, and what cannot be read cannot be put back either
            return error.result if isinstance(error.result, NotYet) else error.unknown
        if not carried:
            path = _settings(items[0].spec).path
            return NotYet(f"{path} no longer carries what was delivered, or a standby lags behind", LAG, (path,))
        return Confirmed(Proof.WRITTEN)

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        return timedelta(minutes=2)

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds | Unknown:
        try:
            stored = _ask([item], ctx, lambda at: vault_kv.recent(at, _settings(item.spec)))  # as `confirm` saw it
            if slots.carries(item, _name(item), version, stored.carries(item.slot)):
                return Holds.RUNNING
            return Holds.ROLLBACK_PATH if self._old(version, item, ctx) else Holds.NOTHING
        except Answered as error:
            return error.unknown

    def release(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Result:
        """Destroys what `destroy_old` asks for. The server says yes whatever it is asked, so it is read again."""
        settings = _settings(item.spec)
        try:
            old = self._old(version, item, ctx)
            if old:
                _ask([item], ctx, lambda at: vault_kv.destroy(at, settings, old))
                if self._old(version, item, ctx):
                    return NotYet(f"{settings.path}: old versions are being destroyed", LAG)
        except Answered as error:
            return error.result
        return Done()

    def _old(self, version: SecretVersion, item: Item, ctx: DeliveryContext) -> list[int]:
        """Versions of the secret, before its current one, that hold this version. Empty without `destroy_old`."""
        settings = _settings(item.spec)
        if not settings.destroy_old:
            return []
        earlier = _ask([item], ctx, lambda at: vault_kv.earlier(at, settings))
        return [
            stored.version for stored in earlier if slots.carries(item, _name(item), version, stored.carries(item.slot))
        ]

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None:
        try:
            stored = _look([item], ctx)
        except Answered as error:
            return error.unknown
        if item.slot not in stored.keys:
            return None
        found = stored.keys[item.slot]
        return SecretBytes((found if isinstance(found, str) else json.dumps(found)).encode())

    def close(self) -> None:
        vault.end()


# ------------------------------------------------------------------------------------------------------- small parts


def _settings(spec: DestinationSpec) -> Settings:
    return Settings.model_validate(spec.settings)


def _ask(items: Sequence[Item], ctx: DeliveryContext, act: Callable[[Transport], T]) -> T:
    return vault.ask(_settings(items[0].spec), ctx.credentials, ctx.deadline, act)


def _look(items: Sequence[Item], ctx: DeliveryContext) -> Stored:
    return _ask(items, ctx, lambda at: vault_kv.read(at, _settings(items[0].spec)))


def _name(item: Item) -> str:
    """In `values`."""
    return "" if "" in item.spec.values else item.slot


def _permitted(at: Transport, items: Sequence[Item]) -> Stored:
    """What is there, where this login may do all that a delivery does. Raises PermissionDenied."""
    settings = [_settings(item.spec) for item in items]
    one = settings[0]
    needed = {f"{one.mount}/data/{one.path}": {"create", "read", "update"}}
    if any(each.custom_metadata for each in settings):
        needed[f"{one.mount}/metadata/{one.path}"] = {"patch"}
    if any(each.destroy_old for each in settings):
        needed.setdefault(f"{one.mount}/metadata/{one.path}", set()).add("read")
        needed[f"{one.mount}/destroy/{one.path}"] = {"update"}
    vault_kv.refuse_without(at, needed)
    return vault_kv.read(at, one)


def _alone(stored: Stored, items: Sequence[Item]) -> None:
    """Raises Answered where somebody else's keys are in a secret that shall be ours alone."""
    others = stored.keys.keys() - {item.slot for item in items}
    if others and not all(_settings(item.spec).merge for item in items):
        detail = f"{_settings(items[0].spec).path} has other keys: {', '.join(sorted(others)[:5])}"
        raise refused(No.CAPACITY, detail, next="say `merge: true`, which keeps them")


def _newest(stored: Stored, items: Sequence[Item], ctx: DeliveryContext) -> None:
    """Invariant 12: a newer generation than any of ours was written by a later state of this store."""
    for item in items:
        ours = max((version.number for version in (item.primary, *item.accepted) if version), default=0)
        theirs = vault_kv.generation(stored.notes, ctx, item)
        if ours and theirs > ours:
            raise refused(No.STALE, f"{item.slot} carries v{theirs}, and this store knows v{ours} at most")


def _edited(stored: Stored, items: Sequence[Item]) -> Mapping[str, Any]:
    """The keys with every slot carrying its item. Raises Answered for a value that is no text."""
    keys: dict[str, Any] = dict(stored.keys)
    for item in items:
        if item.primary is not None:
            content = SecretBytes(slots.new_content(item))
            if not content.is_text():
                raise refused(No.VALUE, f"{item.slot}: the value is no text, and JSON carries nothing else")
            keys[item.slot] = content.text()
        elif (receipt := slots.receipt_of(item)) is not None:  # without one nothing was delivered
            if receipt.sealed is None:
                keys.pop(item.slot, None)
            else:
                keys[item.slot] = json.loads(receipt.sealed.reveal())
    return keys
