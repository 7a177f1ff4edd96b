"""Programs of a user's as a target and as a place. The contracts run in tests/contract."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.integration.house_kit import LONG, Client, House, house
from tests.integration.hunter import CALLS, Hunter
from tests.servers import TestAccount
from tests.servers.command import LegacyServer
from tests.servers.command_place import OwnVault
from vaultkeeper.destinations.command import CommandDestination
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.model.outcome import Basis, Done, Held, Login, No, Observation, Prepared, Refused, Unknown, Usage
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import Item
from vaultkeeper.targets.command import CommandTarget
from vaultkeeper.testing.contract.trial import Watch, version

NAMES = ["o'brien", 'a"b', "50%s", "me@example.com", "Zoë 漢字", "-rf", "$(reboot)"]


@pytest.fixture
def server() -> Iterator[LegacyServer]:
    started = LegacyServer()
    yield started
    started.stop()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[House]:
    opened = house(tmp_path)
    yield opened
    opened.close()


def program(folder: Path, code: int, *, says: str = "", prints: str = "", name: str = "hook") -> list[str]:
    """One that ends so."""
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat >/dev/null\nprintf %s '{prints}'\nprintf %s '{says}' >&2\nexit {code}\n")
    path.chmod(0o755)
    return [str(path)]


def target(**settings: object) -> CommandTarget:
    return CommandTarget.open(settings, 1)


def held(number: int, password: str = "vk-canary-1", **more: str) -> SecretVersion:
    fields = {name: SecretBytes(value.encode()) for name, value in {"password": password, **more}.items()}
    return version(number, fields, "command", {})


# ------------------------------------------------------------------------------------------------------- the target


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (0, Done),
        (64, No.UNSUPPORTED),
        (65, No.VALUE),
        (73, No.CAPACITY),
        (77, No.PRIVILEGE),
        (75, Login.THROTTLED),
        (1, Login.UNREACHABLE),
        (127, Login.UNREACHABLE),
    ],
)
def test_an_exit_code_says_what_became_of_a_change(tmp_path: Path, code: int, answer: object) -> None:
    argv = program(tmp_path, code, says="no such user: vk-canary-1")
    found = target(set=argv, test=argv).set([held(1)], [], Watch().context())
    assert getattr(found, "why", getattr(found, "reason", type(found))) is answer
    assert "vk-canary-1" not in repr(found)
    if code:
        assert f"exited {code}: no such user" in getattr(found, "detail", "")


@pytest.mark.parametrize(
    ("code", "answer"),
    [(0, Login.ACCEPTED), (1, Login.REJECTED), (75, Login.THROTTLED), (2, Login.UNREACHABLE), (77, Login.UNREACHABLE)],
)
def test_an_exit_code_says_what_became_of_a_login(tmp_path: Path, code: int, answer: Login) -> None:
    argv = program(tmp_path, code)
    assert target(set=argv, test=argv).test(held(1), Watch().context()) is answer


@pytest.mark.parametrize("prints", ["", "[1]", "{", '{"accepted": 9}', '{"accepted": null}', "x" * 300_000])
def test_an_observation_that_cannot_be_read_concludes_nothing(tmp_path: Path, prints: str) -> None:
    argv = program(tmp_path, 0, prints=prints)
    found = target(set=argv, test=argv, observe=argv).observe([held(1)], Watch().context())
    assert isinstance(found, Unknown)
    assert prints not in found.detail or not prints


def test_observe_may_tell_by_list_or_leave_it_to_a_login(tmp_path: Path) -> None:
    argv = program(tmp_path, 0, prints='{"accepted": [2], "foreign": 1}')
    found = target(set=argv, test=argv, observe=argv).observe([held(1), held(2)], Watch().context())
    assert found == Observation({1: Login.REJECTED, 2: Login.ACCEPTED}, Basis.LISTING, foreign=1)
    assert target(set=argv, test=argv).observe([held(1)], Watch().context()) == Observation({}, Basis.LOGIN)
    assert target(set=argv, verify="none").observe([held(1)], Watch().context()) == Observation({}, Basis.NONE)


def test_what_the_programs_say_of_use_and_of_themselves(tmp_path: Path) -> None:
    good = program(tmp_path, 0, prints='{"in_use": true, "holders": ["3 sessions"]}', name="good")
    opened = target(set=good, test=good, usage=good, check=good)
    moment = held(1).created_at
    assert opened.usage(held(1), moment, Watch().context()) == Usage(True, ("3 sessions",))
    assert target(set=good, test=good).usage(held(1), moment, Watch().context()) == Usage(None)
    assert [finding.level for finding in opened.check(Watch().context())] == ["ok"]
    bad = program(tmp_path, 77, says="I am not root", name="bad")
    (refused,) = target(set=good, test=good, check=bad).check(Watch().context())
    assert (refused.level, refused.text) == ("refuse", f"{bad[0]} exited 77: I am not root")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda path: path.unlink(), "cannot be run: No such file"),
        (lambda path: path.chmod(0o644), "is no program"),
        (lambda path: path.chmod(0o757), "everybody may write to"),
        (lambda path: path.parent.chmod(0o777), "put another program at"),
    ],
)
def test_a_program_that_cannot_be_trusted_is_refused_before_anything(tmp_path: Path, change: Any, text: str) -> None:
    argv = program(tmp_path, 0)
    change(Path(argv[0]))
    (finding, *_) = target(set=argv, test=argv).check(Watch().context())
    assert finding.level == "refuse"
    assert text in finding.text


def test_a_program_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path, server: LegacyServer) -> None:
    path = tmp_path / "hook"
    path.write_text(f"#!/bin/sh\nsleep 600 &\necho $! >{tmp_path}/new\nmv {tmp_path}/new {tmp_path}/child\nwait\n")
    path.chmod(0o755)
    found: object = None
    for seconds in (1, 10, 100):  # in a second a machine that stalls starts nothing that could be killed
        if not (tmp_path / "child").exists():
            found = target(set=[str(path)], verify="none").set([held(1)], [], Watch(seconds=seconds).context())
    assert isinstance(found, Unknown)
    assert "did not end in time" in found.detail
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "cmdline")
    with suppress(FileNotFoundError, ProcessLookupError):
        while b"sleep" in child.read_bytes():  # killed already; its end may take a moment
            time.sleep(0.01)


ONE_PLACE = """\
#!/bin/sh
# Knows one password, whatever else it is told to accept: the first that the document names.
said=$(grep -o '"password": "[^"]*"' | head -n 1)
case $1 in
  set) printf %s "$said" > {kept} ;;
  test) test "$said" = "$(cat {kept})" ;;
