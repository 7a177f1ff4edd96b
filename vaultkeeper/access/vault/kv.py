"""Requests to a key-value store of version 2, by hvac; what hvac lacks is sent as it is.

A version number is no generation: after `metadata delete` it starts at 1 again. Compare-and-set counts deleted versions
too. `destroy` answers 204 for versions that do not exist. https://openbao.org/api-docs/secret/kv/kv-v2/
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hvac.api.secrets_engines import KvV2
from hvac.utils import format_url

from vaultkeeper.access.vault.errors import Deleted, Lagging, NotThere, NotVersioned, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from vaultkeeper.access.slots import Same
    from vaultkeeper.access.vault.transport import Transport
    from vaultkeeper.ports import DeliveryContext, Item


RECENT_S = 2.0
"""From one hook of a rotation to the next."""

LAG_S = 5.0
"""So long after a write of ours an older version is taken for a standby's; later the secret was made anew."""

_WROTE: dict[tuple[str, ...], tuple[float, int]] = {}
"""The newest version of each place that this process wrote, and when."""


class Address(Protocol):
    """Where a secret is."""

    @property
    def mount(self) -> str: ...
    @property
    def path(self) -> str: ...


@dataclass(frozen=True)
class Where:
    """As `Address`."""

    mount: str
    path: str


@dataclass(frozen=True)
class Stored:
    """One version of a secret. `keys` is empty where it was deleted, or never written (`version` 0)."""

    version: int
    keys: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: Mapping[str, str] = field(default_factory=dict)
    deleted: bool = False

    def carries(self, key: str) -> Same:
        """Whether a key holds exactly this text."""
        found = self.keys.get(key)
        return lambda content: isinstance(found, str) and found.encode("utf-8", "surrogatepass") == content

    def json(self, key: str) -> bytes | None:
        """The key's value, whatever its type. None: there is none."""
        return json.dumps(self.keys[key]).encode() if key in self.keys else None


def read(at: Transport, where: Address, version: int | None = None) -> Stored:
    """The current version, or that one. Raises VaultError; Lagging where it is older than what was just written."""
    found = _read(at, where, version)
    if version is None:
        _refuse_older(at, where, found.version)
        at.seen[where.mount, where.path] = time.monotonic(), found
    return found


def recent(at: Transport, where: Address) -> Stored:
    """What the last hook read, where that was a moment ago: good enough where compare-and-set judges it."""
    read_at_s, found = at.seen.get((where.mount, where.path), (0.0, None))
    fresh = time.monotonic() - read_at_s < RECENT_S
    return found if fresh and isinstance(found, Stored) else read(at, where)


def _read(at: Transport, where: Address, version: int | None) -> Stored:
    try:
        data = KvV2(at).read_secret_version(
            where.path, version=version, mount_point=where.mount, raise_on_deleted_version=True
        )["data"]
    except NotThere:
        return Stored(0)
    except Deleted as error:
        return Stored(error.version, deleted=True)
    metadata = data["metadata"]
    keys = data["data"] if isinstance(data["data"], dict) else {}
    return Stored(int(metadata["version"]), keys, metadata.get("custom_metadata") or {})


def field_of(at: Transport, where: Address, name: str) -> str:
    """One key of the current version, which must be there and hold text. Raises VaultError."""
    told = KvV2(at).read_secret_version(where.path, mount_point=where.mount, raise_on_deleted_version=True)
    keys = told["data"]["data"] or {}
    if not isinstance(keys.get(name), str):
        raise NotThere(
            f"{where.mount}/{where.path} has no text called {name}", next=f"it has: {', '.join(sorted(keys))}"
        )
    return str(keys[name])


def write(at: Transport, where: Address, keys: Mapping[str, Any], cas: int) -> int:
    """A new version; its number. Raises CasMismatch where `cas` is not the current one, 0 for none yet."""
    at.seen.pop((where.mount, where.path), None)
    told = KvV2(at).create_or_update_secret(where.path, dict(keys), cas=cas, mount_point=where.mount)
    if "version" not in (told.get("data") or {}):
        raise NotVersioned(f"{where.mount} is no key-value store of version 2", next="bao secrets list -detailed")
    version = int(told["data"]["version"])
    _WROTE[_place(at, where)] = time.monotonic(), version
    return version


