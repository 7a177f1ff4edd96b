"""Files for the tests of this folder, made on the spot: no key and no ciphertext is kept in the repository."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from pathlib import Path
from typing import NamedTuple

import pyrage
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vaultkeeper.encryption import identity
from vaultkeeper.encryption.age import AgeEncryptor, Identity
from vaultkeeper.encryption.envelope import AgeEnvelope
from vaultkeeper.encryption.installation import Installation
from vaultkeeper.testing.clock import FakeClock


def new_identity() -> Identity:
    return Identity((pyrage.x25519.Identity.generate(),), source="made for a test")


class House(NamedTuple):
    """An installation in a directory, with both its identities."""

    state: Path
    service: Identity
    recovery: Identity
    installation: Installation

    def envelope(self) -> AgeEnvelope:
        encryptor = AgeEncryptor(self.installation.public.recipients, self.service)
        return AgeEnvelope(encryptor, self.installation, FakeClock())


def new_house(place: Path) -> House:
    state = place / "state"
    state.mkdir(parents=True)
    service, recovery = identity.generate(place / "identity.txt"), identity.generate(place / "recovery.txt")
    return House(state, service, recovery, Installation.create(state, service, recovery.recipients))


def scrypt_file(document: bytes, passphrase: str, work_factor: str = "10", extra: bytes = b"") -> bytes:
    """An age file for a passphrase, by https://c2sp.org/age and with a work factor of our choice.

    Above 12 only the header is well-formed: the test must not pay what it says nobody should pay.
    """
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    label = b"age-encryption.org/v1/scrypt"
    cost = int(work_factor) if work_factor.isdecimal() and 1 <= int(work_factor) <= 12 else 1
    wrapping = hashlib.scrypt(passphrase.encode(), salt=label + salt, n=1 << cost, r=8, p=1, dklen=32)
    body = _base64(ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None))
    header = b"age-encryption.org/v1\n-> scrypt %s %s\n%s\n%s---" % (_base64(salt), work_factor.encode(), body, extra)
    mac = hmac.digest(_derived(file_key, b"header", b""), header, "sha256")
    stream = ChaCha20Poly1305(_derived(file_key, b"payload", nonce))
    return header + b" " + _base64(mac) + b"\n" + nonce + stream.encrypt(bytes(11) + b"\x01", document, None)


def _base64(raw: bytes) -> bytes:
    return base64.b64encode(raw).rstrip(b"=")


def _derived(file_key: bytes, info: bytes, salt: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(file_key)