esac
"""


def test_a_program_that_keeps_one_value_only_is_noticed_before_anybody_is_cut_off(tmp_path: Path, shop: House) -> None:
    path, kept = tmp_path / "one-place", tmp_path / "kept"
    path.write_text(ONE_PLACE.format(kept=kept))
    path.chmod(0o755)
    kept.write_text('"password": "vk-canary-1"')
    argv = {"set": [str(path), "set"], "test": [str(path), "test"]}
    shop.secret("app/one", {**argv, "strategy": "overlap", "user": "app"}, "command")
    shop.adopt("app/one", TestAccount("app", "vk-canary-1"))
    (report,) = shop.rotate("app/one")
    assert report.state == "rolled_back"
    assert report.rotation is not None
    assert "ended a value of `accept`; if it keeps one only, say `strategy: single`" in report.rotation.detail
    assert kept.read_text() == '"password": "vk-canary-1"'


def test_settings_that_cannot_work_are_refused() -> None:
    for settings, text in (
        ({"set": ["/x"]}, "give `test`"),
        ({"set": ["x"], "test": ["/x"]}, "absolute path"),
        ({"set": ["/x"], "test": ["/x"], "user": "a", "users": ["a", "b"]}, "not both"),
        ({"set": ["/x"], "test": ["/x"], "users": ["a", "a"]}, "two different"),
        ({"set": ["/x"], "test": ["/x"], "close_sessions": True}, "`disconnect`"),
    ):
        with pytest.raises(ValidationError, match=text):
            CommandTarget.open(settings, 1)


def test_five_rotations_of_two_secrets_while_clients_log_in(shop: House, server: LegacyServer, tmp_path: Path) -> None:
    accounts = {f"app/{number}": server.account(NAMES[number]) for number in (0, 1)}
    for name, account in accounts.items():
        shop.secret(name, account.settings, "command")
        shop.adopt(name, account)
        shop.delivered_file(name).write_text(f"{account.username} {account.password}")
    stranger = server.foreign(next(iter(accounts.values())))
    client = Client(shop, list(accounts), server.login)
    with client.at_work():
        for _ in range(5):
            reports = shop.rotate(*accounts)
            assert [report.exit_code for report in reports] == [0, 0], [report.error for report in reports]
    assert client.turns >= 10
    assert not client.refused
    for name, account in accounts.items():
        assert shop.settled(name, server.login)[0] == account.username
        assert not server.login(account.username, account.password)
    assert server.login(*stranger)
    hunter = Hunter({f"v{v.number}": v.fields["password"].text() for name in accounts for v in shop.stored(name)})
    hunter.look_into("the state directory", shop.wishes.state_dir or Path())
    assert not hunter.hits


@pytest.mark.parametrize("name", NAMES)
def test_names_that_a_shell_would_take_apart_are_names(server: LegacyServer, name: str) -> None:
    account = server.account(name)
    opened = target(**{key: value for key, value in account.settings.items() if key != "strategy"})
    new = held(2, "vk-canary-2", username=name)
    assert opened.set([new], [held(1, account.password, username=name)], Watch().context()) == Done()
    assert server.login(name, "vk-canary-2")
    assert not server.login(name, account.password)


def test_what_was_done_and_said_to_have_failed_is_found_by_looking(shop: House, server: LegacyServer) -> None:
    account = server.account()
    shop.secret("app/lost", account.settings, "command")
    shop.adopt("app/lost", account)
    with server.fault("lost-reply"):
        (report,) = rotate(["app/lost"], shop.parts, by_name=True, wait=timedelta(0))
    assert (report.state, report.exit_code) == ("waiting", 5), report
    (report,) = resume(["app/lost"], shop.parts, wait=LONG)
    assert report.exit_code == 0, report.error
    assert shop.settled("app/lost", server.login)[0] == account.username


def test_no_argument_and_no_environment_holds_a_value(server: LegacyServer, tmp_path: Path) -> None:
    """strace sees what every local user could."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    account = server.account()
    script = (
        "import json, sys; from vaultkeeper.targets.command import CommandTarget;"
        "from vaultkeeper.model.secret import SecretBytes;"
        "from vaultkeeper.testing.contract.trial import Watch, version;"
        "told = json.load(sys.stdin); t = CommandTarget.open(told['settings'], 1);"
        "v = version(2, {k: SecretBytes(told[k].encode()) for k in ('username', 'password')}, 'command', {});"
        "c = Watch().context();"
        "assert str(t.set([v], [], c)).startswith('Done') and t.test(v, c).value == 'accepted'"
    )
    settings = {key: value for key, value in account.settings.items() if key != "strategy"}
    told = {"settings": settings, "password": "vk-canary-argv", "username": account.username}
    trace = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-y", "-xx", "-s", "100000", "-v", "-e", f"trace={CALLS}", "-o", str(trace),
         sys.executable, "-c", script],
        input=json.dumps(told), text=True, check=True, timeout=120,
    )  # fmt: skip
    hunter = Hunter({"pending": "vk-canary-argv"})
    hunter.look_at_calls(trace)
    assert not hunter.hits
    assert hunter.looked_at


