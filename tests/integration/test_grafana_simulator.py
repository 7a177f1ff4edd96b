"""The simulated Grafana answers as the recorded real one did: other ids, other values, each in a world of its own.

`tests/data/grafana-shapes.json` was made from exchanges with a real 12.4.0. It holds names and types of fields, status
codes and Grafana's own texts, and no value; what the simulator answers must be of these shapes, and hold all that our
client reads.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from vaultkeeper.testing import grafana as simulator
from vaultkeeper.testing.grafana import SimulatedGrafana
from vaultkeeper.testing.grafana.state import new_token

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/grafana-shapes.json").read_text())
SITUATIONS: dict[str, dict[str, Any]] = RECORDED["situations"]
READ_BY_US: Mapping[str, set[str]] = {
    "GET /api/user 200": {"login", "uid", "name"},
    "GET /api/users/lookup 200": {"id", "login", "email", "isExternal", "isDisabled"},
    "GET /api/admin/settings 200": {"auth", "security"},
    "GET /api/serviceaccounts/search 200": {"serviceAccounts"},
    "POST /api/serviceaccounts/N/tokens 200": {"id", "key"},
    "GET /api/datasources/uid/U 200": {"uid", "version", "readOnly", "jsonData", "secureJsonFields", "name", "type"},
}
POSTGRES = "grafana-postgresql-datasource"
REFUSED = (
    "failed to connect to `user={user} database={database}`: {url} (127.0.0.1): failed SASL auth: FATAL: password "
    'authentication failed for user "{user}" (SQLSTATE 28P01)'
)
Reply = tuple[int, Any]
Ask = Callable[["World"], Reply]


class World:
    """An admin, a person, a viewing service account with a token, a PostgreSQL and a Prometheus to read."""

    def __init__(self) -> None:
        self.grafana = SimulatedGrafana(log_in=self._log_in, speed=0.0)  # seconds decide here
        self.state = self.grafana.state
        self.admin, self.person = self.state.admin, self.state.user("rosa", "rosa@example.test")
        self.account, self.other = self.state.account("warehouse"), self.state.account("elsewhere", "Editor")
        self.token = self.state.token(self.account, "t one")
        self.right = "right"
        place: dict[str, Any] = {"user": "reader", "database": "warehouse", "url": "127.0.0.1:5999"}
        json_data = {"sslmode": "disable"}
        self.source = self.state.source("db", POSTGRES, {"password": "right"}, jsonData=json_data, **place)
        metrics: dict[str, Any] = {"basicAuth": True, "basicAuthUser": "reader", "url": "http://127.0.0.1:1"}
        self.metrics = self.state.source("m", "prometheus", {"basicAuthPassword": "right"}, **metrics)

    def _log_in(self, row: Mapping[str, Any], secure: Mapping[str, str]) -> str | None:
        if row["type"] == "prometheus":
            right = row["basicAuth"] and secure.get("basicAuthPassword") == self.right
            return None if right else "401 Unauthorized - There was an error returned querying the Prometheus API."
        return None if secure.get("password") == self.right else REFUSED.format_map(row)

    def ask(self, asked: str, body: object = None, *, who: object = None, **headers: str) -> Reply:
        """As any client would. `who`: (name, password), a token, or nobody (False); else the admin."""
        method, _, path = asked.partition(" ")
        sent = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        match who:
            case None:
                sent["Authorization"] = _basic(self.admin.login, self.admin.password)
            case (str(name), str() | bytes() as password):
                sent["Authorization"] = _basic(name, password)
            case str(token):
                sent["Authorization"] = f"Bearer {token}"
        content = None if body is None else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.grafana.port, timeout=60)
        connection.request(method, quote(path, safe="/?=&"), content, sent)
        reply = connection.getresponse()
        raw = reply.read()
        self.cookie = (reply.getheader("Set-Cookie") or "").partition(";")[0]
        connection.close()
        try:
            return reply.status, json.loads(raw) if raw else None
        except ValueError:
            return reply.status, raw.decode()

    # ---------------------------------------------------------------------------------------------- how to get there

    def me(self, who: object = None, **headers: str) -> Reply:
        return self.ask("GET /api/user", who=who, **headers)

    def wrong(self, times: int, name: str = "rosa") -> Reply:
        return [self.me((name, f"wrong {n}")) for n in range(times)][-1]

    def rosa(self, name: str = "rosa") -> Reply:
        return self.me((name, self.person.password))

    def set(self, password: str = "a new one", id_: int | None = None, who: object = None) -> Reply:
        return self.ask(f"PUT /api/admin/users/{id_ or self.person.id}/password", {"password": password}, who=who)

    def change(self, new: str, old: str | None = None, who: object = None) -> Reply:
        asked = who or ("rosa", self.person.password)
        body = {"oldPassword": old if old is not None else self.person.password, "newPassword": new}
        return self.ask("PUT /api/user/password", body, who=asked)

    def form(self, password: str | None = None) -> Reply:
        return self.ask("POST /login", {"user": "rosa", "password": password or self.person.password}, who=False)

    def session(self) -> dict[str, str]:
        self.form()
        return {"Cookie": self.cookie}

    def promote(self) -> World:
        self.person.is_admin = True
        return self

    def setting(self, section: str, key: str, value: str) -> None:
        self.state.settings[section][key] = value

    def anonymous(self) -> World:
        self.setting("auth.anonymous", "enabled", "true")
        return self

    def mint(self, who: object = None, account: int | None = None, **body: object) -> Reply:
        path = f"POST /api/serviceaccounts/{account or self.account.id}/tokens"
        return self.ask(path, {"name": "t two", **body}, who=who)

    def tokens(self, account: int | None = None, **headers: str) -> Reply:
        return self.ask(f"GET /api/serviceaccounts/{account or self.account.id}/tokens", **headers)

    def drop(self, who: object = None, token: int | None = None) -> Reply:
        return self.ask(f"DELETE /api/serviceaccounts/{self.account.id}/tokens/{token or self.token.id}", who=who)

    def expired(self) -> str:
        token = self.state.token(self.account, "t old", 1)
        self.state.advance(2)
        return token.value

    def by(self, role: str, *, edits_itself: bool = False) -> str:
        """A token of an account with that role."""
        account = self.state.account(f"a {role} {len(self.state.accounts)}", role)
        account.edits = {account.id} if edits_itself else set()
        self.account = account
        return self.state.token(account, f"by {role} {account.id}").value

    def put(self, which: str = "source", who: object = None, *, without: tuple[str, ...] = (), **change: Any) -> Reply:
        source = getattr(self, which)
        path, (_, row) = f"/api/datasources/uid/{source.row['uid']}", self.get(which)
        body = {key: value for key, value in {**row, **change}.items() if key not in without}
        return self.ask(f"PUT {path}", body, who=who)

    def put_password(self, password: str, **change: Any) -> Reply:
        return self.put(secureJsonData={"password": password}, **change)

    def get(self, which: str = "source") -> Reply:
        return self.ask(f"GET /api/datasources/uid/{getattr(self, which).row['uid']}")

    def health(self, which: str = "source", *, fresh: bool = True) -> Reply:
        headers = {"X-Grafana-NoCache": "true"} if fresh else {}
        return self.ask(f"GET /api/datasources/uid/{getattr(self, which).row['uid']}/health", **headers)

    def query(self) -> Reply:
        query = {"refId": "A", "datasource": {"uid": self.source.row["uid"]}, "rawSql": "select 1"}
        return self.ask("POST /api/ds/query", {"queries": [query]}, X_Grafana_NoCache="true")

    def at_the_next_second(self) -> World:
        self.state.advance(1)
        return self

    def wrong_in_source(self) -> World:
        self.right = "another"
        return self

    def stale_for_good(self) -> Reply:
        """Two writes within one second, used in between, and a look 30 s later."""
        now = self.state.now()
        self.state.advance(1 - now.microsecond / 1e6)  # a second begins
        for password in ("wrong", "right"):
            self.put_password(password)
            self.health()
        self.state.advance(30)
        return self.health()

    def dropped(self) -> Reply:
        self.health()
        self.source.dropped = True
        return self.health()


def _basic(name: str, password: str | bytes) -> str:
    raw = password if isinstance(password, bytes) else password.encode()
    return f"Basic {base64.b64encode(name.encode() + b':' + raw).decode()}"


def first(*steps: Callable[[World], Any]) -> Ask:
    """The last step's answer."""

    def run(world: World) -> Reply:
        found: Reply = [step(world) for step in steps][-1]
        return found

    return run