def _place(at: Transport, where: Address) -> tuple[str, ...]:
    return at.base_uri, at.namespace or "", where.mount, where.path


def _refuse_older(at: Transport, where: Address, version: int) -> None:
    """Going back right after a write, a stale answer would look as if nothing had to be written. Raises Lagging."""
    wrote_at_s, newest = _WROTE.get(_place(at, where), (0.0, 0))
    if version < newest and time.monotonic() - wrote_at_s < LAG_S:
        raise Lagging(f"{where.path}: a standby lags behind the active node")


def earlier(at: Transport, where: Address) -> Sequence[Stored]:
    """Versions before the current one that can be read. Raises VaultError."""
    try:
        told = KvV2(at).read_secret_metadata(where.path, mount_point=where.mount)["data"]
    except NotThere:
        return []
    current = int(told["current_version"])
    _refuse_older(at, where, current)
    numbers = [int(n) for n, fate in told["versions"].items() if not (fate["destroyed"] or fate["deletion_time"])]
    return [read(at, where, number) for number in sorted(numbers) if number < current]


def destroy(at: Transport, where: Address, versions: Sequence[int]) -> None:
    """For good. Raises VaultError."""
    KvV2(at).destroy_secret_versions(where.path, list(versions), mount_point=where.mount)


def annotate(at: Transport, where: Address, notes: Mapping[str, str]) -> None:
    """Add to the custom metadata; hvac's own update would replace all of it. Raises VaultError."""
    path = format_url("/v1/{mount}/metadata/{path}", mount=where.mount, path=where.path)
    headers = {"Content-Type": "application/merge-patch+json"}
    at.request("patch", path, headers=headers, json={"custom_metadata": dict(notes)})


def note_of(key: str) -> str:
    """The name under which a key's writer is noted. Names have 128 characters at most."""
    return f"vaultkeeper-{key}"[:128]


def note(ctx: DeliveryContext, item: Item) -> str:
    """Installation, secret, generation and epoch: nothing that helps to guess a value."""
    number = item.primary.number if item.primary else 0
    return f"{ctx.installation} {item.secret} v{number} epoch {ctx.epochs.get(item.secret, 0)}"


def generation(notes: Mapping[str, str], ctx: DeliveryContext, item: Item) -> int:
    """Of a key that this installation wrote for this secret; 0 for anything else."""
    words = notes.get(note_of(item.slot), "").split()
    ours = len(words) == 5 and words[:2] == [ctx.installation, item.secret]
    return int(words[2][1:]) if ours and words[2][1:].isdecimal() else 0


def refuse_without(at: Transport, needed: Mapping[str, AbstractSet[str]]) -> None:
    """Raises PermissionDenied where the token may not do what is needed. Nothing is concluded where it may not ask."""
    try:
        told = at.post("/v1/sys/capabilities-self", json={"paths": sorted(needed)})["data"]
    except PermissionDenied:
        return
    for path, wanted in needed.items():
        may = set(told.get(path) or ())
        if "root" not in may and (lacking := wanted - may):
            raise PermissionDenied(
                f"the token's policy lacks {', '.join(sorted(lacking))} on {path}",
                next="docs/how-to/vault.md has the policy",
            )


def refuse_other_mounts(at: Transport, where: Address) -> None:
    """Version 1 would take `data/PATH` for a path of its own, and store it. Raises NotVersioned, MissingMount."""
    try:
        path = format_url("/v1/sys/internal/ui/mounts/{mount}/{path}", mount=where.mount, path=f"data/{where.path}")
        told = at.get(path)["data"]
    except PermissionDenied:
        return
    if told.get("type") != "kv" or (told.get("options") or {}).get("version") != "2":
        raise NotVersioned(
            f"{where.mount} is no key-value store of version 2", next="bao kv enable-versioning   or another `mount`"
        )
