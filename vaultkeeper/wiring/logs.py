"""Logging: one handler on stderr, every line redacted, never a local variable, never an exception's text.

structlog's `dict_tracebacks` and its Rich tracebacks print local variables (tried), so neither is ever configured;
exceptions are shown as their class and frames. The engine's redactor knows the values that are alive in this process
and removes them from whatever a library logs at DEBUG.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

QUIET_LIBRARIES = ("alembic", "urllib3")  # their INFO is noise at -v
ALARMED_LIBRARIES = ("pika",)  # call every refused login an error, and we try some that must be refused

_redact: list[Callable[[str], str]] = []


def know(redact: Callable[[str], str]) -> None:
    """From now on every line goes through `redact` too."""
    _redact.append(redact)


def configure(*, verbose: int = 0, quiet: bool = False) -> None:
    """0: warnings, 1 (-v): what is done, 2 (-vv): everything the libraries say. Idempotent."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(foreign_pre_chain=_SHARED, processors=_RENDERING))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING if verbose < 2 else level))
    for name in ALARMED_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL if verbose < 2 else level)
    logging.raiseExceptions = False  # logging's own error report prints the record's arguments
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


Event = MutableMapping[str, Any]


def _frames_only(_logger: Any, _name: str, event: Event) -> Event:
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    raised = info[1] if isinstance(info, tuple) else info
    if isinstance(raised, BaseException):
        event["exception"] = type(raised).__name__
        event["at"] = " < ".join(
            f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(raised.__traceback__))
        )
    event.pop("stack_info", None)
    return event


def _redacted(_logger: Any, _name: str, event: Event) -> Event:
    """Before the line is put together: escaping it could hide a value from the redaction of the whole."""
    for key, value in event.items():
        if not key.startswith("_") and not isinstance(value, bool | int | float | None):
            text = value if isinstance(value, str) else repr(value)
            for redact in _redact:
                text = redact(text)
            event[key] = text
    return event


_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _frames_only,
]
_RENDERING: list[Any] = [
    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
    _redacted,
    structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "logger", "event"], bool_as_flag=False),
]


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Redacts the finished line once more: nothing that is formatted later can slip past."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            line = super().format(record)
        except Exception as error:  # noqa: BLE001 - a log call must not break a rotation
            line = f'level=error event="a log record could not be formatted: {type(error).__name__}"'
        for redact in _redact:
            line = redact(line)
        return line

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """The class alone; `_frames_only` says where."""
        return ei[0].__name__ if ei and ei[0] else ""
