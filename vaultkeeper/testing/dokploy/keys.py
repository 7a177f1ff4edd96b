"""API keys and settings of the simulated Dokploy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from vaultkeeper.testing.dokploy.calls import GETS, POSTS, STRING, Answer, Call, procedure

VERSION = "v0.30.2"


@procedure(GETS, "settings.getDokployVersion")
def _version(_call: Call) -> Any:
    return VERSION


@procedure(GETS, "user.get")
def _user(call: Call) -> Any:
    keys = [
        {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "enabled": key.enabled,
            "expiresAt": _stamp(key.expires_at),
            "createdAt": call.state.stamp(),
        }
        for key in call.state.keys.values()
        if key.user == call.user.id
    ]
    role = "owner" if call.user.owner else "member"
    shown = {"organizationId": call.user.organization, "userId": call.user.id, "role": role}
    return {**shown, "user": {"id": call.user.id, "apiKeys": keys}}


def _stamp(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


@procedure(POSTS, "user.createApiKey", name=STRING, metadata="object")
def _create_key(call: Call) -> Any:
    given, name = call.given, call.text("name")
    if len(name) > 32:
        raise Answer(400, "Input validation failed", "BAD_REQUEST", issues=[{"code": "too_big", "path": ["name"]}])
    if given["metadata"].get("organizationId") != call.user.organization:
        raise Answer(403, "You are not a member of this organization", "FORBIDDEN")
    seconds = given.get("expiresIn")
    if seconds is not None and seconds < 86400:
        text = "The expiresIn is smaller than the predefined minimum value."
        raise Answer(500, text, "INTERNAL_SERVER_ERROR")
    if seconds is not None and seconds > 365 * 86400:
        text = "The expiresIn is larger than the predefined maximum value."
        raise Answer(500, text, "INTERNAL_SERVER_ERROR")
    limited = bool(given.get("rateLimitEnabled", True))
    made = call.state.key(call.user, name, limited=limited, prefix=given.get("prefix"))
    made.expires_at = datetime.now(UTC) + timedelta(seconds=seconds) if seconds is not None else None
    return {
        "id": made.id,
        "name": made.name,
        "start": made.value[:6],
        "referenceId": made.user,
        "prefix": made.prefix,
        "key": made.value,
        "enabled": True,
        "rateLimitEnabled": limited,
        "rateLimitMax": 10,
        "requestCount": 0,
        "expiresAt": _stamp(made.expires_at),
        "createdAt": call.state.stamp(),
    }


@procedure(POSTS, "user.deleteApiKey", apiKeyId=STRING)
def _delete_key(call: Call) -> Any:
    found = call.state.keys.get(call.text("apiKeyId"))
    if found is None or found.user != call.user.id:
        raise Answer(404, "API key not found", "NOT_FOUND")
    del call.state.keys[found.id]
    return True
