"""`vaultkeeper …` in a process of its own that need not import first: forked from one that has everything loaded.

A new interpreter spends half a second of CPU on imports, a fork a few milliseconds, and the tests start thousands of
commands. What the command does from `main` on, and how it ends, is the same; `python -m tests.forked` is the template.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.crash import stage

ROOT = Path(__file__).parents[1]
DRIVERS = ("bcrypt", "httpx2", "hvac", "pika", "psycopg", "pymysql", "redis", "rich.table", "ruamel.yaml")
AT_START = ("PYTHON", "LANG", "LC_", "LD_", "TZ", "COVERAGE_")
"""What an interpreter reads before its first line: commands that differ in these have templates of their own."""


class Forked:
    """A running command. `pid` is a process like any other; its returncode reads as `subprocess` spells it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.pid = int(line.recv(32))
        self.returncode: int | None = None

    def wait(self, timeout: float) -> int:
        """Raises TimeoutError."""
        if self.returncode is None:
            self._line.settimeout(timeout)
            self.returncode = int(self._line.recv(32))
            self._line.close()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True)
class OnStage:
    """The command performs for a conductor at the other end of `line`: `tests/crash/stage.py`."""

    line: socket.socket
    wrong_order: bool = False


def start(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: IO[bytes],
    stdout: IO[bytes],
    stderr: IO[bytes],
    on_stage: OnStage | None = None,
) -> Forked:
    """Begin `vaultkeeper ARGUMENTS`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # two messages, however late they are read
    request: dict[str, Any] = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)}
    fds = [theirs.fileno(), *(file.fileno() for file in (stdin, stdout, stderr))]
    if on_stage is not None:
        request["wrong_order"] = on_stage.wrong_order
        fds.append(on_stage.line.fileno())
    at_start = tuple(sorted((name, value) for name, value in env.items() if name.startswith(AT_START)))
    with theirs:
        socket.send_fds(_template(at_start), [json.dumps(request).encode()], fds)
    return Forked(ours)


def run(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: bytes = b"", timeout: float = 300
) -> subprocess.CompletedProcess[bytes]:
    """As `subprocess.run(["vaultkeeper", *arguments], capture_output=True, …)`."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        running = start(arguments, env=env, cwd=cwd, stdin=given, stdout=out, stderr=err)
        try:
            code = running.wait(timeout)
        finally:
            running.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())


@cache
def _template(at_start: tuple[tuple[str, str], ...]) -> socket.socket:
    """The line to a template with these settings. It ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {"PATH": os.environ["PATH"], **dict(at_start), "PYTHONPATH": str(ROOT)}
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
            env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return ours


# ------------------------------------------------------------------------------------------------------ the template


def _load() -> None:
    """Every module of vaultkeeper, what they import where they need it, and the command line put together."""
    import importlib
    import pkgutil

    import vaultkeeper

    for module in pkgutil.walk_packages(vaultkeeper.__path__, "vaultkeeper."):
        if not module.name.startswith(("vaultkeeper.testing", "vaultkeeper.__main__", "vaultkeeper.store.migrations")):
            importlib.import_module(module.name)
    for name in DRIVERS:
        importlib.import_module(name)
    importlib.import_module("vaultkeeper.cli.app").build()


def _forks(requests: socket.socket) -> dict[str, Any]:
    """Fork for every request and tell how it ended. Returns in the children; ends where nobody asks any more."""
    waiting = selectors.DefaultSelector()
    waiting.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is not requests:
                pid, line = key.data
                waiting.unregister(key.fileobj)
                os.close(key.fd)
                with line, suppress(BrokenPipeError):
                    line.sendall(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
                continue
            message, fds, _, _ = socket.recv_fds(requests, 1 << 20, 8)
            if not message:
                sys.exit()
            line = socket.socket(fileno=fds.pop(0))
            pid = os.fork()
            if pid == 0:
                for held in waiting.get_map().values():
                    if held.data:
                        held.data[1].close()
                        os.close(held.fd)
                waiting.close()
                requests.close()
                line.close()
                return {"files": fds, **json.loads(message)}
            for fd in fds:
                os.close(fd)
            line.sendall(str(pid).encode())
            waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, line))


_ended: list[object] = []


def _leave() -> None:
    """Last of all that is done at exit: an interpreter that took itself apart would copy every page of the template."""
    sys.stdout.flush()
    sys.stderr.flush()
    code = _ended[0] if _ended else 1
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def main() -> NoReturn:
    """The template; in its children, the command."""
    atexit.register(_leave)  # first, so that whatever is registered later is done before it
    _load()
    gc.collect()
    gc.freeze()
    request = _forks(socket.socket(fileno=int(sys.argv[1])))
    for number, fd in enumerate(request["files"][:3]):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if "wrong_order" in request:
        stage.enter(socket.socket(fileno=request["files"][3]), wrong_order=request["wrong_order"])
    from vaultkeeper.cli import main as command

    sys.argv = ["vaultkeeper", *request["arguments"]]
    try:
        command()
    except SystemExit as ending:
        _ended.append(ending.code)
        raise


if __name__ == "__main__":
    main()
