"""The audit log: one JSON line per record, each sealed with HMAC-SHA256 over itself and the seal before it.

Whoever edits, removes, swaps or cuts records without the key breaks the chain at a place that `verify` names.
Cutting the end leaves a chain that is whole, so the head (number and seal of the newest record) is also kept in the
database. A line is written by one `write` and synced before `append` returns. Several processes may append.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from threading import Lock

from vaultkeeper.errors import AuditUnwritable
from vaultkeeper.store.ballast import FULL

_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Head:
    """The newest record: its number, from 1, and its seal in hex. Number 0: no record yet."""

    seq: int = 0
    mac: str = ""


class AuditLog:
    """Appends to one file. `head`: the newest record that the database knows.

    Where the file has lost records that the head knows of, appending goes on *behind* the head: the gap stays
    visible to `verify` for ever, and rotations are not stopped by it.
    """

    def __init__(self, path: Path, key: bytes, head: Head, now: Callable[[], datetime]) -> None:
        self._path = path
        self._key = key
        self._now = now
        self._head = head
        self._size: int | None = None  # of the file when `_head` was its last record; None: not read yet
        self._torn_bytes = 0
        self._lock = Lock()
        self._descriptor = self._open()

    @property
    def head(self) -> Head:
        return self._head

    def append(self, record: Mapping[str, object], make_room: Callable[[], None] = lambda: None) -> None:
        """Write and sync one record. `make_room` is called once, should the disk be full. Raises AuditUnwritable.

        `record` holds what JSON holds, and times, durations and enums. Never a value: fingerprints.
        """
        with self._lock:
            try:
                self._append(record)
            except OSError as error:
                if error.errno not in FULL:
                    raise self._unwritable(error) from None
                make_room()
                try:
                    self._append(record)
                except OSError as again:
                    raise self._unwritable(again) from None

    def verify(self, head: Head) -> BadRecord | None:
        """As the function `verify`, of this log. Raises AuditUnwritable."""
        try:
            return verify(self._path, self._key, head)
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Idempotent: a second close must not hit whoever got the number of our descriptor meanwhile."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def _append(self, record: Mapping[str, object]) -> None:
        with self._exclusively():
            self._catch_up()
            head = Head(self._head.seq + 1, "")
            body: dict[str, object] = {"seq": head.seq, "at": self._now().isoformat(), "prev": self._head.mac}
            if self._torn_bytes:
                body["torn_bytes"] = self._torn_bytes  # what a crash left of a record, and we removed
            body["record"] = record
            line, mac = _sealed(self._key, body)
            before = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):  # the rest did not fit; writing the rest now would say why
                    os.write(self._descriptor, line[written:])
                os.fdatasync(self._descriptor)
            except OSError:
                self._size = None
                with suppress(OSError):
                    os.ftruncate(self._descriptor, before)
                raise
            self._head, self._size, self._torn_bytes = Head(head.seq, mac), before + len(line), 0

    def _catch_up(self) -> None:
        """Move `_head` to what other processes appended; remove a line that a crash cut short."""
        size = os.fstat(self._descriptor).st_size
        if size == self._size:
            return
        last, end = _last_line(self._descriptor, size)
        if end < size:
            os.ftruncate(self._descriptor, end)
            self._torn_bytes += size - end
        found = _opened(self._key, last)  # a line that was edited says nothing; `verify` names it
        if found is not None and found[0] > self._head.seq:
            self._head = Head(found[0], found[2])
        self._size = end

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Lock the file that now has our name: logrotate or a restore may have put another one there."""
        while True:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if self._is_current():
                break
            there = self._open()  # raises before the old one is closed
            os.close(self._descriptor)
            self._descriptor, self._size = there, None
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _is_current(self) -> bool:
        mine = os.fstat(self._descriptor)
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o600)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)  # a new file's name
            finally:
                os.close(directory)
        except OSError as error:
            raise self._unwritable(error) from None
        return descriptor

    def _unwritable(self, error: OSError) -> AuditUnwritable:
        return AuditUnwritable(
            f"the audit log {self._path} cannot be written",
            why=os.strerror(error.errno) if error.errno else type(error).__name__,
            works="whatever worked before: without its record, nothing is changed at a target",
            next=f"make {self._path} writable again, then vaultkeeper resume --all",
        )


class Fault(Enum):
    """What is wrong with the first bad record."""

    EDITED = "edited"  #: its seal does not fit its text
    DELETED = "deleted"  #: a record is missing here
    REORDERED = "reordered"  #: another record stands here, and this one elsewhere
    REPLACED = "replaced"  #: sealed with our key, but it does not follow its predecessor, or the database knows another
    TRUNCATED = "truncated"  #: the database knows of records after the last one
    TORN = "torn"  #: the last line has no end: a crash, or a cut


@dataclass(frozen=True)
class BadRecord:
    """`index`: the number that the record at this place has or should have, from 1."""

    index: int
    fault: Fault


def verify(path: Path, key: bytes, head: Head) -> BadRecord | None:
    """The first bad record of the log, or None. Reads only; may run beside writers. Raises OSError.

    `head` is the newest record that the database knows (`SqlStore.audit_head`), read *before* this call.
    """
    with path.open("rb") as log:
        fcntl.flock(log, fcntl.LOCK_SH)
        last = Head()
        for index, line in enumerate(log, start=1):
            if not line.endswith(b"\n"):
                return BadRecord(index, Fault.TORN)
            record = _opened(key, line)
            if record is None:
                return BadRecord(index, Fault.EDITED)
            seq, prev, mac = record
            if seq != index:
                elsewhere = seq < index or any(_seq_of(later) == index for later in log)
                return BadRecord(index, Fault.REORDERED if elsewhere else Fault.DELETED)
            if prev != last.mac or (seq == head.seq and mac != head.mac):
                return BadRecord(index, Fault.REPLACED)
            last = Head(seq, mac)
    return BadRecord(last.seq + 1, Fault.TRUNCATED) if head.seq > last.seq else None


def _sealed(key: bytes, body: Mapping[str, object]) -> tuple[bytes, str]:
    # ASCII only: a line break or terminal sequence in a name cannot forge a line (CWE-117).
    text = json.dumps(body, separators=(",", ":"), default=_plain).encode()
    mac = hmac.new(key, text, hashlib.sha256).hexdigest()
    return text[:-1] + b',"mac":"' + mac.encode() + b'"}\n', mac


def _opened(key: bytes, line: bytes) -> tuple[int, str, str] | None:
    """(seq, prev, mac), or None where the seal does not fit the bytes."""
    text, _, end = line.rpartition(b',"mac":"')
    mac = hmac.new(key, text + b"}", hashlib.sha256).hexdigest()
    if not hmac.compare_digest(end, mac.encode() + b'"}\n'):
        return None
    body = json.loads(text + b"}")
    return body["seq"], body["prev"], mac


def _seq_of(line: bytes) -> int:
    try:
        return int(json.loads(line)["seq"])
    except (ValueError, KeyError, TypeError):
        return 0


def _last_line(descriptor: int, size: int) -> tuple[bytes, int]:
    """The last complete line, and where it ends."""
    start, tail = size, b""
    while start > 0 and tail.count(b"\n") < 2:
        block = min(_BLOCK_BYTES, start)
        start -= block
        tail = os.pread(descriptor, block, start) + tail
    whole = tail[: tail.rfind(b"\n") + 1]
    return whole[whole.rfind(b"\n", 0, -1) + 1 :], start + len(whole)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"an audit record cannot hold a {type(value).__name__}")
