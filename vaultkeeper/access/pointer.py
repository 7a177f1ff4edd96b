"""JSON pointers: where in a document something stands. https://www.rfc-editor.org/rfc/rfc6901.html"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator


def judge_pointer(pointer: str) -> str:
    """`pointer` itself if it is one (RFC 6901). Raises ValueError."""
    if pointer and not pointer.startswith("/"):
        raise ValueError("expected a JSON pointer, /data/value for example")
    if any(step.replace("~0", "").replace("~1", "").count("~") for step in pointer.split("/")):
        raise ValueError("in a JSON pointer `~` is written ~0, and `/` inside a name ~1")
    return pointer


Pointer = Annotated[str, AfterValidator(judge_pointer)]
"""One that stands in a policy."""


def pointed(found: Any, pointer: str) -> Any:
    """What stands there; None: nothing does."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and name.isascii():
            found = found[int(name)] if int(name) < len(found) else None
        else:
            return None
    return found