def setting(section: str, key: str, value: str) -> Callable[[World], None]:
    return lambda w: w.setting(section, key, value)


BASIC_OFF = setting("auth.basic", "enabled", "false")
FORM_OFF = setting("auth", "disable_login_form", "true")
POLICY = setting("auth.basic", "password_policy", "true")
DAYS = setting("service_accounts", "token_expiration_day_limit", "30")


def database_fails(world: World) -> None:
    world.state.database_fails = True


def umlaut(world: World) -> Reply:
    world.person.password = "pässwort"
    return world.me(("rosa", "pässwort".encode("latin-1")))


def long_one(world: World) -> Reply:
    world.set("x" * 100)
    return world.me(("rosa", "x" * 72))


def reused(world: World) -> Reply:
    world.expired()
    return world.mint(name="t old")


def restarted(world: World) -> Reply:
    world.wrong(5)
    with world.grafana.fault("unreachable"):
        pass
    return world.rosa()


def by_a_second_admin(world: World) -> Reply:
    world.ask(f"PUT /api/admin/users/{world.person.id}/permissions", {"isGrafanaAdmin": True})
    return world.set(id_=world.admin.id, who=("rosa", world.person.password))


def address_blocked(world: World) -> Reply:
    world.setting("security", "disable_ip_address_login_protection", "false")
    for number in range(5):
        world.wrong(1, f"somebody {number}")
    return world.me()


