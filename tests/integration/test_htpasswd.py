"""Password files and their real readers, nginx and Prometheus. The contract runs in tests/contract."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.house_kit import Client, House, house
from tests.integration.hunter import Hunter
from tests.servers import ServerMissing, TestAccount, tls
from tests.servers.htpasswd import HtpasswdServer, hashed, start
from tests.servers.webservers import Nginx, asked
from vaultkeeper.access import probe
from vaultkeeper.errors import ConfigurationInvalid, PolicyInvalid
from vaultkeeper.model.outcome import Basis, Done, Login, No, Observation, Refused, Unknown
from vaultkeeper.model.secret import SecretBytes, SecretVersion
from vaultkeeper.ports import Context, Rendered
from vaultkeeper.targets.htpasswd import HtpasswdTarget
from vaultkeeper.testing.contract.trial import Watch, version

NAMES = ["o'brien", 'a"b', "50%s", "me@example.com", "Zoë 漢字", "a, b", "back\\slash", "yes", "1"]


@pytest.fixture(scope="module")
def server() -> Iterator[HtpasswdServer]:
    try:
        started = start()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield started
    started.stop()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[House]:
    opened = house(tmp_path)
    yield opened
    opened.close()


def opened(account: TestAccount, **settings: object) -> HtpasswdTarget:
    given = {key: value for key, value in {**account.settings, **settings}.items() if key != "strategy"}
    return HtpasswdTarget.open({key: value for key, value in given.items() if value is not None}, 1)


def context(current: SecretVersion | None = None, seconds: float = 20) -> Context:
    return Watch(seconds).context(current)


def held(target: HtpasswdTarget, number: int, password: str, **given: str) -> SecretVersion:
    fields = {name: SecretBytes(value.encode()) for name, value in {"password": password, **given}.items()}
    return version(number, target.complete(fields, context(), adopting=False), "htpasswd", {})


def told(findings: Any) -> str:
    return "\n".join(f"{f.level} {f.text} {f.next}" for f in findings)


# ------------------------------------------------------------------------------------------------------------ one call


@pytest.mark.parametrize("name", NAMES)
def test_any_name_that_http_can_carry_is_a_user_of_both_readers(server: HtpasswdServer, name: str) -> None:
    for account in (server.account(name), server.of_prometheus(f'"{name}"' if ":" in name else None)):
        target = opened(account, **({"user": name} if "user" in account.settings else {}))
        server._asked_at[name] = server._asked_at[account.username]
        new = held(target, 2, "new-" + secrets.token_hex(8), username=name)
        assert target.set([new], [], context()) == Done()
        assert target.test(new, context()) is Login.ACCEPTED
        assert server.login(name, new.fields["password"].text())
        assert not server.login(name, "wrong")


@pytest.mark.parametrize("name", ["", "a:b", "#a", " a", "a ", "a\tb", "x" * 256])
def test_a_name_that_no_reader_could_take_is_refused_when_it_is_read(name: str) -> None:
    with pytest.raises(ValueError, match="a user "):
        HtpasswdTarget.Settings.model_validate(
            {"format": "nginx", "path": "/u", "user": name, "probe": {"http": "http://h"}}
        )


def test_only_a_401_is_a_rejection(server: HtpasswdServer) -> None:
    account = server.account()
    base = f"http://127.0.0.1:{server.nginx.port}"
    target = opened(account)
    works = held(target, 1, account.password, username=account.username)
    wrong = held(target, 2, "wrong", username=account.username)
    assert [target.test(each, context()) for each in (works, wrong)] == [Login.ACCEPTED, Login.REJECTED]
    for path, answer in (
        ("/slow/", Login.THROTTLED),
        ("/no-such-list/", Login.UNREACHABLE),
    ):  # 403: the file is missing
        assert opened(account, probe={"http": base + path}).test(works, context()) is answer
    for fault in ("unreachable", "silent"):
        with server.fault(fault):
            assert target.test(works, context(seconds=0.5)) is Login.UNREACHABLE
    assert target.login_key(works) == (
        f"htpasswd:{account.settings['path']}:{account.username}",
        target.login_key(wrong)[1],
    )


def test_one_account_is_not_changed_while_its_reader_is_away_but_goes_back_then(server: HtpasswdServer) -> None:
    account = server.of_prometheus()
    target = opened(account)
    old, new = held(target, 1, account.password), held(target, 2, "new")
    with server.fault("unreachable"):
        answer = target.set([new], [old], context(old))
        assert isinstance(answer, Unknown)
        assert "nothing was changed, because the new value could not be tried" in answer.detail
    assert server.login(account.username, account.password)
    assert target.set([new], [old], context(old)) == Done()
    with server.fault("unreachable"):
        assert target.set([old], [new], context(old)) == Done()
    assert server.login(account.username, account.password)


def test_tls_is_verified_and_its_failure_named(tmp_path: Path) -> None:
    made = tls.issue()
    nginx = Nginx(tmp_path, made)
    nginx.start()
    try:
        path = nginx.list("a")
        path.write_text(f"app:{hashed('works')}\n")
        (tmp_path / "ca.pem").write_text(made.ca)
        (tmp_path / "other.pem").write_text(tls.issue().ca)
        probe = {"http": f"https://127.0.0.1:{nginx.port}/a/", "ca": str(tmp_path / "ca.pem")}
        account = TestAccount("app", "works", {"format": "nginx", "path": str(path), "user": "app", "probe": probe})
        target = opened(account)
        works = held(target, 1, "works")
        assert target.test(works, context()) is Login.ACCEPTED
        assert [finding.level for finding in target.check(context(works))] == ["ok"]
        for ca in (str(tmp_path / "other.pem"), None):
            other = opened(account, probe={key: value for key, value in {**probe, "ca": ca}.items() if value})
            assert other.test(works, context()) is Login.UNREACHABLE
            (finding,) = other.check(context(works))
            assert finding.level == "unchecked"
            assert "cannot be reached: TLS: unable to get local issuer certificate" in finding.text
    finally:
        nginx.stop()


def test_a_login_never_leaves_this_machine_over_plain_http(server: HtpasswdServer) -> None:
    account = server.account()
    target = opened(account, probe={"http": "http://192.0.2.1/"})
    works = held(target, 1, account.password, username=account.username)
    with pytest.raises(ConfigurationInvalid, match="over plain http to this machine only"):
        target.test(works, context(seconds=5))
    assert "over plain http to this machine only" in told(target.check(context(works, seconds=5)))


def test_a_place_that_asks_nobody_is_refused_before_anything_changes(server: HtpasswdServer) -> None:
    account = server.account()
    (finding,) = opened(account, probe={"http": f"http://127.0.0.1:{server.nginx.port}/open/"}).check(context())
    assert finding.level == "refuse"
    assert "lets anybody in" in finding.text
    assert "nginx answers `return` before it asks" in finding.next


def test_no_file_is_left_without_users_and_prometheus_open_to_all(server: HtpasswdServer, tmp_path: Path) -> None:
    account, config = server.of_prometheus(), server.prometheus.web_config
    kept = config.read_text()
    target = opened(account)
    works = held(target, 1, account.password)
    config.write_text(f"basic_auth_users:\n  {account.username}: {hashed(account.password)}\n")
    try:
        answer = target.set([], [works], context())
        assert isinstance(answer, Refused)
        assert (answer.why, "let everybody in" in answer.detail) == (No.UNSUPPORTED, True)
        assert server.login(account.username, account.password)
        config.write_text("basic_auth_users:\n")
        assert asked(server.prometheus.port, "/-/healthy", None) == 200
        (finding,) = target.check(context())
        assert (finding.level, "lets anybody in" in finding.text) == ("refuse", True)
        assert "name a first user in its `basic_auth_users` by hand" in finding.next
        config.write_text("basic_auth_users: {a: b, a: c}\n")
        (finding,) = (f for f in target.check(context()) if f.level == "refuse")
        assert "no YAML that Prometheus reads" in finding.text
        assert str(config) in finding.text
        assert isinstance(target.set([works], [], context()), Refused)
        assert isinstance(target.observe([works], context()), Unknown)
    finally:
        config.write_text(kept)


def test_what_stands_in_the_way_of_a_set_is_named_before_it(server: HtpasswdServer, tmp_path: Path) -> None:
    account = server.account()
    path = Path(str(account.settings["path"]))
    works = held(opened(account), 1, account.password, username=account.username)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "refuse" in told(opened(account, path=str(link)).check(context(works)))
    assert isinstance(opened(account, path=str(link)).set([works], [], context()), Refused)
    assert "refuse owner 'nobody-here'" in told(opened(account, owner="nobody-here").check(context(works)))
    assert "say `owner` and `mode`" in told(opened(account, path=str(tmp_path / "users")).check(context(works)))
    path.write_text(path.read_text() + path.read_text() + f"{account.settings['users'][1]}:x\n")  # type: ignore[index]
    said = told(opened(account).check(context(works)))
    assert f"has {account.username} twice, and nginx takes the first one; the next set leaves a single line" in said
    assert f"{account.settings['users'][1]} can log in today" in said  # type: ignore[index]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"user": None}, "give `user`"),
        ({"users": ["a", "b"]}, "give `user`"),
        ({"user": None, "users": ["a", "a"]}, "two different accounts"),
        ({"format": "traefik"}, "does not look at `usersFile` by itself"),
        ({"path": None, "reload": {"command": ["/bin/true"]}}, "goes with `path`"),
        ({"probe": None}, "give a `probe`"),
        ({"format": "caddy"}, "apache"),
        ({"cost": 31}, "15"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], complaint: str) -> None:
    whole = {"format": "nginx", "path": "/u", "user": "a", "probe": {"http": "http://h"}, **settings}
    with pytest.raises(ValueError, match=complaint):
        HtpasswdTarget.Settings.model_validate({key: value for key, value in whole.items() if value is not None})


def test_a_reader_that_must_be_told_is_told_and_asked_rather_than_its_file(
    server: HtpasswdServer, tmp_path: Path
) -> None:
    account, done = server.account(), tmp_path / "told"
    command = {"command": ["/bin/sh", "-c", f"echo told >> {done}; test ! -e {done}.fails"]}
    target = opened(account, format="traefik", reload=command)
    new = held(target, 2, "new", username=account.username)
    for times in (1, 2):  # again after a crash, although the file is right already
        assert target.set([new], [], context()) == Done()
        assert done.read_text().split() == ["told"] * times
    seen = target.observe([new], context())
    assert isinstance(seen, Observation)
    assert (seen.answers, seen.basis) == ({}, Basis.LOGIN)
    (tmp_path / "told.fails").touch()
    answer = target.set([new], [], context())
    assert isinstance(answer, Unknown)
    assert "its reader was not told" in answer.detail


def test_a_reader_of_another_file_gives_no_answer_at_first_and_is_named_then(
    server: HtpasswdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file that is mounted alone: ours changes, its reader's does not."""
    account, other = server.account(), server.account()
    target = opened(account, path=other.settings["path"])
    new, works = (
        held(target, 2, "new", username=account.username),
        held(target, 1, account.password, username=account.username),
    )
    monkeypatch.setattr(probe, "RELOAD_TIME_S", 3600.0)
    target.set([new], [], context())
    assert target.test(new, context()) is Login.UNREACHABLE
    assert target.test(works, context()) is Login.UNREACHABLE
    monkeypatch.setattr(probe, "RELOAD_TIME_S", 0.0)
    assert target.test(new, context()) is Login.REJECTED
    refused = target.explain(new, Login.REJECTED, context())
    assert f"has {account.username} with this password, and its reader refuses it: does it read this very" in refused
    assert "and its reader still does: does it read this very file?" in target.explain(works, Login.ACCEPTED, context())
    assert target.explain(new, Login.ACCEPTED, context()) == target.explain(new, Login.THROTTLED, context()) == ""
    refusals = [finding.text for finding in target.check(context(new)) if finding.level == "refuse"]
    assert refusals == [refused]
    away = opened(account, path=None)
    assert away.explain(new, Login.REJECTED, context()) == ""
    assert "where `via` says" in away.explain(new, Login.REJECTED, replace(context(), pending=new))


