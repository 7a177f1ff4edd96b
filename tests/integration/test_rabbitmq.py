"""RabbitMQ users on a real server. The contract runs in tests/contract."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pika
import pytest
from pika.exceptions import AMQPError

from tests.integration.house_kit import LONG, House, house
from tests.integration.hunter import Hunter
from tests.servers import ServerMissing, TestAccount
from tests.servers.rabbitmq import EVERYTHING, RabbitServer, part, shared
from vaultkeeper.access import rabbitmq
from vaultkeeper.access.answer import Answered
from vaultkeeper.engine.rollback import rollback
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.errors import BackendError, ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Basis, Done, Login, No, Observation, Refused, Unknown, Usage
from vaultkeeper.model.secret import SecretBytes, SecretVersion
from vaultkeeper.ports import Context, Deadline
from vaultkeeper.targets.rabbitmq import RabbitmqTarget
from vaultkeeper.testing.contract.trial import Watch, version

pytestmark = pytest.mark.xdist_group("rabbitmq")

NAMES = ["o'brien", 'a"b', "50%s", "me@example.com", "Zoë 漢字", "a/b?c#d", "with:colon", "a b", "back\\slash"]


@pytest.fixture(scope="module")
def rabbit() -> RabbitServer:
    try:
        return shared()
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def shop(tmp_path: Any) -> Iterator[House]:
    opened = house(tmp_path)
    yield opened
    opened.close()


def opened(account: TestAccount, **settings: object) -> RabbitmqTarget:
    given = {key: value for key, value in {**account.settings, **settings}.items() if key != "strategy"}
    return RabbitmqTarget.open({key: value for key, value in given.items() if value is not None}, 1)


def context(current: SecretVersion | None = None, pending: SecretVersion | None = None, seconds: float = 20) -> Context:
    return Watch(seconds).context(current, pending, epoch=0)


def held(target: RabbitmqTarget, number: int, password: str, **given: str) -> SecretVersion:
    fields = {name: SecretBytes(value.encode()) for name, value in {"password": password, **given}.items()}
    return version(number, target.complete(fields, context(), adopting=False), "rabbitmq", {})


def told(findings: Any) -> str:
    return "\n".join(f"{f.level} {f.text} {f.next}".strip() for f in findings)


def turns_of(account: TestAccount) -> tuple[str, str]:
    users: Any = account.settings["users"]
    return users[0], users[1]


def rights(rabbit: RabbitServer, name: str) -> tuple[Any, list[Any]]:
    """Tags, and all permissions, as the server lists them."""
    user = rabbit.api("GET", f"users/{part(name)}")
    lists = [rabbit.api("GET", f"users/{part(name)}/{kind}") for kind in ("permissions", "topic-permissions")]
    return user["tags"], sorted(
        str({k: v for k, v in each.items() if k != "user"}) for found in lists for each in found
    )


def until(ready: Callable[[], object]) -> None:
    """What the management interface lists follows an instant later; the config files of a node some seconds."""
    end = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def listed(rabbit: RabbitServer, name: str) -> Any:
    """The open connections of a user."""
    return rabbit.api("GET", f"connections/username/{part(name)}")


# ------------------------------------------------------------------------------------------------------------ one call


@pytest.mark.parametrize("name", NAMES)
def test_any_name_that_rabbitmq_takes_can_be_rotated(rabbit: RabbitServer, name: str) -> None:
    account = rabbit.account(name)
    target = opened(account)
    old, new = held(target, 1, account.password), held(target, 2, "new-" + secrets.token_hex(8))
    assert target.set([new], [old], context(old, new)) == Done()
    assert (target.test(new, context()), target.test(old, context())) == (Login.ACCEPTED, Login.REJECTED)
    assert rabbit.login(name, new.fields["password"].text())
    second = f"{name} 2"  # one that takes turns with it is made, and retired
    turns = opened(account, user=None, users=[name, second], create_users=True)
    other = held(turns, 3, "other", username=second)
    assert turns.set([other, new], [], context(new, other)) == Done()
    assert rabbit.login(second, "other")
    connection = rabbit.connect(second, "other")
    until(lambda: listed(rabbit, second))
    usage = turns.usage(other, new.created_at, context())
    assert isinstance(usage, Usage)
    assert usage.holders[0].startswith(f"{second} from 127.0.0.1:")
    _closed(turns, other)
    with pytest.raises(AMQPError):
        connection.process_data_events(120)
    _closed(turns, other)
    assert target.usage(new, new.created_at, context()) == Usage(in_use=None)


def _closed(target: RabbitmqTarget, version: SecretVersion) -> None:
    """As the engine does: 3.10 answers 500 while a connection that has ended is still listed."""
    answers: list[object] = []

    def answered() -> bool:
        answers.append(target.disconnect(version, context()))
        return not isinstance(answers[-1], Unknown)

    until(answered)
    assert answers[-1] == Done()


def test_the_first_set_gives_the_other_user_the_same_rights_and_later_ones_leave_them(rabbit: RabbitServer) -> None:
    account = rabbit.alternating()
    first, second = turns_of(account)
    vhosts = ["/", f"shop/{first}"]
    rabbit.api("PUT", f"vhosts/{part(vhosts[1])}")
    rabbit.user(first, account.password, tags=("monitoring", "of-ours"), vhosts=tuple(vhosts))
    topic = {"exchange": "amq.topic", "write": "^a", "read": "^b"}
    rabbit.api("PUT", f"topic-permissions/%2F/{part(first)}", topic)
    target = opened(account)
    old = held(target, 1, account.password, username=first)
    new = held(target, 2, "new", username=second)
    for _ in range(2):
        assert target.set([new, old], [], context(old, new)) == Done()
    assert rights(rabbit, second) == rights(rabbit, first)
    assert len(rights(rabbit, second)[1]) == 3

    narrow = {"configure": "^$", "write": ".*", "read": ".*"}
    rabbit.api("PUT", f"permissions/%2F/{part(second)}", narrow)
    rabbit.api("PUT", f"users/{part(second)}", {"password_hash": "", "tags": []})
    rabbit.api("DELETE", f"permissions/{part(vhosts[1])}/{part(second)}")
    newer = held(target, 3, "newer", username=second)
    assert target.set([newer, old], [], context(old, newer)) == Done()
    tags, found = rights(rabbit, second)
    assert tags == []
    assert str({"vhost": "/", **narrow}) in found  # what it has stays, and what it lacks is added
    assert str({"vhost": vhosts[1], **EVERYTHING}) in found
    assert target.set([newer], [old], context(newer, newer)) == Done()
    assert rights(rabbit, first)[0] == ["monitoring", "of-ours"]
    assert rabbit.api("GET", f"users/{part(first)}")["password_hash"] == ""


def test_a_user_that_nobody_may_make_is_asked_for(rabbit: RabbitServer) -> None:
    account = rabbit.alternating()
    first, second = turns_of(account)
    target = opened(account, create_users=None)
    old, new = held(target, 1, account.password, username=first), held(target, 2, "new", username=second)
    assert f"refuse the user {second} does not exist say create_users: true" in told(target.check(context(old)))
    answer = target.set([new, old], [], context(old, new))
    assert isinstance(answer, Refused)
    assert rabbit.api("GET", f"users/{part(second)}") is None
    alone = rabbit.account()
    gone = opened(alone, user="nobody-here")
    assert "refuse the user nobody-here does not exist rabbitmqctl add_user nobody-here" in told(gone.check(context()))
    nobody = opened(rabbit.alternating(), users=["nobody-a", "nobody-b"])
    assert "vaultkeeper adopt" in told(nobody.check(context()))


def test_a_password_of_somebody_else_is_left_and_one_hashed_otherwise_is_known(rabbit: RabbitServer) -> None:
    account = rabbit.account()
    target = opened(account)
    ours, theirs = held(target, 1, account.password), "set by hand"
    rabbit.user(account.username, theirs)
    other = held(target, 9, "never set")
    assert opened(account, user=None, users=[account.username, "x"]).set([], [ours], context()) == Done()
    assert rabbit.login(account.username, theirs)
    seen = target.observe([ours], context())
    assert isinstance(seen, Observation)
    assert (seen.answers, seen.basis, seen.foreign) == ({1: Login.REJECTED}, Basis.VERIFIER, 1)
    for algorithm in ("sha512", "md5"):
        salt = secrets.token_bytes(4)
        digest = salt + hashlib.new(algorithm, salt + b"by hand").digest()
        name = f"rabbit_password_hashing_{algorithm}"
        body = {"password_hash": b64encode(digest).decode(), "hashing_algorithm": name, "tags": []}
        rabbit.api("PUT", f"users/{part(account.username)}", body)
        by_hand = held(target, 1, "by hand")
        assert rabbit.login(account.username, "by hand")
        seen = target.observe([by_hand, other], context())
        assert isinstance(seen, Observation)
        assert seen.answers == {1: Login.ACCEPTED, 9: Login.REJECTED}
    assert rabbitmq.User("u", (), "x", "a_plugin_of_theirs").holds("p") is None
    assert rabbitmq.User("u", (), "no base64").holds("p") is None
    assert rabbitmq.User("u", (), "", "a_plugin_of_theirs").holds("") is False
    assert rabbitmq.User("u", (), "").holds("") is False


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ((), "lacks the tag `administrator`"),
        (("management",), "lacks the tag `administrator`"),
        (("policymaker", "monitoring"), "lacks the tag `administrator`"),
        (None, "the management interface refused this password"),
    ],
)
def test_what_the_admin_lacks_is_named_before_anything_changes(
    rabbit: RabbitServer, tmp_path: Any, tags: tuple[str, ...] | None, says: str
) -> None:
    rotator, account = f"vk {secrets.token_hex(3)}", rabbit.account()
    rabbit.user(rotator, "the-rotator-s-own", tags=("administrator",) if tags is None else tags)
    (tmp_path / "password").write_text("the-rotator-s-own" if tags is not None else "another one")
    target = opened(account, admin={"username": rotator, "password": {"file": str(tmp_path / "password")}})
    old, new = held(target, 1, account.password), held(target, 2, "new")
    (finding,) = target.check(context(old))
    assert (finding.level, says in finding.text, rotator in finding.text) == ("refuse", True, True)
    if tags is not None:
        assert finding.next == f"rabbitmqctl set_user_tags {rotator} administrator"
    answer = target.set([new], [old], context(old, new))
    assert isinstance(answer, Refused)
    assert (answer.why, says in answer.detail) == (No.PRIVILEGE, True)
    with pytest.raises(NotAuthorised, match=says):
        target.observe([old], context())
    assert rabbit.login(account.username, account.password)


def test_tls_is_verified_at_both_ports_and_its_failure_named(rabbit: RabbitServer) -> None:
    account = rabbit.account()
    ca = str(rabbit.folder / "ca.pem")
    url, broker = f"https://127.0.0.1:{rabbit.ports['https']}", f"amqps://localhost:{rabbit.ports['amqps']}"
    target = opened(account, url=url, amqp=broker, ca=ca)
    old, new = held(target, 1, account.password), held(target, 2, "new")
    assert told(target.check(context(old))) == "ok the users can be changed, and logins over AMQP are answered"
    assert target.set([new], [old], context(old, new)) == Done()
    assert (target.test(new, context()), target.test(old, context())) == (Login.ACCEPTED, Login.REJECTED)
    untrusted = opened(account, url=url, amqp=broker)
    assert "cannot be reached: TLS: self-signed certificate" in told(untrusted.check(context(new)))
    assert isinstance(untrusted.set([old], [new], context(new, old)), Unknown)
    assert untrusted.test(new, context()) is Login.UNREACHABLE
    half = opened(account, amqp=broker)
    assert told(half.check(context(new))).startswith(
        f"unchecked localhost:{rabbit.ports['amqps']} cannot be reached: TLS"
    )
    answer = half.set([old], [new], context(new, old))  # the gap would not close
    assert isinstance(answer, Unknown)
    assert "nothing was changed, because the new value could not be tried" in answer.detail
    assert rabbit.login(account.username, "new")
    mixed = opened(account, amqp=f"amqp://127.0.0.1:{rabbit.ports['amqps']}")
    assert "does not speak AMQP; does it ask for TLS" in told(mixed.check(context(new)))


def test_no_password_leaves_this_machine_without_tls(rabbit: RabbitServer) -> None:
    account = rabbit.account()
    old = held(opened(account), 1, account.password)
    for settings in ({"url": "http://192.0.2.1:15672"}, {"amqp": "amqp://192.0.2.1"}):
        findings = told(opened(account, **settings).check(context(old, seconds=5)))
        assert findings.startswith("refuse a ")
        assert "to this machine only, not to 192.0.2.1" in findings
    with pytest.raises(ConfigurationInvalid, match="plain AMQP to this machine only"):
        opened(account, amqp="amqp://192.0.2.1").test(old, context())
    with pytest.raises(ConfigurationInvalid, match="link-local"):
        opened(account, amqp="amqps://169.254.169.254").test(old, context())
    broker = opened(account, amqp=None, url="https://rabbit.example.com:15671").settings.broker
    assert (broker.host, broker.port, broker.secure) == ("rabbit.example.com", 5671, True)
    broker = opened(account, amqp=None).settings.broker
    assert (broker.host, broker.port, broker.secure) == ("127.0.0.1", 5672, False)


def test_answers_of_the_broker_that_are_about_something_else_are_no_rejection(rabbit: RabbitServer) -> None:
    account = rabbit.account()
    target = opened(account)
    works, name = held(target, 1, account.password), part(account.username)
    rabbit.api("PUT", f"user-limits/{name}/max-connections", {"value": 0})
    assert target.test(works, context()) is Login.THROTTLED
    rabbit.api("DELETE", f"user-limits/{name}/max-connections")
    with pytest.raises(BackendError, match="there is no virtual host elsewhere"):
        opened(account, vhost="elsewhere").test(works, context())
    rabbit.api("DELETE", f"permissions/%2F/{name}")
    with pytest.raises(BackendError, match="has no permission there") as caught:
        target.test(works, context())
    assert caught.value.next == f"rabbitmqctl set_permissions -p / {account.username} CONFIGURE WRITE READ"
    with rabbit.proxies["amqp"].losing("PLAIN") as loss:  # cut before the server has said yes or no
        assert target.test(works, context()) is Login.UNREACHABLE
    assert loss.hits == 1
    not_amqp = opened(account, amqp=f"amqp://127.0.0.1:{rabbit.ports['http']}")
    assert not_amqp.test(works, context(seconds=1)) is Login.UNREACHABLE
    turns = opened(account, user=None, users=[account.username, "x"], create_users=True)
    now = held(turns, 1, account.password, username=account.username)
    findings = told(turns.check(context(now)))
    assert f"refuse {account.username} has no permission on the virtual host /, where logins are tried" in findings


def test_a_user_that_can_log_in_and_definitions_at_start_are_pointed_out(rabbit: RabbitServer) -> None:
    account = rabbit.alternating()
    first, second = turns_of(account)
    rabbit.user(second, "somebody's")
    target = opened(account)
    old, conf = held(target, 1, account.password, username=first), rabbit.folder / "rabbitmq.conf"
    assert f"warn {second} can log in today" in told(target.check(context(old)))
    kept = conf.read_text()
    for line in (
        "load_definitions = /etc/rabbitmq/d.json",
        "definitions.local.path = /d",
        "management.load_definitions=x",
    ):
        conf.write_text(f"{kept}# load_definitions = no\n{line}\n")
        assert rabbitmq.brings_users_back(str(conf))
    until(lambda: rabbit.api("GET", "nodes?columns=config_files") != [[]])
    assert f"warn {conf} loads definitions at each start" in told(target.check(context(old)))
    conf.write_text(kept + "# load_definitions = no\n")
    assert not rabbitmq.brings_users_back(str(conf))
    assert not rabbitmq.brings_users_back("/nowhere/rabbitmq.conf")


class Said:
    """A channel that answers what it is told to."""

    def __init__(self, status: int, body: bytes) -> None:
        self.reply = type("Reply", (), {"status": status, "body": body})

    def call(self, *_: object, **__: object) -> Any:
        return self.reply


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (401, b'{"error":"not_authorised","reason":"Not_Authorized"}', "its password is wrong, or it lacks the tag"),
        (403, b"", "refused (without a reason)"),
        (400, b'{"error":"bad_request","reason":"nope"}', "refused PUT /api/users/a: nope"),
        (404, b"<html>", "answered 404"),
        (429, b"", "wants fewer requests"),
        (503, b"", "answered 503"),
        (200, b"<html>", "without a document"),
    ],
)
def test_answers_that_our_server_does_not_give_are_told_apart_too(status: int, body: bytes, answer: str) -> None:
    channel: Any = Said(status, body)
    server = rabbitmq.Management(channel, "https://h", ("boss", SecretBytes(b"p")), Deadline(0))
    with pytest.raises(Answered, match=answer.replace("(", r"\(").replace(")", r"\)")) as caught:
        server.put_user("a", (), "x")
    definite = status in (400, 401, 403)
    assert isinstance(caught.value.result, Refused if definite else Unknown)
    if status == 429:
        assert caught.value.unknown.reason is Login.THROTTLED
    if status == 404:
        with pytest.raises(Answered, match="in other words than RabbitMQ's"):
            server.user("a")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"user": None}, "give `user`"),
        ({"users": ["a", "b"]}, "give `user`"),
        ({"user": None, "users": ["a", "a"]}, "two different accounts"),
        ({"user": None, "users": ["a", "b"], "admin": "self"}, "its own account only"),
        ({"user": "boss"}, "needs `admin: self`"),
        ({"user": "x:y", "admin": "self"}, "with a colon cannot log in at the management interface"),
        ({"create_users": True}, "goes with `users`"),
        ({"url": "https://h/api"}, "the management interface alone"),
        ({"amqp": "amqps://h/vhost"}, "`vhost` is a key of its own"),
        ({"amqp": "amqps://u:p@h"}, "would be shown in logs"),
        ({"amqp": "http://h"}, "expected amqps://"),
        ({"user": "a\tb"}, "no control characters"),
        ({"user": "x" * 256}, "1 to 255 bytes"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], complaint: str) -> None:
    admin = {"username": "boss", "password": {"file": "/p"}}
    whole = {"url": "https://h", "user": "a", "admin": admin, **settings}
    with pytest.raises(ValueError, match=complaint):
        RabbitmqTarget.Settings.model_validate({key: value for key, value in whole.items() if value is not None})


def test_an_adopted_value_says_whose_it_is(rabbit: RabbitServer) -> None:
    target = opened(rabbit.alternating())
    for given, complaint in (
        ({"password": "p"}, "needs its username"),
        ({"password": "p", "username": "somebody"}, "the value is for somebody"),
        ({"password": "p\0q", "username": target.settings.accounts[0]}, "holds a NUL"),
    ):
        fields = {name: SecretBytes(value.encode()) for name, value in given.items()}
        with pytest.raises(ConfigurationInvalid, match=complaint):
            target.complete(fields, context(), adopting=True)


# ------------------------------------------------------------------------------------------------------ whole rotations


def test_a_life_of_two_secrets_on_one_server(
    rabbit: RabbitServer, shop: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Adopted, five in a row, back after retirement; a stranger keeps its password, and no log shows one."""
    caplog.set_level(logging.DEBUG)
    mine, yours, stranger = rabbit.alternating(), rabbit.account(), rabbit.account()
    for name, account in (("mq/mine", mine), ("mq/yours", yours)):
        shop.secret(name, account.settings, "rabbitmq")
        shop.adopt(name, account)
        assert shop.adopt(name, account).number == 1
    assert "holds no tag of ours" in shop.told("mq/mine")
    for turn in range(5):
        reports = shop.rotate("mq/mine", "mq/yours")
        assert [(report.state, report.exit_code) for report in reports] == [("done", 0)] * 2, reports
        assert shop.settled("mq/mine", rabbit.login)[0] == turns_of(mine)[(turn + 1) % 2]
        shop.settled("mq/yours", rabbit.login)
    assert not rabbit.login(yours.username, yours.password)
    until(lambda: not listed(rabbit, shop.current("mq/mine")[0]))
    report = rollback("mq/mine", shop.parts, wait=LONG)
    assert report.exit_code == 0, report
    user, password = shop.settled("mq/mine", rabbit.login)
    assert user == turns_of(mine)[0]
    assert password in {v.fields["password"].text() for v in shop.stored("mq/mine")}
    assert rabbit.login(stranger.username, stranger.password)
    values = {f"v{v.number} of {name}": v.fields["password"].text() for name in shop.secrets for v in shop.stored(name)}
    hunter = Hunter({**values, "mine": mine.password, "yours": yours.password, "admin": rabbit.admin_password})
    hunter.look("RabbitMQ's log", rabbit.log_text())
    hunter.look("our log", caplog.text)
    hunter.look_into("the state directory", shop.wishes.state_dir or shop.home)
    assert hunter.hits == []
    assert min(hunter.looked_at[sink] for sink in ("RabbitMQ's log", "our log", "the state directory")) > 1000
    assert "authenticated and granted access" in rabbit.log_text()
    assert "vaultkeeper" in rabbit.log_text()  # who logged in