def switched(world: World) -> Reply:
    world.ask(f"POST /api/user/using/{world.state.org('second')}")
    return world.ask("GET /api/serviceaccounts/search?query=warehouse")


def disabled(world: World) -> Reply:
    world.account.disabled = True
    return world.ask("GET /api/org", who=world.token.value)


def raised(world: World) -> Reply:
    who, id_ = world.by("None", edits_itself=True), world.account.id
    return world.ask(f"POST /api/access-control/serviceaccounts/{id_}/users/{id_}", {"permission": "Admin"}, who=who)


def by_an_editor(world: World) -> Reply:
    return world.put(who=world.by("Editor"), secureJsonData={"password": "x"})


def provisioned(world: World) -> World:
    world.source.row["readOnly"] = True
    return world


def successor(world: World) -> Reply:
    who = world.by("Admin")
    world.token = world.state.token(world.account, "predecessor")
    return world.drop(world.mint(who)[1]["key"])


def prefixed(world: World) -> Reply:
    world.state.prefix = "/grafana"
    return world.ask("GET /grafana/api/user")


def search(text: str) -> Ask:
    return lambda w: w.ask(f"GET /api/serviceaccounts/search?query={text}&perpage=10&page=1")


ASK: dict[str, Ask] = {
    "admin-password-03-long-not-truncated": long_one,
    "admin-password-04-ok": World.set,
    "admin-password-05-same-again": first(World.set, World.set),
    "admin-password-06-session-revoked": lambda w: (s := w.session(), w.set(), w.me(False, **s))[-1],
    "admin-password-07-too-short": lambda w: w.set("abc"),
    "admin-password-10-unknown-id": lambda w: w.set(id_=99_999),
    "admin-password-14-own": lambda w: w.set(id_=w.admin.id),
    "admin-password-18-by-admin-role-token": lambda w: w.set(who=w.by("Admin")),
    "admin-password-20-by-second-server-admin": by_a_second_admin,
    "admin-settings-01-excerpt": lambda w: w.ask("GET /api/admin/settings"),
    "admin-settings-02-by-admin-role-token": lambda w: w.ask("GET /api/admin/settings", who=w.by("Admin")),
    "admin-stats-01-server-admin": lambda w: w.ask("GET /api/admin/stats"),
    "admin-user-01-create": lambda w: w.ask("POST /api/admin/users", {"login": "max", "email": "", "password": "four"}),
    "admin-user-03-lookup": lambda w: w.ask("GET /api/users/lookup?loginOrEmail=rosa"),
    "admin-user-05-make-server-admin": lambda w: w.ask(
        f"PUT /api/admin/users/{w.person.id}/permissions", {"isGrafanaAdmin": True}
    ),
    "admin-user-07-auth-tokens-after-login": first(
        World.form, lambda w: w.ask(f"GET /api/admin/users/{w.person.id}/auth-tokens")
    ),
    "admin-user-08-logout": lambda w: w.ask(f"POST /api/admin/users/{w.person.id}/logout"),
    "anon-02-wrong-password-200": lambda w: w.anonymous().ask("GET /api/org", who=("admin", "wrong")),
    "anon-03-wrong-token-200": lambda w: w.anonymous().ask("GET /api/org", who=new_token()),
    "anon-04-wrong-password-api-user": lambda w: w.anonymous().me(("admin", "wrong")),
    "anon-07-wrong-token-api-user": lambda w: w.anonymous().me(new_token()),
    "anon-09-wrong-password-admin-stats": lambda w: w.anonymous().ask("GET /api/admin/stats", who=("admin", "wrong")),
    "anon-11-wrong-password-admin-set": lambda w: w.anonymous().set(who=("admin", "wrong")),
    "anon-12-locked-right-password-falls-to-viewer-200": lambda w: (
        w.anonymous().wrong(5), w.ask("GET /api/org", who=("rosa", w.person.password)),
    )[-1],
    "auth-01-user-right-password": World.me,
    "auth-02-user-wrong-password": lambda w: w.wrong(1),
    "auth-03-user-unknown-user": lambda w: w.wrong(1, "nobody"),
    "auth-04-user-no-credentials": lambda w: w.me(False),
    "auth-05-user-empty-password": lambda w: w.me(("rosa", "")),
    "auth-07-token-bad-checksum": lambda w: w.me(new_token()[:-1] + "g"),
    "auth-08-token-garbage": lambda w: w.me("garbage"),
    "auth-10-umlaut-password-sent-as-latin-1": umlaut,
    "basic-off-01-right-password": first(BASIC_OFF, World.me),
    "basic-off-02-wrong-password": first(BASIC_OFF, lambda w: w.wrong(1)),
    "basic-off-03-form-login": first(BASIC_OFF, lambda w: w.wrong(7), World.form),
    "basic-off-05-admin-set-with-session": lambda w: (
        BASIC_OFF(w), w.promote(),
        w.ask(f"PUT /api/admin/users/{w.person.id}/password", {"password": "four"}, who=False, **w.session()),
    )[-1],
    "ds-01-create-postgres": lambda w: w.ask(
        "POST /api/datasources", {"name": "x", "type": POSTGRES, "url": "h:1", "secureJsonData": {"password": "p"}}
    ),
    "ds-03-get": World.get,
    "ds-07-health-right": World.health,
    "ds-08-query-proof": World.query,
    "ds-09-health-still-ok-from-pool-with-dead-password": first(World.health, World.wrong_in_source, World.health),
    "ds-10-health-wrong-password": first(World.wrong_in_source, World.health),
    "ds-11-query-wrong-password": first(World.wrong_in_source, World.query),
    "ds-12-put-new-password": lambda w: w.put_password("b"),
    "ds-13-health-directly-after-put": first(lambda w: w.put_password("right"), World.health),
    "ds-14-health-nocache-after-put": lambda w: (w.health(), w.at_the_next_second().put_password("b"), w.health())[-1],
    "ds-15-put-without-secureJsonData": World.put,
    "ds-18-put-password-outside-secureJsonData-200": lambda w: w.put(password="b"),
    "ds-19-put-misspelt-secure-key-200": lambda w: w.put(secureJsonData={"passwd": "b"}),
    "ds-21-put-empty-password": lambda w: w.put_password(""),
    "ds-22-get-after-empty-password": first(lambda w: w.put_password(""), World.get),
    "ds-25-put-without-url-refused": lambda w: w.put(without=("url",)),
    "ds-27-put-without-version": lambda w: w.put(without=("version",)),
    "ds-28-put-stale-version": first(World.put, World.put, lambda w: w.put(version=1)),
    "ds-29-put-future-version-accepted": lambda w: w.put(version=77),
    "ds-33-put-by-editor-token": by_an_editor,
    "ds-35-create-prometheus": lambda w: w.ask("POST /api/datasources", {"name": "y", "type": "prometheus"}),
    "ds-36-health-prometheus-right": lambda w: w.health("metrics"),
    "ds-37-health-prometheus-wrong": lambda w: w.wrong_in_source().health("metrics"),
    "ds-38-put-prometheus": lambda w: w.put("metrics", secureJsonData={"basicAuthPassword": "b"}),
    "ds-40-proxy-query-wrong-upstream-password": lambda w: w.wrong_in_source().ask(
        f"GET /api/datasources/proxy/uid/{w.metrics.row['uid']}/api/v1/query?query=1"
    ),
    "ds-43-query-nocache-directly-after-put": first(lambda w: w.put_password("right"), World.query),
    "ds-44-health-ok-directly-after-put-of-wrong-password": lambda w: (
        w.health(fresh=False), w.at_the_next_second().put_password("b"), w.health(fresh=False),
    )[-1],
    "ds-45-two-puts-in-one-second-stale-for-good": World.stale_for_good,
    "ds-46-put-prometheus-leaving-out-basicAuth-200": lambda w: w.put("metrics", without=("basicAuth", "jsonData")),
    "ds-48-health-prometheus-after-that": lambda w: (
        w.at_the_next_second().put("metrics", without=("basicAuth", "jsonData")), w.health("metrics"),
    )[-1],
    "ds-49-health-first-after-backend-terminated": World.dropped,
    "form-off-03-admin-set-refused": first(FORM_OFF, World.set),
    "form-off-04-self-change": first(FORM_OFF, lambda w: w.change("a new one")),
    "health-01-open": lambda w: w.ask("GET /api/health", who=False),
    "health-02-wrong-password-still-200": lambda w: w.ask("GET /api/health", who=("admin", "wrong")),
    "health-04-own-database-login-fails": first(database_fails, lambda w: w.ask("GET /api/health", who=False)),
    "health-05-right-password-while-database-fails-401": first(database_fails, World.me),
    "health-06-live-token-while-database-fails-401": first(database_fails, lambda w: w.me(w.token.value)),
    "legacy-keys-01-list": lambda w: w.ask("GET /api/auth/keys"),
    "limit-01-ttl-0-refused": first(DAYS, World.mint),
    "limit-02-above-maximum-refused": first(DAYS, lambda w: w.mint(secondsToLive=31 * 86_400)),
    "lockout-01-wrong-5": lambda w: w.wrong(5),
    "lockout-02-right-password-while-locked": first(lambda w: w.wrong(5), World.rosa),
    "lockout-03-same-user-by-email": lambda w: (w.wrong(5), w.rosa("rosa@example.test"))[-1],
    "lockout-06-right-after-4-wrong": first(lambda w: w.wrong(4), World.rosa),
    "lockout-08-right-refused-success-did-not-reset": first(
        lambda w: w.wrong(4), World.rosa, lambda w: w.wrong(1), World.rosa
    ),
    "lockout-09-admin-set-clears-lock": first(lambda w: w.wrong(5), World.set),
    "lockout-11-admin-set-does-not-clear-the-email-counter": lambda w: (
        w.wrong(5, "rosa@example.test"), w.set(), w.rosa("rosa@example.test"),
    )[-1],
    "lockout-12-form-failures-count-too": lambda w: ([w.form("wrong") for _ in range(5)], w.rosa())[-1],
    "lockout-13-ip-protection-right-password-other-user": address_blocked,
    "lockout-18-lock-survives-restart": restarted,
    "login-01-form-ok": World.form,
    "login-02-form-wrong": lambda w: w.form("wrong"),
    "org-04-header-foreign-org-token": lambda w: w.ask("GET /api/org", who=w.token.value, X_Grafana_Org_Id="77"),
    "org-08-tokens-of-an-account-of-the-first-org": lambda w: w.tokens(X_Grafana_Org_Id=str(w.state.org("second"))),
    "org-11-user-using-switch": lambda w: w.ask(f"POST /api/user/using/{w.state.org('second')}"),
    "org-13-search-finds-nothing-after-switch": switched,
    "policy-01-self-letters-and-digits-only": first(POLICY, lambda w: w.change("Ab1" * 10)),
    "policy-02-admin-set-letters-and-digits-only": first(POLICY, lambda w: w.set("Ab1" * 10)),
    "policy-04-admin-set-with-dash-ok": first(POLICY, lambda w: w.set("Ab1-" * 8)),
    "prov-01-get-readonly": lambda w: provisioned(w).get(),
    "prov-03-put-readonly-refused": lambda w: provisioned(w).put_password("b"),
    "prov-04-put-editable-provisioned-200": lambda w: w.put_password("b"),
    "prov-07-reload-by-admin-role-token": lambda w: w.ask(
        "POST /api/admin/provisioning/datasources/reload", who=w.by("Admin")
    ),
    "prov-08-reload": lambda w: w.ask("POST /api/admin/provisioning/datasources/reload"),
    "sa-01-create": lambda w: w.ask("POST /api/serviceaccounts", {"name": "new", "role": "Viewer"}),
    "sa-02-create-duplicate-name": lambda w: w.ask("POST /api/serviceaccounts", {"name": "warehouse"}),
    "sa-03-search-by-name": search("ware"),
    "sa-04-search-none": search("nothing"),
    "sa-08-retrieve-unknown": lambda w: w.ask("GET /api/serviceaccounts/99999"),
    "sa-09-disable": lambda w: w.ask(f"PATCH /api/serviceaccounts/{w.account.id}", {"isDisabled": True}),
    "sa-10-token-of-disabled-account": disabled,
    "sa-13-delete": lambda w: w.ask(f"DELETE /api/serviceaccounts/{w.account.id}"),
    "sa-perm-02-give-itself-edit": lambda w: w.ask(
        f"POST /api/access-control/serviceaccounts/{w.account.id}/users/{w.account.id}", {"permission": "Edit"}
    ),
    "sa-perm-04-edit-cannot-raise-itself": raised,
    "self-password-01-wrong-old": lambda w: w.change("a new one", "wrong"),
    "self-password-02-too-short": lambda w: w.change("abc"),
    "self-password-06-ok": lambda w: w.change("a new one"),
    "self-password-08-new-accepted": first(lambda w: w.change("a new one"), World.rosa),
    "self-password-09-old-session-survives": lambda w: (s := w.session(), w.change("a new one"), w.me(False, **s))[-1],
    "self-password-10-repeat-after-success": lambda w: (
        o := w.person.password, w.change("a new one"), w.change("a new one", o),
    )[-1],
    "self-password-14-by-token": lambda w: w.change("a new one", who=w.by("Admin")),
    "subpath-04-put-without-prefix": lambda w: (prefixed(w), w.set())[-1],
    "subpath-05-user-with-prefix": prefixed,
    "token-01-create-no-ttl": World.mint,
    "token-03-create-ttl-3600": lambda w: w.mint(secondsToLive=3600),
    "token-04-create-ttl-negative": lambda w: w.mint(secondsToLive=-1),
    "token-05-duplicate-name": lambda w: w.mint(name="t one"),
    "token-06-duplicate-name-on-another-service-account": lambda w: w.mint(name="t one", account=w.other.id),
    "token-09-unknown-service-account": lambda w: w.mint(account=99_999),
    "token-10-list": World.tokens,
    "token-11-list-unknown-service-account": lambda w: w.tokens(99_999),
    "token-12-use-api-user": lambda w: w.me(w.token.value),
    "token-14-as-basic-password-of-api_key": lambda w: w.ask("GET /api/org", who=("api_key", w.token.value)),
    "token-15-own-permissions-viewer": lambda w: w.ask("GET /api/access-control/user/permissions", who=w.token.value),
    "token-16-list-after-use": lambda w: (w.me(w.token.value), w.tokens())[-1],
    "token-17-expired-used": lambda w: w.ask("GET /api/org", who=w.expired()),
    "token-18-list-expired-still-listed": first(World.expired, World.tokens),
    "token-19-reuse-name-of-expired": reused,
    "token-21-delete": World.drop,
    "token-22-deleted-used-at-once": lambda w: (w.drop(), w.ask("GET /api/org", who=w.token.value))[-1],
    "token-23-delete-again": first(World.drop, World.drop),
    "token-25-mint-by-viewer-token": lambda w: w.mint(w.token.value),
    "token-28-admin-token-mints-its-successor": lambda w: w.mint(w.by("Admin")),
    "token-29-successor-deletes-predecessor": successor,
    "token-34-mint-by-none-token-for-itself": lambda w: w.mint(w.by("None")),
    "token-35-none-role-with-edit-on-itself-mints-its-successor": lambda w: w.mint(w.by("None", edits_itself=True)),
    "token-37-its-permissions": lambda w: w.ask(
        "GET /api/access-control/user/permissions", who=w.by("None", edits_itself=True)
    ),
    "token-38-it-cannot-mint-for-others": lambda w: w.mint(w.by("None", edits_itself=True), w.other.id),
}  # fmt: skip


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.grafana.stop()


