"""The command line under a conductor's eyes: every thread and child says who it is and waits for a nod.

strace's fault injection counts calls per task (thread or process), so a point is (task, call, K). The conductor
(`sweep.py`) attaches strace to the one task that it means to kill, before that task has done anything. Nothing in
vaultkeeper knows of this: only `threading` and `subprocess` of this process are watched.

All modules are loaded before (`tests/forked.py`): imports change nothing, and under strace they took a second.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from typing import Any


class Conductor:
    """The other end of the line. One nod per announced task."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lock = threading.Lock()

    def announce(self, name: str, task: int) -> None:
        with self._lock:
            self._line.sendall(f"{name} {task}\n".encode())
            self._line.recv(1)


def watch_threads(conductor: Conductor) -> None:
    run = threading.Thread.run

    def announced(self: threading.Thread) -> None:
        conductor.announce("thread", threading.get_native_id())
        run(self)

    threading.Thread.run = announced  # type: ignore[method-assign]


def watch_children(conductor: Conductor) -> None:
    begin = subprocess.Popen.__init__

    def announced(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        begin(self, ["/bin/sh", "-c", 'kill -STOP $$; exec "$0" "$@"', *args], *rest, **options)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        conductor.announce("child", self.pid)
        os.kill(self.pid, signal.SIGCONT)

    subprocess.Popen.__init__ = announced  # type: ignore[method-assign]


def write_too_late() -> None:
    """The control: set first, store afterwards, as a script would. It must lock people out."""
    from vaultkeeper.engine.work import Work
    from vaultkeeper.model.rotation import Step

    write = Work.write

    def late(self: Work) -> None:
        phase = self.rotation.phase
        if phase is not None and phase.step in {Step.PREPARE, Step.SET}:
            return
        write(self)

    Work.write = late  # type: ignore[method-assign]


def enter(line: socket.socket, *, wrong_order: bool) -> None:
    """From here on this process is on the stage."""
    conductor = Conductor(line)
    conductor.announce("main", os.getpid())
    watch_threads(conductor)
    watch_children(conductor)
    if wrong_order:
        write_too_late()