def test_a_value_that_bcrypt_cannot_take_and_a_users_that_is_not_named_are_refused(server: HtpasswdServer) -> None:
    account = server.account()
    target = opened(account)
    for given, complaint in (
        ({"password": "x" * 73, "username": account.username}, "72 bytes"),
        ({"password": "p", "username": "somebody"}, "the value is for somebody"),
        ({"password": "p"}, "needs its username"),
    ):
        fields = {name: SecretBytes(value.encode()) for name, value in given.items()}
        with pytest.raises(ConfigurationInvalid, match=complaint) as caught:
            target.complete(fields, context(), adopting=True)
        assert "xxx" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ whole rotations


def test_a_life_of_two_secrets_in_one_file(
    server: HtpasswdServer, shop: House, caplog: pytest.LogCaptureFixture
) -> None:
    """First rotation, adopted ones, five in a row, back after retirement; foreign lines and no value in any log."""
    caplog.set_level(logging.DEBUG)
    account = server.account()
    path = Path(str(account.settings["path"]))
    mine, yours = account.settings["users"], ["ours-1", "ours-2"]
    for user in yours:
        server._asked_at[user] = server._asked_at[account.username]
    shop.secret("web/mine", account.settings, "htpasswd")
    shop.secret("web/yours", {**account.settings, "users": yours}, "htpasswd")
    shop.adopt("web/mine", account)
    assert "holds no tag of ours" in shop.told("web/mine")
    (first,) = shop.rotate("web/yours")  # nobody is there yet
    assert (first.exit_code, shop.current("web/yours")[0]) == (0, "ours-1")
    for turn in range(5):
        reports = shop.rotate("web/mine", "web/yours")
        assert [(report.state, report.exit_code) for report in reports] == [("done", 0)] * 2, reports
        users = [shop.settled(name, server.login)[0] for name in ("web/mine", "web/yours")]
        assert users == [mine[(turn + 1) % 2], yours[(turn + 1) % 2]]  # type: ignore[index]
        lines = path.read_text().splitlines()
        assert [line.partition(":")[0] for line in lines[:2]] == ["# by hand", "theirs"]
        assert sorted(line.partition(":")[0] for line in lines[2:]) == sorted(users)
    values = {f"v{v.number} of {name}": v.fields["password"].text() for name in shop.secrets for v in shop.stored(name)}
    hunter = Hunter({**values, "adopted": account.password})
    hunter.look("nginx's logs", server.nginx.log_text())
    hunter.look("our log", caplog.text)
    hunter.look_into("the state directory", shop.wishes.state_dir or Path())
    assert hunter.hits == []
    assert min(hunter.looked_at[sink] for sink in ("nginx's logs", "the state directory")) > 1000
    assert "password mismatch" in server.nginx.log_text()
    assert " vaultkeeper" in server.nginx.log_text()  # who asked


