"""A list of accepted bearer tokens that the checking program reads from a file: one token per line.

Written for the OpenTelemetry Collector's `bearertokenauth` with `filename` (tried: contrib 0.149 and 0.162), and for
anything else that accepts every line of a file. The first word of a line is a token, the rest a comment; older
collectors take the whole line, so ours hold nothing else.
https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/extension/bearertokenauthextension

What forces the details: since 0.155 the collector watches the file's inode and goes deaf for good, still healthy and
still accepting the old token, when the file is unlinked, moved away, exchanged or made unreadable for it; so there is
only a rename over it, with mode and owner set before. A blank or trailing line is an accepted empty token in older
ones, a comment line makes `#` a token, and collectors as *clients* send line 1: the new token comes first.

Privileges: write permission in the file's directory; where the file belongs to another user also
CAP_CHOWN, CAP_FOWNER and leave to read it. Mount the directory, not the file, into a container.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from pydantic import Field

from vaultkeeper.access import files, probe
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.probe import HttpProbe, Provable
from vaultkeeper.access.settings import PolicyPath, Written
from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.model.outcome import (
    Basis,
    Done,
    Finding,
    Login,
    No,
    Observation,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context, Deadline

MAX_LINE_BYTES = 1024
"""A collector drops a line of 64 KiB and every later one without a word; no header that long gets anywhere."""

_FORBIDDEN = frozenset(" \t\n\r\v\f\0#,")
_READABLE = 0o444
_UNREADABLE = "has a mode that lets nobody read it, the checker included: chmod it, or give `mode`"
_DEAF = (
    "it no longer reads that file, however healthy it looks: see that it may read it, then restart it (an "
    "OpenTelemetry Collector stays deaf once its file was unlinked, moved away or unreadable for a moment)"
)


class TokenListSettings(Provable, Written):
    """What a policy may say beside `kind: token_list`, `strategy` and `via`."""

    path: PolicyPath | None = Field(default=None, description="of the list; absent with `via`")


class TokenListTarget:
    """Accepts any number of tokens, of several secrets and of others; keeps the lines that are not ours."""

    kind: ClassVar[str] = "token_list"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.OVERLAP}),
        observes=frozenset({Basis.LISTING}),
        max_accepted=None,
        forbidden=_FORBIDDEN,
        max_bytes=MAX_LINE_BYTES,
    )
    Settings: ClassVar[type[TokenListSettings]] = TokenListSettings

    def __init__(self, settings: TokenListSettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of token_list have codec {codec}, this release knows {cls.codec}")
        return cls(TokenListSettings.model_validate(settings))

    def check(self, ctx: Context) -> Sequence[Finding]:
        findings = [*self._check_file(), *self._check_probe(ctx)]
        return findings or [Finding("ok", "the list can be written and the checker tells tokens apart")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return given

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """The file is the list. With `via` it is not ours to read, and the engine asks `test`."""
        if self.settings.path is None:
            return Observation({}, Basis.LOGIN if self.settings.probe else Basis.NONE)
        try:
            accepted = {_token(line) for line in _lines(files.read(self.settings.path).content)}
        except Answered as error:
            return error.unknown
        known = {version.number: _value(version) for version in candidates}
        return Observation(
            {number: Login.ACCEPTED if token in accepted else Login.REJECTED for number, token in known.items()},
            Basis.LISTING,
            foreign=len(accepted - set(known.values())),
            durable=True,
            account_usable=False,  # a new token takes nothing over: the other lines stay
        )

    def system(self) -> str:
        found = self.settings.probe
        return self.settings.path or (found.http if isinstance(found, HttpProbe) else "")

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        address = probe.address_of(self.settings.probe)
        return f"token_list:{self.settings.path or address}", address

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """One rename, or nothing where the file is right already. Never writes an empty list."""
        path = self.settings.path
        if path is None:
            return Refused(No.UNSUPPORTED, "the list travels with `via`; there is no `path` to write")
        for version in accept:
            if not _fits(_value(version)):
                return Refused(No.VALUE, "a token holds no blanks, `#` or `,`, and is at most 1 KiB long")
        try:
            with files.alone(path):
                was = files.read(path)
                content = _merge(was.content, accept, refuse)
                if not content:
                    return Refused(No.UNSUPPORTED, f"{path} would become empty, and a checker's answer to that varies")
                mode, owner = self.settings.mode_bits(), self.settings.owner_ids()
                if not (was.mode if mode is None else mode) & _READABLE:
                    return Refused(No.UNSUPPORTED, f"{path} {_UNREADABLE}")
                if content == was.content and self.settings.dressed(was):
                    files.sweep(path)
                else:
                    files.replace(path, content, was, mode=mode, owner=owner)
        except Answered as error:
            return error.result
        return Done()

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """What the checker itself says. Right after a change it may not have looked yet: that is no answer."""
        asked_at, said = time.time(), self._ask(_value(version), ctx.deadline)
        if said in (Login.ACCEPTED, Login.REJECTED) and self._may_lag(_value(version), said, asked_at):
            return Login.UNREACHABLE
        return said

    def explain(self, version: SecretVersion, said: Login, ctx: Context) -> str:
        """Where file and checker disagree, the checker is deaf. With `via` the list cannot be looked at from here."""
        token, path = _value(version), self.settings.path
        if path is None:
            sent = "the list was sent where `via` says, and the checker does not go by it: does it read it from there?"
            return sent if ctx.pending is not None else ""
        found = self._found(token)
        if found is None or found[0] == (said is Login.ACCEPTED):
            return ""
        if found[0]:
            return f"{path} lists this token and the checker refuses it: {_DEAF}"
        return f"{path} no longer lists this token and the checker still accepts it: {_DEAF}; until then it works"

    def render(
        self, accept: Sequence[SecretVersion], existing: SecretBytes | None, refuse: Sequence[SecretVersion] = ()
    ) -> SecretBytes:
        """The list for a `via` destination. Lines of `existing` that are neither accepted nor refused stay."""
        return SecretBytes(_merge(existing.reveal() if existing else None, accept, refuse))

    # ---------------------------------------------------------------------------------------------------- small parts

    def _ask(self, token: bytes, deadline: Deadline) -> Login:
        """Raises ConfigurationInvalid for an address that may not be asked."""
        found = self.settings.probe
        return Login.UNREACHABLE if found is None else probe.ask(found, token, deadline)

    def _may_lag(self, token: bytes, said: Login, asked_at: float) -> bool:
        """Whether file and checker disagree, and the file was younger then than a checker's reload."""
        found = self._found(token)
        return found is not None and found[0] != (said is Login.ACCEPTED) and probe.is_young(found[1], asked_at)

    def _found(self, token: bytes) -> tuple[bool, files.Snapshot] | None:
        """Whether the file lists it, and that file; None: it cannot be read here."""
        if self.settings.path is None:
            return None
        try:
            was = files.read(self.settings.path)
        except Answered:
            return None
        return token in {_token(line) for line in _lines(was.content)}, was

    def _check_file(self) -> list[Finding]:
        path = self.settings.path
        if path is None:
            return []
        try:
            files.check_writable(path, self.settings.owner_ids())
            was = files.read(path)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what)]
        except ConfigurationInvalid as error:
            return [Finding("refuse", error.what)]
        if was.content is None:
            return [Finding("warn", f"{path} does not exist yet", "start the checker after the first rotation")]
        lines = _lines(was.content)
        findings = []
        if not was.mode & _READABLE and self.settings.mode is None:
            findings.append(Finding("refuse", f"{path} {_UNREADABLE}"))
        if any(_token(line).startswith(b"#") for line in lines):
            findings.append(
                Finding("warn", f"{path} has a comment line: a collector accepts `#` as a token", "remove that line")
            )
        if any(len(line) > MAX_LINE_BYTES for line in lines):
            findings.append(Finding("warn", f"{path} has a line over {MAX_LINE_BYTES} bytes: no usable token"))
        if was.mode & 0o004 and self.settings.mode is None:
            findings.append(Finding("warn", f"{path} can be read by every user of this machine"))
        return findings

    def _check_probe(self, ctx: Context) -> list[Finding]:
        """Nobody must be refused, or the checker checks nothing; and today's goes by the file. No failed login."""
        found = self.settings.probe
        if found is None:
            return [Finding("unchecked", "without a `probe` nothing shows what the checker accepts", "give `probe`")]
        if unfit := probe.unfit(found):
            return unfit
        try:
            said = probe.ask_as_nobody(found, ctx.deadline) if isinstance(found, HttpProbe) else Login.REJECTED
        except BackendError as error:
            return [Finding("warn", error.what)]
        if said is Login.ACCEPTED:
            return [Finding("refuse", "the checker lets anybody in", "give its receiver an `auth:` section")]
        if said is not Login.REJECTED:
            return [Finding("warn", f"the probe's answer to nobody tells nothing ({said.value})")]
        if self.settings.path is None or ctx.current is None:
            return []
        said = self.test(ctx.current, ctx)
        deaf = self.explain(ctx.current, said, ctx) if said in (Login.ACCEPTED, Login.REJECTED) else ""
        return [Finding("refuse", deaf, "restart the checker")] if deaf else []


def _value(version: SecretVersion) -> bytes:
    return version.fields[main_field(set(version.fields))].reveal()


def _fits(token: bytes) -> bool:
    printable = all(0x21 <= byte <= 0x7E for byte in token)  # a header carries nothing else
    return 0 < len(token) <= MAX_LINE_BYTES and printable and not set(token.decode("ascii")) & _FORBIDDEN


def _lines(content: bytes | None) -> list[bytes]:
    """Lines as the collector sees them: trimmed, blank ones left out."""
    return [line.strip() for line in (content or b"").split(b"\n") if line.strip()]


def _token(line: bytes) -> bytes:
    return line.split(None, 1)[0]


def _merge(content: bytes | None, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion]) -> bytes:
    """`accept` in its order, then every other line as it was, minus `refuse`. No newline at the end."""
    wanted = list(dict.fromkeys(_value(version) for version in accept))
    gone = {_value(version) for version in refuse}
    others = [line for line in _lines(content) if _token(line) not in gone and _token(line) not in wanted]
    return b"\n".join([*wanted, *others])
