"""What holds an environment in Dokploy: applications, Compose services and databases; projects and their environments.

An environment has no version and no lock: it is read, changed and written in one go, then read back. A service's
`saveEnvironment` takes every one of its fields, and a null wipes; so what was just read is sent along unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vaultkeeper.access.answer import refused
from vaultkeeper.access.dokploy import Dokploy, NotDokploy, ProcedureMissing
from vaultkeeper.access.dokploy.env import references
from vaultkeeper.model.outcome import Login, No, Unknown

Database = Literal["postgres", "mysql", "mariadb", "mongo", "redis"]
Kind = Literal["application", "compose", "postgres", "mysql", "mariadb", "mongo", "redis", "project", "environment"]
How = Literal["reload", "redeploy", "deploy", "none"]

DATABASES: tuple[Database, ...] = ("postgres", "mysql", "mariadb", "mongo", "redis")
SHARED: tuple[Kind, ...] = ("project", "environment")
KINDS: tuple[Kind, ...] = ("application", "compose", *DATABASES, *SHARED)
_LISTED = {"application": "applications"}  # in a tree; every other kind is listed under its own name
_ECHOED = {"application": ("buildArgs", "buildSecrets", "createEnvFile"), "compose": ("createEnvFile",)}


@dataclass(frozen=True)
class Holder:
    """One row as Dokploy shows it. It holds every secret of its service."""

    kind: Kind
    id: str
    row: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.row.get('name') or self.id}"

    @property
    def app_name(self) -> str:
        """What its containers are called."""
        return _text(self.row.get("appName"))

    @property
    def env(self) -> str:
        return _text(self.row.get("env"))

    @property
    def environment_env(self) -> str:
        return _text(_inner(self.row, "environment").get("env"))

    @property
    def project_env(self) -> str:
        return _text(_inner(_inner(self.row, "environment"), "project").get("env"))

    @property
    def failed(self) -> bool:
        return self.row.get(f"{'compose' if self.kind == 'compose' else 'application'}Status") == "error"

    @property
    def server(self) -> dict[str, str]:
        """On which of Dokploy's machines its containers run; nothing for Dokploy's own."""
        found = self.row.get("serverId")
        return {"serverId": found} if isinstance(found, str) else {}


def find(server: Dokploy, kind: Kind, said: str) -> str:
    """The id of what a policy names: by id, by `project/environment/name`, an environment by `project/name`.

    A project is looked for by id and by name. Raises Answered where nothing, or more than one thing, is called that.
    """
    if kind != "project" and "/" not in said:
        return said
    if kind == "project":
        found = {
            row["projectId"] for row in _rows(server.get("project.all")) if said in (row["projectId"], row["name"])
        }
    else:
        found = {row[f"{kind}Id"] for path, row in _tree(server, kind) if path == said}
    if len(found) == 1:
        return str(next(iter(found)))
    what = f"{server.host}: {'no' if not found else 'more than one'} {kind} {said!r} can be seen with this key"
    raise refused(No.UNSUPPORTED, what, next=f"give its user access to it, or write `{kind}:` with the id")


def _tree(server: Dokploy, kind: Kind) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for project in _rows(server.get("project.all")):
        for environment in _rows(project.get("environments")):
            above = f"{project['name']}/{environment['name']}"
            if kind == "environment":
                yield above, environment
                continue
            for row in _rows(environment.get(_LISTED.get(kind, kind))):
                yield f"{above}/{row['name']}", row


def read(server: Dokploy, kind: Kind, id_: str) -> Holder:
    """Raises DokployError."""
    row = server.get(f"{kind}.one", **{f"{kind}Id": id_})
    if not isinstance(row, dict) or row.get(f"{kind}Id") != id_:
        what = f"{server.host}: {kind}.one answered with something else than that {kind}"
        raise NotDokploy(Unknown(Login.UNREACHABLE, what), what, next="see what stands between here and Dokploy")
    return Holder(kind, id_, row)


def save(server: Dokploy, holder: Holder, env: str) -> None:
    """Raises DokployError. What it answers proves nothing: read it back."""
    body: dict[str, object] = {f"{holder.kind}Id": holder.id, "env": env}
    if holder.kind in SHARED:
        server.post(f"{holder.kind}.update", body)
        return
    echoed = {name: holder.row[name] for name in _ECHOED.get(holder.kind, ()) if name in holder.row}
    try:
        server.post(f"{holder.kind}.saveEnvironment", {**body, **echoed})
    except ProcedureMissing:
        if holder.kind != "compose":
            raise
        server.post("compose.update", body)  # before v0.29


def apply(server: Dokploy, holder: Holder, how: How, title: str) -> None:
    """Make the service run on what is saved. Raises DokployError; queued ones have only begun when it returns.

    Never called: `rebuild` (deletes a database's volumes), `stop` and `start` (do not apply an environment).
    """
    id_ = {f"{holder.kind}Id": holder.id}
    if how == "reload":
        server.post(f"{holder.kind}.reload", {**id_, "appName": holder.app_name})
    elif how != "none":
        server.post(f"{holder.kind}.{how}", id_ if holder.kind in DATABASES else {**id_, "title": title})


def deployments(server: Dokploy, holder: Holder) -> Sequence[Mapping[str, Any]]:
    """Newest first; about ten are kept, and a waiting one is not among them."""
    if holder.kind == "compose":
        return _rows(server.get("deployment.allByCompose", composeId=holder.id))
    return _rows(server.get("deployment.all", applicationId=holder.id))


def referring(server: Dokploy, shared: Holder, names: Sequence[str]) -> list[Holder]:
    """Every service, of those that this key sees, whose environment refers to one of these shared variables."""
    environments = [shared.row] if shared.kind == "environment" else _rows(shared.row.get("environments"))
    found = []
    for environment in environments:
        for kind in KINDS:
            for row in _rows(environment.get(_LISTED.get(kind, kind))) if kind not in SHARED else ():
                holder = read(server, kind, str(row[f"{kind}Id"]))
                if any(scope == shared.kind and name in names for _, scope, name in references(holder.env)):
                    found.append(holder)
    return found


def _rows(found: object) -> Sequence[Mapping[str, Any]]:
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _inner(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = row.get(name)
    return found if isinstance(found, dict) else {}


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""
