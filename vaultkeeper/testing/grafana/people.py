"""Users, logins and Grafana's own settings, as the simulated Grafana answers about them."""

from __future__ import annotations

import secrets
import string
from typing import Any

from vaultkeeper.testing.grafana.calls import Answer, Call, by_password, route, told
from vaultkeeper.testing.grafana.state import State, User

SHORTEST = 4  # bytes


@route("GET", "/api/user")
def _myself(call: Call) -> Any:
    caller = call.caller
    if caller.user is not None:
        shown = {**_user(call.state, caller.user), "orgId": caller.org}
        return {**shown, "avatarUrl": f"{call.state.prefix}/public/img/user_profile.png"}
    account = caller.account
    if account is None:
        raise Answer(401, {"message": "Unauthorized"})
    login = f"sa-{account.org}-{account.name}"
    plain = User(0, login, login, "", is_admin=False, roles={})
    shown = _user(call.state, plain) | {"uid": f"service-account:{account.id}", "name": account.name}
    never = "0001-01-01T00:00:00Z"
    return shown | {"orgId": account.org, "authLabels": None, "updatedAt": never, "createdAt": never}


def _user(state: State, user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "uid": user.uid,
        "email": user.email,
        "name": user.login,
        "login": user.login,
        "theme": "",
        "orgId": user.using,
        "isGrafanaAdmin": user.is_admin,
        "isDisabled": user.disabled,
        "isExternal": user.external,
        "isExternallySynced": False,
        "isGrafanaAdminExternallySynced": False,
        "authLabels": ["LDAP"] if user.external else [],
        "updatedAt": state.stamp(),
        "createdAt": state.stamp(),
        "avatarUrl": "",
        "isProvisioned": False,
    }


@route("PUT", "/api/user/password")
def _change_own(call: Call) -> Any:
    user = call.caller.user
    if user is None:
        raise Answer(304, None)  # a token: nothing is done, and it sounds like success
    new = str(call.given.get("newPassword", ""))
    if call.given.get("oldPassword") != user.password:
        raise told(400, "Invalid old password", "user.password-missmatch")
    if len(new.encode()) < SHORTEST:
        raise told(400, "New password is too short", "password.password-policy-too-short")
    if not _keeps_the_policy(call.state, new):
        text = "New password doesn't comply with the password policy"
        raise told(400, text, "password.password-policy-infringe")
    user.password = new
    return {"message": "User password changed"}


def _keeps_the_policy(state: State, password: str) -> bool:
    if not state.says("auth.basic", "password_policy"):
        return True
    classes = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
    mixed = all(any(character in members for character in password) for members in classes)
    return len(password) >= 12 and mixed and not password.isalnum()


@route("POST", "/api/user/using/{org}")
def _use(call: Call) -> Any:
    if call.caller.user is not None:
        call.caller.user.using = call.number("org")
    return {"message": "Active organization changed"}


@route("GET", "/api/org")
def _org(call: Call) -> Any:
    call.needs("orgs:read")
    lines = ("address1", "address2", "city", "zipCode", "state", "country")
    name = call.state.orgs[call.caller.org]
    return {"id": call.caller.org, "name": name, "address": dict.fromkeys(lines, "")}


def log_in_by_form(state: State, given: Any) -> Any:
    """`POST /login`. Raises Answer."""
    try:
        user = by_password(state, str(given.get("user", "")), str(given.get("password", "")))
    except Answer as refused:
        kept = {name: refused.body[name] for name in ("statusCode", "messageId", "message")}  # type: ignore[index]
        raise Answer(401, kept) from None
    session = secrets.token_hex(16)
    user.sessions[session] = state.now()
    cookie = f"grafana_session={session}; Path=/; HttpOnly; SameSite=Lax"
    raise Answer(200, {"message": "Logged in", "redirectUrl": "/"}, set_cookie=cookie)


# ----------------------------------------------------------------------------------------------------------- for admins


def _chosen(call: Call) -> User | None:
    return call.state.users.get(call.number("id"))


