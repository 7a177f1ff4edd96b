"""Running another program without telling anybody what we know.

An argument list and never a shell, an absolute path, `/` as the working directory, an environment of four constants, no
inherited descriptor but those named. Values travel on stdin or a passed descriptor. The program gets a process group
of its own, which is killed at the deadline; what it writes is bounded, and redacted before anybody may quote it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.ports import Deadline

ENVIRONMENT: Mapping[str, str] = {
    "HOME": "/nonexistent",  # no dot file of anybody's is read
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
MAX_OUTPUT_BYTES = 8 << 20
_TELLING_BYTES = 8  # a shorter value may stand in an argument by chance: "null" in /dev/null
_QUOTED_BYTES = 400  # of stderr in an error: enough for a sentence, too little for a dump


class ProcessError(BackendError):
    """A program could not be started, ran past its deadline or wrote too much. Its effect is unknown if it started."""

    def __init__(self, what: str, *, started: bool) -> None:
        super().__init__(what)
        self.started = started


@dataclass(frozen=True)
class Ran:
    """A program that ended. `said` is the beginning of its stderr, redacted, on one line."""

    code: int  #: exit code; negative: the signal that ended it
    stdout: bytes = field(repr=False)
    said: str


def run(
    argv: Sequence[str],
    deadline: Deadline,
    *,
    stdin: bytes = b"",
    secrets: Sequence[bytes] = (),
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    limit_bytes: int = MAX_OUTPUT_BYTES,
) -> Ran:
    """Run `argv` to its end and return its code and output.

    `secrets` are blotted out of what it said, and refused in `argv` and `environment`, which every local user can
    read. Raises ProcessError, or ConfigurationInvalid for an argument list that may not be used.
    """
    environment = {**ENVIRONMENT, **(environment or {})}
    _judge(argv, environment, secrets)
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            close_fds=True,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessError(f"{argv[0]} cannot be run: {os.strerror(error.errno or 0)}", started=False) from None
    talk = _Talk(child, stdin, deadline, limit_bytes)
    try:
        talk.through()
    except BaseException:
        _kill(child)
        raise
    finally:
        talk.close()
    return Ran(child.returncode, bytes(talk.stdout), _quote(bytes(talk.stderr), secrets))


def _judge(argv: Sequence[str], environment: Mapping[str, str], secrets: Sequence[bytes]) -> None:
    if not argv or not os.path.isabs(argv[0]):
        raise ConfigurationInvalid("a command must begin with the absolute path of a program")
    seen = "\0".join([*argv, *environment.values()]).encode(errors="surrogateescape")
    if any(len(secret) >= _TELLING_BYTES and secret in seen for secret in secrets):
        raise ConfigurationInvalid(f"the arguments of {argv[0]} hold a secret value, which every local user could read")


def _kill(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _quote(stderr: bytes, secrets: Sequence[bytes]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            stderr = stderr.replace(secret, b"[redacted]")
    text = " ".join(stderr[:_QUOTED_BYTES].decode(errors="replace").split())
    return "".join(c if c.isprintable() else "?" for c in text)


class _Talk:
    """Feeds and drains a child until it ends. A grandchild that keeps the pipes open is not waited for."""

    def __init__(self, child: subprocess.Popen[bytes], stdin: bytes, deadline: Deadline, limit_bytes: int) -> None:
        self.child = child
        self.deadline = deadline
        self.limit_bytes = limit_bytes
        self.left = memoryview(stdin)
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.pidfd = os.pidfd_open(child.pid)
        self.selector = selectors.DefaultSelector()
        for pipe in (child.stdin, child.stdout, child.stderr):
            assert pipe is not None  # noqa: S101 - Popen was given PIPE
            os.set_blocking(pipe.fileno(), False)
        self.selector.register(child.stdout, selectors.EVENT_READ, self.stdout)  # type: ignore[arg-type]
        self.selector.register(child.stderr, selectors.EVENT_READ, self.stderr)  # type: ignore[arg-type]
        self.selector.register(self.pidfd, selectors.EVENT_READ)
        if self.left:
            self.selector.register(child.stdin, selectors.EVENT_WRITE)  # type: ignore[arg-type]
        else:
            child.stdin.close()  # type: ignore[union-attr]

    def through(self) -> None:
        ended = False
        while not ended:
            now = time.monotonic()
            if now >= self.deadline.at_monotonic_s:
                raise ProcessError(f"{self.name} did not end in time and was killed", started=True)
            for key, _ in self.selector.select(self.deadline.left_s(now)):
                if key.fd == self.pidfd:
                    ended = True
                elif isinstance(key.data, bytearray):
                    self._take(key.fd, key.data)
                else:
                    self._give()
        self.child.wait()
        for key in list(self.selector.get_map().values()):
            if isinstance(key.data, bytearray):
                while self._take(key.fd, key.data):
                    pass

    @property
    def name(self) -> str:
        return str(self.child.args[0]) if isinstance(self.child.args, list) else "a program"

    def _take(self, fd: int, into: bytearray) -> bool:
        """Read what is there; False where nothing is, now or for ever."""
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return False
        if not chunk:
            self.selector.unregister(fd)
            return False
        into += chunk
        if len(into) > self.limit_bytes:
            raise ProcessError(f"{self.name} wrote more than {self.limit_bytes} bytes", started=True)
        return True

    def _give(self) -> None:
        pipe = self.child.stdin
        assert pipe is not None  # noqa: S101 - Popen was given PIPE
        try:
            self.left = self.left[os.write(pipe.fileno(), self.left) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want the rest; its exit code says what that means
            self.left = self.left[:0]
        if not self.left:
            self.selector.unregister(pipe)
            pipe.close()

    def close(self) -> None:
        self.selector.close()
        os.close(self.pidfd)
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            if pipe is not None:
                pipe.close()
