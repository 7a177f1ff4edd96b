"""A client of a collector that exports a span every 20 ms over HTTP and gRPC, with the code of the how-to.

    python exporting.py TOKEN_FILE HTTP_URL GRPC_ADDRESS CA_FILE

After each export it says which way and "taken" or "lost", one line each; it ends when its standard input does.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

HOW_TO = Path(__file__).parents[2] / "docs/how-to/token-list.md"
EVERY_S = 0.02


def how_to() -> dict[str, Any]:
    """What its one block of Python defines."""
    (block,) = HOW_TO.read_text().split("```python\n")[1:]
    defined: dict[str, Any] = {}
    exec(compile(block.partition("```")[0], str(HOW_TO), "exec"), defined)  # noqa: S102 - it is what people run
    return defined


def export(way: str, exporter: Any, over: threading.Event) -> None:
    span = TracerProvider().get_tracer("vaultkeeper").start_span(way)
    span.end()
    while not over.wait(EVERY_S):
        taken = exporter.export([span]) is SpanExportResult.SUCCESS
        sys.stdout.write(f"{way} {'taken' if taken else 'lost'}\n")
        sys.stdout.flush()
    exporter.shutdown()


def main(token: str, url: str, address: str, ca: str) -> None:
    code, over = how_to(), threading.Event()
    code["TOKEN"] = Path(token)
    exporters = {"http": code["over_http"](url), "grpc": code["over_grpc"](address, Path(ca).read_bytes())}
    threads = [threading.Thread(target=export, args=(*each, over)) for each in exporters.items()]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
