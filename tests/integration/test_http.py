"""Requests of a policy as a target and as a destination. The contracts run in tests/contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.integration.house_kit import LONG, Client, House, house
from tests.integration.hunter import Hunter
from tests.servers import TestAccount, http, tls
from tests.servers.htpasswd import hashed
from tests.servers.http import ApplicationServer
from tests.servers.http_place import Drawers
from tests.servers.webservers import Nginx
from vaultkeeper.access import request
from vaultkeeper.access.http import Reply
from vaultkeeper.access.pointer import pointed
from vaultkeeper.access.request import Changing
from vaultkeeper.destinations.http import HttpDestination, HttpSettings, Show
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.outcome import Done, Held, Holds, Login, No, NotYet, Prepared, Refused, Unknown
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.policyfile.load import load
from vaultkeeper.ports import Item
from vaultkeeper.registry import Registry
from vaultkeeper.targets.http import HttpTarget
from vaultkeeper.testing.contract.trial import Watch, version

NAMES = ["o'brien", 'a"b', "50%s/../x", "me@example.com?x=1", "Zoë 漢字"]
BREAKING = '"}, "admin": true, {"x": "\\u0022&=%\u2028\n'


@pytest.fixture(scope="module")
def server() -> Iterator[Drawers]:
    started = Drawers()
    yield started
    started.stop()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[House]:
    opened = house(tmp_path)
    yield opened
    opened.close()


def target(settings: Any, **more: object) -> HttpTarget:
    return HttpTarget.open({**{k: v for k, v in settings.items() if k != "strategy"}, **more}, 1)


def held(number: int, password: str = "vk-canary-1", **more: str) -> SecretVersion:
    fields = {name: SecretBytes(value.encode()) for name, value in {"password": password, **more}.items()}
    return version(number, fields, "http", {})


# --------------------------------------------------------------------------------------------------- what answers mean


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, No.VALUE),
        (422, No.VALUE),
        (401, No.PRIVILEGE),
        (403, No.PRIVILEGE),
        (409, No.CONFLICT),
        (507, No.CAPACITY),
        (307, No.UNSUPPORTED),
        (302, Login.UNREACHABLE),
        (429, Login.THROTTLED),
        (202, Login.UNREACHABLE),
        (404, Login.UNREACHABLE),
        (500, Login.UNREACHABLE),
    ],
)
def test_a_status_says_what_became_of_a_change(status: int, answer: object) -> None:
    asked = Changing(http="https://app.example.com/x", body={"p": "{value}"})
    found = request.failure(asked, Reply(status, b"vk-canary-1"), "root")
    assert getattr(found, "why", getattr(found, "reason", None)) is answer
    assert f"app.example.com:443 answered {status} to POST" in found.detail
    assert ("root" in found.detail) is (answer is No.PRIVILEGE)
    assert ("not followed" in found.detail) is (300 <= status < 400)


FAULTS = [
    ("throttled", Login.THROTTLED, Login.THROTTLED, "429"),
    ("busy", Login.THROTTLED, Login.THROTTLED, "503"),
    ("failing", Login.UNREACHABLE, Login.UNREACHABLE, "503"),
    ("redirecting", No.UNSUPPORTED, Login.UNREACHABLE, "redirects are not followed"),
    ("dripping", Login.UNREACHABLE, Login.UNREACHABLE, "did not answer in time"),
]


@pytest.mark.parametrize(("fault", "changed", "login", "text"), FAULTS)
def test_a_server_in_trouble_is_told_from_one_that_refuses(
    server: Drawers, fault: str, changed: object, login: Login, text: str
) -> None:
    name, password = server.user()
    opened, log = target(server.one_password(name)), server.access_log
    ctx = Watch(seconds=1.0 if fault == "dripping" else 20.0)
    with server.fault(fault):
        found = opened.set([held(2, username=name)], [], ctx.context())
        assert opened.test(held(1, password, username=name), ctx.context()) is login
        seen = HttpDestination.open().observe(GroupKey("g"), [item(server.spec({"n": "{password}"}))], ctx.delivery())
    assert isinstance(found, Refused | Unknown)
    assert getattr(found, "why", getattr(found, "reason", None)) is changed
    assert text in found.detail
    waits = {"throttled": 7, "busy": 8}.get(fault)
    assert getattr(found, "retry_after", None) == (timedelta(seconds=waits) if waits else None)
    assert isinstance(seen, Unknown)
    assert "/stolen" not in server.access_log.removeprefix(log)
    assert server.login(name, password)


def test_a_reply_without_an_end_is_cut_and_one_that_is_no_json_says_nothing(server: Drawers) -> None:
    place, ctx = HttpDestination.open(), Watch(seconds=5).delivery()
    shown = [item(server.spec({"n": "{password}"}))]
    with server.fault("huge"):
        cut = place.observe(GroupKey("g"), shown, ctx)
    assert isinstance(cut, Unknown)
    asked = Show(http="https://app.example.com/x", value="/a")
    for body in (b"", b"{", b"[" * 100_000, b"\xff"):
        with pytest.raises(Exception, match="did not answer with JSON"):
            request.document(asked, Reply(200, body))
    with pytest.raises(Exception, match="more than 256 KiB"):
        request.document(asked, Reply(200, b"1" * request.MAX_REPLY_BYTES))


def test_who_may_not_change_anything_is_named(server: Drawers, tmp_path: Path) -> None:
    name, password = server.user()
    file = tmp_path / "password"
    file.write_text(password)
    settings = {**server.one_password(name), "admin": {"username": name, "password": {"file": str(file)}}}
    found = target(settings).set([held(2, username=name)], [], Watch().context())
    assert isinstance(found, Refused)
    assert found.why is No.PRIVILEGE
    assert f"answered 403 to PUT: {name} may not do this" in found.detail
    levels = {finding.level: finding.text for finding in target(settings).check(Watch().context())}
    assert f"answered 403 to {name}" in levels["refuse"]
    short = target(server.one_password(name)).set([held(2, "short", username=name)], [], Watch().context())
    assert isinstance(short, Refused)
    assert short.why is No.VALUE


def test_nothing_is_ended_in_doubt_and_what_works_is_not_sent_again(server: Drawers) -> None:
    account = server.account()
    old, new = held(1, account.password, username=account.username), held(2, username=account.username)
    away: Any = {**account.settings, "set": {"http": "http://127.0.0.1:9/{username}", "body": {"password": "{value}"}}}
    assert isinstance(target(away).set([new], [old], Watch().context()), Unknown)
    assert server.login(account.username, account.password)
    log = server.access_log
    assert target(account.settings).set([old], [new], Watch().context()) == Done()
    asked = [line.rpartition("/")[2] for line in server.access_log.removeprefix(log).splitlines()]
    assert asked == ["login 200", "revoke 204"]


def test_tls_is_verified_for_changes_and_logins_and_its_failure_named(tmp_path: Path) -> None:
    made, folder = tls.issue(), tmp_path / "nginx"
    folder.mkdir()
    nginx = Nginx(folder, made)
    nginx.start()
    try:
        nginx.list("a").write_text(f"app:{hashed('works')}\n")
        (tmp_path / "ca.pem").write_text(made.ca)
        (tmp_path / "other.pem").write_text(tls.issue().ca)
        address = f"https://127.0.0.1:{nginx.port}/a/"
        settings = {
            "user": "app", "set": {"http": address, "body": {"password": "{value}"}},
            "test": {"http": address, "login": "basic"}, "check": {"method": "GET", "http": address},
        }  # fmt: skip
        works, new, ctx = held(1, "works", username="app"), held(2, username="app"), Watch(seconds=60).context()
        assert target(settings, ca=str(tmp_path / "ca.pem")).test(works, ctx) is Login.ACCEPTED
        for ca, why in (("other.pem", "TLS: unable to get local issuer certificate"), ("none", "No such file")):
            untrusting = target(settings, ca=str(tmp_path / ca))
            assert untrusting.test(works, ctx) is Login.UNREACHABLE
            answer = untrusting.set([new], [works], ctx)
            assert isinstance(answer, Unknown)
            assert why in answer.detail
            assert why in next(finding.text for finding in untrusting.check(ctx) if finding.level == "unchecked")
    finally:
        nginx.stop()


def test_a_system_with_one_value_at_a_time_is_noticed_before_anybody_is_cut_off(server: Drawers) -> None:
    name, password = server.user()
    opened, ctx = target(server.one_password(name)), Watch().context()
    old, new = held(1, password, username=name), held(2, username=name)
    found = opened.set([new, old], [], ctx)
    assert isinstance(found, Refused)
    assert found.why is No.UNSUPPORTED
    assert "takes one value at a time: say `strategy: single`" in found.detail
    assert server.login(name, password)
    assert not server.login(name, "vk-canary-1")


# ------------------------------------------------------------------------------------------------- where a value may go


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://169.254.169.254/users/{username}", "metadata"),
        ("http://[fd00:ec2::254]/users/{username}", "metadata"),
        ("http://192.0.2.1/users/{username}", "over plain http to this machine only"),
    ],
)
def test_no_value_is_sent_to_a_metadata_address_or_over_plain_http_to_another_host(url: str, text: str) -> None:
    ours = target({"set": {"http": url, "body": {"p": "{value}"}}, "test": {"http": url, "login": "basic"}})
    tried = held(1, username="shop")
    (finding,) = [finding for finding in ours.check(Watch().context()) if finding.level == "refuse"]
    assert text in finding.text
    for hook in (lambda: ours.set([tried], [], Watch().context()), lambda: ours.test(tried, Watch().context())):
        with pytest.raises(ConfigurationInvalid, match=text):
            hook()


@pytest.mark.parametrize("name", NAMES)
def test_no_name_and_no_value_breaks_out_of_an_address_or_a_body(server: Drawers, name: str) -> None:
    """The service refuses a body with a key too many, and knows nobody by another name."""
    account = server.account(name)
    for number, settings in enumerate((account.settings, server.one_password(name)), 2):
        opened = target(settings)
        value = held(number, BREAKING + str(number), username=name)
        assert opened.set([value], [], Watch().context()) == Done()
        assert server.state()["users"][name][0] == BREAKING + str(number)
        assert opened.test(value, Watch().context()) is Login.ACCEPTED
    assert target(account.settings).set([held(9, username="..")], [], Watch().context()) == Refused(
        No.UNSUPPORTED, f"127.0.0.1:{server.port}: no address can be made with this username"
    )


GOOD = {"http": "https://a.example/u/{username}", "body": {"p": "{value}"}}
LOGIN = {"http": "https://a.example/me", "login": "basic"}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"set": GOOD}, "give `test`"),
        ({"set": {**GOOD, "http": "https://a.example/{password}"}, "test": LOGIN}, "a value belongs into the body"),
        ({"set": {**GOOD, "http": "https://{username}.example/"}, "test": LOGIN}, "only what follows the host"),
        ({"set": {**GOOD, "http": "https://me:pw@a.example/"}, "test": LOGIN}, "a login in it"),
        ({"set": {**GOOD, "body": "p={value}&x=1"}, "test": LOGIN}, "could break out"),
        ({"set": {**GOOD, "body": '{{"p": "{value|json}"}}'}, "test": LOGIN}, "brings its own quotes"),
        ({"set": {**GOOD, "body": {"p": "fixed"}}, "test": LOGIN}, "names the value"),
        ({"set": {**GOOD, "headers": {"Authorization": "x"}}, "test": LOGIN}, "no header to give here"),
        ({"set": GOOD, "test": {"http": "https://a.example/me"}}, "how it shows the value"),
        ({"set": GOOD, "test": LOGIN, "admin": {"username": "root"}}, "expected {username"),
        ({"set": GOOD, "test": LOGIN, "users": ["a", "a"]}, "two different"),
        ({"set": GOOD, "test": LOGIN, "refuse": {"http": "https://a.example/u/{username}"}}, "which value it ends"),
        ({"set": GOOD, "test": LOGIN, "users": ["a", "b"], "refuse": GOOD}, "need no `refuse`"),
        ({"set": GOOD, "test": LOGIN, "user": "a:b"}, "holds no `:`"),
    ],
)
def test_settings_that_cannot_work_or_would_show_a_value_are_refused(settings: Any, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        HttpTarget.open(settings, 1)


@pytest.mark.parametrize("accounts", [{"user": "a"}, {"users": ["a", "b"]}, {}])
@pytest.mark.parametrize("kind", ["http", "command"])
def test_a_value_of_an_account_that_the_policy_does_not_name_is_not_adopted(kind: str, accounts: Any) -> None:
    asked: Any = {"http": {"set": GOOD, "test": LOGIN}, "command": {"set": ["/bin/true"], "test": ["/bin/true"]}}[kind]
    opened, ctx = Registry().target(kind, {**asked, **accounts}, 1), Watch().context()
    ours, theirs = held(1, username="a").fields, held(1, username="c").fields
    assert opened.complete(ours, ctx, adopting=True) == ours
    if not accounts:
        assert opened.complete(theirs, ctx, adopting=True) == theirs
        return
    with pytest.raises(ConfigurationInvalid, match="the value is for c: the policy has a"):
        opened.complete(theirs, ctx, adopting=True)


def test_a_body_of_a_policy_is_no_place_for_references(tmp_path: Path) -> None:
    """`{secret: …}` and `password:` there are names of the other system."""
    body = {"secret": "{value}", "user": {"password": "{password}", "temporary": False, "file": ["{username}"]}}
    policy = {
        "generator": {"kind": "password"}, "grace_period": "1h",
        "target": {"kind": "http", "strategy": "overlap", "set": {**GOOD, "body": body}, "test": LOGIN, "user": "a"},
        "destinations": [{"kind": "file", "path": str(tmp_path / "x"), "read": "per_use"}],
    }  # fmt: skip
    (tmp_path / "p.yaml").write_text(json.dumps({"secrets": {"app/a": policy}}))
    spec = load([tmp_path / "p.yaml"], Registry())["app/a"].target
    assert spec is not None
    fields = {**held(1, username="a").fields, "value": SecretBytes(b"v")}
    sent = HttpTarget.open(spec.settings, 1).settings.set.content(fields)
    assert json.loads(sent or b"") == {
        "secret": "v",
        "user": {"password": "vk-canary-1", "temporary": False, "file": ["a"]},
    }


# ----------------------------------------------------------------------------------------------------------- rotations


def test_a_strategy_that_the_system_cannot_keep_cuts_nobody_off(shop: House, server: Drawers) -> None:
    name, password = server.user()
    shop.secret("app/one", {**server.one_password(name), "strategy": "overlap"}, "http")
    shop.adopt("app/one", TestAccount(name, password))
    shop.delivered_file("app/one").write_text(f"{name} {password}")
    (report,) = shop.rotate("app/one")
    assert report.state == "rolled_back"
    assert report.rotation is not None
    assert "say `strategy: single`" in report.rotation.detail
    assert server.login(*shop.delivered("app/one"))


def test_five_rotations_of_two_secrets_while_clients_log_in(shop: House, server: Drawers) -> None:
    """Two passwords at once, and two accounts that take turns; nothing in the application's log tells a value."""
    turns = http.VARIANTS["alternating"]
    assert turns is not None
    accounts = {"app/several": server.account(), "app/turns": turns(server)}
    for name, account in accounts.items():
        shop.secret(name, account.settings, "http")
        shop.adopt(name, account)
        shop.delivered_file(name).write_text(f"{account.username} {account.password}")
    stranger = server.foreign(accounts["app/several"])
    client = Client(shop, list(accounts), server.login)
    with client.at_work():
        for _ in range(5):
            reports = shop.rotate(*accounts)
            assert [report.exit_code for report in reports] == [0, 0], [report.error for report in reports]
    assert client.turns >= 10
    assert not client.refused
    for name, account in accounts.items():
        shop.settled(name, server.login)
        assert not server.login(account.username, account.password)
    assert server.login(*stranger)
    hunter = Hunter({f"v{v.number}": v.fields["password"].text() for name in accounts for v in shop.stored(name)})
    hunter.look("the access log", server.access_log)
    hunter.look_into("the state directory", shop.wishes.state_dir or Path())
    assert hunter.looked_at["the access log"]
    assert not hunter.hits


