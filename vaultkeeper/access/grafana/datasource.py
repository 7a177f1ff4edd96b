"""A data source of Grafana as a place for credentials: it can be written and tried, and never read again.

What it holds is known by a note in its `jsonData`: for each of our keys which version of which secret, and at which
`version` of the data source that was written. A note of an earlier `version` says nothing: somebody wrote since. As a
tag at a target it names installation, secret and generation, and no value.

A `PUT` replaces the whole object, so everything is sent back as it was read; a stale `version` is answered 409. Two of
them within one second of Grafana's clock may leave it on the first value for good, so the note says when, too.
https://grafana.com/docs/grafana/latest/developers/http_api/data_source/
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from vaultkeeper.access import slots
from vaultkeeper.access.answer import refused, unknown
from vaultkeeper.access.grafana import Grafana, path_of
from vaultkeeper.model.outcome import No, Receipt
from vaultkeeper.model.secret import SecretBytes, SecretVersion
from vaultkeeper.ports import DeliveryContext, Item

NOTE = "vaultkeeper"
PLAIN = frozenset({"user", "basicAuthUser"})
"""Keys of the data source itself, which can be read; every other one is a key of its `secureJsonData`."""

SPACING = timedelta(seconds=3)
"""Between two writes. Grafana's clock is told to a second, and a write takes a part of another."""

UNREADABLE = "unreadable"
_LOGIN_KEYS = frozenset({"password", "basicAuthPassword"})
_NOT_SENT = frozenset({"id", "uid", "orgId", "typeLogoUrl", "readOnly", "accessControl", "secureJsonFields"})
_LOGIN_WORDS = ("sqlstate 28", "password authentication failed", "unauthorized", "access denied", "login failed")


@dataclass(frozen=True)
class Stored:
    """A data source as it was read."""

    document: Mapping[str, Any] = field(repr=False)
    read_at: datetime  #: by Grafana's clock, as far as it tells
    read_at_monotonic_s: float = field(default_factory=time.monotonic)

    @property
    def version(self) -> int:
        return int(self.document.get("version") or 0)

    @property
    def read_only(self) -> bool:
        return self.document.get("readOnly") is True

    @property
    def note(self) -> Mapping[str, Any]:
        """Empty where there is none, or somebody wrote since."""
        found = (self.document.get("jsonData") or {}).get(NOTE)
        return found if isinstance(found, dict) and found.get("version") == self.version else {}

    @property
    def keys(self) -> Mapping[str, Any]:
        """Slot → what was written there last, of ours."""
        found = self.note.get("keys")
        return found if isinstance(found, dict) else {}

    def has(self, slot: str) -> bool:
        """Is anything stored there?"""
        if slot in PLAIN:
            return bool(self.document.get(slot))
        return bool((self.document.get("secureJsonFields") or {}).get(slot))

    def holds(self, item: Item, version: SecretVersion) -> bool:
        """Does it hold this version?"""
        if item.slot in PLAIN:
            return slots.carries(item, name_of(item), version, self._same(item.slot))
        return self.has(item.slot) and _who(self.keys.get(item.slot) or {}) == (version.id, _digest(item))

    def carries(self, item: Item) -> bool:
        """Nothing would have to be written for it. Raises Answered, as `wanted`."""
        shall = wanted(item)
        if shall is None:
            return True
        if item.slot in PLAIN:
            return self._same(item.slot)(shall.content or b"")
        if shall.content is None:
            return not self.has(item.slot)
        return self.has(item.slot) and _who(self.keys.get(item.slot) or {}) == _who(shall.entry)

    def soon(self) -> timedelta | None:
        """How long until it may be written again. None: now."""
        told = self.note.get("at")
        try:
            written = datetime.fromisoformat(told) if isinstance(told, str) else None
        except ValueError:
            written = None
        if written is None or written.tzinfo is None:
            return None
        left = written + SPACING - self.now()
        return left if timedelta(0) < left <= SPACING else None

    def now(self) -> datetime:
        """By Grafana's clock."""
        return self.read_at + timedelta(seconds=time.monotonic() - self.read_at_monotonic_s)

    def _same(self, slot: str) -> slots.Same:
        return lambda content: str(self.document.get(slot) or "").encode() == content


def read(server: Grafana, uid: str) -> Stored:
    """Raises GrafanaError; NotThere also where it is another organisation's."""
    found = server.get(path_of("datasources", "uid", uid))
    if not isinstance(found, dict) or found.get("uid") != uid:
        raise unknown(f"{server.host}: the data source {uid} is not told as one")
    return Stored(found, server.date or datetime.now(UTC))


def write(server: Grafana, uid: str, body: Mapping[str, Any]) -> None:
    """Raises GrafanaError: Stale where somebody wrote since it was read, ReadOnly for a provisioned one."""
    server.call("PUT", path_of("datasources", "uid", uid), body)


