"""Puts the parts together. The only package that reads the environment and knows default paths.

Heavy imports are inside the functions: a command pays for what it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vaultkeeper.errors import VaultkeeperError
from vaultkeeper.wiring import logs, places
from vaultkeeper.wiring.places import Wishes
from vaultkeeper.wiring.process import SystemClock

if TYPE_CHECKING:
    from vaultkeeper.encryption.age import Identity
    from vaultkeeper.encryption.installation import Installation
    from vaultkeeper.engine.parts import Event, Parts
    from vaultkeeper.model.policy import RotationPolicy
    from vaultkeeper.model.secret import VersionRecord
    from vaultkeeper.ports import Clock, Envelope
    from vaultkeeper.registry import Registry
    from vaultkeeper.store.database import SqlStore


@dataclass(frozen=True)
class Installed:
    """An opened installation: what needs the identity, and no policies yet."""

    state_dir: Path
    identity: Path
    keys: Identity
    installation: Installation
    store: SqlStore
    envelope: Envelope
    clock: Clock

    def unreadable(self, record: VersionRecord) -> VaultkeeperError | None:
        """Why a stored value does not open; None: it does, or there is none."""
        if record.sealed is None:
            return None
        try:
            self.envelope.open(record.sealed, secret=record.secret, bound_to=f"{record.number}:{record.id}")
        except VaultkeeperError as error:
            return error
        return None


def open_installed(wishes: Wishes, passphrase: Callable[[Path], str] | None = None) -> Installed:
    """Identity, installation, store and audit log.

    Raises ConfigurationInvalid where there is no installation, NoKey, NotAuthorised, EnvelopeInvalid, StoreDamaged,
    StoreFull or AuditUnwritable.
    """
    from vaultkeeper.encryption import identity
    from vaultkeeper.encryption.age import AgeEncryptor
    from vaultkeeper.encryption.envelope import AgeEnvelope
    from vaultkeeper.encryption.installation import Installation, Public
    from vaultkeeper.store.opening import open_store

    directory, clock = places.state_dir(wishes), SystemClock()
    public = Public.read(directory)  # first: "run init" is a better answer than "no identity"
    path = places.identity(wishes)
    keys = identity.load([path], passphrase)
    installation = Installation.open(directory, keys)
    store = open_store(directory, installation.audit_key.reveal(), public.id, clock)
    envelope = AgeEnvelope(AgeEncryptor(public.recipients, keys), installation, clock)
    return Installed(directory, path, keys, installation, store, envelope, clock)


def parts(
    installed: Installed,
    wishes: Wishes,
    *,
    watch: Callable[[Event], None] = lambda _event: None,
    parallel: int = 4,
) -> Parts:
    """All that the engine needs. Raises PolicyInvalid and ConfigurationInvalid too."""
    from vaultkeeper.engine.guard import Redactor
    from vaultkeeper.engine.parts import Parts
    from vaultkeeper.model.secret import SecretBytes
    from vaultkeeper.wiring.credentials import References

    redactor = Redactor()
    logs.know(redactor.clean)
    credentials = References(
        installed.store,
        installed.envelope,
        identity=lambda: SecretBytes("\n".join(map(str, installed.keys.keys)).encode()),
        recipients=lambda: installed.installation.public.recipients,
        learn=redactor.learn,
    )
    return Parts(
        store=installed.store,
        envelope=installed.envelope,
        clock=installed.clock,
        credentials=credentials,
        backends=kinds(),
        policies=policies(wishes),
        redactor=redactor,
        watch=watch,
        parallel=parallel,
    )


@cache
def kinds() -> Registry:
    """Every kind of target, destination and generator there is."""
    from vaultkeeper.registry import Registry

    return Registry()


def policies(wishes: Wishes) -> Mapping[str, RotationPolicy]:
    """Every policy, disabled ones included. Raises PolicyInvalid with all errors of all files."""
    from vaultkeeper.policyfile.load import load

    return load([places.policies(wishes)], kinds())


def admin_statements(wishes: Wishes) -> list[tuple[str, str]]:
    """For each secret whose target knows them: the statements that make a least-privilege admin account."""
    found = []
    for name, policy in policies(wishes).items():
        target = kinds().target_class(policy.target.kind) if policy.target else None
        statements = getattr(target, "doctor_sql", None)
        if policy.target and statements:
            found.append((name, statements(policy.target.settings)))
    return found


def shown_policies(wishes: Wishes) -> str:
    """The policies as one file, with defaults, connections and absolute paths merged in. References, never values."""
    from vaultkeeper.policyfile.show import show

    return show(policies(wishes).values())


def schema() -> Mapping[str, object]:
    """The JSON Schema of policy files."""
    from vaultkeeper.policyfile.schema import schema as exported

    return exported(kinds())