def all_is_logged(server: HtpasswdServer) -> None:
    """nginx writes a line after its answer has left, and before it takes the next request."""
    assert asked(server.nginx.port, "/open/", None) == 204


def test_a_rotation_asks_its_reader_five_times_and_is_refused_twice(server: HtpasswdServer, shop: House) -> None:
    account = server.account()
    shop.secret("web/asked", account.settings, "htpasswd")
    shop.adopt("web/asked", account)
    log = server.nginx.folder / "access.log"
    all_is_logged(server)
    before = len(log.read_text())
    (report,) = shop.rotate("web/asked")
    assert report.exit_code == 0, report
    all_is_logged(server)
    asked_for = [line.split() for line in log.read_text()[before:].splitlines() if line.endswith(" vaultkeeper")]
    first, second = (user.rpartition("_")[2] for user in account.settings["users"])  # type: ignore[attr-defined]
    assert [(words[1].rpartition("_")[2], words[5]) for words in asked_for] == [
        ("-", "401"), (first, "200"),  # check: somebody without a login, today's
        (second, "200"), (second, "401"),  # test: the new one, a wrong one
        (first, "401"),  # prove: the old one
    ]  # fmt: skip


def test_prometheus_goes_back_where_a_consumer_cannot_run_on_the_new_value(server: HtpasswdServer, shop: House) -> None:
    account = server.of_prometheus()
    config = server.prometheus.web_config
    shop.secret("prom/scraper", account.settings, "htpasswd")
    shop.adopt("prom/scraper", account)
    others = [line for line in config.read_text().splitlines() if account.username not in line]
    (report,) = shop.rotate("prom/scraper")
    assert report.exit_code == 0, report
    current = shop.settled("prom/scraper", server.login)
    assert not server.login(account.username, account.password)
    assert [line for line in config.read_text().splitlines() if account.username not in line] == others
    (place,), only = shop.secrets["prom/scraper"]["destinations"], shop.home / "what it can run on"
    only.write_text(" ".join(current))
    on_old_only = {"command": ["/usr/bin/cmp", place["path"], str(only)]}
    broken = {**place, "confirm": on_old_only, "timeout": "1s", "healthy_for": "0s"}
    shop.secret("prom/scraper", account.settings, "htpasswd", destinations=[broken])
    (report,) = shop.rotate("prom/scraper")
    assert (report.state, report.exit_code) == ("rolled_back", 5), report
    assert shop.current("prom/scraper") == current
    assert server.login(*current)
    hunter = Hunter({f"v{v.number}": v.fields["password"].text() for v in shop.stored("prom/scraper")})
    hunter.look("Prometheus' log", server.prometheus.log_text())
    assert hunter.hits == []
    assert hunter.looked_at["Prometheus' log"] > 1000


