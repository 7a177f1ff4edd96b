"""A value in a file encrypted by sops for age recipients: dotenv and YAML files, made to be committed.

The file is decrypted, edited, encrypted again for its own recipients and those of the policy, decrypted once more and
compared, and only then replaced. Other keys, their types and comments stay; what sops itself would lose (blank lines)
is lost. A file with other than age recipients, or with key groups, is refused rather than changed.
In YAML a dot in a name is a level: `db.url` is `url` below `db`. Env files take values that need no quotes, because
`sops exec-env` takes quotes literally and readers of the decrypted file do not.

Privileges: an identity that opens the file, write permission in its directory.
https://getsops.io/docs/
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, ClassVar, Protocol

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from vaultkeeper.access import dotenv, sops
from vaultkeeper.access.answer import refused
from vaultkeeper.access.files import Snapshot
from vaultkeeper.access.settings import Reference
from vaultkeeper.access.written import FileSettings, WrittenFile
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import No
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import Slot
from vaultkeeper.ports import DeliveryContext, Item

_SEALED = "ENC["
_LEVELS = re.compile(r"[^.\s]+(\.[^.\s]+)*")


class Settings(FileSettings):
    """What a policy may say beside `kind: sops` and `values: {name: template}`."""

    format: sops.Format | None = Field(default=None, description="where the file's name does not tell")
    recipients: tuple[str, ...] = Field(
        default=(), strict=False, description="age recipients; default: the file's own, else vaultkeeper's"
    )
    identity: Reference | None = Field(
        default=None, description="reference to the age identity that opens the file; default: vaultkeeper's"
    )

    def form(self) -> sops.Format:
        """Raises PolicyInvalid."""
        name = self.path.rpartition("/")[2]
        if name == ".sops.yaml":
            raise PolicyInvalid(f"{self.path} is the configuration of sops, not a file for secrets")
        if self.format:
            return self.format
        if name.endswith((".yaml", ".yml")):
            return "yaml"
        if name.endswith(".env") or name.startswith(".env"):
            return "dotenv"
        raise PolicyInvalid(
            f"the name {name!r} does not tell its format", next="give `format: yaml` or `format: dotenv`"
        )


class SopsDestination(WrittenFile):
    """The group is the file, its slots are keys (dotenv) or paths of keys (YAML)."""

    kind: ClassVar[str] = "sops"
    forbidden: ClassVar[frozenset[str]] = frozenset("\0")
    sealed: ClassVar[bool] = True
    Settings: ClassVar[type[FileSettings]] = Settings

    def slots(self, spec: DestinationSpec) -> Sequence[tuple[Slot, str]]:
        form = Settings.model_validate(spec.settings).form()
        name_of_form = dotenv.KEY if form == "dotenv" else _LEVELS
        for name in spec.values:
            if not name_of_form.fullmatch(name) or name.partition(".")[0] == "sops" or name.startswith("sops_"):
                raise PolicyInvalid(f"{name!r} cannot name a value here", next="write `values: {name: template}`")
        return [(Slot(name), name) for name in spec.values]

    def load(self, was: Snapshot, items: Sequence[Item], ctx: DeliveryContext) -> _Sealed:
        settings = [Settings.model_validate(item.spec.settings) for item in items]
        return _Sealed(was, settings, ctx)


class _Plain(Protocol):
    """The decrypted content."""

    def get(self, slot: str) -> bytes | None: ...
    def carries(self, slot: str, content: bytes) -> bool: ...
    def put(self, slot: str, content: bytes) -> None: ...
    def restore(self, slot: str, stored: bytes | None) -> None: ...
    def encode(self) -> bytes: ...

    def equals(self, decrypted: bytes) -> bool:
        """Whether this is what somebody who decrypts the file will see, comments included."""

    @staticmethod
    def metadata(cipher: bytes) -> Mapping[str, object]: ...

    @staticmethod
    def bare_keys(cipher: bytes, slots: Sequence[str]) -> list[str]:
        """Those of `slots` that stand in the encrypted file unencrypted."""


class _Sealed:
    """An encrypted file with its decrypted content, which never leaves memory."""

    def __init__(self, was: Snapshot, settings: Sequence[Settings], ctx: DeliveryContext) -> None:
        self.form: sops.Format = settings[0].form()
        self.ctx = ctx
        self.cipher = was.content
        reference = next((s.identity for s in settings if s.identity), None) or {"identity": "vaultkeeper"}
        self.identity = ctx.credentials.resolve(reference)["value"].reveal()
        asked = tuple(dict.fromkeys(r for s in settings for r in s.recipients))
        kind: type[_Yaml | _Env] = _Yaml if self.form == "yaml" else _Env
        if was.content is None:
            self.terms = sops.Terms(asked or self._own_recipients())
            before = b""
        else:
            held = sops.terms_of(kind.metadata(was.content))
            self.terms = sops.Terms(tuple(dict.fromkeys((*held.recipients, *asked))), held.rules)
            before = sops.decrypt(was.content, self.form, self.identity, ctx.deadline)
        self.plain: _Plain = kind(before)
        self.touched: dict[str, bytes] = {}

    def _own_recipients(self) -> tuple[str, ...]:
        text = self.ctx.credentials.resolve({"recipients": "vaultkeeper"})["value"].text()
        return tuple(text.split())

    def get(self, slot: str) -> bytes | None:
        return self.plain.get(slot)

    def carries(self, slot: str, content: bytes) -> bool:
        return self.plain.carries(slot, content)

    def put(self, slot: str, content: bytes) -> None:
        self.plain.put(slot, content)
        self.touched[slot] = content

    def restore(self, slot: str, stored: bytes | None) -> None:
        self.plain.restore(slot, stored)
        self.touched[slot] = b""

    def encode(self) -> bytes | None:
        """Encrypt, decrypt what came out, compare. Raises Answered; the file is untouched until all of it agrees."""
        if not self.touched:
            return self.cipher
        document = self.plain.encode()
        if not document.strip():
            return b""
        deadline = self.ctx.deadline
        cipher = sops.encrypt(document, self.form, self.terms, deadline, list(self.touched.values()))
        bare = self.plain.bare_keys(cipher, [slot for slot, content in self.touched.items() if content])
        if bare:
            raise refused(No.UNSUPPORTED, f"sops leaves {', '.join(bare)} unencrypted by the rules of this file")
        if not self.plain.equals(sops.decrypt(cipher, self.form, self.identity, deadline)):
            raise refused(No.UNSUPPORTED, "what sops encrypted is not what it decrypts; the file was left as it is")
        return cipher


class _Env:
    """Lines of `KEY=value`. To sops the value is everything behind the first `=`, quotes and `#` included."""

    def __init__(self, plain: bytes) -> None:
        text = plain.decode(errors="surrogateescape")
        self.lines = text.removesuffix("\n").split("\n") if text else []

    def get(self, slot: str) -> bytes | None:
        at = self._last(slot)
        return None if at is None else self.lines[at].partition("=")[2].encode(errors="surrogateescape")

    def carries(self, slot: str, content: bytes) -> bool:
        return self.get(slot) == content

    def put(self, slot: str, content: bytes) -> None:
        self._write(slot, dotenv.bare(content))

    def restore(self, slot: str, stored: bytes | None) -> None:
        at = self._last(slot)
        if stored is not None:
            self._write(slot, stored)
        elif at is not None:
            del self.lines[at]

    def encode(self) -> bytes:
        return "".join(f"{line}\n" for line in self.lines).encode(errors="surrogateescape")

    def equals(self, decrypted: bytes) -> bool:
        return _Env(decrypted).lines == [line for line in self.lines if line]

    @staticmethod
    def metadata(cipher: bytes) -> Mapping[str, object]:
        pairs = (line.partition("=") for line in _Env(cipher).lines if line.startswith("sops_"))
        found = sops.dotenv_metadata({name.removeprefix("sops_"): value for name, _, value in pairs})
        if not found.get("mac"):
            raise refused(
                No.UNSUPPORTED, "the file is not encrypted by sops", next="run `sops encrypt --in-place` on it"
            )
        return found

    @staticmethod
    def bare_keys(cipher: bytes, slots: Sequence[str]) -> list[str]:
        lines = _Env(cipher)
        return [slot for slot in slots if not (lines.get(slot) or b"").startswith(_SEALED.encode())]

    def _write(self, slot: str, stored: bytes) -> None:
        at = self._last(slot)
        value = stored.decode(errors="surrogateescape")
        if at is None:
            self.lines.append(f"{slot}={value}")
        else:
            self.lines[at] = f"{self.lines[at].partition('=')[0]}={value}"

    def _last(self, slot: str) -> int | None:
        names = [line.partition("=")[0].strip().removeprefix("export ").strip() for line in self.lines]
        return max((n for n, name in enumerate(names) if name == slot and "=" in self.lines[n]), default=None)


class _Yaml:
    """A YAML document, edited in ruamel's round-trip form."""

    def __init__(self, plain: bytes) -> None:
        self.comments = _comments(plain)
        self.root = _round_trip(plain) if plain.strip() else {}
        if self.root is None:
            self.root = {}
        if not isinstance(self.root, MutableMapping):
            raise refused(No.UNSUPPORTED, "the YAML file holds no mapping at its top")

    def get(self, slot: str) -> bytes | None:
        levels = slot.split(".")
        node: Any = self.root
        for level in levels:
            if not isinstance(node, MutableMapping) or level not in node:
                return None
            node = node[level]
        if isinstance(node, MutableMapping | list):
            raise refused(No.UNSUPPORTED, f"{slot} is no single value in this file but a collection")
        return _dump({"v": node})

    def carries(self, slot: str, content: bytes) -> bool:
        stored = self.get(slot)
        if stored is None:
            return False
        value = _round_trip(stored)["v"]
        return isinstance(value, str) and value.encode() == content

    def put(self, slot: str, content: bytes) -> None:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise refused(No.VALUE, "a YAML file cannot carry this value: it is no UTF-8 text") from None
        if any(not c.isprintable() and c not in "\t\n" for c in text):
            raise refused(No.VALUE, "a YAML file cannot carry this value: it holds control characters")
        self._write(slot, DoubleQuotedScalarString(text))

    def restore(self, slot: str, stored: bytes | None) -> None:
        if stored is not None:
            self._write(slot, _round_trip(stored)["v"])
            return
        self._forget_comments(slot)
        trail: list[tuple[MutableMapping[str, Any], str]] = []
        node: Any = self.root
        for level in slot.split("."):
            if not isinstance(node, MutableMapping) or level not in node:
                return
            trail.append((node, level))
            node = node[level]
        for holder, level in reversed(trail):
            if holder[level] is node or holder[level] == {}:  # a level that we made goes with its only value
                del holder[level]

    def encode(self) -> bytes:
        return _dump(self.root) if self.root else b""

    def equals(self, decrypted: bytes) -> bool:
        lost = self.comments - _comments(decrypted)
        return not lost and _neutral(decrypted) == _neutral(self.encode())

    @staticmethod
    def metadata(cipher: bytes) -> Mapping[str, object]:
        document = _neutral(cipher)
        found = document.get("sops") if isinstance(document, dict) else None
        if not isinstance(found, dict) or not found.get("mac"):
            raise refused(
                No.UNSUPPORTED, "the file is not encrypted by sops", next="run `sops encrypt --in-place` on it"
            )
        return found

    @staticmethod
    def bare_keys(cipher: bytes, slots: Sequence[str]) -> list[str]:
        bare = []
        for slot in slots:
            node: Any = _neutral(cipher)
            for level in slot.split("."):
                node = node.get(level) if isinstance(node, dict) else None
            if not (isinstance(node, str) and node.startswith(_SEALED)):
                bare.append(slot)
        return bare

    def _forget_comments(self, slot: str) -> None:
        """Lines of a replaced text that only look like comments need not come back."""
        self.comments -= _comments(self.get(slot) or b"")

    def _write(self, slot: str, value: object) -> None:
        self._forget_comments(slot)
        *above, last = slot.split(".")
        node = self.root
        for level in above:
            if node.get(level) is None:
                node[level] = {}
            node = node[level]
            if not isinstance(node, MutableMapping):
                raise refused(No.UNSUPPORTED, f"{level} in {slot} is no mapping in this file")
        if isinstance(node.get(last), MutableMapping | list):
            raise refused(No.UNSUPPORTED, f"{slot} is no single value in this file but a collection")
        node[last] = value


def _round_trip(text: bytes) -> Any:
    yaml = YAML()
    yaml.preserve_quotes = True
    return _load(yaml, text)


def _neutral(text: bytes) -> Any:
    """As plain values with their types."""
    return _load(YAML(typ="safe", pure=True), text)


def _load(yaml: YAML, text: bytes) -> Any:
    try:
        return yaml.load(text)
    except YAMLError:  # its text quotes the lines around, decrypted ones too
        raise refused(No.UNSUPPORTED, "the file is no YAML with one document") from None


def _dump(document: object) -> bytes:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 30  # never fold: a folded secret is hard to find again
    yaml.indent(mapping=4, sequence=6, offset=4)  # as sops writes it
    out = io.BytesIO()
    yaml.dump(document, out)
    return out.getvalue()


def _comments(plain: bytes) -> Counter[bytes]:
    """Comment lines; sops gives every comment a line of its own."""
    return Counter(line.strip() for line in plain.splitlines() if line.lstrip().startswith(b"#"))
