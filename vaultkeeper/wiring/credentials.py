"""What references stand for: `{file: …}`, `{env: …}`, `{credential: …}`, `{secret: …}`, `{vault: …}`.

Three more are internal, made by destinations and never accepted in a policy file: `{identity: vaultkeeper}` (the age
identity, for `sops --decrypt`), `{recipients: vaultkeeper}` (whom this installation encrypts to) and
`{docker: vaultkeeper}` (what the environment says of Docker; no value is secret).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaultkeeper.access.answer import Answered
from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised, NotFound, Unavailable, VaultkeeperError
from vaultkeeper.model.outcome import No, Refused
from vaultkeeper.model.secret import MAIN_FIELDS, Fields, SecretBytes, VersionRecord, in_use
from vaultkeeper.ports import Deadline, Envelope, Store

MAX_BYTES = 1 << 20
VAULT_S = 15.0
"""How long a `{vault: …}` may take: whoever resolves it has a deadline of its own behind it."""

OURS = "vaultkeeper"


class References:
    """`learn` is told every value that is resolved, so that logs and errors can be cleaned of it."""

    def __init__(
        self,
        store: Store,
        envelope: Envelope,
        *,
        identity: Callable[[], SecretBytes],
        recipients: Callable[[], Sequence[str]],
        learn: Callable[[Fields], None],
    ) -> None:
        self._store = store
        self._envelope = envelope
        self._identity = identity
        self._recipients = recipients
        self._learn = learn
        self._asked_vault = False

    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        """See `ports.Credentials`."""
        if reference == {"recipients": OURS}:
            return {"value": SecretBytes("\n".join(self._recipients()).encode())}
        if reference == {"docker": OURS}:
            return _docker()
        fields = self._fields(reference)
        self._learn(fields)
        return fields

    def _fields(self, reference: Mapping[str, Any]) -> Fields:
        if "vault" in reference:
            return {"value": self._from_vault(reference)}
        kinds = [key for key in reference if key != "field"]
        if len(kinds) != 1:
            raise ConfigurationInvalid(f"{_named(reference)} is no reference", next=_EXPECTED)
        kind, name = kinds[0], str(reference[kinds[0]])
        if kind == "identity" and name == OURS:
            return {"value": self._identity()}
        if kind == "secret":
            return _picked(self._stored(name), reference)
        if "field" in reference:
            raise ConfigurationInvalid(f"{_named(reference)}: `field` goes with `secret`", next=_EXPECTED)
        if kind == "file":
            return {"value": _from_file(Path(name), reference)}
        if kind == "credential":
            return {"value": _from_file(_credential(name), reference)}
        if kind == "env":
            return {"value": _from_environment(name)}
        raise ConfigurationInvalid(f"{_named(reference)} is no reference", next=_EXPECTED)

    def _from_vault(self, reference: Mapping[str, Any]) -> SecretBytes:
        from pydantic import ValidationError

        from vaultkeeper.access import vault
        from vaultkeeper.access.vault import kv as vault_kv
        from vaultkeeper.access.vault.errors import VaultError
        from vaultkeeper.access.vault.settings import VaultReference

        named = f"{{vault: {reference['vault']}, field: {reference.get('field')}}}"
        try:
            asked = VaultReference.model_validate(dict(reference))
        except ValidationError:
            raise ConfigurationInvalid(f"{named} is no reference", next=_EXPECTED) from None
        self._asked_vault = True
        where = vault_kv.Where(asked.mount, asked.vault)
        deadline = Deadline(time.monotonic() + VAULT_S)
        try:
            found = vault.ask(asked, self, deadline, lambda at: vault_kv.field_of(at, where, asked.field))
        except VaultError as error:
            raise _as_reference(error, named) from None
        return SecretBytes(found.encode())

    def close(self) -> None:
        """End the logins that `{vault: …}` needed. See `ports.Closes`."""
        if self._asked_vault:
            from vaultkeeper.access import vault

            vault.end()

    def _stored(self, name: str) -> Fields:
        """What is in use now (rotation.md section 13)."""
        record = in_use(self._store.versions(name), self._store.labels(name))
        if record is None:
            raise NotFound(
                f"{{secret: {name}}} names a secret without a proven version",
                next=f"vaultkeeper adopt {name}   or   vaultkeeper rotate {name}",
            )
        return self._opened(record)

    def _opened(self, record: VersionRecord) -> Fields:
        assert record.sealed is not None  # noqa: S101 - `_stored` chose only such records
        return self._envelope.open(record.sealed, secret=record.secret, bound_to=f"{record.number}:{record.id}")


_EXPECTED = (
    "expected {file: PATH}, {env: NAME}, {credential: NAME}, {secret: NAME, field: F}"
    " or {vault: PATH, field: F} with its connection"
)


def _named(reference: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in reference.items()) + "}"


def _picked(fields: Fields, reference: Mapping[str, Any]) -> Fields:
    """One field as `value`, or all of them with the main one as `value` too."""
    if "field" in reference:
        wanted = str(reference["field"])
        if wanted not in fields:
            raise NotFound(f"{_named(reference)}: there is no such field", why=f"fields: {', '.join(sorted(fields))}")
        return {"value": fields[wanted]}
    main = next((name for name in MAIN_FIELDS if name in fields), None)
    main = main or (next(iter(fields)) if len(fields) == 1 else None)
    return {**fields, "value": fields[main]} if main else dict(fields)


def _as_reference(error: Answered, named: str) -> VaultkeeperError:
    """What is missing now may be there later; what is refused is a person's to put right."""
    if not isinstance(error.result, Refused):
        return Unavailable(f"{named} cannot be read now", why=error.what, next=error.next)
    kind = NotAuthorised if error.result.why is No.PRIVILEGE else ConfigurationInvalid
    return kind(f"{named} cannot be read", why=error.what, next=error.next)


