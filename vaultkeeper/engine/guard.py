"""Around every hook: a deadline, typed answers instead of exceptions, and no value in any text.

Authors of back ends write only the small hooks. What they raise becomes an answer here: a definite configuration
problem is `Refused`, everything else is `Unknown`, and the engine observes before it does anything further.
"""

from __future__ import annotations

import base64
import json
import queue
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar, cast

from vaultkeeper.errors import (
    BackendError,
    ChecksNothing,
    ConfigurationInvalid,
    NoKey,
    NotAuthorised,
    NotFound,
    VaultkeeperError,
)
from vaultkeeper.model.outcome import Failed, Login, No, NotYet, Refused, Unknown
from vaultkeeper.model.secret import Fields
from vaultkeeper.ports import Answers

T = TypeVar("T")
_own = threading.local()  # each driving thread has one thread for its hooks
SHORTEST = 6  # shorter values would blank out ordinary words
NOT_SECRET = frozenset({"username"})


class Redactor:
    """Knows the live values and removes them, in every encoding they may appear in, from texts for people."""

    def __init__(self) -> None:
        self._values: set[bytes] = set()
        self._spelt: set[bytes] = set()  #: those of them whose forms are known
        self._forms: set[str] = set()
        self._lock = threading.Lock()

    def learn(self, fields: Fields) -> None:
        """Every text from now on is cleaned of these values."""
        for name, value in fields.items():
            if name not in NOT_SECRET and len(value.reveal()) >= SHORTEST:
                with self._lock:
                    self._values.add(value.reveal())

    def clean(self, text: str) -> str:
        with self._lock:
            for value in self._values - self._spelt:  # values are learnt all the time, and texts are rare
                self._forms |= _forms(value)
                self._spelt.add(value)
            forms = sorted(self._forms, key=len, reverse=True)
        for form in forms:
            if form in text:
                text = text.replace(form, "…")
        return text


def _forms(raw: bytes) -> set[str]:
    text = raw.decode("utf-8", "backslashreplace")
    return {
        text,
        raw.hex(),
        urllib.parse.quote(text, safe=""),
        urllib.parse.quote_plus(text),
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        repr(text)[1:-1],
        repr(raw)[2:-1],
        *_base64_forms(raw),
    }


def _base64_forms(raw: bytes) -> Iterator[str]:
    """Also in the middle of something longer, such as the `user:password` of a Basic header."""
    yield base64.b64encode(raw).decode()
    yield base64.urlsafe_b64encode(raw).decode()
    for before in range(3):
        whole = (before + len(raw)) * 4 // 3  # characters that no later byte can change
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + raw).decode()[(before * 4 + 2) // 3 : whole]


def ask(hook: Callable[[], T], *, what: str, deadline_s: float, redactor: Redactor) -> T | Unknown | Refused:
    """The hook's own answer, or what its failure means. `what` names kind and hook, for people.

    An overrun is Unknown; its thread is abandoned, and its epoch is fenced by the next take-over. Only what is no
    `Exception` (an interrupt, a simulated kill) passes through.
    """
    worker: _Worker | None = getattr(_own, "worker", None)
    if worker is None:
        worker = _own.worker = _Worker()
    try:
        answer, failure = worker.call(hook, deadline_s)
    except queue.Empty:
        _own.worker = None
        return Unknown(Login.UNREACHABLE, f"{what}: no answer within {deadline_s:.0f} s")
    except BaseException:
        _own.worker = None  # interrupted while it still works: its answer belongs to nobody
        raise
    return cast("T", _cleaned(answer, redactor)) if failure is None else _meaning(failure, what, redactor)


def attempt(act: Callable[[], T], *, what: str, redactor: Redactor) -> T | Unknown | Refused:
    """As `ask`, in this thread and without a deadline: for what only computes, or asks hooks of its own."""
    try:
        return act()
    except Exception as error:  # noqa: BLE001 - whatever it is, it has a meaning
        return _meaning(error, what, redactor)


class _Worker:
    """A thread that runs one driving thread's hooks, so that an overrun can be left behind. It ends with its owner."""

    def __init__(self) -> None:
        calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        answers: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
        self._calls, self._answers = calls, answers
        threading.Thread(target=_run_hooks, args=(calls, answers), name="hooks", daemon=True).start()

    def call(self, hook: Callable[[], object], timeout_s: float) -> tuple[object, BaseException | None]:
        """Raises queue.Empty where the hook overruns."""
        self._calls.put(hook)
        return self._answers.get(timeout=timeout_s)

    def __del__(self) -> None:
        self._calls.put(None)


def _run_hooks(
    calls: queue.SimpleQueue[Callable[[], object] | None],
    answers: queue.SimpleQueue[tuple[object, BaseException | None]],
) -> None:
    while (hook := calls.get()) is not None:
        try:
            answers.put((hook(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            answers.put((None, error))
        del hook  # a waiting thread keeps nothing of the last call alive


def _cleaned(answer: object, redactor: Redactor) -> object:
    """The same answer, with no value in its texts: a consumer's last log line may quote what it was given."""
    match answer:
        case Refused() | Unknown():
            return replace(answer, detail=redactor.clean(answer.detail))
        case NotYet():
            return replace(answer, reason=redactor.clean(answer.reason))
        case Failed():
            return replace(answer, why=redactor.clean(answer.why))
    return answer


def _meaning(error: BaseException, what: str, redactor: Redactor) -> Unknown | Refused:
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, Answers):
        told = error.result
        if isinstance(told, NotYet):
            told = Unknown(Login.UNREACHABLE, told.reason, told.after)
        return replace(told, detail=redactor.clean(told.detail))
    if isinstance(error, VaultkeeperError):
        text = redactor.clean(f"{what}: {error}" + (f" ({error.next})" if error.next else ""))
        if isinstance(error, NotAuthorised | NoKey):
            return Refused(No.PRIVILEGE, text)
        if isinstance(error, ChecksNothing):
            return Refused(No.UNCHECKED, text)
        if isinstance(error, BackendError | ConfigurationInvalid | NotFound):
            return Refused(No.UNSUPPORTED, text)
        return Unknown(Login.UNREACHABLE, text)
    # A driver's text may quote its arguments: only its class is told.
    return Unknown(Login.UNREACHABLE, f"{what}: {type(error).__name__}")
