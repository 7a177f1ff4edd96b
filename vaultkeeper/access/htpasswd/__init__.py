"""Files of accounts with hashed passwords: lines of `user:hash`, and the `basic_auth_users` of Prometheus.

Passwords are hashed by bcrypt, spelt `$2y$` as `htpasswd -B` does: every reader takes that (`$2b$`, which is the same,
is unknown to older releases of Apache's apr). Hashes of other kinds that stand in a file are kept and not understood.

Where a user stands in several lines, nginx and Apache take the first, the registry and Traefik the last
(distribution: registry/auth/access/htpasswd.go; traefik: pkg/middlewares/auth/basic_auth.go, a map). Prometheus reads
nothing of a file in which a key stands twice, and Traefik nothing of one in which a line has not just one colon.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.model.outcome import No

Format = Literal["apache", "nginx", "registry", "traefik", "prometheus", "alertmanager"]

YAML: frozenset[Format] = frozenset({"prometheus", "alertmanager"})
LAST_WINS: frozenset[Format] = frozenset({"registry", "traefik"})
BCRYPT_ONLY: frozenset[Format] = YAML | {"registry"}

MAX_BYTES = 72
"""bcrypt looks at no more of a password."""

_BCRYPT = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_COSTLIEST = 15  # two seconds; a file that asks for more is not checked by us
_USERS = "basic_auth_users"


@dataclass(frozen=True)
class Account:
    """A user with the password that it shall have, and the hash that was made of it once."""

    name: str
    password: bytes = field(repr=False)
    hash: bytes = field(repr=False)


def hashed(password: bytes, cost: int) -> bytes:
    """With a fresh salt. Raises ValueError, without the password, for one that bcrypt cannot tell from others."""
    import bcrypt

    if len(password) > MAX_BYTES or b"\0" in password:
        raise ValueError(f"bcrypt takes {MAX_BYTES} bytes without NUL")
    return bcrypt.hashpw(password, bcrypt.gensalt(cost)).replace(b"$2b$", b"$2y$", 1)


def holds(stored: bytes, account: Account) -> bool | None:
    """Is it a hash of this account's password? None: it is of a kind that cannot be checked here."""
    import bcrypt

    if stored == account.hash:
        return True
    found = _BCRYPT.fullmatch(stored)
    if found is None or not 4 <= int(found[1]) <= _COSTLIEST:
        return None
    return bcrypt.checkpw(account.password, stored)


class UserFile(Protocol):
    """The accounts in the content of a file. Everything else in it stays as it is."""

    def names(self) -> Sequence[str]:
        """Each once, in their order."""

    def hashes(self, name: str) -> Sequence[bytes]:
        """Of a user, in their order; empty: there is no such user."""

    def effective(self, name: str) -> bytes | None:
        """The one that counts."""

    def put(self, name: str, stored: bytes) -> None:
        """This hash and no other."""

    def drop(self, name: str) -> None: ...

    def encode(self) -> bytes: ...


def parse(content: bytes | None, form: Format) -> UserFile:
    """Raises Answered for a file that cannot be edited without harm."""
    return _WebConfig(content or b"") if form in YAML else _Lines(content or b"", form)


def accepts(users: UserFile, account: Account) -> bool | None:
    """None: the user's hash cannot be checked here; only a login tells."""
    stored = users.effective(account.name)
    return False if stored is None else holds(stored, account)


def nobody_left(form: Format) -> Answered:
    """What a set answers that would take the last user away."""
    then = "it would let everybody in" if form in YAML else "what its reader makes of that varies"
    return refused(No.UNSUPPORTED, f"no user would be left in the file: {then}")


def edit(users: UserFile, accept: Sequence[Account], refuse: Sequence[Account]) -> None:
    """Make every account of `accept` work and none of `refuse`. A password that somebody else gave one stays.

    All lines of a refused account go: without the first, the next one would count.
    """
    kept = {account.name for account in accept}
    for account in accept:
        if not (len(users.hashes(account.name)) == 1 and accepts(users, account)):
            users.put(account.name, account.hash)
    for account in refuse:
        if account.name not in kept and accepts(users, account) is not False:
            users.drop(account.name)


