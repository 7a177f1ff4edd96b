"""The keys that belong to a kind: handed to the kind's own `Settings`, its complaints brought back to their place.

What comes out is a plain document (JSON types): relative paths made absolute, references still references.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from vaultkeeper.access.settings import Verbatim
from vaultkeeper.errors import VaultkeeperError
from vaultkeeper.model.policy import Place
from vaultkeeper.policyfile.findings import Findings, did_you_mean
from vaultkeeper.policyfile.read import Map, Seq
from vaultkeeper.ports import Destination, Generator, Target

T = TypeVar("T")

SOURCES = ("file", "env", "credential", "secret", "vault")
EXPECTED = (
    "expected a reference: {file: PATH}, {env: NAME}, {credential: NAME}, {secret: NAME} or {vault: PATH, field: F}"
)

VAULT_KEYS = ("url", "namespace", "mount", "auth", "ca", "tls")
"""The connection of a {vault: …}: beside it, or taken in with `use`."""

_CREDENTIAL = re.compile(
    r"(?:.*_)?(?:password|passwd|passphrase|token|api_?key|secret_id|secret_key|access_key|private_key|client_secret)"
)


class SettingsOf(Protocol):
    """The registry, as policy files see it. Unknown kinds raise ConfigurationInvalid."""

    def kinds(self, group: str) -> Sequence[str]:
        """Names of the kinds in `targets`, `destinations` or `generators`."""

    def target_class(self, kind: str) -> type[Target]: ...
    def destination(self, kind: str) -> Destination: ...
    def generator(self, kind: str) -> Generator: ...


@dataclass(frozen=True)
class Mention:
    """A secret that a reference names."""

    place: Place
    path: str
    secret: str


@dataclass
class Reading:
    """What one load shares."""

    kinds: SettingsOf
    findings: Findings
    mentions: list[Mention] = field(default_factory=list)
    _known: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, answer: Callable[[], T]) -> T:
        """What costs time and is the same for many secrets."""
        if key not in self._known:
            self._known[key] = answer()
        found: T = self._known[key]
        return found


def validated(
    model: type[BaseModel], raw: Map, path: str, reading: Reading, *, common: Collection[str] = ()
) -> dict[str, object] | None:
    """The document that `model` accepts; None where it does not, with the findings added.

    `common`: keys that may stand beside but are not the kind's, for the nearest name.
    """
    before = len(reading.findings)
    known = _names(model)
    walk = _Walk(model, path, reading)
    document: dict[str, object] = {}
    for key, value in raw.items():
        if key in known:
            document[key] = walk.plain(value, key, (key,), raw.where(key))
        else:
            near = did_you_mean(key, {*known, *common})
            reading.findings.add(raw.where(key), f"{path}.{key}", f"unknown key; {near}")
    bases = {key: _folder(raw.where(key).file) for key in document}
    dumps: dict[str, dict[str, Any]] = {}
    for base in set(bases.values()) or {""}:
        try:
            accepted = model.model_validate(document, context={"base": base})
        except ValidationError as error:
            _explain(error, model, raw, path, reading.findings)
            return None
        except VaultkeeperError as error:
            reading.findings.add(raw.place, path, str(error))
            return None
        dumps[base] = accepted.model_dump(mode="json", exclude_unset=True, by_alias=True)
    if len(reading.findings) > before:
        return None
    return {key: dumps[base][key] for key, base in bases.items()}


@lru_cache(maxsize=4096)
def _folder(file: str) -> str:
    return str(Path(file).absolute().parent)  # not resolve(): paths count from where people see the file


@lru_cache(maxsize=4096)
def _absolute(file: str, path: str) -> str:
    return os.path.normpath(Path(_folder(file), path))


@lru_cache(maxsize=256)
def _names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(info.alias or name for name, info in model.model_fields.items())


def declares(model: type[BaseModel], key: str) -> bool:
    """Whether the kind has this key itself."""
    return key in _names(model)


@dataclass
class _Walk:
    """To plain data; references are checked and literals in their place found on the way."""

    model: type[BaseModel]
    path: str
    reading: Reading

    def plain(self, value: object, key: str, keys: tuple[str, ...], place: Place) -> object:
        if isinstance(value, Map | Seq) and self._verbatim(keys):
            return _bare(value)
        if isinstance(value, Map):
            if _is_reference(value) or (_CREDENTIAL.fullmatch(key) and self._refers(keys)):
                return self._reference(value, keys, place)
            return {k: self.plain(v, k, (*keys, k), value.where(k)) for k, v in value.items()}
        if isinstance(value, Seq):
            return [self.plain(v, key, (*keys, str(i)), value.marks[i]) for i, v in enumerate(value)]
        if value is not None and _CREDENTIAL.fullmatch(key) and self._refers(keys):
            text = f"a credential never stands in a policy file; {EXPECTED}"
            self.reading.findings.add(place, ".".join((self.path, *keys)), text)
            return {"env": "LITERAL"}
        return value

    def _verbatim(self, keys: tuple[str, ...]) -> bool:
        """Whether a document of another system stands here."""
        info = _fields_at(self.model, keys[:-1]).get(keys[-1])
        return info is not None and any(isinstance(mark, Verbatim) for mark in info.metadata)

    def _refers(self, keys: tuple[str, ...]) -> bool:
        """Whether the kind wants more than bare text here: a key called `token` may be a name."""
        fields = _fields_at(self.model, keys[:-1])
        info = fields.get(keys[-1])
        if info is not None:
            return not _takes_text(info.annotation)
        around = _fields_at(self.model, keys[:-2]).get(keys[-2]) if len(keys) > 1 else None
        return around is None or not _maps_to_plain(around.annotation)

    def _reference(self, value: Map, keys: tuple[str, ...], place: Place) -> dict[str, object]:
        path = ".".join((self.path, *keys))
        found = dict(value)
        named = [key for key in found if key in SOURCES]
        if named == ["vault"]:
            return self._of_vault(value, keys, place)
        unknown = [key for key in found if key not in (*SOURCES, "field")]
        for key in unknown:
            near = did_you_mean(key, (*SOURCES, "field"))
            self.reading.findings.add(value.where(key), f"{path}.{key}", f"unknown key; {near}")
        if unknown:
            return found
        for key, content in found.items():
            if not isinstance(content, str) or not content:
                self.reading.findings.add(value.where(key), f"{path}.{key}", "expected text")
                return {"env": "BROKEN"}
        if len(named) != 1:
            self.reading.findings.add(place, path, EXPECTED)
        elif "field" in found and named[0] != "secret":
            self.reading.findings.add(value.where("field"), f"{path}.field", "goes with `secret` or `vault` only")
        elif named[0] == "secret":
            self.reading.mentions.append(Mention(value.where("secret"), path, str(found["secret"])))
        elif named[0] == "file":
            found["file"] = _absolute(value.where("file").file, str(found["file"]))
        return found

    def _of_vault(self, value: Map, keys: tuple[str, ...], place: Place) -> dict[str, object]:
        """A reference with a connection of its own, whose login is never a {vault: …} again."""
        from vaultkeeper.access.vault.settings import VaultReference

        path = ".".join((self.path, *keys))
        auth = value.get("auth")
        if isinstance(auth, Map) and any(isinstance(part, Map) and "vault" in part for part in auth.values()):
            self.reading.findings.add(value.where("auth"), f"{path}.auth", "expected references to something else")
        elif not {"url", "auth", "field"} <= value.keys():
            beside = " with `use: CONNECTION`, or with `url` and `auth`" if "field" in value else ""
            self.reading.findings.add(place, path, "expected {vault: PATH, field: F}" + beside)
        elif (accepted := validated(VaultReference, value, path, self.reading)) is not None:
            return accepted
        return {"env": "BROKEN"}


def _bare(value: object) -> object:
    if isinstance(value, Map):
        return {key: _bare(inner) for key, inner in value.items()}
    return [_bare(inner) for inner in value] if isinstance(value, Seq) else value


def _is_reference(value: Map) -> bool:
    also = {"field", *(VAULT_KEYS if "vault" in value else ())}
    return sum(key in SOURCES for key in value) == 1 and all(key in SOURCES or key in also for key in value)


# ------------------------------------------------------------------------------------------- what a model complains of


def _explain(error: ValidationError, model: type[BaseModel], raw: Map, path: str, findings: Findings) -> None:
    """Pydantic's errors, those of the branches of one union as one."""
    told: dict[tuple[str, ...], tuple[Place, list[str]]] = {}
    for problem in _of_meant_branches(raw, error.errors(include_url=False, include_input=False, include_context=False)):
        location = problem["loc"]
        place, keys = _locate(raw, location)
        if problem["type"] == "extra_forbidden":
            near = did_you_mean(keys[-1] if keys else "", _fields_at(model, keys[:-1]))
            text = f"unknown key; {near}"
        elif problem["type"] == "missing":
            keys = (*keys, str(location[-1]))
            text = "is missing"
        else:
            text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        told.setdefault(keys, (place, []))[1].append(text)
    for keys, (place, texts) in told.items():
        deeper = any(other[: len(keys)] == keys and len(other) > len(keys) for other in told)
        if not (keys and deeper):  # the branch of a union that was meant has more to say
            findings.add(place, ".".join((path, *keys)), " or ".join(dict.fromkeys(texts)))