def _from_file(path: Path, reference: Mapping[str, Any]) -> SecretBytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"{_named(reference)}: there is no file {path}") from None
    except PermissionError:
        raise NotAuthorised(f"{_named(reference)}: {path} cannot be read by this user") from None
    except OSError as error:
        raise ConfigurationInvalid(f"{_named(reference)}: {path}", why=error.strerror or type(error).__name__) from None
    raw = raw[:-2] if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
    if not raw or len(raw) > MAX_BYTES:
        raise ConfigurationInvalid(f"{_named(reference)}: {path} is empty, or larger than 1 MiB")
    return SecretBytes(raw)


def _from_environment(name: str) -> SecretBytes:
    value = os.environb.get(name.encode())
    if not value:
        raise NotFound(f"{{env: {name}}}: the variable {name} is not set, or empty")
    return SecretBytes(value)


def _docker() -> Fields:
    """Only what is set; `config` always (https://docs.docker.com/reference/cli/docker/#environment-variables)."""
    said = {field: os.environ.get(name) for name, field in _DOCKER.items()}
    said["config"] = said["config"] or str(Path("~/.docker").expanduser())
    return {field: SecretBytes(value.encode()) for field, value in said.items() if value}


_DOCKER = {
    "DOCKER_HOST": "host",
    "DOCKER_CONTEXT": "context",
    "DOCKER_CONFIG": "config",
    "DOCKER_TLS_VERIFY": "tls_verify",
    "DOCKER_CERT_PATH": "cert_path",
    "SSH_AUTH_SOCK": "ssh_auth_sock",
}


def _credential(name: str) -> Path:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise NotFound(
            f"{{credential: {name}}}: there is no $CREDENTIALS_DIRECTORY",
            next=f"run as a systemd unit with LoadCredential={name}:…, or use {{file: …}}",
        )
    if "/" in name or name in {".", ".."}:
        raise ConfigurationInvalid(f"{{credential: {name}}} is no credential's name")
    return Path(folder) / name