# --------------------------------------------------------------------------------------------------------------- lines


class _Lines:
    """Lines of `user:hash`; blank ones, comments and what has no colon are nobody's."""

    def __init__(self, content: bytes, form: Format) -> None:
        self._lines = re.findall(rb"[^\n]*\n|[^\n]+", content)
        self._last_wins = form in LAST_WINS
        self._trims = form != "nginx"
        if form == "traefik":
            self._demand_one_colon_each()

    def names(self) -> Sequence[str]:
        found = (self._split(line) for line in self._lines)
        return list(dict.fromkeys(entry[0].decode(errors="surrogateescape") for entry in found if entry))

    def hashes(self, name: str) -> Sequence[bytes]:
        return [entry[1] for _, entry in self._of(name)]

    def effective(self, name: str) -> bytes | None:
        found = self.hashes(name)
        return found[-1 if self._last_wins else 0] if found else None

    def put(self, name: str, stored: bytes) -> None:
        line, at = name.encode() + b":" + stored, [number for number, _ in self._of(name)]
        if at:
            self._lines[at[0]] = line + self._end(self._lines[at[0]])
            self._drop(at[1:])
            return
        if self._lines and not self._end(self._lines[-1]):
            self._lines[-1] += b"\n"
        self._lines.append(line + b"\n")

    def drop(self, name: str) -> None:
        self._drop([number for number, _ in self._of(name)])

    def encode(self) -> bytes:
        return b"".join(self._lines)

    def _of(self, name: str) -> list[tuple[int, tuple[bytes, bytes]]]:
        wanted = name.encode(errors="surrogateescape")
        found = ((number, self._split(line)) for number, line in enumerate(self._lines))
        return [(number, entry) for number, entry in found if entry is not None and entry[0] == wanted]

    def _drop(self, numbers: Sequence[int]) -> None:
        for number in reversed(numbers):
            del self._lines[number]

    def _split(self, line: bytes) -> tuple[bytes, bytes] | None:
        """User and hash. nginx takes a blank before a name for a part of it, the others do not."""
        text = line.strip() if self._trims else line.rstrip(b"\r\n")
        name, colon, rest = text.partition(b":")
        return (name, rest.partition(b":")[0]) if colon and not text.startswith(b"#") else None

    def _demand_one_colon_each(self) -> None:
        """Raises Answered: the reload of ours would be the moment at which Traefik takes its route away."""
        for number, line in enumerate(map(bytes.strip, self._lines), 1):
            if line and not line.startswith(b"#") and line.count(b":") != 1:
                text = f"line {number} has not just one colon: Traefik reads no such file, and its route is gone"
                raise refused(No.UNSUPPORTED, text, next="write `user:hash` there, or make it a comment")

    @staticmethod
    def _end(line: bytes) -> bytes:
        return line[len(line.rstrip(b"\r\n")) :]


# -------------------------------------------------------------------------------------------------------- a web config


