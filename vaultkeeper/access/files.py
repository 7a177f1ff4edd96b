"""Reading and replacing files that other programs read, on the assumption that somebody would like to redirect us.

The way to a file is walked with directory descriptors, one component at a time and never through a symbolic link that
an untrusted user could have placed (CWE-59, CWE-367). A file changes only by a rename of a complete, fsynced file
within its directory, so that a reader sees the old content or the new one. Mode and owner are set before the rename:
an OpenTelemetry Collector that once meets a file it may not read never looks again.

Errors are `Answered` and carry what the hook answers; none quotes content.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from vaultkeeper.access.answer import Answered, refused, unknown
from vaultkeeper.model.outcome import No, NotYet

PREFIX = ".vaultkeeper-"
"""Every temporary file of ours begins so."""

MAX_BYTES = 1 << 20
"""Larger files are no configuration; reading one is refused."""

_GIVING = "to give a file to another user or group takes CAP_CHOWN and CAP_FOWNER, or root"
_MAX_LINKS = 40  # as the kernel's own limit, path_resolution(7)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ACL = "system.posix_acl_access"


@dataclass(frozen=True)
class Owner:
    """Whose the file shall be, as numbers; -1 leaves one as it is."""

    uid: int = -1
    gid: int = -1


@dataclass(frozen=True)
class Snapshot:
    """A file as it was read. `content` None: there was none. `identity` tells whether it is still the same."""

    content: bytes | None = field(repr=False)
    identity: tuple[int, ...] | None = None
    mode: int = 0o600
    owner: Owner = Owner()
    changed_at: float = 0.0  #: of its content, seconds since the epoch
    placed_at: float = 0.0  #: since when surely it stands there as it is (ctime), or is absent (its directory's mtime)
    acl: bytes | None = field(default=None, repr=False)

    @property
    def exists(self) -> bool:
        return self.content is not None


def read(path: str, limit_bytes: int = MAX_BYTES) -> Snapshot:
    """The regular file at the absolute `path`, or a snapshot of its absence. Raises Answered."""
    with _answering(path), _parent(path) as (folder, name):
        return _read(folder, name, path, limit_bytes)


def replace(path: str, content: bytes, was: Snapshot, *, mode: int | None = None, owner: Owner | None = None) -> None:
    """Put `content` in the place of what `was` read there, durably: two fsyncs.

    Mode, owner and access list of the existing file stay unless given; a new file is 0600 and ours. Raises Answered
    with Refused(CONFLICT) where the file is no longer the one in `was`; after any Refused the old file still stands.
    """
    with _answering(path), _parent(path) as (folder, name):
        _sweep(folder, name)
        temporary = _temporary(name) + secrets.token_hex(8)
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            try:
                _dress(fd, was, mode, owner)
                _write(fd, content)
                os.fsync(fd)
            finally:
                os.close(fd)
            if _identity(folder, name) != was.identity:
                raise refused(No.CONFLICT, f"{path} changed while it was being edited")
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        _settle(folder, path)


def remove(path: str, was: Snapshot) -> None:
    """Remove the file that `was` read there, durably; "already absent" is fine. Raises Answered as `replace` does."""
    with _answering(path), _parent(path) as (folder, name):
        _sweep(folder, name)
        if not was.exists:
            return
        if _identity(folder, name) != was.identity:
            raise refused(No.CONFLICT, f"{path} changed while it was being edited")
        os.unlink(name, dir_fd=folder)
        _settle(folder, path)


def check_writable(path: str, owner: Owner | None = None) -> None:
    """Raise Answered where a `replace` of `path` would surely be refused. Writes nothing."""
    with _answering(path), _parent(path) as (folder, name):
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
            raise refused(No.PRIVILEGE, f"the directory of {path} cannot be written by this user")
        uid = owner.uid if owner else -1
        if uid == -1:
            with suppress(FileNotFoundError):
                uid = os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid
        if uid not in (-1, os.geteuid()) and not _may_give_away():
            raise refused(No.PRIVILEGE, f"{path}: {_GIVING}")


def sweep(path: str) -> None:
    """Remove the temporaries that a killed `replace` of this file left. Only for who alone may write the file now."""
    with _answering(path), _parent(path) as (folder, name):
        _sweep(folder, name)


def strays(directory: str) -> list[str]:
    """Names of all temporaries of ours in a directory, for `doctor`; one may be in use at this moment."""
    with _answering(directory):
        folder = _walk(directory)
        try:
            return sorted(name for name in os.listdir(folder) if name.startswith(PREFIX))
        finally:
            os.close(folder)


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Exclude every other `alone` in the file's directory while the context lasts. Raises Answered with NotYet.

    For files without a delivery group's lock. The lock is on the directory, because the file itself is replaced.
    """
    with _answering(path):
        folder = _walk(os.path.dirname(path))
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            later = NotYet(f"another process is editing a file beside {path}", timedelta(seconds=1))
            raise Answered(later, later.reason) from None
        yield
    finally:
        os.close(folder)


# ------------------------------------------------------------------------------------------------------------- the walk


@contextmanager
def _parent(path: str) -> Iterator[tuple[int, str]]:
    """A descriptor of the directory that holds `path`, and the file's name in it."""
    directory, name = os.path.split(path)
    if not os.path.isabs(path) or name in ("", ".", "..") or "\0" in path:
        raise refused(No.UNSUPPORTED, f"{path!r} is no absolute path of a file")
    folder = _walk(directory)
    try:
        yield folder, name
    finally:
        os.close(folder)


