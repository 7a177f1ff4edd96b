"""The envelope around every stored version: it opens only here, and only as what it was made for (invariant 10).

age has neither associated data nor sender authentication, so both live inside. The plaintext is two lines, readable
with `age -d` and the recovery key when nothing else is left: one canonical JSON document, and its HMAC-SHA256 in hex
under a key of this installation. Field values are base64.

    {"bound_to": "4:9f…", "created": "2026-…Z", "fields": {"password": "…"}, "installation": "…", "secret": "…", "v": 1}
"""

from __future__ import annotations

import base64
import hmac
import json

from vaultkeeper.encryption.installation import Installation
from vaultkeeper.errors import EnvelopeInvalid
from vaultkeeper.model.secret import Fields, SecretBytes
from vaultkeeper.ports import Clock, Encryptor

VERSION = 1
TAG_BYTES = 66  # a line feed, 64 hex digits, a line feed
FINGERPRINT_CHARACTERS = 32  # 128 bits: enough to tell values apart, for ever


class AgeEnvelope:
    """The Envelope port. Safe to use from several threads."""

    def __init__(self, encryptor: Encryptor, installation: Installation, clock: Clock) -> None:
        self._encryptor = encryptor
        self._installation = installation.public.id
        self._key = installation.envelope_key
        self._fingerprint_key = installation.fingerprint_key
        self._clock = clock

    def seal(self, fields: Fields, *, secret: str, bound_to: str) -> bytes:
        """`created` is recorded for people and never compared."""
        content = {
            "v": VERSION,
            "installation": self._installation,
            "secret": secret,
            "bound_to": bound_to,
            "created": self._clock.now().isoformat(),
            "fields": {name: base64.b64encode(value.reveal()).decode() for name, value in fields.items()},
        }
        document = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        return self._encryptor.encrypt(document + self._tag(document))

    def open(self, sealed: bytes, *, secret: str, bound_to: str) -> Fields:
        plain = self._encryptor.decrypt(sealed)
        document, tag = plain[:-TAG_BYTES], plain[-TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(document)):
            raise _refused(secret, "another installation sealed it, or somebody who knows only the public keys")
        content = json.loads(document)  # authenticated: we wrote it
        if content["v"] != VERSION:
            raise _refused(secret, f"its format {content['v']} is newer than this version of vaultkeeper")
        expected = {"installation": self._installation, "secret": secret, "bound_to": bound_to}
        for what, value in expected.items():
            if not hmac.compare_digest(content[what].encode(), value.encode()):
                raise _refused(secret, f"it was sealed for another {'version' if what == 'bound_to' else what}")
        return {name: SecretBytes(base64.b64decode(value)) for name, value in content["fields"].items()}

    def fingerprint(self, value: SecretBytes) -> str:
        digest = hmac.digest(self._fingerprint_key.reveal(), value.reveal(), "sha256")
        return digest.hex()[:FINGERPRINT_CHARACTERS]

    def _tag(self, document: bytes) -> bytes:
        return b"\n%s\n" % hmac.digest(self._key.reveal(), document, "sha256").hex().encode()


def _refused(secret: str, why: str) -> EnvelopeInvalid:
    return EnvelopeInvalid(
        f"{secret}: a stored value was exchanged or forged", why=why, next="take the state from a backup"
    )