class _WebConfig:
    """The web configuration of Prometheus and its kin, changed where a user stands and nowhere else.

    By the marks of the composer: a round-trip editor indents anew, and loses comments that follow a removed key. Users
    are the words as they stand there, because Prometheus reads YAML 1.1. What comes out is read again and compared.
    """

    def __init__(self, content: bytes) -> None:
        self._before = content
        self._compose(content)
        self._rest = {key: value for key, value in self._words.items() if key != _USERS}
        self._wanted = self._users

    @property
    def _users(self) -> dict[str, str]:
        users: dict[str, str] = self._words.get(_USERS) or {}
        return users

    def names(self) -> Sequence[str]:
        return list(self._wanted)

    def hashes(self, name: str) -> Sequence[bytes]:
        return [self._wanted[name].encode()] if name in self._wanted else []

    def effective(self, name: str) -> bytes | None:
        return next(iter(self.hashes(name)), None)

    def put(self, name: str, stored: bytes) -> None:
        self._wanted = {**self._wanted, name: stored.decode()}

    def drop(self, name: str) -> None:
        self._wanted = {other: stored for other, stored in self._wanted.items() if other != name}

    def encode(self) -> bytes:
        """Raises Answered where the change would touch anything else."""
        was = self._users
        if self._wanted == was:
            return self._before
        for name, stored in self._wanted.items():
            if was.get(name) != stored:
                self._compose(self._with(name, stored).encode())
        for name in was.keys() - self._wanted.keys():
            self._compose(self._without(name).encode())
        if self._words != {**self._rest, _USERS: self._wanted}:
            raise _unfit()
        return self._text.encode()

    def _compose(self, content: bytes) -> None:
        import yaml

        try:
            self._text = content.decode()
            root: Any = yaml.compose(self._text, Loader=yaml.SafeLoader)
            words = {} if root is None else _words(root)
        except (yaml.YAMLError, UnicodeDecodeError):  # its text quotes the lines around
            raise refused(No.UNSUPPORTED, "this is no YAML that Prometheus reads: one document, no key twice") from None
        if not isinstance(words, dict):
            raise refused(No.UNSUPPORTED, "this is no web configuration: it has no keys at its top")
        users = words.get(_USERS) or {}
        if not isinstance(users, dict) or not all(isinstance(stored, str) for stored in users.values()):
            raise refused(No.UNSUPPORTED, f"`{_USERS}` is no list of users with one hash each")
        self._words: dict[str, Any] = words
        self._node = next((pair for pair in (root.value if root else ()) if pair[0].value == _USERS), None)

    def _with(self, name: str, stored: str) -> str:
        """The text, this user added or given another hash."""
        text, quoted = self._text, f'"{stored}"'
        entry = f"{json.dumps(name, ensure_ascii=False)}: {quoted}"
        if self._node is None:
            return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{_USERS}:\n  {entry}\n"
        key, users = self._node
        there = self._entries()
        if name in there:
            value = there[name][1]
            return text[: value.start_mark.index] + quoted + text[value.end_mark.index :]
        if getattr(users, "flow_style", False):
            end = users.end_mark.index - 1
            return f"{text[:end]}{', ' if there else ''}{entry}{text[end:]}"
        after, column = (list(there.values())[-1][1], users.start_mark.column) if there else (key, 2)
        if not there:  # `null`, or nothing at all
            text = text[: users.start_mark.index] + text[users.end_mark.index :]
        end = _line_end(text, after.end_mark.index)
        return f"{text[:end]}\n{' ' * column}{entry}{text[end:]}"

    def _without(self, name: str) -> str:
        text, there = self._text, self._entries()
        (key, value), names = there[name], list(there)
        if self._node is not None and self._node[1].flow_style:
            at = names.index(name)
            if at + 1 < len(names):
                return text[: key.start_mark.index] + text[there[names[at + 1]][0].start_mark.index :]
            begin = there[names[at - 1]][1].end_mark.index if at else key.start_mark.index
            return text[:begin] + text[value.end_mark.index :]
        begin = text.rfind("\n", 0, key.start_mark.index) + 1
        if text[begin : key.start_mark.index].strip() or value.style in ("|", ">"):
            raise _unfit()
        return text[:begin] + text[_line_end(text, value.end_mark.index) + 1 :]

    def _entries(self) -> dict[str, tuple[Any, Any]]:
        users = self._node[1].value if self._node is not None else []
        return {key.value: (key, value) for key, value in users} if isinstance(users, list) else {}


def _unfit() -> Answered:
    return refused(
        No.UNSUPPORTED,
        f"`{_USERS}` cannot be changed without changing something else in this file",
        next="write each user on a line of its own, without anchors and merge keys",
    )


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def _words(node: Any) -> Any:
    """Every scalar as it is written. Raises YAMLError for a key that stands twice, as Prometheus does."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        found = {str(key.value): _words(value) for key, value in node.value}
        if len(found) != len(node.value):
            raise yaml.YAMLError
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_words(item) for item in node.value]
    return "" if node.tag == "tag:yaml.org,2002:null" else node.value