def test_an_account_that_may_not_log_in_yet_is_rotated_first_without_a_word_about_replacing(
    rabbit: RabbitServer, shop: House
) -> None:
    account = rabbit.account()
    rabbit.user(account.username, None)
    shop.secret("mq/first", account.settings, "rabbitmq")
    (report,) = shop.rotate("mq/first")
    assert report.exit_code == 0, report
    shop.settled("mq/first", rabbit.login)
    used = rabbit.account()
    shop.secret("mq/used", used.settings, "rabbitmq")
    (report,) = shop.rotate("mq/used")
    assert report.exit_code != 0
    assert "--replace" in str(report.error.next if report.error else "")
    assert rabbit.login(used.username, used.password)


def test_an_administrator_changes_itself(rabbit: RabbitServer, shop: House) -> None:
    account = rabbit.account(admin="self")
    rabbit.user(account.username, account.password, tags=("administrator",))
    shop.secret("mq/own", account.settings, "rabbitmq")
    assert "unchecked with `admin: self` there is nobody to log in as" in shop.told("mq/own")
    shop.adopt("mq/own", account)
    for _ in range(2):
        (report,) = shop.rotate("mq/own")
        assert report.exit_code == 0, report
        shop.settled("mq/own", rabbit.login)
    rabbit.user(account.username, "set by hand", tags=("administrator",))
    (report,) = shop.rotate("mq/own")
    assert report.state == "ambiguous"
    shop.clock.ahead += timedelta(minutes=2)  # four refused logins a minute
    shop.adopt("mq/own", TestAccount(account.username, "set by hand"))
    assert shop.current("mq/own")[1] == "set by hand"


