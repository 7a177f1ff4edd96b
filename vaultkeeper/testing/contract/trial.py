"""What contract tests work with: versions with canary values, contexts, and answers searched for canaries."""

from __future__ import annotations

import base64
import secrets
import string
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from vaultkeeper.errors import NotFound
from vaultkeeper.model.outcome import Login, Unknown
from vaultkeeper.model.secret import Binding, Fields, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Context, Deadline, DeliveryContext

Answer = TypeVar("Answer")

INSTALLATION = "contract-installation"
SECRET = "contract/secret"
DIFFICULT = string.ascii_letters + string.digits + string.punctuation + " "
PATIENCE_S = 30.0
"""Long enough for any machine; a hook that ignores its deadline never comes back at all."""


def canary(prefix: str = "vk-canary-") -> str:
    """A value that occurs nowhere else."""
    return prefix + secrets.token_hex(12)


def difficult(forbidden: frozenset[str], max_bytes: int | None) -> list[str]:
    """Values that hold every printable ASCII character but the forbidden ones, cut to what fits. No blank at an end."""
    allowed = [c for c in DIFFICULT if c not in forbidden]
    size = min(max_bytes or 60, 60) - 2
    return ["x" + "".join(allowed[start : start + size]) + "x" for start in range(0, len(allowed), size)]


class Credentials:
    """Resolves what a server's settings refer to: files, and nothing else. Servers write admin passwords to files."""

    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        if "file" not in reference:
            raise NotFound(f"a contract test has no {' or '.join(reference)}")
        return {"value": SecretBytes(Path(reference["file"]).read_bytes().removesuffix(b"\n"))}


@dataclass(frozen=True)
class Raised:
    """A hook raised; the engine would call that Unknown. `text` is all that a traceback could show."""

    text: str


@dataclass
class Watch:
    """Calls hooks, remembers every answer, and tells whether a canary stands in one of them."""

    seconds: float = 20.0
    answers: list[object] = field(default_factory=list)

    def deadline(self) -> Deadline:
        return Deadline(time.monotonic() + self.seconds)

    def context(
        self, current: SecretVersion | None = None, pending: SecretVersion | None = None, epoch: int = 1
    ) -> Context:
        return Context(INSTALLATION, SECRET, epoch, self.deadline(), Credentials(), current, pending)

    def delivery(self) -> DeliveryContext:
        return DeliveryContext(INSTALLATION, {SECRET: 1}, self.deadline(), Credentials())

    def call(self, hook: Callable[[], Answer]) -> Answer | Raised:
        """What the hook answers, or that it raised. Fails where it overruns its deadline by far."""
        done: list[Answer | Raised] = []

        def run() -> None:
            try:
                done.append(hook())
            except Exception as error:  # noqa: BLE001 - hooks may raise; the engine's guard maps it
                done.append(Raised(_all_text(error)))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.seconds + PATIENCE_S)
        assert done, "the hook ignored its deadline"
        self.answers.append(done[0])
        return done[0]

    def shows(self, value: bytes) -> list[str]:
        """Answers in which a value stands, raw or in an encoding that people undo."""
        text = value.decode(errors="backslashreplace")
        forms = {text, repr(value)[2:-1], value.hex(), base64.b64encode(value).decode().rstrip("=")}
        return [shown for shown in (_shown(a) for a in self.answers) if any(form in shown for form in forms)]


def version(number: int, fields: Fields, kind: str, settings: Mapping[str, object], codec: int = 1) -> SecretVersion:
    """A stored version; `id` is random, as the engine makes it."""
    binding = Binding(Strategy.OVERLAP, kind, settings, codec)
    return SecretVersion(SECRET, number, f"vk-{secrets.token_hex(8)}", fields, binding, datetime.now(UTC))


def unanswered(answer: object) -> bool:
    """Did the call end without a definite answer, as it must when nobody is there?"""
    return isinstance(answer, Unknown | Raised) or answer in (Login.UNREACHABLE, Login.THROTTLED)


def _all_text(error: BaseException) -> str:
    parts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        parts += [repr(link), str(link), repr(link.args), *getattr(link, "__notes__", [])]
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\n".join(parts)


def _shown(answer: object) -> str:
    return answer.text if isinstance(answer, Raised) else f"{answer!r}\n{answer!s}"
