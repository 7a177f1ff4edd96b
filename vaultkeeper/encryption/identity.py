"""The service's age identity: where it may lie, how it is read, how a new one is made.

The format is age-keygen's: one AGE-SECRET-KEY-1… per line, `#` comments, blank lines; or such a file encrypted by
`age -p`, armored or not.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from pathlib import Path

import pyrage

from vaultkeeper.encryption import age, keyfile
from vaultkeeper.encryption.age import Identity
from vaultkeeper.errors import ConfigurationInvalid, NoKey

ARMOR_BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----"
ARMOR_END = b"-----END AGE ENCRYPTED FILE-----"
MADE_BY_US = "# age identity, made by vaultkeeper: whoever reads this file reads every secret it opens"

Passphrase = Callable[[Path], str]
"""Asks for the passphrase of the identity file at this path."""


def load(candidates: Sequence[Path], passphrase: Passphrase | None = None) -> Identity:
    """The first of `candidates` that exists. A bad one is an error and never passed over for the next.

    Raises NoKey where none exists, one holds no usable key, or its passphrase is missing or wrong; NotAuthorised where
    others could read or place it (`keyfile.read_private`); EnvelopeInvalid where its encryption is damaged.
    """
    for path in candidates:
        try:
            content = keyfile.read_private(path)
        except FileNotFoundError:
            continue
        encrypted = _dearmored(path, content)
        if encrypted is not None:
            content = age.decrypt_with_passphrase(encrypted, _asked(path, passphrase))
        return Identity(_parsed(path, content), source=str(path))
    raise NoKey(
        "no age identity was found",
        why=f"looked at {', '.join(map(str, candidates)) or 'no place at all'}",
        next="vaultkeeper init   makes one; or give --identity FILE",
    )


def generate(path: Path) -> Identity:
    """Make a new identity file, mode 0600, durable when this returns. Its directory is made 0700 where missing.

    Raises ConfigurationInvalid where the file exists (it is never overwritten) or cannot be written.
    """
    key = pyrage.x25519.Identity.generate()
    content = f"{MADE_BY_US}\n# public key: {key.to_public()}\n{key}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyfile.write_new(path, content.encode())
    except FileExistsError:
        raise ConfigurationInvalid(
            f"{path} exists already", why="an identity is never overwritten", next="name another file, or move it away"
        ) from None
    except OSError as error:
        raise ConfigurationInvalid(f"{path} cannot be written", why=f"{error.strerror}".lower()) from None
    return Identity((key,), source=str(path))


def _dearmored(path: Path, content: bytes) -> bytes | None:
    """The binary ciphertext of an encrypted identity file; None where the file is not encrypted."""
    if content.startswith(age.VERSION_LINE):
        return content
    lines = content.strip().splitlines()
    if not lines or lines[0] != ARMOR_BEGIN:
        return None
    try:
        if lines[-1] != ARMOR_END:
            raise ValueError("no end line")
        return base64.b64decode(b"".join(lines[1:-1]), validate=True)
    except (ValueError, binascii.Error):
        raise NoKey(f"{path} holds no usable identity", why="its armor is damaged") from None


def _asked(path: Path, passphrase: Passphrase | None) -> str:
    given = passphrase(path) if passphrase else ""
    if not given:
        raise NoKey(
            f"{path} is protected by a passphrase",
            why="none was given",
            next="run this at a terminal, or give the service a systemd credential instead (LoadCredentialEncrypted=)",
        )
    return given


def _parsed(path: Path, content: bytes) -> tuple[object, ...]:
    """Keys, in the order of the file. The text of a bad line may be a key with a typing error: it is never quoted."""
    keys = []
    for number, line in enumerate(content.splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        try:
            keys.append(pyrage.x25519.Identity.from_str(text.decode("ascii")))
        except (pyrage.IdentityError, UnicodeDecodeError):
            plugin = text.startswith(b"AGE-PLUGIN-")
            raise NoKey(
                f"{path} holds no usable identity",
                why=f"line {number} is {'for a plugin' if plugin else 'not an AGE-SECRET-KEY-1… line'}",
                next="put the right file back; for a new installation   age-keygen -o FILE   makes one that works",
            ) from None
    if not keys:
        raise NoKey(
            f"{path} holds no usable identity",
            why="it names no key",
            next="put the right file back; for a new installation   age-keygen -o FILE   makes one that works",
        )
    return tuple(keys)