def test_the_file_travels_in_a_destination_and_what_is_not_ours_stays(server: HtpasswdServer, shop: House) -> None:
    account = server.account()
    path = account.settings["path"]
    via = {"kind": "file", "path": path, "read": "per_use"}
    settings = {key: value for key, value in account.settings.items() if key != "path"}
    shop.secret("web/via", {**settings, "via": via}, "htpasswd")
    shop.adopt("web/via", account)
    for _ in range(2):
        (report,) = shop.rotate("web/via")
        assert report.exit_code == 0, report
        user, _ = shop.settled("web/via", server.login)
        lines = Path(str(path)).read_text().splitlines()
        assert [line.partition(":")[0] for line in lines] == ["# by hand", "theirs", user]
    assert isinstance(opened(account, path=None), Rendered)
    line = "{htpasswd}\n{previous.htpasswd|join('\n')}\n"
    shop.secret("web/via", {**settings, "via": {**via, "value": line}}, "htpasswd")
    (report,) = shop.rotate("web/via")
    assert report.exit_code == 0, report
    user, _ = shop.settled("web/via", server.login)
    assert [line.partition(":")[0] for line in Path(str(path)).read_text().split()] == [user]
    in_swarm = {"kind": "swarm", "secret": "users", "services": ["proxy"]}
    shop.secret("web/via", {**settings, "via": in_swarm}, "htpasswd")
    assert "warn swarm does not show what it holds: entries of this htpasswd that are not ours" in shop.told("web/via")
    with pytest.raises(PolicyInvalid, match=r"alternating_users keep the old value accepted"):
        shop.secret("web/via", {**settings, "via": {**via, "value": "{htpasswd}"}}, "htpasswd")


def test_a_client_that_reconnects_all_the_time_is_never_refused(server: HtpasswdServer, shop: House) -> None:
    account = server.account()
    shop.secret("web/proxy", account.settings, "htpasswd")
    shop.adopt("web/proxy", account)
    shop.delivered_file("web/proxy").write_text(f"{account.username} {account.password}")
    client = Client(shop, ["web/proxy"], server.login)
    with client.at_work():
        for _ in range(20):
            (report,) = shop.rotate("web/proxy")
            assert report.exit_code == 0, report
    assert client.refused == []
    assert client.turns >= 40
