"""Reading a stored value, and forgetting a secret. Both are audited before they happen."""

from __future__ import annotations

from datetime import datetime

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Parts
from vaultkeeper.errors import AlreadyOpen, NotFound
from vaultkeeper.model.secret import SecretVersion, VersionRecord, in_use


def value(name: str, parts: Parts, *, version: int | None = None, at: datetime | None = None) -> SecretVersion:
    """PENDING once its `test` has passed, else CURRENT; or one by number, or the newest proven one at a time.

    Raises NotFound; AuditUnwritable, and then nothing is shown.
    """
    book = Book(name, parts.store, parts.envelope, parts.redactor)
    records = [*book.records().values()]
    now = in_use(records, parts.store.labels(name)) if version is None and at is None else None
    record = now or _chosen(name, records, version, at)
    parts.store.audit({"event": "get", "secret": name, "version": record.number})
    return book.version(record.number)


def _chosen(name: str, records: list[VersionRecord], number: int | None, at: datetime | None) -> VersionRecord:
    if number is not None:
        fitting = [record for record in records if record.number == number]
    else:
        fitting = [r for r in records if r.verified and (at is None or r.created_at <= at)]
    kept = [record for record in fitting if record.sealed is not None]
    if not kept:
        which = f"version {number}" if number is not None else "proven version" + (f" of {at:%Y-%m-%d}" if at else "")
        raise NotFound(f"{name} has no {which} in the store", next=f"vaultkeeper history {name}")
    return kept[-1]


def forget(name: str, parts: Parts) -> None:
    """Remove a secret's versions and history for good. Target and destinations are left as they are."""
    if name not in parts.store.secrets():
        raise NotFound(f"the store has no secret called {name}", next="vaultkeeper status   lists them")
    with parts.store.hold(f"secret:{name}"):
        if any(rotation.secret == name for rotation in parts.store.open_rotations()):
            raise AlreadyOpen(
                f"a rotation of {name} is open",
                why="forgetting it would lose a value that a system may accept",
                next=f"vaultkeeper resume {name}",
            )
        parts.store.audit({"event": "forget", "secret": name})
        parts.store.forget(name)