def test_a_connection_from_before_holds_back_the_retirement_and_is_named(rabbit: RabbitServer, shop: House) -> None:
    account = rabbit.alternating()
    shop.secret("mq/app", account.settings, "rabbitmq")
    shop.adopt("mq/app", account)
    old = rabbit.connect(account.username, account.password)
    until(lambda: listed(rabbit, account.username))
    shop.clock.meanwhile = lambda _: old.process_data_events(0) if old.is_open else None
    (report,) = shop.rotate("mq/app")
    assert report.rotation is not None
    assert (report.rotation.state.value, report.rotation.open) in {("waiting", True), ("parked", True)}
    assert report.rotation.waiting_for[0].startswith(f"{account.username} from 127.0.0.1:")
    assert rabbit.login(account.username, account.password)
    assert old.is_open
    old.close()
    until(lambda: not listed(rabbit, account.username))
    (report,) = resume(["mq/app"], shop.parts, wait=LONG)
    assert (report.state, report.exit_code) == ("done", 0), report
    assert not rabbit.login(account.username, account.password)

    shop.secret("mq/app", {**account.settings, "close_sessions": True}, "rabbitmq")
    held_open = rabbit.connect(*shop.current("mq/app"))
    until(lambda: listed(rabbit, shop.current("mq/app")[0]))
    ends = threading.Event()

    def live() -> None:
        """As an application does: it answers heartbeats until the server ends it."""
        try:
            while True:
                held_open.process_data_events(0.1)
        except AMQPError:
            ends.set()

    threading.Thread(target=live, daemon=True).start()
    (report,) = shop.rotate("mq/app")
    assert (report.state, report.exit_code) == ("done", 0), report
    assert ends.wait(120)
    shop.settled("mq/app", rabbit.login)


