"""Where things are: what the command line says, else the environment, else the default places.

`VAULTKEEPER_STATE_DIR`, `VAULTKEEPER_POLICIES` and `VAULTKEEPER_IDENTITY` each hold a path. Each has a twin with
`_FILE` at its end, which names a file to read that from; both at once are an error, because nobody could say which
one was meant. The identity itself is never taken from the environment (children would inherit it), so
`VAULTKEEPER_IDENTITY` and `VAULTKEEPER_IDENTITY_FILE` name the same thing: the identity file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from vaultkeeper.errors import ConfigurationInvalid, NoKey

SYSTEM_POLICIES = Path("/etc/vaultkeeper/policies")
SWARM_IDENTITY = Path("/run/secrets/vaultkeeper_identity")
CREDENTIAL_NAME = "vaultkeeper-identity"


@dataclass(frozen=True)
class Wishes:
    """What the command line says; None: not said."""

    state_dir: Path | None = None
    policies: Path | None = None
    identity: Path | None = None


def variable(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The value of `VAULTKEEPER_<name>` or of its `_FILE` twin; empty counts as not set.

    Raises ConfigurationInvalid where both are set or the twin's file cannot be read.
    """
    environ = os.environ if environ is None else environ
    plain, twin = f"VAULTKEEPER_{name}", f"VAULTKEEPER_{name}_FILE"
    value, file = environ.get(plain), environ.get(twin)
    if value and file:
        raise ConfigurationInvalid(f"{plain} and {twin} are both set", next=f"unset one of them, for example {plain}")
    if not file:
        return value or None
    if name == "IDENTITY":
        return file
    try:
        return Path(file).read_text().strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{twin} names {file}, which cannot be read", why=_plain(error)) from None


def state_dir(wishes: Wishes) -> Path:
    """`--state-dir`, `VAULTKEEPER_STATE_DIR`, systemd's `StateDirectory=`, `$XDG_STATE_HOME/vaultkeeper`, in order.

    The service gets /var/lib/vaultkeeper by `StateDirectory=vaultkeeper` in its unit, not by being root: a rotation
    tried out with sudo must not meet the service's state by accident.
    """
    said = wishes.state_dir or variable("STATE_DIR")
    if said:
        return Path(said).absolute()
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(given) if given else platformdirs.user_state_path("vaultkeeper")


def policies(wishes: Wishes) -> Path:
    """A file or a folder. Raises ConfigurationInvalid where the named one, or every default one, is missing."""
    said = wishes.policies or variable("POLICIES")
    if said:
        path = Path(said).absolute()
        if not path.exists():
            raise ConfigurationInvalid(f"there are no policies at {path}", next="give --policies a file or a folder")
        return path
    here = Path("policies").absolute()
    for path in (here, SYSTEM_POLICIES):
        if path.exists():
            return path
    raise ConfigurationInvalid(
        "there are no policies",
        why=f"neither {here} nor {SYSTEM_POLICIES} exists",
        next="write one (docs/how-to/first-policy.md), or give --policies FILE-OR-FOLDER",
    )


def own_identity() -> Path:
    """Where `init` puts the identity that it makes."""
    return platformdirs.user_config_path("vaultkeeper") / "identity.txt"


def wished_identity(wishes: Wishes) -> Path | None:
    """`--identity`, `VAULTKEEPER_IDENTITY` or its twin."""
    said = wishes.identity or variable("IDENTITY")
    return Path(said).absolute() if said else None


def identity(wishes: Wishes) -> Path:
    """`--identity`, `VAULTKEEPER_IDENTITY`, the systemd credential, the Swarm secret, what `init` made; in this order.

    Raises NoKey, naming every place, where there is none.
    """
    wished = wished_identity(wishes)
    if wished:
        if not wished.exists():
            raise NoKey(f"there is no identity file {wished}", next="give --identity the right file")
        return wished
    places = [SWARM_IDENTITY, own_identity()]
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials:
        places.insert(0, Path(credentials) / CREDENTIAL_NAME)
    for path in places:
        if path.exists():
            return path
    raise NoKey(
        "no age identity was found",
        why="looked at " + ", ".join(map(str, places)),
        next="put it back, or give --identity FILE; where it is lost   vaultkeeper keys recover RECOVERY-KEY-FILE",
    )


def colourless() -> bool:
    """`NO_COLOR` (no-color.org): set and not empty."""
    return bool(os.environ.get("NO_COLOR"))


def debugging() -> bool:
    """`VAULTKEEPER_DEBUG`: show where an unexpected error happened."""
    return bool(variable("DEBUG"))


def _plain(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8 text"