@route("GET", "/api/users/lookup")
def _look_up(call: Call) -> Any:
    call.needs("users:read")
    found = call.state.called(call.query.get("loginOrEmail", ""))
    if found is None:
        raise told(404, "user not found", "user.notFound")
    return _user(call.state, found)


@route("POST", "/api/admin/users")
def _create(call: Call) -> Any:
    call.needs("users:create")
    given = {name: str(call.given.get(name, "")) for name in ("login", "email", "password")}
    if call.state.called(given["login"]) is not None:
        raise told(412, f"User with email '{given['email']}' or username '{given['login']}' already exists")
    made = call.state.user(given["login"] or given["email"], given["email"])
    made.password = given["password"]
    return {"id": made.id, "uid": made.uid, "message": "User created"}


@route("DELETE", "/api/admin/users/{id}")
def _delete(call: Call) -> Any:
    call.needs("users:create")
    call.state.users.pop(call.number("id"), None)
    return {"message": "User deleted"}


@route("PUT", "/api/admin/users/{id}/password")
def _set_password(call: Call) -> Any:
    """Whatever is wrong with the password or the user is told 500."""
    call.needs("users.password:write")
    if call.state.says("auth", "disable_login_form"):
        raise told(403, "Not allowed to reset password when login form is disabled")
    new = str(call.given.get("password", ""))
    if not new:
        raise told(400, "bad request data")
    user = _chosen(call)
    if user is None or len(new.encode()) < SHORTEST or not _keeps_the_policy(call.state, new):
        raise told(500, "Failed to update user password")
    user.password = new
    user.sessions.clear()
    call.state.failures.pop(user.login.lower(), None)
    return {"message": "User password updated"}


@route("PUT", "/api/admin/users/{id}/permissions")
def _set_permissions(call: Call) -> Any:
    call.needs("users.permissions:write")
    user = _chosen(call)
    if user is None:
        raise told(404, "user not found", "user.notFound")
    user.is_admin = bool(call.given.get("isGrafanaAdmin"))
    return {"message": "User permissions updated"}


@route("PATCH", "/api/org/users/{id}")
def _set_role(call: Call) -> Any:
    call.needs("users.permissions:write")
    user = _chosen(call)
    if user is None:
        raise told(404, "user not found", "user.notFound")
    user.roles[call.caller.org] = str(call.given["role"])
    return {"message": "Organization user updated"}


@route("GET", "/api/admin/users/{id}/auth-tokens")
def _sessions(call: Call) -> Any:
    call.needs("users.authtoken:read")
    user = _chosen(call)
    return [
        {
            "id": number,
            "isActive": False,
            "clientIp": "127.0.0.1",
            **dict.fromkeys(("device", "os", "browser"), "Other"),
            **dict.fromkeys(("osVersion", "browserVersion", "authModule"), ""),
            **dict.fromkeys(("createdAt", "seenAt"), call.state.stamp(at)),
        }
        for number, at in enumerate(user.sessions.values() if user else (), 1)
    ]


@route("POST", "/api/admin/users/{id}/logout")
def _log_out(call: Call) -> Any:
    call.needs("users:logout")
    user = _chosen(call)
    if user is not None:
        user.sessions.clear()
    return {"message": "User logged out"}


@route("GET", "/api/admin/settings")
def _settings(call: Call) -> Any:
    call.needs("settings:read")
    shown = {section: dict(values) for section, values in call.state.settings.items()}
    shown["auth.basic"]["password_policy"] = "*********"
    shown["security"]["admin_password"] = "*********"
    return shown


@route("GET", "/api/admin/stats")
def _stats(call: Call) -> Any:
    call.needs("server.stats:read")
    return {"orgs": len(call.state.orgs), "users": len(call.state.users), "datasources": len(call.state.sources)}


@route("POST", "/api/admin/provisioning/datasources/reload")
def _reload(call: Call) -> Any:
    call.needs("provisioning:reload")
    return {"message": "Datasources config reloaded"}
