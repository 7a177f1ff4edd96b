"""Programs of the user's as hooks: what they read on stdin, and what their exit codes mean.

Values travel on stdin only, as one JSON document; never as arguments, never in the environment. Exit codes are those of
sysexits.h, so that a shell script can use them; a code that is not in a hook's table says nothing for certain.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaultkeeper.access import process
from vaultkeeper.access.answer import Answered, refused, unknown
from vaultkeeper.access.process import ProcessError, Ran
from vaultkeeper.model.outcome import Finding, Login, No, Refused, Unknown
from vaultkeeper.model.secret import Fields, SecretVersion
from vaultkeeper.ports import Deadline

MAX_ANSWER_BYTES = 256 << 10

OK = 0
REJECTED = 1
"""Of a login: this credential, definitely."""

REFUSALS: Mapping[int, No] = {
    64: No.UNSUPPORTED,  # EX_USAGE
    65: No.VALUE,  # EX_DATAERR
    73: No.CAPACITY,  # EX_CANTCREAT
    77: No.PRIVILEGE,  # EX_NOPERM
}
"""Definite, and nothing was changed."""

TEMPFAIL = 75
"""EX_TEMPFAIL: throttled or locked; ask again later."""


def as_text(value: bytes) -> str | dict[str, str]:
    """As JSON says it: a string, or {"base64": …} for what is no UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def spelt(fields: Fields) -> dict[str, object]:
    """Named values, in the clear: for stdin only."""
    return {name: as_text(value.reveal()) for name, value in fields.items()}


def described(version: SecretVersion) -> dict[str, object]:
    """A version with its values: for stdin only."""
    return {"number": version.number, "id": version.id, "fields": spelt(version.fields)}


def runnable(argv: Sequence[str]) -> list[Finding]:
    """What keeps a program from being run, or lets others say what is run."""
    try:
        found = os.stat(argv[0])
    except OSError as error:
        return [Finding("refuse", f"{argv[0]} cannot be run: {os.strerror(error.errno or 0)}")]
    if not stat.S_ISREG(found.st_mode) or not os.access(argv[0], os.X_OK):
        return [Finding("refuse", f"{argv[0]} is no program", f"chmod +x {argv[0]}")]
    if found.st_mode & 0o002:
        return [Finding("refuse", f"everybody may write to {argv[0]}, and it is given values", f"chmod o-w {argv[0]}")]
    for folder in Path(os.path.realpath(argv[0])).parents:
        mode = folder.stat().st_mode
        if mode & 0o002 and not mode & stat.S_ISVTX:  # in /tmp others cannot rename what is ours
            text = f"everybody may write to {folder}, and so put another program at {argv[0]}, which is given values"
            return [Finding("refuse", text, f"chmod o-w {folder}")]
    return []


def run(argv: Sequence[str], document: Mapping[str, Any], deadline: Deadline, *, secrets: Sequence[bytes]) -> Ran:
    """Run one hook to its end. Raises Answered where it could not be started, or did not end in time."""
    stdin = json.dumps(document, ensure_ascii=False).encode() + b"\n"
    try:
        return process.run(argv, deadline, stdin=stdin, secrets=secrets, limit_bytes=MAX_ANSWER_BYTES)
    except ProcessError as error:
        raise (unknown(error.what) if error.started else refused(No.UNSUPPORTED, error.what)) from None


def failure(argv: Sequence[str], ran: Ran) -> Refused | Unknown:
    """What an exit code other than 0 means for a hook that changes or reads something."""
    said = f"{argv[0]} exited {ran.code}{f': {ran.said}' if ran.said else ''}"
    if ran.code in REFUSALS:
        return Refused(REFUSALS[ran.code], said)
    return Unknown(Login.THROTTLED if ran.code == TEMPFAIL else Login.UNREACHABLE, said)


def answered(argv: Sequence[str], ran: Ran) -> dict[str, Any]:
    """The JSON object on stdout, {} where there is none. Raises Answered; its text holds nothing of the output."""
    if not ran.stdout.strip():
        return {}
    try:
        found = json.loads(ran.stdout)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Answered(Unknown(Login.UNREACHABLE, f"{argv[0]} wrote no JSON object"), f"{argv[0]} wrote no JSON object")
    return found
