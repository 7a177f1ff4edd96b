"""Telling the consumers of a written place to read it again, and seeing that they run on it.

`reload: {signal: HUP, pid_file: PATH} | {command: [argv]} | none`, `confirm: {http: URL, …} | {command: [argv]}`.
Commands get no value: neither as an argument nor on stdin nor in their environment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from datetime import timedelta

from vaultkeeper.access import files, process
from vaultkeeper.access.settings import Command, Consumers, HttpCheck, Signal, host_of
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Confirmation, Confirmed, Done, Login, NotYet, Proof, Unknown
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.ports import Deadline

_AGAIN = timedelta(seconds=1)
_START_UP = timedelta(seconds=110)  # for a consumer to come back after a reload; confirm may take this and healthy_for
_NOBODY_WAITS = frozenset({Read.PER_USE, Read.FIRST_START, Read.COPY})

Consumer = tuple[DestinationSpec, Consumers]
"""One destination of a group: what the policy says of it, and its settings as read by its kind."""


def tell(consumers: Sequence[Consumer], deadline: Deadline) -> Done | Unknown:
    """Reload every consumer once, however many slots it has. Repeating is harmless. Unknown: not all were told."""
    told: list[Signal | Command] = []
    for spec, settings in consumers:
        how = settings.reload
        if isinstance(how, str) or spec.read is Read.FIRST_START or how in told:
            continue
        told.append(how)
        wrong = reload(how, deadline)
        if wrong:
            return Unknown(Login.UNREACHABLE, f"written, but its consumers were not told: {wrong}")
    return Done()


def reload(how: Signal | Command, deadline: Deadline) -> str:
    """Tell one reader of a file to read it again; what went wrong, empty where nothing did."""
    try:
        return _signal(how) if isinstance(how, Signal) else _fails(how, deadline)
    except BackendError as error:
        return str(error)


def running(consumers: Sequence[Consumer], written_at: float, deadline: Deadline) -> Confirmation:
    """Whether all are healthy, and were told long enough ago for that to mean something.

    `written_at`: when the file last changed, seconds since the epoch. Hooks keep no state, so `healthy_for` counts from
    there: a consumer that breaks on the new value has by then shown it.
    """
    asked = [(spec, settings) for spec, settings in consumers if settings.confirm and spec.read is not Read.FIRST_START]
    for spec, settings in asked:
        age_s = time.time() - written_at
        if 0 <= age_s < spec.healthy_for.total_seconds():
            left = timedelta(seconds=spec.healthy_for.total_seconds() - age_s)
            return NotYet("its consumer was told only just now", min(left, spec.healthy_for))
        wrong = unhealthy(settings.confirm, deadline) if settings.confirm else ""
        if wrong:
            return NotYet(wrong, _AGAIN)
    weakest = all(_demonstrates(spec, settings) for spec, settings in consumers)
    return Confirmed(Proof.DEMONSTRATED if weakest else Proof.WRITTEN)


def patience(consumers: Sequence[Consumer]) -> timedelta:
    """How long a confirm may take where the policy says nothing."""
    return _START_UP + max((spec.healthy_for for spec, _ in consumers), default=timedelta(0))


def _demonstrates(spec: DestinationSpec, settings: Consumers) -> bool:
    """Where nobody keeps an old value, reading it back is the proof; else a consumer that was told and is healthy."""
    return spec.read in _NOBODY_WAITS or (settings.reload != "none" and settings.confirm is not None)


def _fails(how: Command, deadline: Deadline) -> str:
    ran = process.run(how.command, deadline)
    return "" if ran.code == 0 else f"{how.command[0]} exited {ran.code}{f': {ran.said}' if ran.said else ''}"


def unhealthy(how: HttpCheck | Command, deadline: Deadline) -> str:
    """What a policy's `confirm` finds wrong; empty where all is well. Raises ConfigurationInvalid for a bad address."""
    try:
        if isinstance(how, Command):
            return _fails(how, deadline)
        from vaultkeeper.access import http

        status = http.call(how.method, how.http, deadline, ca_file=how.ca).status
    except BackendError as error:
        return str(error)
    return "" if status in how.accepted else f"{host_of(how.http)} answered {status}"


def _signal(how: Signal) -> str:
    seen = files.read(how.pid_file, limit_bytes=64)
    text = (seen.content or b"").strip()
    if not text.isdigit() or int(text) <= 1:
        return f"{how.pid_file} holds no process number"
    try:
        fd = os.pidfd_open(int(text))  # so that a number reused in between is not hit
    except (ProcessLookupError, OSError):
        return f"the process named in {how.pid_file} does not run"
    try:
        runs_as = os.stat(f"/proc/{int(text)}").st_uid
        # as systemd does for PIDFile=: whoever may write the file must not choose whom root signals
        if seen.owner.uid not in (0, os.geteuid(), runs_as) or seen.mode & 0o022:
            return f"{how.pid_file} could have been written by somebody else than the process's owner"
        signal.pidfd_send_signal(fd, getattr(signal, f"SIG{how.signal}"))
    except OSError as error:
        return f"the process named in {how.pid_file} cannot be signalled: {os.strerror(error.errno or 0)}"
    finally:
        os.close(fd)
    return ""