def test_a_lost_reply_is_found_out_by_looking(shop: House, server: Drawers) -> None:
    account = server.account()
    shop.secret("app/lost", account.settings, "http")
    shop.adopt("app/lost", account)
    with server.fault("lost-reply"):
        (report,) = rotate(["app/lost"], shop.parts, by_name=True, wait=timedelta(0))
    assert (report.state, report.exit_code) == ("waiting", 5), report
    assert {report.exit_code for report in resume(["app/lost"], shop.parts, wait=LONG)} == {0}
    assert [v.number for v in shop.stored("app/lost")] == [1, 2]
    shop.settled("app/lost", server.login)


# ----------------------------------------------------------------------------------------------------------- the place


def item(spec: DestinationSpec, primary: SecretVersion | None = None, **more: Any) -> Item:
    content = SecretBytes(primary.fields["password"].reveal()) if primary else None
    return Item(Slot(next(iter(spec.values)) or "value"), spec, "a/b", primary, content, **more)


def test_a_place_that_tells_hashes_only_is_compared_and_cannot_put_back_a_strangers_value(server: Drawers) -> None:
    plain = server.spec({"db": "{password}"})
    write: Any = plain.settings["write"]
    hashed = {"http": write["http"].replace("/values/", "/hashes/"), "value": "/sha256", "spelt": "sha256"}
    spec = DestinationSpec("http", plain.values, Read.PER_USE, {**plain.settings, "show": hashed})
    place, ctx, group = HttpDestination(), Watch().delivery(), GroupKey("g")
    first, second = held(1, "vk-canary-1"), held(2, "vk-canary-2")
    assert place.deliver(group, [item(spec, first)], ctx) == Done()
    assert place.observe(group, [item(spec, second, accepted=(second, first))], ctx) == {"db": Held(1)}
    assert place.holds(group, first, item(spec, second, accepted=(second, first)), ctx) is Holds.RUNNING
    assert isinstance(place.read(group, item(spec, second), ctx), Unknown)
    prepared = place.prepare(group, [item(spec, second)], ctx)
    assert isinstance(prepared, Prepared)
    assert place.deliver(group, [item(spec, second)], ctx) == Done()
    answer = place.deliver(group, [item(spec, receipt=prepared.receipts[Slot("db")])], ctx)
    assert isinstance(answer, Refused)
    assert "a hash only" in answer.detail
    assert server.read(plain, "db") == b"vk-canary-2"