# -------------------------------------------------------------------------------------------------------- the place


@pytest.fixture
def vault() -> Iterator[OwnVault]:
    place = OwnVault()
    yield place
    place.stop()


def item(spec: DestinationSpec, primary: SecretVersion | None, **more: Any) -> Item:
    content = SecretBytes(primary.fields["password"].reveal()) if primary else None
    return Item(Slot(next(iter(spec.values)) or "value"), spec, "a/b", primary, content, **more)


def test_a_place_that_tells_hashes_only_is_compared_and_cannot_put_back_a_strangers_value(vault: OwnVault) -> None:
    vault.show = "show-hashed"
    spec = vault.spec({"db_password": "{password}"})
    place, ctx, group = CommandDestination(), Watch().delivery(), GroupKey("g")
    first, second = held(1, "vk-canary-1"), held(2, "vk-canary-2")
    assert place.deliver(group, [item(spec, first)], ctx) == Done()
    assert place.observe(group, [item(spec, second, accepted=(second, first))], ctx) == {"db_password": Held(1)}
    prepared = place.prepare(group, [item(spec, second)], ctx)
    assert isinstance(prepared, Prepared)
    receipt = prepared.receipts[Slot("db_password")]
    assert place.deliver(group, [item(spec, second)], ctx) == Done()
    answer = place.deliver(group, [item(spec, None, receipt=receipt)], ctx)
    assert isinstance(answer, Refused)
    assert "a hash only" in answer.detail
    assert vault.read(spec, "db_password") == b"vk-canary-2"


def test_a_place_that_refuses_says_why_and_one_that_cannot_be_looked_at_is_no_failed_consumer(tmp_path: Path) -> None:
    refusing = program(tmp_path, 65, says="too long")
    empty = program(tmp_path, 0, prints='{"values": {}}', name="show")
    spec = DestinationSpec("command", {"": "{password}"}, Read.PER_USE, {"write": refusing, "show": empty})
    place, ctx, group = CommandDestination(), Watch().delivery(), GroupKey("g")
    answer = place.deliver(group, [item(spec, held(1))], ctx)
    assert answer == Refused(No.VALUE, f"{refusing[0]} exited 65: too long")
    broken = DestinationSpec("command", {"": "{password}"}, Read.PER_USE, {"write": refusing, "show": refusing})
    assert isinstance(place.confirm(group, [item(broken, held(1))], ctx), Unknown)


def test_the_application_is_what_the_tests_take_it_for(server: LegacyServer) -> None:
    account = server.account()
    assert server.login(account.username, account.password)
    assert not server.login(account.username, account.password + "x")
    assert server.application.accounts().keys() == {account.username}
