"""How to see what a checker accepts, where the target itself does not say it: one request, or a program.

Nothing is changed by asking. Any answer that is neither `accepted` nor `rejected` says nothing about the credential.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vaultkeeper.access import process, program
from vaultkeeper.access.files import Snapshot
from vaultkeeper.access.settings import OFF, Codes, Command, PolicyPath, Shape, Url, host_of
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Finding, Login
from vaultkeeper.ports import Deadline

RELOAD_TIME_S = 4.0
"""How long a checker may take to see a new file (a collector: 4 ms at most). Until then its answer may lag.

Shorter than what the engine waits before it asks again.
"""

_EXITS = {0: Login.ACCEPTED, 1: Login.REJECTED, 75: Login.THROTTLED}


class HttpProbe(Shape):
    """A request that tells a good credential from a bad one and changes nothing."""

    http: Url
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = "GET"
    header: str = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]+$")
    scheme: str = Field(default="Bearer", pattern=r"^[!-~]*$", description="before the token; empty: the bare token")
    accepted: Codes = (200, 405)
    rejected: Codes = (401, 403)
    tls: Annotated[Literal["off"] | None, OFF] = Field(
        default=None, description="off: plain http beyond this machine is meant"
    )
    ca: PolicyPath | None = Field(default=None, description="CA certificates to trust instead of the system's, PEM")

    def spell(self, credential: bytes) -> str:
        """What the header says. Raises UnicodeDecodeError for a token that no header can carry."""
        return f"{self.scheme} {credential.decode('ascii')}".lstrip()


class BasicProbe(HttpProbe):
    """A request with `user:password` (RFC 7617). 403 is said after the login, so it tells nothing of it."""

    scheme: str = Field(default="Basic", pattern=r"^[!-~]*$", description="before the encoded login")
    accepted: Codes = (200, 204)
    rejected: Codes = (401,)

    def spell(self, credential: bytes) -> str:
        return super().spell(base64.b64encode(credential))


Probe = HttpProbe | Command


class Provable(Shape):
    """Settings of a target that is asked by a probe, or that a person declares to be beyond proof."""

    probe: Probe | None = Field(default=None, description="how to see what the checker accepts")
    verify: Literal["none"] | None = Field(default=None, description="none: nothing can be seen, and this is accepted")
    reason: str | None = Field(default=None, description="of `verify: none`")

    @model_validator(mode="after")
    def _provable(self) -> Self:
        if self.probe is None and self.verify is None:
            raise ValueError("give a `probe`, or `verify: none` with a `reason`: nothing else shows what is accepted")
        return self


def ask(probe: Probe, credential: bytes, deadline: Deadline, *, secrets: Sequence[bytes] = ()) -> Login:
    """One attempt. A request carries `credential` behind its scheme, a command reads it on stdin.

    Exit codes of a command: 0 accepted, 1 rejected, 75 throttled. `secrets`: values in `credential`, where it is more
    than one. Raises ConfigurationInvalid for an address that may not be asked.
    """
    try:
        if isinstance(probe, HttpProbe):
            return _request(probe, credential, deadline)
        ran = process.run(probe.command, deadline, stdin=credential, secrets=[credential, *secrets])
        return _EXITS.get(ran.code, Login.UNREACHABLE)
    except BackendError:
        return Login.UNREACHABLE


def address_of(probe: Probe | None) -> str:
    """What a failed login is charged to: host and port of a request, else this machine."""
    return host_of(probe.http) if isinstance(probe, HttpProbe) else "local"


def unfit(probe: Probe) -> list[Finding]:
    """Why no credential may be shown to it. Nothing is asked but the resolver."""
    from vaultkeeper.access import http

    if isinstance(probe, Command):
        return program.runnable(probe.command)
    forbidden = http.forbids(probe.http, plain_ok=probe.tls == "off")
    return [Finding("refuse", forbidden)] if forbidden else []


def ask_as_nobody(probe: HttpProbe, deadline: Deadline) -> Login:
    """What somebody without any login is told. Raises HttpError where no answer came, which says why.

    Raises ConfigurationInvalid where a credential may not be sent.
    """
    return _answer(probe, {"Accept": "*/*"}, deadline)


def is_young(was: Snapshot, asked_at: float) -> bool:
    """Stood a file there for so short a time, when its checker was asked, that it may not have looked yet?

    By when it was put there: before that it is written and synced, which takes seconds on a slow disk.
    """
    return abs(asked_at - was.placed_at) < RELOAD_TIME_S


def _request(probe: HttpProbe, credential: bytes, deadline: Deadline) -> Login:
    try:
        spelt = probe.spell(credential)
    except UnicodeDecodeError:
        return Login.REJECTED
    if not spelt.isprintable():
        return Login.REJECTED  # no header can carry a line break
    return _answer(probe, {probe.header: spelt}, deadline)


def _answer(probe: HttpProbe, headers: Mapping[str, str], deadline: Deadline) -> Login:
    from vaultkeeper.access import http

    plain_ok = probe.tls == "off"
    status = http.call(probe.method, probe.http, deadline, headers=headers, plain_ok=plain_ok, ca_file=probe.ca).status
    if status in probe.accepted:
        return Login.ACCEPTED
    if status in probe.rejected:
        return Login.REJECTED
    return Login.THROTTLED if status == 429 else Login.UNREACHABLE
