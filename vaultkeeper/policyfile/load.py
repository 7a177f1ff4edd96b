"""Files and folders to policies."""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vaultkeeper.model.policy import Place, RotationPolicy
from vaultkeeper.policyfile import across
from vaultkeeper.policyfile.findings import Findings, did_you_mean
from vaultkeeper.policyfile.keys import NAME, NOTHING, Layer, read_layer
from vaultkeeper.policyfile.parts import Connections
from vaultkeeper.policyfile.read import Map, read
from vaultkeeper.policyfile.secret import Secret
from vaultkeeper.policyfile.settings import Reading, SettingsOf
from vaultkeeper.policyfile.settle import settle

DEFAULTS_FILE = "_defaults.yaml"
TOP_KEYS = ("defaults", "connections", "secrets")
_ENCRYPTED = (".sops.yaml", ".sops.yml", ".enc.yaml", ".enc.yml")  # often lie beside the policies that fill them


def load(paths: Sequence[Path], settings: SettingsOf) -> dict[str, RotationPolicy]:
    """Every policy of the files and folders, by name, in the order in which they are written; disabled ones included.

    Folders are searched for `*.yaml` and `*.yml`, hidden and encrypted ones left out. No server is asked.
    Raises PolicyInvalid with all errors of all files.
    """
    findings = Findings()
    loader = _Loader(Reading(settings, findings))
    with _no_collection():
        for path in _files(paths, findings):
            loader.take(path)
        settled = [(secret, policy) for secret in loader.secrets if (policy := settle(secret)) is not None]
        across.judge(settled, loader.names.keys(), loader.reading)
    findings.raise_if_any()
    return {policy.name: policy for _, policy in settled}


@contextmanager
def _no_collection() -> Iterator[None]:
    """All that is made here is kept or soon gone: looking for garbage among it takes a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _files(paths: Sequence[Path], findings: Findings) -> Iterator[Path]:
    seen: set[str] = set()
    for path in paths:
        if not path.exists():
            findings.add(Place(str(path)), "", "no such file or folder")
        for file in _in_folder(path) if path.is_dir() else [path] if path.exists() else []:
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                yield file


def _in_folder(folder: Path) -> Iterator[Path]:
    for found, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            is_yaml = name.endswith((".yaml", ".yml")) and not name.startswith(".")
            if is_yaml and name != DEFAULTS_FILE and not name.endswith(_ENCRYPTED):
                yield Path(found, name)


@dataclass(frozen=True)
class _Scope:
    """What a file takes over from around it."""

    defaults: Layer
    connections: Connections


@dataclass
class _Loader:
    reading: Reading
    secrets: list[Secret] = field(default_factory=list)
    names: dict[str, Place] = field(default_factory=dict)
    _scopes: dict[Path, _Scope] = field(default_factory=dict)

    def take(self, path: Path) -> None:
        document = read(path, self.reading.findings)
        if document is None or _is_encrypted(document.root):
            return
        root = document.root
        if not document.usable:  # its secrets have no policies, but others may depend on their names
            secrets = root.get("secrets")
            self.names.update(secrets.marks if isinstance(secrets, Map) else {})
            return
        self._known_keys(root, TOP_KEYS)
        if "secrets" not in root:
            self.reading.findings.add(root.place, "", "expected the key `secrets`")
        scope = self._inside(self._around(path.parent), root)
        for name, raw in self._map(root, "secrets").items():
            self._secret(name, raw, scope, root["secrets"].where(name))

    def _secret(self, name: str, raw: object, scope: _Scope, place: Place) -> None:
        findings = self.reading.findings
        if name in self.names:
            findings.add(place, name, f"a duplicate name: it stands at {self.names[name]} already")
            return
        self.names[name] = place
        if not NAME.fullmatch(name):
            findings.add(
                place, name, "expected a name of letters, digits and . _ / -, beginning with one of the first two"
            )
        elif not isinstance(raw, Map):
            findings.add(place, name, "expected keys such as `generator:` and `destinations:`")
        else:
            own = read_layer(raw, name, findings, defaults=False)
            merged = own.over(scope.defaults)
            self.secrets.append(Secret(name, raw, place, own, merged, scope.connections, self.reading))

    def _around(self, folder: Path) -> _Scope:
        """Of a folder: its `_defaults.yaml` over those of the folders above.

        A folder that every user may write to ends the way up: what lies above it or in it was not put there by us.
        """
        if folder not in self._scopes:
            absolute = folder.absolute()
            above = absolute.parent
            is_top = above == absolute or bool(above.stat().st_mode & stat.S_IWOTH)
            outer = _Scope(NOTHING, {}) if is_top else self._around(above)
            file = folder / DEFAULTS_FILE
            document = read(file, self.reading.findings) if file.exists() else None
            if document is not None and document.usable:
                self._known_keys(document.root, TOP_KEYS[:2])
                outer = self._inside(outer, document.root)
            self._scopes[folder] = outer
        return self._scopes[folder]

    def _inside(self, outer: _Scope, root: Map) -> _Scope:
        defaults = read_layer(self._map(root, "defaults"), "defaults", self.reading.findings, defaults=True)
        connections = dict(outer.connections)
        here = self._map(root, "connections")
        for name, raw in here.items():
            if not isinstance(raw, Map):
                self.reading.findings.add(here.where(name), f"connections.{name}", "expected keys such as {kind: …}")
            elif "use" in raw:
                self.reading.findings.add(raw.where("use"), f"connections.{name}.use", "a connection uses no other")
            else:
                connections[name] = raw
        return _Scope(defaults.over(outer.defaults), connections)

    def _known_keys(self, root: Map, known: Sequence[str]) -> None:
        for key in root:
            if key not in known:
                self.reading.findings.add(root.where(key), key, f"unknown key; {did_you_mean(key, known)}")

    def _map(self, root: Map, key: str) -> Map:
        value = root.get(key)
        if isinstance(value, Map):
            return value
        if value is not None:
            self.reading.findings.add(root.where(key), key, "expected keys and values")
        return Map(root.where(key))


def _is_encrypted(root: Map) -> bool:
    """A SOPS document, whatever its name."""
    sops = root.get("sops")
    return isinstance(sops, Map) and "mac" in sops and "secrets" not in root
