"""age (https://age-encryption.org/v1) through pyrage, behind a header check of our own.

Only `decrypt` is used: pyrage's streaming and file calls release plaintext before it is authenticated. The header is
parsed here first, because pyrage would spend 47 s and 8 GiB on a scrypt work factor of 23, and because it takes
stanzas that the specification refuses. pyrage keeps its keys in Rust; their `repr` shows nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyrage

from vaultkeeper.errors import ConfigurationInvalid, EnvelopeInvalid, NoKey

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_CIPHERTEXT_BYTES = MAX_DOCUMENT_BYTES + MAX_HEADER_BYTES + 64 * 1024  # 16 bytes per chunk of 64 KiB, a nonce
MAX_WORK_FACTOR = 18
"""log2 of scrypt's N: 256 MiB and about a second. It is what the `age` command itself uses."""

VERSION_LINE = b"age-encryption.org/v1"
_ARGUMENT = re.compile(rb"[!-~]+")
_FULL_LINE = re.compile(rb"[A-Za-z0-9+/]{64}")
_LAST_LINE = re.compile(rb"[A-Za-z0-9+/]{0,63}")
_MAC_LINE = re.compile(rb"--- [A-Za-z0-9+/]{43}")
_WORK_FACTOR = re.compile(rb"[1-9][0-9]?")


@dataclass(frozen=True)
class Identity:
    """The secret keys of one identity file. `source` says which, for people."""

    keys: tuple[Any, ...] = field(repr=False)
    source: str

    @property
    def recipients(self) -> tuple[str, ...]:
        """The public keys, each age1 and 58 more characters."""
        return tuple(str(key.to_public()) for key in self.keys)


def recipient(text: str) -> Any:
    """A native recipient. Raises ConfigurationInvalid, which quotes `text` only where it cannot be a secret key."""
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        shown = repr(text[:80]) if text.startswith("age1") else "what was given"
        raise ConfigurationInvalid(
            f"{shown} is not an age recipient",
            why="a recipient is the public key, age1 and 58 more characters",
            next="age-keygen -y FILE   prints the recipient of an identity file",
        ) from None


def stanza_types(ciphertext: bytes) -> list[str]:
    """Check the header strictly and say for which kinds of recipients the file is. No key is needed.

    Raises EnvelopeInvalid: not age version 1, a malformed or oversized header, a scrypt work factor above
    `MAX_WORK_FACTOR`. Source: https://c2sp.org/age (header, scrypt recipient stanza).
    """
    lines = iter(ciphertext[:MAX_HEADER_BYTES].split(b"\n"))
    if next(lines) != VERSION_LINE:
        raise _damaged("it does not start as an age file does")
    types: list[str] = []
    for line in lines:
        if _MAC_LINE.fullmatch(line) and types:
            if "scrypt" in types and len(types) > 1:
                raise _damaged("a passphrase stands beside other recipients")
            return types
        mark, *arguments = line.split(b" ")
        if mark != b"->" or not arguments or not all(map(_ARGUMENT.fullmatch, arguments)):
            raise _damaged("its header is malformed")
        body = next(lines, b"\n")
        while _FULL_LINE.fullmatch(body):
            body = next(lines, b"\n")
        if not _LAST_LINE.fullmatch(body):
            raise _damaged("a recipient's part of its header is cut short")
        if arguments[0] == b"scrypt":
            _refuse_expensive(arguments)
        types.append(arguments[0].decode("ascii"))
    raise _damaged(f"its header does not end within {MAX_HEADER_BYTES // 1024} KiB")


def decrypt(ciphertext: bytes, keys: Sequence[Any]) -> bytes:
    """The document, wholly authenticated. Raises NoKey, or EnvelopeInvalid where it is damaged or too large."""
    _check_size(ciphertext)
    stanza_types(ciphertext)
    try:
        return bytes(pyrage.decrypt(ciphertext, list(keys)))
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise NoKey(
                "no identity at hand opens this ciphertext",
                why="it was sealed for other recipients, or the part of it that names them is damaged",
                next="give the identity of this installation, or the recovery identity",
            ) from None
        raise _damaged("its authentication fails") from None


def decrypt_with_passphrase(ciphertext: bytes, passphrase: str) -> bytes:
    """A passphrase-protected document. Takes about a second and stops other threads meanwhile: at start-up only.

    Raises NoKey for a wrong passphrase, EnvelopeInvalid as `decrypt`.
    """
    _check_size(ciphertext)
    if stanza_types(ciphertext) != ["scrypt"]:
        raise _damaged("it is not protected by a passphrase")
    try:
        return bytes(pyrage.passphrase.decrypt(ciphertext, passphrase))
    except pyrage.DecryptError:
        raise NoKey("the passphrase does not open the identity file", next="try again; case and spaces count") from None


class AgeEncryptor:
    """The Encryptor port. Without an identity it still encrypts; `decrypt` then raises NoKey.

    With the recovery identity and new recipients, `encrypt(decrypt(sealed))` re-seals a version after a recovery: what
    is inside the envelope does not name its recipients.
    """

    def __init__(self, recipients: Sequence[str], identity: Identity | None = None) -> None:
        if not recipients:
            raise ConfigurationInvalid("nobody could read what is encrypted", why="there is no recipient")
        self._names = tuple(recipients)
        self._recipients = [recipient(name) for name in self._names]
        self._keys = identity.keys if identity else ()

    def encrypt(self, document: bytes) -> bytes:
        """To every recipient. Raises EnvelopeInvalid for more than `MAX_DOCUMENT_BYTES`."""
        if len(document) > MAX_DOCUMENT_BYTES:
            raise EnvelopeInvalid(
                "this value is too large to keep", why=f"more than {MAX_DOCUMENT_BYTES // 1024**2} MiB with its frame"
            )
        return bytes(pyrage.encrypt(document, self._recipients))

    def decrypt(self, ciphertext: bytes) -> bytes:
        return decrypt(ciphertext, self._keys)

    def recipients(self) -> Sequence[str]:
        return self._names


def _refuse_expensive(arguments: Sequence[bytes]) -> None:
    if len(arguments) != 3 or not _WORK_FACTOR.fullmatch(arguments[2]):
        raise _damaged("its passphrase parameters are malformed")
    if int(arguments[2]) > MAX_WORK_FACTOR:
        raise EnvelopeInvalid(
            "this passphrase-protected file is too expensive to open",
            why=f"its scrypt work factor is {int(arguments[2])}, above {MAX_WORK_FACTOR}; each step doubles the memory",
            next="encrypt it again with `age -p`, which uses 18",
        )


def _check_size(ciphertext: bytes) -> None:
    if len(ciphertext) > MAX_CIPHERTEXT_BYTES:
        raise EnvelopeInvalid("this ciphertext is too large to be ours", why=f"it has {len(ciphertext)} bytes")


def _damaged(why: str) -> EnvelopeInvalid:
    return EnvelopeInvalid("this ciphertext is damaged", why=why, next="take it from a backup")