def _of_meant_branches(raw: Map, problems: Sequence[Any]) -> list[Any]:
    """Without those of union branches that know fewer of the keys than another branch does."""
    strange: dict[tuple[tuple[str, ...], str], int] = {}
    for problem in problems:
        if (branch := _branch(raw, problem["loc"])) is not None:
            strange[branch] = strange.get(branch, 0) + (problem["type"] == "extra_forbidden")
    least = {keys: min(n for (k, _), n in strange.items() if k == keys) for keys, _ in strange}
    return [p for p in problems if (b := _branch(raw, p["loc"])) is None or strange[b] == least[b[0]]]


def _branch(raw: Map, location: tuple[int | str, ...]) -> tuple[tuple[str, ...], str] | None:
    """The keys to a union and its branch, as pydantic names it, where the error lies inside one."""
    for end, step in enumerate(location[:-1]):
        _, keys = _locate(raw, location[: end + 1])
        if len(keys) <= end and isinstance(step, str):
            return keys, step
    return None


def _locate(raw: Map, location: tuple[int | str, ...]) -> tuple[Place, tuple[str, ...]]:
    """The place of the innermost key that exists. Names of union branches in `location` are no keys."""
    place, keys = raw.place, list[str]()
    here: object = raw
    for step in location:
        if isinstance(here, Map) and isinstance(step, str) and step in here:
            place, here = here.where(step), here[step]
            keys.append(step)
        elif isinstance(here, Seq) and isinstance(step, int) and step < len(here):
            place, here = here.marks[step], here[step]
            keys.append(str(step))
    return place, tuple(keys)


def _fields_at(model: type[BaseModel], keys: Sequence[str]) -> Mapping[str, Any]:
    """The fields that the models at `keys` know."""
    models = [model]
    for key in keys:
        if not key.isdigit():
            infos = [m.model_fields[key] for m in models if key in m.model_fields]
            models = [b for info in infos for b in _branches(info.annotation) if _is_model(b)]
    return {name: info for m in models for name, info in m.model_fields.items()}


def _branches(annotation: object) -> Iterator[Any]:
    """The types in a union, a list or an Annotated."""
    arguments = typing.get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _branches(argument)


def _takes_text(annotation: object) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return any(_takes_text(argument) for argument in typing.get_args(annotation))
    return annotation is str


def _maps_to_plain(annotation: object) -> bool:
    """Whether the keys here are names that people chose, with texts or numbers: {password: 40}."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return {branch for branch in _branches(arguments[1]) if isinstance(branch, type)} <= {str, int}
    return any(_maps_to_plain(argument) for argument in arguments)


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