def test_a_server_that_is_down_is_waited_for_and_nothing_is_concluded(rabbit: RabbitServer, shop: House) -> None:
    account = rabbit.alternating()
    shop.secret("mq/down", account.settings, "rabbitmq")
    shop.adopt("mq/down", account)
    with rabbit.fault("unreachable"):
        (report,) = rotate(["mq/down"], shop.parts, by_name=True, wait=timedelta(0))
        assert report.rotation is not None
        assert report.state == "waiting"
        assert report.rotation.waiting is not None
        assert report.rotation.waiting.value == "unreachable"
    assert rabbit.login(account.username, account.password)
    (report,) = shop.rotate("mq/down")
    assert shop.settled("mq/down", rabbit.login)[0] == turns_of(account)[1]


def test_pika_says_nothing_on_our_terminal(rabbit: RabbitServer, capfd: pytest.CaptureFixture[str]) -> None:
    """It calls each refused login an error; a rotation makes two."""
    from vaultkeeper.wiring import logs

    root = logging.getLogger()
    before, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    try:
        logs.configure()
        account = rabbit.account()
        target = opened(account)
        assert target.test(held(target, 1, "wrong"), context()) is Login.REJECTED
        assert capfd.readouterr().err == ""
        assert pika.__version__
    finally:
        root.handlers[:], logging.raiseExceptions = before, raising
        root.setLevel(level)
        logging.getLogger("pika").setLevel(logging.NOTSET)
