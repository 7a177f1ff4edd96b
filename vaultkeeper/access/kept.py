"""Sessions with a server that outlive one call: rotations log in as their admin once, not for each question.

Rotations that go on side by side with the same login share what they keep; it ends with the last of them, so that
nothing is open while all of them sleep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Generic, Protocol, TypeVar

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
    """Sessions of one login. Whoever borrows one has it alone; after a failure it is gone."""

    _shared: ClassVar[dict[Hashable, Kept[Any]]] = {}
    _sharing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: list[tuple[float, S]] = []  #: until when, the one that was used last at the end
        self.users = 0  #: who joined and has not left yet

    @classmethod
    def join(cls, login: Hashable) -> Kept[Any]:
        """What all users of a login share; each must `leave`. `login`: everything that makes it another session."""
        with cls._sharing:
            kept = cls._shared.setdefault(login, cls())
            kept.users += 1
            return kept

    def leave(self) -> None:
        """The last one to leave ends what is kept."""
        with self._sharing:
            self.users -= 1
            if self.users:
                return
            for login in [login for login, kept in self._shared.items() if kept is self]:
                del self._shared[login]
        self._end_all()

    @contextmanager
    def borrow(self, until_s: float, connect: Callable[[], S]) -> Iterator[S]:
        """One that was kept, or a new one. Raises what `connect` raises."""
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

    def _taken(self) -> S | None:
        now = time.monotonic()
        with self._lock:
            over = [session for until_s, session in self._sessions if until_s < now]
            self._sessions = [(until_s, session) for until_s, session in self._sessions if until_s >= now]
            session = self._sessions.pop()[1] if self._sessions else None
        for old in over:
            old.end()
        return session

    def _keep(self, session: S) -> None:
        with self._lock:
            self._sessions.append((time.monotonic() + KEPT_S, session))
        if not self.users:  # a call that had overrun its deadline came back after all
            self._end_all()

    def _end_all(self) -> None:
        with self._lock:
            sessions, self._sessions = self._sessions, []
        for _, session in sessions:
            session.end()
