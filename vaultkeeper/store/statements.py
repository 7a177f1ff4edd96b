"""Statements that are compiled once, and the rows that go in and come out of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, text, update

from vaultkeeper.model.secret import Acceptance, Handle, VersionRecord
from vaultkeeper.store.codec import decode_binding, encode_binding
from vaultkeeper.store.tables import audit_heads, labels, pauses, rotations, secrets, versions

# "ON CONFLICT" reads the same in SQLite and PostgreSQL; SQLAlchemy spells it once per engine.
KNOW_SECRET = text(
    "INSERT INTO secrets (name, last_number, epoch, known) VALUES (:name, 0, 1, :true) "
    "ON CONFLICT (name) DO UPDATE SET epoch = secrets.epoch + 1, known = :true"
).bindparams(true=True)
"""Also serialises writers of one secret: in PostgreSQL they queue at its row."""

EPOCH = select(secrets.c.epoch).where(secrets.c.name == bindparam("name_"))

LAST_NUMBER = select(secrets.c.last_number).where(secrets.c.name == bindparam("name_"))
RAISE_NUMBER = (
    update(secrets)
    .where(secrets.c.name == bindparam("name_"), secrets.c.last_number < bindparam("number_"))
    .values(last_number=bindparam("number_"))
)

OPEN_OF = select(rotations.c.id).where(rotations.c.secret == bindparam("secret_"), rotations.c.open)
INSERT_ROTATION = insert(rotations)
WRITE_ROTATION = (
    update(rotations)
    .where(rotations.c.id == bindparam("id_"), rotations.c.epoch == bindparam("epoch_"))
    .values(document=bindparam("document"), open=bindparam("open"))
)
FENCE_ROTATION = (
    update(rotations).where(rotations.c.id == bindparam("id_"), rotations.c.open).values(epoch=bindparam("epoch"))
)
ROTATION = select(rotations.c.document, rotations.c.epoch).where(rotations.c.id == bindparam("id_"))
OPEN_SECRET = select(rotations.c.secret).where(rotations.c.id == bindparam("id_"), rotations.c.open)
OPEN_ROTATIONS = select(rotations.c.document, rotations.c.epoch).where(rotations.c.open).order_by(rotations.c.seq)
ROTATIONS = (
    select(rotations.c.document, rotations.c.epoch)
    .where(rotations.c.secret == bindparam("secret_"))
    .order_by(rotations.c.seq.desc())
    .limit(bindparam("limit_"))
)

INSERT_VERSION = insert(versions)
VERSIONS = select(versions).where(versions.c.secret == bindparam("secret_")).order_by(versions.c.number)
_CHANGES = ("sealed", "handle", "expires_at", "acceptance", "verified", "compromised")
CHANGE_VERSION = (
    update(versions)
    .where(versions.c.secret == bindparam("secret_"), versions.c.number == bindparam("number_"))
    .values({name: func.coalesce(bindparam(name, type_=versions.c[name].type), versions.c[name]) for name in _CHANGES})
)
"""None leaves a column as it is."""

LABELS = select(labels.c.label, labels.c.number).where(labels.c.secret == bindparam("secret_"))
DROP_LABEL = delete(labels).where(labels.c.secret == bindparam("secret_"), labels.c.label == bindparam("label_"))
PUT_LABEL = text(
    "INSERT INTO labels (secret, label, number) VALUES (:secret, :label, :number) "
    "ON CONFLICT (secret, label) DO UPDATE SET number = excluded.number"
)

KNOWN_SECRETS = select(secrets.c.name).where(secrets.c.known).order_by(secrets.c.name)
PAUSES = select(pauses).order_by(pauses.c.secret)

AUDIT_HEAD = select(audit_heads.c.seq, audit_heads.c.mac).where(audit_heads.c.log == bindparam("log_"))
MOVE_AUDIT_HEAD = text(
    "INSERT INTO audit_heads (log, seq, mac) VALUES (:log, :seq, :mac) "
    "ON CONFLICT (log) DO UPDATE SET seq = excluded.seq, mac = excluded.mac WHERE audit_heads.seq < excluded.seq"
)


def version_row(record: VersionRecord) -> dict[str, Any]:
    """The columns of `record`."""
    return {
        "secret": record.secret,
        "number": record.number,
        "id": record.id,
        "binding": encode_binding(record.binding),
        "created_at": record.created_at,
        "sealed": record.sealed,
        "handle": record.handle,
        "expires_at": record.expires_at,
        "acceptance": record.acceptance.value,
        "verified": record.verified,
        "compromised": record.compromised,
    }


def version_record(row: Any) -> VersionRecord:
    """The record of a whole row of `versions`."""
    secret, number, id_, binding, created_at, sealed, handle, expires_at, acceptance, verified, compromised = row
    return VersionRecord(
        secret=secret,
        number=number,
        id=id_,
        binding=decode_binding(binding),
        created_at=created_at,
        sealed=sealed,
        handle=None if handle is None else Handle(handle),
        expires_at=expires_at,
        acceptance=Acceptance(acceptance),
        verified=verified,
        compromised=compromised,
    )
