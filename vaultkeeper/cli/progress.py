"""What the engine is doing, while it does it: a live list on a terminal, lines with `-v`, else who begins to wait."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vaultkeeper.cli.guard import Interrupted
from vaultkeeper.cli.output import clean
from vaultkeeper.cli.session import Session

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from vaultkeeper.engine.parts import Event

PATIENCE_S = 1.0  # work that is over sooner shows no bar
log = logging.getLogger("vaultkeeper.rotation")


@contextmanager
def shown(session: Session) -> Iterator[None]:
    """Show the engine's events while the context lasts."""
    if session.out.quiet or not sys.stderr.isatty() or session.options.verbose:
        logged = session.out.quiet or session.options.verbose
        session.watch = _log if logged else _Waits(session).event
        with _interruptible(session, lambda: None):
            yield
        return
    live = _Live(session)
    session.watch = live.event
    try:
        with _interruptible(session, live.stop):
            yield
    finally:
        live.stop()


@contextmanager
def _interruptible(session: Session, last: Callable[[], None]) -> Iterator[None]:
    """An interrupt ends the process at once: the journal holds everything, and no worker thread is waited for."""

    def end(_signal: int, _frame: object) -> None:
        last()
        session.out.error(Interrupted())
        os._exit(Interrupted.exit_code)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _log(event: Event) -> None:
    log.info("%s: %s %s", event.secret, event.step, clean(event.text))


class _Waits:
    """One line for each secret and reason to wait, however often it is tried again. The engine works in threads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._told: set[tuple[str, str]] = set()

    def event(self, event: Event) -> None:
        _log(event)
        reason = event.text.partition(")")[0]
        with self._lock:
            if event.step == "waiting" and (event.secret, reason) not in self._told:
                self._told.add((event.secret, reason))
                text = self._session.out.redact(clean(event.text))
                self._session.out.say(f"{event.secret}: waiting {text}")


class _Live:
    """One line per secret. The engine works in threads, so every touch is locked."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.RLock()  # an interrupt may find us inside
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._latest: dict[str, str] = {}
        self._over = False
        self._timer = threading.Timer(PATIENCE_S, self._start)  # also when nothing is heard for long
        self._timer.daemon = True
        self._timer.start()

    def event(self, event: Event) -> None:
        with self._lock:
            self._latest[event.secret] = clean(f"{event.step} {event.text}")
            if self._progress:
                self._draw(self._progress)

    def stop(self) -> None:
        with self._lock:
            self._over = True
            self._timer.cancel()
            if self._progress:
                self._progress.stop()

    def _start(self) -> None:
        with self._lock:
            if not self._over:
                self._progress = _progress(self._session)
                self._progress.start()
                self._draw(self._progress)

    def _draw(self, progress: Progress) -> None:
        for secret, text in self._latest.items():
            if secret not in self._tasks:
                self._tasks[secret] = progress.add_task(secret, total=None, step=text)
            else:
                progress.update(self._tasks[secret], step=text)


def _progress(session: Session) -> Progress:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[step]}", markup=False),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=session.out.console(sys.stderr), transient=True)
