"""Which old values the store keeps for old backups, and which it forgets (`keep_versions`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Parts
from vaultkeeper.model.policy import KeepVersions
from vaultkeeper.model.secret import Acceptance, VersionRecord


def expired(records: Sequence[VersionRecord], labelled: Iterable[int], keep: KeepVersions, now: datetime) -> list[int]:
    """Numbers of versions whose value may go: too many and too old, without a label, and not known to be accepted."""
    if keep.keep_for is None:
        return []
    values = sorted((record for record in records if record.sealed is not None), key=lambda record: record.number)
    surplus = values[: max(len(values) - keep.at_least, 0)]
    spared = set(labelled)
    return [
        record.number
        for record in surplus
        if record.number not in spared
        and record.acceptance is not Acceptance.ACCEPTED
        and now - record.created_at > keep.keep_for
    ]


def discard_expired(book: Book, keep: KeepVersions, parts: Parts) -> None:
    """After a rotation that ended. Costs no write where nothing has expired."""
    store, secret, records, now = parts.store, book.secret, list(book.records().values()), parts.clock.now()
    if not expired(records, (), keep, now):
        return
    gone = expired(records, store.labels(secret).values(), keep, now)
    if gone:
        store.audit({"event": "discard", "secret": secret, "versions": gone})
        store.discard_sealed(secret, gone)
        book.forget()
