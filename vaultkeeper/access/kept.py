"""A session with a server that outlives one call: a rotation logs in as its admin once, not for each question."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Generic, Protocol, TypeVar

KEPT_S = 5  # between the calls of one rotation, not for a wait between them


class Session(Protocol):
    """What can be kept."""

    @property
    def idle(self) -> bool:
        """Nothing of a call is left in it, so that the next one may have it."""

    def renew(self, until_s: float) -> bool:
        """Give it another deadline, on the monotonic clock. False: it is of no use any more."""

    def end(self) -> None:
        """Idempotent."""


S = TypeVar("S", bound=Session)


class Kept(Generic[S]):
    """One session between the calls of a rotation. Whoever borrows it has it alone; after a failure it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: S | None = None
        self._until_s = 0.0

    @contextmanager
    def borrow(self, until_s: float, connect: Callable[[], S]) -> Iterator[S]:
        """The one that was kept, or a new one. Raises what `connect` raises."""
        session = self._taken()
        if session is not None and not session.renew(until_s):
            session.end()
            session = None
        session = session or connect()
        with ExitStack() as failing:
            failing.callback(session.end)
            yield session
            if session.idle:
                failing.pop_all()
                self._keep(session)

    def end(self) -> None:
        """Close what is kept. Idempotent."""
        session = self._taken()
        if session is not None:
            session.end()

    def _taken(self) -> S | None:
        with self._lock:
            session, self._session = self._session, None
        if session is not None and time.monotonic() > self._until_s:
            session.end()
            return None
        return session

    def _keep(self, session: S) -> None:
        with self._lock:
            before, self._session = self._session, session
            self._until_s = time.monotonic() + KEPT_S
        if before is not None:  # a call that had overrun its deadline came back after all
            before.end()
