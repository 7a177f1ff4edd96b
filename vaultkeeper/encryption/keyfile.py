"""Key files: read only where nobody else could have read or placed them, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaultkeeper.errors import ConfigurationInvalid, NotAuthorised

MAX_BYTES = 64 * 1024
"""A key file is a few hundred bytes; a device or a log given by mistake is not read to its end."""


def read_private(path: Path) -> bytes:
    """The content of a file that only we, or root, can have written and read.

    A regular file, not a symbolic link, owned by us or root, mode 0600 or 0400, in a directory that not everybody may
    write to (sticky ones such as /tmp aside). systemd shows a credential as root's 0440, where the group bits are the
    mask of an ACL for the service's user (systemd.exec(5), `LoadCredential=`); that is accepted for root:root.

    Raises FileNotFoundError, NotAuthorised, or ConfigurationInvalid where it is larger than `MAX_BYTES`.
    """
    with _opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as (directory, file):
        parent, found = os.fstat(directory), os.fstat(file)
        mode = stat.S_IMODE(found.st_mode)
        systemd = mode == 0o440 and (found.st_uid, found.st_gid) == (0, 0)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "it is not a regular file")
        if found.st_uid not in (os.geteuid(), 0):
            raise _refused(path, f"it belongs to uid {found.st_uid}, not to uid {os.geteuid()} or root", "chown it")
        if mode & ~0o600 and not systemd:
            raise _refused(path, f"its mode is {mode:04o}, so others may reach it", f"chmod 0600 {path}")
        if parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX:
            raise _refused(path, f"everybody may write to {path.parent}", f"chmod o-w {path.parent}")
        return _read(path, file)


def read_public(path: Path) -> bytes:
    """The content of a file that holds nothing readable. Raises as `read_private`, permissions aside."""
    with _opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as (_, file):
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _refused(path, "it is not a regular file")
        return _read(path, file)


def write_new(path: Path, content: bytes) -> None:
    """Make a 0600 file that appears whole, durable, and only if there is none. Raises FileExistsError."""
    with _temporary(path, content) as (directory, name):
        os.link(name, path.name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


def replace(path: Path, content: bytes) -> None:
    """Put a 0600 file in the place of another, whole and durable. Idempotent."""
    with _temporary(path, content) as (directory, name):
        os.rename(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[tuple[int, int]]:
    """Descriptors of the directory and of the file in it: what is judged is what is read."""
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            file = os.open(path.name, flags | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            os.close(directory)
            raise
    except FileNotFoundError:
        raise
    except OSError as error:
        link = path.is_symlink()
        raise _refused(path, "it is a symbolic link" if link else f"{error.strerror}".lower()) from None
    try:
        yield directory, file
    finally:
        os.close(file)
        os.close(directory)


def _read(path: Path, file: int) -> bytes:
    content = b""
    while len(content) <= MAX_BYTES:
        part = os.read(file, MAX_BYTES + 1 - len(content))
        if not part:
            return content
        content += part
    raise ConfigurationInvalid(f"{path} cannot be a key file", why=f"it is larger than {MAX_BYTES // 1024} KiB")


@contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[tuple[int, str]]:
    """(directory, name) of a synced file beside `path`; afterwards the name is gone and the directory synced."""
    name = f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, made, 0o600, dir_fd=directory), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield directory, name
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            os.fsync(directory)
            os.close(directory)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigurationInvalid(f"{path} cannot be written", why=f"{error.strerror}".lower()) from None


def _refused(path: Path, why: str, next_step: str = "") -> NotAuthorised:
    return NotAuthorised(f"{path} may not be used as a key file", why=why, next=next_step)