def test_every_recorded_situation_is_tried() -> None:
    assert set(ASK) == set(SITUATIONS)


@pytest.mark.parametrize("name", sorted(ASK))
def test_it_answers_as_the_real_one_was_recorded(world: World, name: str) -> None:
    recorded = SITUATIONS[name]
    status, told = ASK[name](world)
    assert status == recorded["status"], told
    which = f"{recorded['asked']} {status}"
    if recorded.get("empty"):
        assert told is None
    elif "text" in recorded:
        assert told == recorded["text"]
    elif recorded.get("none"):
        assert told == []
    else:
        said = recorded.get("said", {})
        assert {key: _text(told[key]) for key in said} == said
        rest = {key: value for key, value in told.items() if key not in said} if isinstance(told, dict) else told
        assert strange(rest, RECORDED["shapes"].get(which, {}), which) == []
        assert set(told if isinstance(told, dict) else told[0]) >= READ_BY_US.get(which, set())


def _text(told: object) -> object:
    """Without what is of this run."""
    return re.sub(r'`[^`]*`|"[^"]*"|\d+\.\d+\.\d+\.\d+(:\d+)?', "…", told) if isinstance(told, str) else told


def strange(told: Any, shape: Any, where: str) -> list[str]:
    """Fields that the real one does not have, or has of another type. What people put in is free."""
    if told is None or shape in (None, []) or where.endswith(("jsonData", "secureJsonFields", "values")):
        return []
    if isinstance(shape, dict):
        if not isinstance(told, dict):
            return [where]
        unknown = [f"{where}.{key}" for key in told if key not in shape]
        return unknown + [s for k, v in told.items() if k in shape for s in strange(v, shape[k], f"{where}.{k}")]
    if isinstance(shape, list):
        return [s for one in told for s in strange(one, shape[0], where)] if isinstance(told, list) else [where]
    kind = "bool" if isinstance(told, bool) else "number" if isinstance(told, int | float) else type(told).__name__
    return [] if kind == shape else [f"{where} is {kind}, not {shape}"]


