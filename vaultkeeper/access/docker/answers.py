"""What a Docker Engine's answers mean, and its silence: whether it cannot be used at all, or said no to one request."""

from __future__ import annotations

import json
import ssl

from vaultkeeper.access.answer import Answered
from vaultkeeper.model.outcome import Login, No, Refused, Unknown

SAID = 300  # characters of an Engine's message in an error


class EngineTrouble(Answered):
    """The Engine as a whole cannot be used: unreachable, not ours to use, too old, no swarm manager."""


class Declined(Answered):
    """The Engine answered and said no to one request. `status` is HTTP's, `said` the Engine's own words."""

    def __init__(self, status: int, said: str, what: str) -> None:
        definite = status < 500
        text = f"{what}: {said}"
        super().__init__(Refused(No.UNSUPPORTED, text) if definite else Unknown(Login.UNREACHABLE, text), text)
        self.status = status
        self.said = said


def no_connection(url: str, error: BaseException) -> EngineTrouble:
    """What a failed connection means."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, PermissionError):
        return trouble(
            No.PRIVILEGE,
            f"the socket {url} may not be used by this user",
            "",
            "run as a member of the group `docker`, or give `host` a socket proxy (docs/how-to/swarm.md)",
        )
    if isinstance(cause, ssl.SSLError):
        return unreachable(url, f"TLS: {cause.reason or 'failed'}")
    if isinstance(cause, FileNotFoundError):
        return unreachable(url, "there is no such socket; is the Engine started?")
    if isinstance(cause, OSError) and cause.strerror:
        return unreachable(url, cause.strerror)
    return unreachable(url, "the connection was closed" if url.startswith("ssh") else type(error).__name__)


def judged(url: str, status: int, said: str, what: str) -> Answered:
    """An answer that is about the Engine, not about what was asked, is told as such."""
    low = said.lower()
    if status == 403:
        why = f"a proxy before the Engine does not let {what} through"
        return trouble(
            No.PRIVILEGE, f"{url} forbids it", why, "allow SERVICES, SECRETS, TASKS and POST (docs/how-to/swarm.md)"
        )
    if status == 401:
        return trouble(No.PRIVILEGE, f"{url} does not know us", said, "give `tls: {cert, key}`")
    if "worker nodes can't" in low:
        why, then = "it is a worker of a swarm", "name a manager: `host`, `context` or DOCKER_HOST"
        return trouble(No.UNSUPPORTED, f"{url} is not a swarm manager", why, then)
    if "not a swarm manager" in low or "not part of a swarm" in low:
        why, then = "swarm mode is off there", "docker swarm init   or name another Engine"
        return trouble(No.UNSUPPORTED, f"{url} is not a swarm manager", why, then)
    if "swarm is encrypted" in low:
        return trouble(No.UNSUPPORTED, f"the swarm at {url} is locked", "", "docker swarm unlock")
    if status == 429:
        return EngineTrouble(Unknown(Login.THROTTLED, f"{url}: {said}"), f"{url}: {said}")
    if status == 503 or "does not have a leader" in low:
        return unreachable(url, said)
    return Declined(status, said, what)


def trouble(kind: No, what: str, why: str, then: str = "") -> EngineTrouble:
    """Definite until a person acts."""
    text = f"{what}: {why}" if why else what
    return EngineTrouble(Refused(kind, f"{text} ({then})" if then else text), text, next=then)


def unreachable(url: str, why: str) -> EngineTrouble:
    """It may have heard us, or not."""
    text = f"the Docker Engine at {url} cannot be reached: {why}"
    return EngineTrouble(Unknown(Login.UNREACHABLE, text), text)


def message(raw: bytes) -> str:
    """The Engine's own words, on one line."""
    try:
        said = str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        said = raw[:SAID].decode(errors="replace")
    return " ".join(said.split())[:SAID] or "it did not say why"