def test_a_first_delivery_cannot_go_back_without_remove(server: Drawers) -> None:
    full = server.spec({"db": "{password}"})
    settings = {key: value for key, value in full.settings.items() if key != "remove"}
    spec = DestinationSpec("http", full.values, Read.PER_USE, settings)
    place, ctx, group = HttpDestination(), Watch().delivery(), GroupKey("g")
    prepared = place.prepare(group, [item(spec, held(1))], ctx)
    assert isinstance(prepared, Prepared)
    assert place.deliver(group, [item(spec, held(1))], ctx) == Done()
    back = place.deliver(group, [item(spec, receipt=prepared.receipts[Slot("db")])], ctx)
    assert isinstance(back, Refused)
    assert "the policy has no `remove`" in back.detail
    assert any("without `remove`" in finding.text for finding in place.check(group, [item(spec)], ctx))


def test_a_consumer_is_seen_healthy_after_the_value_changed(server: Drawers) -> None:
    health = {"http": f"{server.url}/nowhere", "accepted": [401]}
    spec = replace(server.spec({"db": "{password}"}, confirm=health), healthy_for=timedelta(hours=1))
    place, ctx, group = HttpDestination(), Watch().delivery(), GroupKey("g")
    assert isinstance(place.confirm(group, [item(spec, held(1))], ctx), NotYet)
    assert place.deliver(group, [item(spec, held(1))], ctx) == Done()
    early = place.confirm(group, [item(spec, held(1))], ctx)
    assert isinstance(early, NotYet)
    assert "told only just now" in early.reason


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"write": {"http": "https://a.example/{value}", "body": "{value}"}}, "an address takes {name}"),
        ({"write": {"http": "https://a.example/x", "body": {"a": "{password}"}}}, "a body takes {name} and {value}"),
        ({"write": {"http": "https://a.example/x"}}, "needs a `body` that names {value}"),
        ({"show": {"http": "https://a.example/x", "value": "data"}}, "expected a JSON pointer"),
        ({"confirm": {"http": "https://a.example/"}}, "`confirm` needs `changed_at`"),
    ],
)
def test_settings_of_a_place_that_cannot_work_are_refused(change: Any, text: str) -> None:
    good = {"write": {"http": "https://a.example/x", "body": "{value}"}, "show": {"http": "https://a.example/x"}}
    HttpSettings.model_validate(good)
    with pytest.raises(ValidationError, match=text):
        HttpSettings.model_validate({**good, **change})


def test_a_json_pointer_is_followed_as_rfc_6901_says() -> None:
    document = {"a/b": {"m~n": ["x", None, "y"]}, "": 1}
    for pointer, found in (
        ("", document), ("/a~1b/m~0n/2", "y"), ("/a~1b/m~0n/1", None), ("/a~1b/m~0n/9", None), ("/", 1), ("/a", None),
        ("/a~1b/m~0n/-1", None), ("/a~1b/x/y", None),
    ):  # fmt: skip
        assert pointed(document, pointer) == found


def test_the_application_is_what_the_tests_take_it_for(server: ApplicationServer) -> None:
    name, password = server.user()
    assert server.login(name, password)
    assert not server.login(name, password + "x")
    assert server.ask("PUT", f"/users/{name}/password", {"password": "x" * 12, "admin": True}) == 422
    assert server.ask("PUT", f"/users/{name}/password", {"password": "x" * 12}, header="") == 401