def test_a_failed_login_counts_for_300_seconds_and_waiting_frees_the_name(world: World) -> None:
    world.wrong(5)
    assert world.rosa()[0] == 401
    world.state.advance(295)
    assert world.rosa()[0] == 401
    world.state.advance(6)
    assert world.rosa()[0] == 200


def test_a_use_within_five_minutes_of_the_last_one_is_not_written_down(world: World) -> None:
    def used() -> str:
        return str(world.tokens()[1][0]["lastUsedAt"])

    world.me(world.token.value)
    once = used()
    world.state.advance(290)
    world.me(world.token.value)
    assert used() == once
    world.state.advance(20)
    world.me(world.token.value)
    assert used() != once


def test_of_many_tokens_300_are_listed(world: World) -> None:
    for number in range(304):
        world.state.token(world.account, f"n {number}")
    assert len(world.tokens()[1]) == 300


def test_a_grant_shows_after_a_minute_or_past_the_cache(world: World) -> None:
    who = world.by("None")
    assert world.mint(who)[0] == 403
    world.account.edits = {world.account.id}
    assert world.mint(who)[0] == 403
    assert world.ask("GET /api/access-control/user/permissions?reloadcache=true", who=who)[0] == 200
    assert world.mint(who)[0] == 200


def test_the_simulator_holds_no_recorded_body() -> None:
    source = "".join(path.read_text() for path in Path(simulator.__file__).parent.glob("*.py"))
    for taken_from_the_real_one in ("grafreader", "vk-ops", "reporting", "lock-a", "dg4ww", "2026-11"):
        assert taken_from_the_real_one not in source
