"""The key-value stores: version 2 with compare-and-set, metadata, soft delete; version 1 as the trap that it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vaultkeeper.testing.vault.state import Answer, Body, Request, State, envelope, failure, stamp

VERSIONS = 10  #: kept where `max_versions` is 0
MERGE = "application/merge-patch+json"


@dataclass
class _Version:
    data: Any
    created_s: float
    deleted_s: float = 0
    destroyed: bool = False


@dataclass
class _Secret:
    versions: dict[int, _Version] = field(default_factory=dict)
    current: int = 0
    custom: dict[str, str] | None = None
    max_versions: int = 0
    cas_required: bool = False
    changes: int = 0
    created_s: float = 0


@dataclass
class KvVersion2:
    """One mount."""

    state: State
    secrets: dict[str, _Secret] = field(default_factory=dict)
    type: ClassVar[str] = "kv"
    options: ClassVar[Mapping[str, str]] = {"version": "2"}

    def answer(self, request: Request, path: str) -> Body | None:
        kind, _, name = path.partition("/")
        handler = getattr(self, f"_{kind}_{request.method.lower().replace('put', 'post')}", None)
        if not name or handler is None:
            text = "Invalid path for a versioned K/V secrets engine."
            raise Answer(404, envelope(None, warnings=[text]))
        told: Body | None = handler(request, name)
        return told

    def _data_get(self, request: Request, name: str) -> Body:
        secret = self.secrets.get(name)
        number = int(request.query.get("version", 0)) or (secret.current if secret else 0)
        version = secret.versions.get(number) if secret else None
        if secret is None or version is None:
            raise failure(404)
        metadata = self._metadata(secret, number)
        if version.destroyed or version.deleted_s:
            raise Answer(404, envelope({"data": None, "metadata": metadata}))
        return envelope({"data": version.data, "metadata": metadata})

    def _metadata(self, secret: _Secret, number: int) -> Body:
        return {**self._fate(secret.versions[number]), "custom_metadata": secret.custom, "version": number}

    def _fate(self, version: _Version) -> Body:
        deleted = stamp(version.deleted_s)
        return {"created_time": stamp(version.created_s), "deletion_time": deleted, "destroyed": version.destroyed}

    def _data_post(self, request: Request, name: str) -> Body:
        if "data" not in request.body:
            raise failure(400, "no data provided")
        secret = self.secrets.get(name) or _Secret()
        cas = (request.body.get("options") or {}).get("cas")
        if cas is None and secret.cas_required:
            raise failure(400, "check-and-set parameter required for this call")
        if cas is not None and not str(cas).isdecimal():
            raise failure(400, "error parsing check-and-set parameter")
        if cas is not None and int(cas) != secret.current:
            raise failure(400, "check-and-set parameter did not match the current version")
        self.secrets[name] = secret
        secret.created_s = secret.created_s or self.state.clock()
        secret.current += 1
        secret.versions[secret.current] = _Version(copy.deepcopy(request.body["data"] or {}), self.state.clock())
        for old in sorted(secret.versions)[: -(secret.max_versions or VERSIONS)]:
            del secret.versions[old]
        return envelope(self._metadata(secret, secret.current))

    def _data_patch(self, request: Request, name: str) -> Body:
        given = request.headers.get("content-type", "")
        if given != MERGE:
            raise failure(415, f"PATCH requires Content-Type of {MERGE}, provided {given}")
        now = self._data_get(request, name)["data"]["data"]
        changed = {**now, **request.body["data"]}
        request.body["data"] = {key: value for key, value in changed.items() if value is not None}
        return self._data_post(request, name)

    def _data_delete(self, request: Request, name: str) -> None:
        secret = self.secrets.get(name)
        if secret and secret.current in secret.versions:
            secret.versions[secret.current].deleted_s = self.state.clock()

    def _each(self, request: Request, name: str) -> list[_Version]:
        secret = self.secrets.get(name)
        return [secret.versions[n] for n in request.body["versions"] if secret and n in secret.versions]

    def _delete_post(self, request: Request, name: str) -> None:
        for version in self._each(request, name):
            version.deleted_s = version.deleted_s or self.state.clock()

    def _undelete_post(self, request: Request, name: str) -> None:
        for version in self._each(request, name):
            version.deleted_s = 0 if not version.destroyed else version.deleted_s

    def _destroy_post(self, request: Request, name: str) -> None:
        for version in self._each(request, name):
            version.destroyed, version.data = True, None

    def _metadata_get(self, request: Request, name: str) -> Body:
        secret = self.secrets.get(name)
        if secret is None:
            raise failure(404)
        newest = max((v.created_s for v in secret.versions.values()), default=secret.created_s)
        told = {
            "cas_required": secret.cas_required,
            "created_time": stamp(secret.created_s),
            "current_metadata_version": secret.changes,
            "current_version": secret.current,
            "custom_metadata": secret.custom,
            "delete_version_after": "0s",
            "max_versions": secret.max_versions,
            "metadata_cas_required": False,
            "oldest_version": min(secret.versions, default=0) if len(secret.versions) < secret.current else 0,
            "updated_time": stamp(newest),
        }
        return envelope({**told, "versions": {str(n): self._fate(v) for n, v in secret.versions.items()}})

    def _metadata_post(self, request: Request, name: str) -> None:
        secret = self.secrets.setdefault(name, _Secret(created_s=self.state.clock()))
        secret.changes += 1
        secret.max_versions = int(request.body.get("max_versions", secret.max_versions))
        secret.cas_required = bool(request.body.get("cas_required", secret.cas_required))
        if "custom_metadata" in request.body:
            secret.custom = _custom(request.body["custom_metadata"])

    def _metadata_patch(self, request: Request, name: str) -> None:
        secret = self.secrets.get(name)
        if secret is None:
            raise Answer(404)
        merged = {**(secret.custom or {}), **request.body.get("custom_metadata", {})}
        secret.custom = _custom({key: value for key, value in merged.items() if value is not None})
        secret.changes += 1

    def _metadata_delete(self, request: Request, name: str) -> None:
        self.secrets.pop(name, None)


def _custom(given: Mapping[str, object]) -> dict[str, str]:
    if len(given) > 64 or any(not 1 <= len(str(v)) <= 512 or not 1 <= len(k) <= 128 for k, v in given.items()):
        raise failure(400, "custom_metadata validation failed")
    return {key: str(value) for key, value in given.items()}


@dataclass
class KvVersion1:
    """Takes whatever is written as it is, without versions."""

    values: dict[str, Body] = field(default_factory=dict)
    type: ClassVar[str] = "kv"
    options: ClassVar[Mapping[str, str]] = {"version": "1"}

    def answer(self, request: Request, path: str) -> Body | None:
        if request.method == "GET":
            if path not in self.values:
                raise failure(404)
            return envelope(self.values[path])
        self.values[path] = request.body
        return None
