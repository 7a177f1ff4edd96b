"""Kill points on strace's fault injection: record what each task of a run does, then kill one of them at one call."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests import forked

RUN_SECONDS = 300
CALLS = (
    "write,pwrite64,writev,pwritev,sendto,sendmsg,recvfrom,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,"
    "link,linkat,symlink,symlinkat,ftruncate,truncate,fallocate,mkdir,mkdirat,rmdir,fchmod,fchmodat,fchown,fchownat"
)
"""What changes something outside the process, and `recvfrom`: killed there, a reply is lost."""

_LINE = re.compile(r"^(\w+)\((.*)")
_SAID = re.compile(r"^[12]<")  # talk on stdout and stderr changes nothing


@dataclass(frozen=True, order=True)
class Point:
    """The `k`-th `call` of the `task`-th task that was announced (0 is the main thread). `where`: path or socket."""

    task: int
    call: str
    k: int
    where: str = ""

    def __str__(self) -> str:
        return f"task {self.task} {self.call} #{self.k} {self.where}"


@dataclass(frozen=True)
class Run:
    """How one staged run ended. `hit`: the kill was seen."""

    code: int
    hit: bool
    output: str


def record(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    stdin: bytes = b"",
    wrong_order: bool = False,
) -> list[Point]:
    """Run to the end, every task traced; each of its state-changing calls in order."""
    points: list[Point] = []
    traces: list[tuple[int, Path]] = []
    watchers: list[subprocess.Popen[str]] = []
    with _Stage(arguments, environment, folder, stdin, wrong_order=wrong_order) as stage:
        for number, task in stage.tasks():
            out = folder / f"trace.{number}"
            traces.append((number, out))
            watchers.append(_attach(task, out, []))
            stage.nod()
        run = stage.ended(hit=False)
    for watcher in watchers:
        watcher.wait(RUN_SECONDS)
    if run.code != 0:
        raise RuntimeError(f"the run to be recorded failed:\n{run.output}")
    for number, out in traces:
        points += _points(number, out.read_text(errors="replace"))
    return points


def _points(task: int, trace: str) -> Iterator[Point]:
    count: Counter[str] = Counter()
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        call, rest = found.groups()
        count[call] += 1
        if not _SAID.match(rest):
            yield Point(task, call, count[call], _where(rest))


def _where(rest: str) -> str:
    """A short, stable name of what a call is about."""
    path = re.search(r'<(/[^>]*|TCP[^>]*|UNIX[^>]*|socket[^>]*|pipe[^>]*|anon[^>]*)>|"(/[^"]*)"', rest)
    if path is None:
        return ""
    name = path.group(1) or path.group(2)
    return name if name.startswith("/") else name.partition(":")[0].partition("[")[0]


def kill_at(
    point: Point,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    stdin: bytes = b"",
    wrong_order: bool = False,
) -> Run:
    """The same run again, killed as it enters that call. A child is killed alone: its parent must cope."""
    inject = ["-e", f"inject={point.call}:signal=KILL:when={point.k}"]
    out = folder / "trace.kill"
    out.unlink(missing_ok=True)
    watcher: subprocess.Popen[str] | None = None
    with _Stage(arguments, environment, folder, stdin, wrong_order=wrong_order) as stage:
        for number, task in stage.tasks():
            if number == point.task:
                watcher = _attach(task, out, inject)
            stage.nod()
        if watcher is not None:
            watcher.wait(RUN_SECONDS)
        hit = out.exists() and "killed by SIGKILL" in out.read_text(errors="replace")
        return stage.ended(hit=hit)


def _attach(task: int, out: Path, extra: Sequence[str]) -> subprocess.Popen[str]:
    argv = ["strace", "-y", "-s", "0", "-o", str(out), "-e", f"trace={CALLS}", *extra, "-p", str(task)]
    watcher = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert watcher.stderr is not None
    said = watcher.stderr.readline()
    if "attached" not in said:
        raise RuntimeError(f"strace could not attach: {said}")
    return watcher


class _Stage:
    """A staged run and the line to it."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: bytes, *, wrong_order: bool
    ) -> None:
        self._ours, theirs = socket.socketpair()
        self._output = (folder / "output").open("w+b")
        with theirs, tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            self._process = forked.start(
                arguments, env=environment, cwd=Path.cwd(), stdin=given, stdout=self._output,
                stderr=self._output, on_stage=forked.OnStage(theirs, wrong_order=wrong_order),
            )  # fmt: skip
        self._children: list[int] = []
        self._until = time.monotonic() + RUN_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """A child that was announced and not yet let go would stay stopped for ever."""
        self._process.kill()
        self._process.wait(RUN_SECONDS)
        self._output.close()
        for child in self._children:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)  # each has a session of its own
        self._ours.close()

    def tasks(self) -> Iterator[tuple[int, int]]:
        """(number, task id) of every task, as it waits for its nod."""
        number, rest = 0, b""
        while True:
            left = self._until - time.monotonic()
            if left <= 0 or not select.select([self._ours], [], [], left)[0]:
                raise RuntimeError("the staged run did not end in time")
            try:
                data = self._ours.recv(4096)
            except ConnectionResetError:
                return
            if not data:
                return
            rest += data
            while b"\n" in rest:
                line, _, rest = rest.partition(b"\n")
                name, task = line.split()
                if name == b"child":
                    self._children.append(int(task))
                yield number, int(task)
                number += 1

    def nod(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._ours.send(b".")

    def ended(self, *, hit: bool) -> Run:
        code = self._process.wait(RUN_SECONDS)
        self._output.seek(0)
        return Run(code, hit, self._output.read().decode(errors="replace"))
