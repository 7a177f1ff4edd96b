"""What reaches stderr through logging: redacted, without local variables or exception texts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

from vaultkeeper.engine.guard import Redactor
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.wiring import logs

CANARY = "correct-horse/battery&staple"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """Whatever is logged, with the canary known as a live value."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    monkeypatch.setattr(logs, "_redact", [])
    redactor = Redactor()
    redactor.learn({"password": SecretBytes(CANARY.encode())})
    logs.configure(verbose=2)
    logs.know(redactor.clean)
    written = StringIO()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def fail() -> None:
    local = CANARY + " as a local variable"
    raise RuntimeError(f"driver quotes {local[::-1]}")


def test_a_live_value_is_removed_from_a_librarys_debug_line(lines: StringIO) -> None:
    logging.getLogger("some.library").debug("login with %s", CANARY)
    shown = lines.getvalue()
    assert "login with" in shown
    assert CANARY not in shown


def test_a_live_value_is_removed_from_a_structured_event(lines: StringIO) -> None:
    structlog.get_logger("x").info("event", detail=f"got {CANARY}", bound=[CANARY])
    shown = lines.getvalue()
    assert "event=event" in shown
    assert CANARY not in shown


@pytest.mark.parametrize("kind", ["stdlib", "structlog"])
def test_an_exception_is_logged_as_class_and_place_without_text_or_locals(lines: StringIO, kind: str) -> None:
    logger = logging.getLogger("x") if kind == "stdlib" else structlog.get_logger("x")
    try:
        fail()
    except RuntimeError:
        logger.exception("failed")
    shown = lines.getvalue()
    assert "RuntimeError" in shown
    assert "test_logs.py:" in shown
    for leak in ("driver quotes", CANARY, CANARY[::-1], "local variable", "Traceback"):
        assert leak not in shown


def test_structlogs_tracebacks_that_print_local_variables_stay_off(lines: StringIO) -> None:
    configured = structlog.get_config()["processors"]
    formatter = logging.getLogger().handlers[0].formatter
    assert isinstance(formatter, structlog.stdlib.ProcessorFormatter)
    names = {type(p).__name__ for p in [*configured, *formatter.processors]}
    assert not names & {"ExceptionRenderer", "ExceptionDictTransformer", "ConsoleRenderer", "RichTracebackFormatter"}
    assert structlog.processors.dict_tracebacks not in [*configured, *formatter.processors]


def test_a_record_that_cannot_be_formatted_is_told_without_its_arguments(lines: StringIO) -> None:
    logging.getLogger("x").warning("%d", CANARY)
    shown = lines.getvalue()
    assert "could not be formatted" in shown
    assert CANARY not in shown


def test_line_breaks_in_an_event_cannot_forge_a_second_line(lines: StringIO) -> None:
    logging.getLogger("x").warning("name a\nlevel=error event=forged")
    assert len(lines.getvalue().splitlines()) == 1
