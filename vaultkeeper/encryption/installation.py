"""What `vaultkeeper init` makes: an id and a key of this installation, kept so that the recovery key alone suffices.

`<state>/installation.json` is public: id, recipients, whether recovery was waived. `<state>/installation.key.age`
holds the same and the 32-byte key, sealed to the service and to the recovery recipients. Every MAC and fingerprint
derives from that key, so the key file, the stored versions and the recovery identity together are a working
installation. The sealed copy decides; a public file that was edited is found when the key is opened.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from vaultkeeper.encryption import age, identity, keyfile
from vaultkeeper.encryption.age import AgeEncryptor, Identity
from vaultkeeper.errors import ConfigurationInvalid, EnvelopeInvalid, NoKey
from vaultkeeper.model.secret import SecretBytes

PUBLIC_FILE = "installation.json"
KEY_FILE = "installation.key.age"
SCHEMA = 1
KEY_BYTES = 32


@dataclass(frozen=True)
class Public:
    """What may be shown. `waived`: why there is no recovery recipient; empty where there is one."""

    id: str
    service: tuple[str, ...]
    recovery: tuple[str, ...]
    waived: str = ""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody that versions are sealed for."""
        return self.service + self.recovery

    @classmethod
    def read(cls, state_dir: Path) -> Self:
        """Without any key. Raises ConfigurationInvalid where `init` has not run, or the file is damaged or newer."""
        return cls.parse(_document(state_dir / PUBLIC_FILE, _read(state_dir / PUBLIC_FILE)))

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """From a document whose shape was checked."""
        return cls(found["installation"], tuple(found["service"]), tuple(found["recovery"]), found["recovery_waived"])

    def document(self) -> dict[str, object]:
        """JSON types, as `parse` takes them."""
        return {
            "schema": SCHEMA,
            "installation": self.id,
            "service": list(self.service),
            "recovery": list(self.recovery),
            "recovery_waived": self.waived,
        }


