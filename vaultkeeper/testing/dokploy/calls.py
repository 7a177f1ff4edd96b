"""Requests to the simulated Dokploy: who may make them, what they need, and the table of what answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vaultkeeper.testing.dokploy.state import Key, Row, Service, State, User

CALLED = {"mysql": "MySql"}
EMPTY = object()  # 200 without a body


class Answer(Exception):
    """A reply that is not the usual one."""

    def __init__(self, status: int, message: str, code: str = "", *, issues: list[Row] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.issues = status, message, code, issues


@dataclass(frozen=True)
class Call:
    """One request, authenticated."""

    state: State
    procedure: str
    user: User
    key: Key
    given: Mapping[str, Any]

    def text(self, name: str) -> str:
        return str(self.given[name])


Procedure = Callable[[Call], Any]
GETS: dict[str, tuple[Procedure, Mapping[str, str]]] = {}
POSTS: dict[str, tuple[Procedure, Mapping[str, str]]] = {}
"""Name → what it does, and its required fields with the word by which a missing one is complained of."""

STRING, NOT_OPTIONAL = "string", "nonoptional"


def procedure(
    table: dict[str, tuple[Procedure, Mapping[str, str]]], procedure_name: str, /, **required: str
) -> Callable[[Procedure], Procedure]:
    """Put what it decorates into a table."""

    def put(made: Procedure) -> Procedure:
        table[procedure_name] = (made, required)
        return made

    return put


def answer(call: Call, *, reads: bool) -> Any:
    """Raises Answer."""
    table = GETS if reads else POSTS
    if call.procedure not in table:
        raise Answer(404, "Not found", "NOT_FOUND")
    found, required = table[call.procedure]
    missing = {name: expected for name, expected in required.items() if name not in call.given}
    if missing:
        raise Answer(
            400,
            "Input validation failed",
            "BAD_REQUEST",
            issues=[
                {"expected": expected, "code": "invalid_type", "path": [name]} for name, expected in missing.items()
            ],
        )
    return found(call)


def service_of(call: Call, kind: str, *, unknown: tuple[int, str, str] | None = None) -> Service:
    """Raises Answer where there is none, or the caller may not see it."""
    found = call.state.services.get(call.text(f"{kind}Id"))
    if found is None or found.kind != kind:
        raise Answer(*(unknown or (404, f"{CALLED.get(kind, kind.title())} not found", "NOT_FOUND")))
    if not call.user.owner and found.id not in call.user.services:
        raise Answer(401, "You don't have access to this service", "UNAUTHORIZED")
    return found


def needs(call: Call, *, allowed: bool, resource: str) -> None:
    """Raises Answer without that right."""
    if not (call.user.owner or allowed):
        raise Answer(401, f'unauthorized to access resource "{resource}"', "UNAUTHORIZED")


def shared(call: Call, table: Mapping[str, Row], name: str, unknown: tuple[int, str, str]) -> Row:
    """A project or environment; a member needs access to something in it."""
    row = table.get(call.text(name))
    if row is None:
        raise Answer(*unknown)
    environments = {e["environmentId"] for e in call.state.environments.values() if e[name] == row[name]}
    inside = (s for s in call.state.services.values() if s.row["environmentId"] in environments)
    if not (call.user.owner or any(seen(call, service) for service in inside)):
        raise Answer(401, "You don't have access to this project", "UNAUTHORIZED")
    return row


def seen(call: Call, service: Service) -> bool:
    """Has the caller access to it?"""
    return call.user.owner or service.id in call.user.services
