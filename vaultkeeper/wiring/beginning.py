"""What `init` makes: the identity, the recovery key on request, the installation, an empty store. In this order.

An interrupted run is completed by the next one with the same options. Nothing is written outside the state
directory, the identity's path and the recovery key's path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vaultkeeper.encryption import identity
from vaultkeeper.encryption.age import Identity
from vaultkeeper.encryption.installation import KEY_FILE, PUBLIC_FILE, Installation, Public
from vaultkeeper.errors import ConfigurationInvalid, NoKey
from vaultkeeper.store.opening import create_store
from vaultkeeper.store.sqlite import FILE
from vaultkeeper.wiring import places
from vaultkeeper.wiring.places import Wishes
from vaultkeeper.wiring.process import SystemClock

WAIVED = "waived by init --without-recovery"


@dataclass(frozen=True)
class Recovery:
    """Who can read everything when the identity is lost. Both None: nobody, waived aloud."""

    recipient: str | None = None
    new_key: Path | None = None


@dataclass(frozen=True)
class Made:
    """What is there now."""

    state_dir: Path
    identity: Path
    identity_is_new: bool
    recipients: tuple[str, ...]


def refuse_second(wishes: Wishes) -> None:
    """Raises ConfigurationInvalid, saying what is there, where `init` has already done its work."""
    directory = places.state_dir(wishes)
    if not ((directory / PUBLIC_FILE).exists() and (directory / FILE).exists()):
        return
    public = Public.read(directory)
    recovery = ", ".join(public.recovery) or "none, waived"
    raise ConfigurationInvalid(
        f"{directory} is initialised already",
        why=f"installation {public.id}, recovery: {recovery}",
        works="everything that worked before: nothing was changed",
        next="vaultkeeper status; or --state-dir DIR for another installation",
    )


def initialise(wishes: Wishes, recovery: Recovery) -> Made:
    """Make what is missing. Raises ConfigurationInvalid, NotAuthorised, NoKey or StoreFull."""
    directory = places.state_dir(wishes)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigurationInvalid(f"{directory} is no directory", next="give --state-dir another one") from None
    path, own, is_new = _identity(wishes)
    if (directory / PUBLIC_FILE).exists():
        installation = Installation.open(directory, own)
    else:
        recipients = _recovery_recipients(recovery, interrupted=(directory / KEY_FILE).exists())
        installation = Installation.create(directory, own, recipients, waived="" if recipients else WAIVED)
    clock = SystemClock()
    create_store(directory, installation.audit_key.reveal(), installation.public.id, clock).close()
    return Made(directory, path, is_new, installation.public.recipients)


def _identity(wishes: Wishes) -> tuple[Path, Identity, bool]:
    """An identity that is there already is used: a credential of systemd or Swarm, or another installation's."""
    path = places.wished_identity(wishes)
    if path is None or path.exists():
        try:
            path = places.identity(wishes)
            return path, identity.load([path]), False
        except NoKey:
            if path is not None and path.exists():
                raise
    path = path or places.own_identity()
    return path, identity.generate(path), True


def _recovery_recipients(recovery: Recovery, *, interrupted: bool) -> tuple[str, ...]:
    if recovery.recipient:
        return (recovery.recipient,)
    if recovery.new_key is None:
        return ()
    if interrupted and recovery.new_key.exists():
        return identity.load([recovery.new_key]).recipients
    return identity.generate(recovery.new_key).recipients