@dataclass(frozen=True)
class Installation:
    """An opened installation: what is public, and the key."""

    public: Public
    key: SecretBytes = field(repr=False)

    @classmethod
    def create(cls, state_dir: Path, service: Identity, recovery: Sequence[str], waived: str = "") -> Self:
        """Make both files in an existing directory; `recovery` recipients, or the reason why there is none.

        The key file comes first and the public one last, so an interrupted call is finished by the next one. Raises
        ConfigurationInvalid where the directory holds an installation already, where neither or both of `recovery`
        and `waived` are given, or where a recovery key is the service's own.
        """
        if bool(recovery) == bool(waived.strip()):
            raise ConfigurationInvalid(
                "say how a lost identity is recovered from",
                why="either offline recovery recipients, or a reason to do without",
                next="vaultkeeper init --new-recovery-key FILE   and keep that file somewhere else",
            )
        if (state_dir / PUBLIC_FILE).exists():
            raise ConfigurationInvalid(f"{state_dir} holds an installation already", next="vaultkeeper keys show")
        public = Public(secrets.token_hex(8), service.recipients, tuple(recovery), waived.strip())
        made = cls(_checked(public), SecretBytes(secrets.token_bytes(KEY_BYTES)))
        try:
            keyfile.write_new(state_dir / KEY_FILE, made._sealed())
        except FileExistsError:
            made = cls._unsealed(state_dir, service)
            if replace(made.public, id=public.id) != public:
                raise ConfigurationInvalid(
                    f"{state_dir} holds the key of an installation made with other recipients",
                    why="an `init` was interrupted there, or its public file is gone",
                    next="repeat that `init` with the same recipients, or name another state directory",
                ) from None
        keyfile.replace(state_dir / PUBLIC_FILE, _json(made.public.document()))
        return made

    @classmethod
    def open(cls, state_dir: Path, opener: Identity) -> Self:
        """With the service's or a recovery identity.

        Raises ConfigurationInvalid where `init` has not run or the files are damaged or newer, NoKey where `opener`
        is for another installation, EnvelopeInvalid where the two files contradict each other.
        """
        public = Public.read(state_dir)
        opened = cls._unsealed(state_dir, opener)
        if opened.public != public:
            raise EnvelopeInvalid(
                f"{PUBLIC_FILE} was changed, or is another installation's",
                why="it differs from what is sealed with the key",
                next="take both files from the same backup, or finish an interrupted recovery",
            )
        return opened

    @classmethod
    def recover(cls, state_dir: Path, recovery: Identity, new_identity: Path) -> Self:
        """Make the installation work again where the service's identity is lost.

        Opens the key with `recovery`, makes a service identity at `new_identity` (one that an interrupted call left
        there is used), and seals the key for it and for the same recovery recipients. The public file may be missing.
        The caller then re-seals every version: `AgeEncryptor(public.recipients, recovery)`, `encrypt(decrypt(…))`.
        Idempotent. Raises as `open`, and as `identity.generate` and `identity.load`.
        """
        found = cls._unsealed(state_dir, recovery)
        service = identity.load([new_identity]) if new_identity.exists() else identity.generate(new_identity)
        recovered = cls(_checked(replace(found.public, service=service.recipients)), found.key)
        keyfile.replace(state_dir / KEY_FILE, recovered._sealed())
        keyfile.replace(state_dir / PUBLIC_FILE, _json(recovered.public.document()))
        return recovered

    @cached_property
    def envelope_key(self) -> SecretBytes:
        """Authenticates stored versions and receipts."""
        return self._derived("envelope")

    @cached_property
    def audit_key(self) -> SecretBytes:
        """Chains the audit log."""
        return self._derived("audit")

    @cached_property
    def fingerprint_key(self) -> SecretBytes:
        """Turns values into what the audit log may show of them."""
        return self._derived("fingerprint")

    def _derived(self, purpose: str) -> SecretBytes:
        """One key per purpose (RFC 5869), so that none of them can stand in for another."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = f"vaultkeeper {purpose} 1".encode()
        return SecretBytes(HKDF(SHA256(), KEY_BYTES, self.public.id.encode(), info).derive(self.key.reveal()))

    def _sealed(self) -> bytes:
        key = base64.b64encode(self.key.reveal()).decode()
        return AgeEncryptor(self.public.recipients).encrypt(_json(self.public.document() | {"key": key}))

    @classmethod
    def _unsealed(cls, state_dir: Path, opener: Identity) -> Self:
        path = state_dir / KEY_FILE
        try:
            plain = age.decrypt(_read(path), opener.keys)
        except NoKey:
            raise NoKey(
                f"the identity in {opener.source} does not open this installation",
                why=f"{path} is sealed for other keys",
                next="vaultkeeper keys show   names the recipients; or recover with the offline recovery key",
            ) from None
        found = _document(path, plain)
        try:
            key = SecretBytes(base64.b64decode(found["key"], validate=True))
        except (KeyError, ValueError):
            raise _damaged(path) from None
        if len(key.reveal()) != KEY_BYTES:
            raise _damaged(path)
        return cls(Public.parse(found), key)


def _checked(public: Public) -> Public:
    """Raises ConfigurationInvalid for a recipient that is none, or a recovery key that is lost together with ours."""
    for name in public.recovery:
        age.recipient(name)
    if set(public.service) & set(public.recovery):
        raise ConfigurationInvalid(
            "the recovery key is the service's own key",
            why="losing one would lose both",
            next="make another one and keep it elsewhere: vaultkeeper init --new-recovery-key FILE",
        )
    return public


def _read(path: Path) -> bytes:
    try:
        return keyfile.read_public(path)
    except FileNotFoundError:
        raise ConfigurationInvalid(
            f"{path.parent} holds no installation", why=f"{path.name} is missing", next="vaultkeeper init"
        ) from None


def _document(path: Path, content: bytes) -> dict[str, Any]:
    """Shape-checked. The content may hold the key, so no parser's message is passed on."""
    try:
        found = json.loads(content)
        schema = found["schema"]
    except (ValueError, TypeError, KeyError):
        raise _damaged(path) from None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConfigurationInvalid(f"{path} was written by a newer version", next="upgrade vaultkeeper")
    if schema != SCHEMA:
        raise _damaged(path)
    texts = [found.get("installation"), found.get("recovery_waived"), found.get("key", "")]
    lists = [found.get("service"), found.get("recovery")]
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists
    ):
        raise _damaged(path)
    return dict(found)


def _damaged(path: Path) -> ConfigurationInvalid:
    return ConfigurationInvalid(f"{path} is damaged", next="take it from a backup")


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"