def _walk(directory: str) -> int:
    """Open a directory from the root on. A link is followed only where nobody but root and we could have placed it."""
    pending = [part for part in reversed(directory.split("/")) if part not in ("", ".")]
    trail = [os.open("/", _DIRECTORY)]
    links = 0
    try:
        while pending:
            part = pending.pop()
            if part == "..":
                if len(trail) > 1:
                    os.close(trail.pop())
                continue
            try:
                trail.append(os.open(part, _DIRECTORY, dir_fd=trail[-1]))
                continue
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
            target = _trusted_link(trail[-1], part, directory)
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, "too many symbolic links")
            if target.startswith("/"):
                while len(trail) > 1:
                    os.close(trail.pop())
            pending.extend(p for p in reversed(target.split("/")) if p not in ("", "."))
        return trail.pop()
    finally:
        for fd in trail:
            os.close(fd)


def _trusted_link(folder: int, name: str, whole: str) -> str:
    """Where a link points that root or we placed in a directory that nobody else may write. Raises Answered."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        link, holder = os.fstat(fd), os.fstat(folder)
        if not stat.S_ISLNK(link.st_mode):
            raise OSError(errno.ENOTDIR, "not a directory")
        trusted = {0, os.geteuid()}
        if not {link.st_uid, holder.st_uid} <= trusted or holder.st_mode & 0o022:
            raise refused(No.PRIVILEGE, f"{name!r} on the way to {whole} is a symbolic link that others could change")
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------------------------------------- the file


def _read(folder: int, name: str, path: str, limit_bytes: int) -> Snapshot:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return Snapshot(None, placed_at=os.fstat(folder).st_mtime)
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise refused(No.UNSUPPORTED, f"{path} is not a regular file")
        content = bytearray()
        while len(content) <= limit_bytes:
            chunk = os.read(fd, limit_bytes + 1 - len(content))
            if not chunk:
                break
            content += chunk
        if len(content) > limit_bytes:
            raise refused(No.UNSUPPORTED, f"{path} is larger than {limit_bytes} bytes")
        acl = None
        with suppress(OSError):  # most file systems have none to tell
            acl = os.getxattr(fd, _ACL)
    finally:
        os.close(fd)
    owner = Owner(seen.st_uid, seen.st_gid)
    mode = stat.S_IMODE(seen.st_mode)
    return Snapshot(bytes(content), _tell(seen), mode, owner, seen.st_mtime, seen.st_ctime, acl)


def _tell(seen: os.stat_result) -> tuple[int, ...]:
    # ctime and not only mtime: mtime can be set back, and some editors do
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_mode


def _identity(folder: int, name: str) -> tuple[int, ...] | None:
    try:
        return _tell(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _dress(fd: int, was: Snapshot, mode: int | None, owner: Owner | None) -> None:
    """Owner before mode: chown clears set-id bits, and for an instant the file would be somebody's with a wide mode."""
    old = was.owner if was.exists else Owner()
    uid, gid = (owner.uid, owner.gid) if owner else (-1, -1)
    uid, gid = (old.uid if uid == -1 else uid), (old.gid if gid == -1 else gid)
    now = os.fstat(fd)
    try:
        if uid not in (-1, now.st_uid) or gid not in (-1, now.st_gid):
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode if mode is not None else was.mode)
    except PermissionError:
        raise refused(No.PRIVILEGE, _GIVING) from None
    if was.acl is not None and mode is None:
        os.setxattr(fd, _ACL, was.acl)


def _may_give_away() -> bool:
    """By the kernel's word, capabilities(7): CAP_CHOWN is bit 0, CAP_FOWNER bit 3."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            (effective,) = (int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    except (OSError, ValueError):
        return os.geteuid() == 0
    return effective & 0b1001 == 0b1001


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _settle(folder: int, path: str) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        what = f"{path} was replaced, but its directory could not be synced: {_reason(error)}"
        raise unknown(what) from None


def _temporary(name: str) -> str:
    """Begins every temporary of this one file. A digest, because the name itself may be 255 bytes long already."""
    return f"{PREFIX}{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}-"


def _sweep(folder: int, name: str) -> None:
    for entry in os.listdir(folder):
        if entry.startswith(_temporary(name)):
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(entry, dir_fd=folder)


# --------------------------------------------------------------------------------------------------------------- errors

_WHY = {
    errno.EACCES: No.PRIVILEGE,
    errno.EPERM: No.PRIVILEGE,
    errno.EROFS: No.PRIVILEGE,
    errno.ELOOP: No.PRIVILEGE,
    errno.ENOSPC: No.CAPACITY,
    errno.EDQUOT: No.CAPACITY,
    errno.ENOENT: No.UNSUPPORTED,
    errno.ENOTDIR: No.UNSUPPORTED,
    errno.EISDIR: No.UNSUPPORTED,
    errno.ENAMETOOLONG: No.UNSUPPORTED,
}


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a symbolic link, or one stands on the way"
    return os.strerror(error.errno) if error.errno else type(error).__name__


@contextmanager
def _answering(path: str) -> Iterator[None]:
    """OSErrors become answers: definite where nothing can have changed, Unknown for the rest (EIO)."""
    try:
        yield
    except OSError as error:
        detail = f"{path}: {_reason(error)}"
        why = _WHY.get(error.errno or 0)
        raise (refused(why, detail) if why else unknown(detail)) from None
