r"""The environment of a Dokploy service, one opaque text: one key changed, every other character left alone.

Dokploy stores the text as it is and hands it to dotenv 16.4.5 when it deploys, then puts shared variables and other
keys in place of `${{project.X}}`, `${{environment.X}}` and `${{KEY}}`, in every quoting. So the value of a key is found
with dotenv's own regular expression, in JavaScript's sense of blanks and line ends, and what was written is parsed
again: exactly that key may differ. What no spelling carries is refused. (tried: v0.30.2; dotenv's package is the oracle
of `tests/integration/test_dokploy_env.py`)

Sources: github.com/motdotla/dotenv/blob/v16.4.5/lib/main.js; Dokploy's packages/server/src/utils/docker/utils.ts
(`prepareEnvironmentVariables`) and utils/vault/index.ts.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.model.outcome import No

MAX_CHARS = 1 << 20
KEY = re.compile(r"[A-Za-z0-9_.-]+")
REFERENCE = re.compile("\\$\\{\\{(?:(?P<scope>project|environment|vault)\\.)?(?P<name>[^\n\r\u2028\u2029]*?)\\}\\}")
CIPHERTEXT = "enc:v1:"

# JavaScript's \s, and what its trim() takes away
_TRIMMED = "\t\n\v\f\r \xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
_ENDS = "\n\r\u2028\u2029"  # where its ^ and $ match, and where its . does not
_S, _BOL, _EOL = f"[{_TRIMMED}]", f"(?<![^{_ENDS}])", f"(?![^{_ENDS}])"
_LINE = re.compile(
    rf"{_BOL}{_S}*(?:export{_S}+)?(?P<key>[A-Za-z0-9_.-]+)(?P<sign>{_S}*={_S}*?|:{_S}+?)"
    rf"(?P<value>{_S}*'(?:\\'|[^'])*'|{_S}*\"(?:\\\"|[^\"])*\"|{_S}*`(?:\\`|[^`])*`|[^#\r\n]+)?"
    rf"{_S}*(?:#[^{_ENDS}]*)?{_EOL}"
)
_QUOTED = re.compile(rf"{_BOL}(['\"`])(.*)\1{_EOL}", re.DOTALL)
_NEWLINE = re.compile(r"\r\n?")


@dataclass(frozen=True)
class _Found:
    """One assignment in the text as stored."""

    key: str
    at: int  #: where the key begins
    value: tuple[int, int]  #: with its quotes, without blanks around
    end: int  #: of the match


def parse(text: str) -> dict[str, str]:
    """What dotenv 16.4.5 makes of it. The last of several assignments wins."""
    return {match["key"]: _meaning(match["value"] or "") for match in _LINE.finditer(_NEWLINE.sub("\n", text))}


def _meaning(raw: str) -> str:
    value = raw.strip(_TRIMMED)
    doubly = value[:1] == '"'
    value = _QUOTED.sub(lambda match: match[2], value)
    return value.replace("\\n", "\n").replace("\\r", "\r") if doubly else value


def resolve(text: str, project: str, environment: str) -> dict[str, str]:
    """What containers are given: `text` with its references filled in. `${{vault.…}}` stays as it stands.

    Raises Answered where a reference names nothing, as Dokploy refuses to deploy then.
    """
    own, shared = parse(text), {"project": parse(project), "environment": parse(environment)}

    def filled(match: re.Match[str]) -> str:
        scope, name = match["scope"], match["name"]
        if scope == "vault":
            return match[0]
        found = (shared[scope] if scope else own).get(name)
        if found is None:
            raise refused(
                No.UNSUPPORTED,
                f"{match[0]} names no variable, and Dokploy deploys nothing then",
                next=f"make the variable {name} in Dokploy, or take the reference out",
            )
        return found

    resolved = {}
    for key, value in own.items():
        for scope in ("project", "environment", None):  # one after the other: a shared value may hold a reference
            value = REFERENCE.sub(lambda m, s=scope: filled(m) if m["scope"] in (s, "vault") else m[0], value)  # type: ignore[misc] # noqa: PLW2901
        resolved[key] = value
    return resolved


def references(text: str) -> Iterator[tuple[str, str, str]]:
    """Every (key, scope, name) in the values: `DB_URL`, `project`, `DB_PASSWORD`. Scope "": another key."""
    for key, value in parse(text).items():
        for match in REFERENCE.finditer(value):
            yield key, match["scope"] or "", match["name"]


def only_reference(value: str) -> tuple[str, str] | None:
    """Scope and name, where a value is one reference and nothing else."""
    stripped = value.strip(_TRIMMED)
    match = REFERENCE.match(stripped)
    return (match["scope"] or "", match["name"]) if match and match.end() == len(stripped) else None


class EnvText:
    """The text with its keys as slots. `bare_only`: for Compose, which reads the values a second time."""

    def __init__(self, text: str, *, bare_only: bool = False) -> None:
        """Raises Answered for what cannot be read without harm."""
        if text.lstrip(_TRIMMED).startswith(CIPHERTEXT):
            raise refused(
                No.UNSUPPORTED,
                "Dokploy shows the environment still encrypted (enc:v1:); writing it would lose every variable",
                next="give Dokploy its encryption key back, then look at the service's environment in its UI",
            )
        if len(text) > MAX_CHARS:
            raise refused(No.UNSUPPORTED, "the environment is larger than 1 MiB")
        self.text = text
        self._bare_only = bare_only

    def get(self, slot: str) -> str | None:
        """As spelled, quotes included. None: there is no such key."""
        found = self._last(slot)
        return None if found is None else self.text[slice(*found.value)]

    def value(self, slot: str) -> str | None:
        """As consumers are given it, before references are filled in."""
        return parse(self.text).get(slot)

    def carries(self, slot: str, content: bytes) -> bool:
        found = self.value(slot)
        return found is not None and found.encode(errors="surrogatepass") == content

    def put(self, slot: str, content: bytes) -> None:
        """Raises Answered with Refused where no spelling is read as `content`, or another key would change."""
        if not KEY.fullmatch(slot):
            raise refused(No.UNSUPPORTED, f"{slot!r} is no name that Dokploy reads")
        wanted = {**parse(self.text), slot: _text(content)}
        for spelled in _spellings(wanted[slot], bare_only=self._bare_only):
            written = self._with(slot, spelled)
            if parse(written) == wanted:
                self.text = written
                return
        raise _cannot("no spelling of it is read as that value here")

    def restore(self, slot: str, stored: str | None) -> None:
        """The exact opposite of a `put` after which only others changed. None: remove the key."""
        before = parse(self.text)
        written = self._without(slot) if stored is None else self._with(slot, stored)
        after = parse(written)
        others = [{k: v for k, v in read.items() if k != slot} for read in (before, after)]
        if others[0] != others[1] or (stored is not None and slot not in after):
            raise refused(No.UNSUPPORTED, f"{slot} cannot be put back without changing another key; edit it by hand")
        self.text = written

    def _with(self, slot: str, spelled: str) -> str:
        found = self._last(slot)
        if found is not None:
            return self.text[: found.value[0]] + spelled + self.text[found.value[1] :]
        end = next(iter(re.findall(r"\r\n|\n|\r", self.text)[-1:]), "\n")
        if self.text and not self.text.endswith(("\n", "\r")):
            return f"{self.text}{end}{slot}={spelled}"
        return f"{self.text}{slot}={spelled}{end}"

    def _without(self, slot: str) -> str:
        """The whole line goes, with its end; the last one, where it has none, with the end of the line before."""
        found = self._last(slot)
        if found is None:
            return self.text
        begin = max(self.text.rfind("\n", 0, found.at), self.text.rfind("\r", 0, found.at)) + 1
        newline = re.compile(r"\r\n|\n|\r").search(self.text, found.value[1])
        if newline:
            return self.text[:begin] + self.text[newline.end() :]
        return re.sub(r"(?:\r\n|\n|\r)\Z", "", self.text[:begin])

    def _last(self, slot: str) -> _Found | None:
        """The assignment that wins, in offsets of the text with its own line ends."""
        normal = _NEWLINE.sub("\n", self.text)
        dropped = [match.start() - n for n, match in enumerate(re.finditer(r"\r\n", self.text))]
        last = None
        for match in _LINE.finditer(normal):
            if match["key"] == slot:
                last = match
        if last is None:
            return None
        start = end = last.end("sign")
        if last["value"] is not None:
            start, end = last.span("value")
            start += len(last["value"]) - len(last["value"].lstrip(_TRIMMED))
            end = max(start, end - (len(last["value"]) - len(last["value"].rstrip(_TRIMMED))))

        def original(offset: int) -> int:
            return offset + bisect_left(dropped, offset)

        return _Found(slot, original(last.start("key")), (original(start), original(end)), original(last.end()))


_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./^!-]*")


def _spellings(value: str, *, bare_only: bool) -> Sequence[str]:
    """In the order in which they are tried; the parse afterwards has the last word. Raises Answered."""
    if bare_only:
        if not _PLAIN.fullmatch(value):
            raise _cannot("Compose reads the variables once more, and expands or cuts some of its characters")
        return [value]
    quoted = [
        f"{quote}{value}{quote}"
        for quote in "'`\""
        if quote not in value and not (quote == '"' and ("\\n" in value or "\\r" in value))
    ]
    blank_free = value == value.strip(_TRIMMED) and not set(value) & set("#\n")
    bare = bool(value) and blank_free and value[0] not in "'\"`\\$"
    # a backslash before the closing quote would be read as an escape of it, and swallow the line behind
    return [*([value] if bare else []), *(quoted if not value.endswith("\\") else [])]


def _text(content: bytes) -> str:
    """Raises Answered with Refused(VALUE) for what no environment variable of Dokploy can hold."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _cannot("it holds bytes that are no UTF-8 text") from None
    if "{{" in text:
        raise _cannot("it holds `{{`, which Dokploy and Docker Swarm expand in every quoting")
    if any((c < " " and c not in "\t\n") or c == "\x7f" for c in text):
        raise _cannot("it holds control characters")
    return text


def spliced(text: str, slot: str, content: bytes) -> Mapping[str, str]:
    """What is read once Dokploy has put `content` in place of the `${{vault.…}}` that `slot` holds: before parsing.

    Raises Answered where that is not `content`, or changes another key.
    """
    value = parse(text)[slot]
    wanted = {**parse(text), slot: _text(content)}
    found = parse(text.replace(value.strip(_TRIMMED), wanted[slot]))
    if found != wanted:
        raise _cannot("Dokploy inserts it before it reads the quotes; write KEY='${{vault.…}}', or draw simpler values")
    return found


def _cannot(why: str) -> Answered:
    return refused(No.VALUE, f"an environment in Dokploy cannot carry this value: {why}")
