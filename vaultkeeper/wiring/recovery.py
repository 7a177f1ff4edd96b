"""A working installation again, from a backup of the state directory and the offline recovery key alone (invariant 11).

A new service identity is made, the installation's key is sealed for it, and every stored value and receipt is
re-encrypted. Interrupted, it is finished by the same command: the recovery key opens both the old and the new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vaultkeeper.encryption import identity
from vaultkeeper.encryption.age import AgeEncryptor
from vaultkeeper.encryption.installation import Installation
from vaultkeeper.model.rotation import Rotation
from vaultkeeper.ports import Change, VersionChange
from vaultkeeper.store.opening import open_store
from vaultkeeper.wiring import places
from vaultkeeper.wiring.places import Wishes
from vaultkeeper.wiring.process import SystemClock

if TYPE_CHECKING:
    from vaultkeeper.store.database import SqlStore


@dataclass(frozen=True)
class Recovered:
    """What works again. `identity` is new; `values` counts what was re-encrypted."""

    installation: str
    identity: Path
    values: int


def recover(wishes: Wishes, recovery_key: Path) -> Recovered:
    """Raises NoKey where that key does not open this state, and what opening an installation raises."""
    directory = places.state_dir(wishes)
    path = places.wished_identity(wishes) or places.own_identity()
    recovery = identity.load([recovery_key])
    installation = Installation.recover(directory, recovery, path)
    store = open_store(directory, installation.audit_key.reveal(), installation.public.id, SystemClock())
    try:
        moving = AgeEncryptor(installation.public.recipients, recovery)
        store.audit({"event": "recover", "installation": installation.public.id})
        values = sum(_resealed(secret, store, moving) for secret in store.secrets())
    finally:
        store.close()
    return Recovered(installation.public.id, path, values)


def _resealed(secret: str, store: SqlStore, moving: AgeEncryptor) -> int:
    """One secret's values, and its open rotation's receipts, in one transaction."""
    with store.hold(f"secret:{secret}"):
        facts = {
            record.number: VersionChange(sealed=moving.encrypt(moving.decrypt(record.sealed)))
            for record in store.versions(secret)
            if record.sealed is not None
        }
        newest = next(iter(store.rotations(secret, limit=1)), None)
        if newest is not None and newest.open:
            store.commit(Change(_with_receipts(store.take(newest.id), moving), facts=facts))
        elif facts:
            store.amend(secret, Change(facts=facts))
    return len(facts)


def _with_receipts(rotation: Rotation, moving: AgeEncryptor) -> Rotation:
    receipts = {
        key: replace(receipt, sealed=moving.encrypt(moving.decrypt(receipt.sealed))) if receipt.sealed else receipt
        for key, receipt in rotation.receipts.items()
    }
    return replace(rotation, receipts=receipts)
