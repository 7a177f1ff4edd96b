"""Service accounts and their tokens, as the simulated Grafana answers about them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from vaultkeeper.testing.grafana.calls import Answer, Call, route, told
from vaultkeeper.testing.grafana.state import ServiceAccount, State, Token

MOST_LISTED = 300
ROLES = ("None", "Viewer", "Editor", "Admin")


def _account(call: Call, action: str) -> ServiceAccount:
    """Raises Answer. A path names it by id or by uid."""
    wanted = call.parts["id"]
    found = next((a for a in call.state.accounts.values() if wanted in (str(a.id), a.uid)), None)
    call.needs(action, found.id if found else None)
    if found is None or found.org != call.caller.org:
        raise told(404, "service account not found", "serviceaccounts.ErrNotFound")
    return found


def _shown(state: State, account: ServiceAccount) -> dict[str, Any]:
    held = sum(token.account == account.id for token in state.tokens.values())
    return {
        "id": account.id,
        "uid": account.uid,
        "name": account.name,
        "login": f"sa-{account.org}-{account.name}",
        "orgId": account.org,
        "isDisabled": account.disabled,
        "role": account.role,
        "tokens": held,
        "avatarUrl": "",
    }


@route("POST", "/api/serviceaccounts")
def _create(call: Call) -> Any:
    call.needs("serviceaccounts:create")
    name, state = str(call.given.get("name", "")), call.state
    if any(account.name == name and account.org == call.caller.org for account in state.accounts.values()):
        raise told(400, "service account already exists", "serviceaccounts.ErrAlreadyExists")
    made = state.account(name, str(call.given.get("role", "Viewer")), call.caller.org)
    raise Answer(201, _shown(state, made))


@route("GET", "/api/serviceaccounts/search")
def _search(call: Call) -> Any:
    """Of what the caller may read; elsewhere than in its organisation it finds nothing, and says 200.

    Who may read none at all is refused.
    """
    if not any(call.may("serviceaccounts:read", account.id) for account in call.state.accounts.values()):
        call.needs("serviceaccounts:read")
    query, size, page = (call.query.get(key, "") for key in ("query", "perpage", "page"))
    per_page, number = int(size or 1000), int(page or 1)
    found = [
        _shown(call.state, account)
        for account in call.state.accounts.values()
        if query.lower() in account.name.lower()
        and account.org == call.caller.org
        and call.may("serviceaccounts:read", account.id)
    ]
    rows = found[(number - 1) * per_page : number * per_page]
    return {"totalCount": len(found), "serviceAccounts": rows, "page": number, "perPage": per_page}


@route("GET", "/api/serviceaccounts/{id}")
def _retrieve(call: Call) -> Any:
    return _shown(call.state, _account(call, "serviceaccounts:read"))


@route("PATCH", "/api/serviceaccounts/{id}")
def _change(call: Call) -> Any:
    account = _account(call, "serviceaccounts:write")
    account.disabled = bool(call.given.get("isDisabled", account.disabled))
    shown = _shown(call.state, account) | {"createdAt": call.state.stamp(), "updatedAt": call.state.stamp()}
    shown.pop("tokens")
    told_ = {"id": account.id, "message": "Service account updated", "name": account.name}
    return {**told_, "serviceaccount": {**shown, "teams": None}}


@route("DELETE", "/api/serviceaccounts/{id}")
def _remove(call: Call) -> Any:
    account, state = _account(call, "serviceaccounts:delete"), call.state
    del state.accounts[account.id]
    state.tokens = {id_: token for id_, token in state.tokens.items() if token.account != account.id}
    return {"message": "Service account deleted"}


@route("POST", "/api/access-control/serviceaccounts/{id}/users/{user}")
def _grant(call: Call) -> Any:
    account = _account(call, "serviceaccounts.permissions:write")
    to = call.state.accounts.get(call.number("user"))
    if to is not None:
        to.edits |= {account.id}
    return {"message": "Permission updated"}


@route("GET", "/api/access-control/user/permissions")
def _permissions(call: Call) -> Any:
    fresh = call.query.get("reloadcache") == "true"
    found: dict[str, list[str]] = {}
    for action, scopes in _by_role(call.caller.role).items():
        found[action] = list(scopes)
    account = call.caller.account
    for edited in sorted(call.state.edits_of(account, fresh=fresh)) if account is not None else ():
        for action in ("serviceaccounts:read", "serviceaccounts:write"):
            found.setdefault(action, []).append(f"serviceaccounts:id:{edited}")
    if call.caller.user is not None and call.caller.user.is_admin:
        found |= {"users.password:write": ["global.users:*"], "users:read": ["global.users:*"], "settings:read": [""]}
    return found


def _by_role(role: str) -> dict[str, list[str]]:
    if role == "None":
        return {"folders:read": ["folders:uid:sharedwithme"]}
    found = {"datasources:read": ["datasources:*"], "datasources:query": ["datasources:*"], "orgs:read": [""]}
    if role == "Admin":
        found |= {"datasources:write": ["datasources:*"], "serviceaccounts:read": ["serviceaccounts:*"]}
        found |= {"serviceaccounts:write": ["serviceaccounts:*"], "serviceaccounts:create": [""]}
    return found


# --------------------------------------------------------------------------------------------------------------- tokens


@route("GET", "/api/serviceaccounts/{id}/tokens")
def _list(call: Call) -> Any:
    """An account that does not exist, or not here, has an empty list. By name, and not all of many."""
    id_ = call.number("id")
    call.needs("serviceaccounts:read", id_)
    account = call.state.accounts.get(id_)
    if account is None or account.org != call.caller.org:
        return []
    held = sorted((t for t in call.state.tokens.values() if t.account == id_), key=lambda token: token.name)
    return [_listed(call.state, token) for token in held[:MOST_LISTED]]


def _listed(state: State, token: Token) -> dict[str, Any]:
    left = (token.expires - state.now()).total_seconds() if token.expires else 0
    return {
        "id": token.id,
        "name": token.name,
        "created": state.stamp(token.created),
        "lastUsedAt": state.stamp(token.used_at) if token.used_at else None,
        "expiration": state.stamp(token.expires) if token.expires else None,
        "secondsUntilExpiration": max(left, 0),
        "hasExpired": token.expires is not None and left <= 0,
        "isRevoked": False,
    }


@route("POST", "/api/serviceaccounts/{id}/tokens")
def _mint(call: Call) -> Any:
    account, state, name = _account(call, "serviceaccounts:write"), call.state, str(call.given.get("name", ""))
    seconds = int(call.given.get("secondsToLive") or 0)
    if seconds < 0:
        raise told(400, "invalid SecondsToLive value", "serviceaccounts.ErrInvalidInput")
    days = int(state.settings["service_accounts"]["token_expiration_day_limit"])
    if days > 0 and seconds == 0:
        limit = "service_accounts.token_expiration_day_limit"
        raise told(400, f"Cannot create token with no expiration date when {limit} is set")
    if days > 0 and timedelta(seconds=seconds) > timedelta(days=days):
        text = "The expiration date input exceeds the limit for service account access tokens expiration date"
        raise Answer(400, text)
    here = {id_ for id_, other in state.accounts.items() if other.org == account.org}
    if any(token.name == name and token.account in here for token in state.tokens.values()):
        text = "service account token with given name already exists in the organization"
        raise told(400, text, "serviceaccounts.ErrTokenAlreadyExists")
    made = state.token(account, name, seconds or None)
    return {"id": made.id, "name": made.name, "key": made.value}


@route("DELETE", "/api/serviceaccounts/{id}/tokens/{token}")
def _delete(call: Call) -> Any:
    account = _account(call, "serviceaccounts:write")
    found = call.state.tokens.get(call.number("token"))
    if found is None or found.account != account.id:
        raise told(404, "service account token not found", "serviceaccounts.ErrTokenNotFound")
    del call.state.tokens[found.id]
    return {"message": "Service account token deleted"}