def edited(stored: Stored, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[str, Any]:
    """What to send so that every slot carries its item. Raises Answered for what cannot be carried or put back."""
    body = {key: value for key, value in stored.document.items() if key not in _NOT_SENT}
    secure, keys = dict[str, str](), dict(stored.keys)
    for item in items:
        shall = wanted(item)
        if shall is None:
            continue
        text = SecretBytes(shall.content or b"")  # an empty text takes a key away
        if not text.is_text() or shall.content == b"":
            raise refused(No.VALUE, f"{item.slot}: expected text that is not empty")
        (body if item.slot in PLAIN else secure)[item.slot] = text.text()
        keys.pop(item.slot, None)
        if shall.entry:
            keys[item.slot] = {**shall.entry, **_tag(ctx, item)}
    shared = {key: value for key, value in (stored.document.get("jsonData") or {}).items() if key != NOTE}
    if keys:
        shared[NOTE] = {"version": stored.version + 1, "at": stored.now().isoformat(timespec="seconds"), "keys": keys}
    return {**body, "jsonData": shared, "secureJsonData": secure}


@dataclass(frozen=True)
class Wanted:
    """What a slot shall carry. `content` None: nothing; `entry`: who that is, in the note."""

    content: bytes | None = field(repr=False)
    entry: Mapping[str, object]


def wanted(item: Item) -> Wanted | None:
    """None: whatever it has. Raises Answered where it shall have again what nobody can read any more."""
    if item.primary is not None:
        return Wanted(slots.new_content(item), {"id": item.primary.id, "template": _digest(item)})
    before = slots.receipt_of(item)
    if before is None:
        return None
    if before.public.get("was") == UNREADABLE:
        raise refused(
            No.UNSUPPORTED,
            f"{item.slot}: what was stored before the first delivery cannot be read, so it cannot be put back",
            next="adopt what works before the first rotation",
        )
    entry = before.public.get("entry")
    return Wanted(before.sealed.reveal() if before.sealed else None, entry if isinstance(entry, Mapping) else {})


def receipt(stored: Stored, item: Item) -> Receipt:
    """How to put the slot back: what it holds, as far as that is known."""
    if not stored.has(item.slot):
        return slots.receipt(None)
    if item.slot in PLAIN:
        return slots.receipt(str(stored.document[item.slot]).encode())
    held = next((v for v in item.accepted if stored.holds(item, v)), None)
    content = None if held is None else _content_of(item, held)
    if content is None:
        return Receipt({"was": UNREADABLE})
    return slots.receipt(content, entry=dict(stored.keys[item.slot]))


def name_of(item: Item) -> str:
    """In `values`."""
    return "" if "" in item.spec.values else item.slot


def misspelt(stored: Stored, slot: str) -> bool:
    """Grafana stores any key, and says nothing of one that nobody reads."""
    known = stored.document.get("secureJsonFields") or {}
    if slot in PLAIN or not known or known.get(slot):
        return False
    if slot in _LOGIN_KEYS:
        return any(known.get(other) for other in _LOGIN_KEYS - {slot})
    return re.fullmatch(r"httpHeaderValue[0-9]+", slot) is None


def newest(stored: Stored, item: Item, ctx: DeliveryContext) -> int:
    """The generation that this installation wrote there last for this secret. 0: none."""
    entry = stored.keys.get(item.slot) or {}
    if (entry.get("installation"), entry.get("secret")) != (ctx.installation, item.secret):
        return 0
    return int(entry.get("generation") or 0)


def _tag(ctx: DeliveryContext, item: Item) -> Mapping[str, object]:
    """Who wrote it; what goes back to a receipt was said by whoever wrote it then."""
    if item.primary is None:
        return {}
    return {"installation": ctx.installation, "secret": item.secret, "generation": item.primary.number}


def _who(entry: Mapping[str, object]) -> tuple[object, object]:
    return entry.get("id"), entry.get("template")


def _digest(item: Item) -> str:
    """One version is another content by another template."""
    return hashlib.sha256(item.spec.values.get(name_of(item), "").encode()).hexdigest()[:12]


def _content_of(item: Item, version: SecretVersion) -> bytes | None:
    return next((content for v, content in slots.renderings(item, name_of(item)) if v.number == version.number), None)


# --------------------------------------------------------------------------------------------------------------- health


@dataclass(frozen=True)
class Health:
    """What the data source's own check said. `by_login`: it was the credential that was refused."""

    well: bool
    by_login: bool = False
    said: str = ""


def health(server: Grafana, uid: str) -> Health:
    """Past Grafana's cache, with what is stored now. One login at the data source. Raises Answered.

    The first call after the data source dropped its connections tells of that, not of the credential: asked twice then.
    """
    path, found = path_of("datasources", "uid", uid, "health"), Health(well=False)
    for _ in range(2):
        answer = server.exchange("GET", path, fresh=True)
        told = answer.document if isinstance(answer.document, dict) else {}
        if "status" not in told:
            raise server.error(answer, "GET", path)
        if answer.status == 200 and told["status"] == "OK":
            return Health(well=True)
        said = str(told.get("message", ""))[:300]
        found = Health(well=False, by_login=any(word in said.lower() for word in _LOGIN_WORDS), said=said)
        if found.by_login:
            break
    return found
