"""Redis accounts at real servers: what is kept, what is refused before anything is changed, what is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.connection  # noqa: F401 - its import takes longer than a deadline below

from tests.integration.redis_kit import (
    accepted,
    as_user,
    context,
    of,
    open_target,
    password_of,
    plain,
    seen,
    version,
    wait_until,
)
from tests.servers import ServerMissing, TestAccount, tls
from tests.servers.redis import HOST, RedisServer, hashed, logs_in, start
from tests.servers.redis import Node as RedisNode
from vaultkeeper.access import redis as wire
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.redis import acl, connection
from vaultkeeper.access.redis.settings import RedisSettings
from vaultkeeper.errors import BackendError, ChecksNothing, ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Basis, Done, Login, No, Unknown, Usage
from vaultkeeper.model.outcome import Refused as No_
from vaultkeeper.model.secret import SecretBytes, SecretVersion
from vaultkeeper.ports import Context
from vaultkeeper.targets.redis import RedisTarget
from vaultkeeper.testing.contract import TargetContract
from vaultkeeper.testing.contract.target import Trial

Make = Callable[..., RedisNode]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    try:
        made = start()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def node(server: RedisServer) -> RedisNode:
    """With an ACL file."""
    return server.node


@pytest.fixture
def new_node() -> Iterator[Make]:
    """Nodes that end with the test."""
    with ExitStack() as stack:

        def make(*words: Any, **options: Any) -> RedisNode:
            try:
                made = RedisNode(*words, **options)
            except ServerMissing as missing:
                pytest.skip(str(missing))
            stack.callback(made.stop)
            return made

        yield make


# ---------------------------------------------------------------------------------------- the contract, once more


class EachAccount(TargetContract):
    """Beside those in tests/contract, on one node of its own."""

    target = RedisTarget

    @pytest.fixture
    def server(self, server: RedisServer) -> RedisServer:
        return server


class TestOneNode(EachAccount):
    faults = frozenset({"unreachable", "lost-reply"})


class TestItsOwnAdmin(EachAccount):
    faults = frozenset({"unreachable", "lost-reply"})

    def account(self, server: Any) -> TestAccount:
        account: TestAccount = server.account()
        return TestAccount(account.username, account.password, {**account.settings, "admin": "self"})


@pytest.fixture(scope="module")
def requiring() -> Iterator[RedisServer]:
    made = start(keeps="config_file", requirepass="first")
    yield made
    made.stop()


class TestRequirePass(TargetContract):
    """The password of `requirepass` in a configuration file."""

    target = RedisTarget

    @pytest.fixture
    def server(self, requiring: RedisServer) -> RedisServer:
        return requiring

    def account(self, server: Any) -> TestAccount:
        node: RedisNode = server.node
        with node.client() as say:
            say("ACL", "SETUSER", "default", "resetpass", f"#{hashed('first')}")
        return TestAccount("default", "first", server.settings() | {"user": "default"})

    def test_other_peoples_credentials_are_kept(self, trial: Trial) -> None:
        """There is but one account here."""
        theirs = trial.server.foreign(trial.account)  # type: ignore[attr-defined]
        new = trial.new()
        trial.introduce(new)
        trial.set([new], [trial.old])
        assert trial.server.login(*theirs)
        assert trial.observe(new, trial.old).foreign == 1


# --------------------------------------------------------------------------------------------- over a restart


@pytest.mark.parametrize(
    "options",
    [
        {"keeps": "acl_file"},
        {"keeps": "config_file"},
        {"keeps": "config_file", "requirepass": "old"},
        {"keeps": "config_file", "requirepass": "old", "on_command_line": True},
        {"keeps": "acl_file", "requirepass": "old"},
        {"keeps": "sentinel"},
    ],
    ids=["acl-file", "config-file", "requirepass", "requirepass-on-the-command-line", "default", "sentinel"],
)
def test_a_crash_after_each_step_brings_nothing_back(new_node: Make, options: dict[str, Any]) -> None:
    node = new_node(**options)
    name = "default" if "requirepass" in str(options) else "app"
    target = open_target(plain(node, name))
    old, new = version(1, name, "old"), version(2, name)
    assert target.set([new, old], [], context(old, new)) == Done()
    node.restart()
    assert accepted(target, new, old) == [True, True]
    assert target.set([new], [old], context(old, new)) == Done()
    node.restart()
    assert accepted(target, new, old) == [True, False]
    assert seen(target, new).durable is True


@pytest.mark.parametrize("options", [{}, {"requirepass": "old"}], ids=["account", "requirepass"])
def test_a_server_without_any_file_is_refused_before_anything(new_node: Make, options: dict[str, Any]) -> None:
    node = new_node("nothing", **options)
    name = "default" if options else "app"
    target = open_target(plain(node, name))
    old, new = version(1, name, "old"), version(2, name)
    (told,) = of("refuse", target.check(context(old)))
    assert "cannot save its accounts" in told
    assert "persisted_by" in told
    before, calls = node.hashes(name), node.calls("acl|setuser")
    refused = target.set([new, old], [], context(old, new))
    assert isinstance(refused, No_)
    assert refused.why is No.UNSUPPORTED
    assert node.calls("acl|setuser") == calls
    assert "restart would bring the old password back" in refused.detail
    assert node.hashes(name) == before
    assert seen(target, old).durable is False


def test_where_a_destination_keeps_it_nothing_is_saved_and_nothing_refused(new_node: Make) -> None:
    node = new_node("nothing", requirepass="old")
    target = open_target(plain(node, "default"), persisted_by=True)
    old, new = version(1, "default", "old"), version(2, "default")
    assert of("refuse", target.check(context(old))) == []
    assert target.set([new, old], [], context(old, new)) == Done()
    assert accepted(target, new, old) == [True, True]
    assert seen(target, new).durable is True


def _cannot_be_written(node: RedisNode) -> None:
    """A folder stands where the file was: a rename over it fails, for root too."""
    (node.folder / "users.acl").unlink()
    (node.folder / "users.acl").mkdir()


def test_a_save_that_fails_beforehand_leaves_all_nodes_untouched(new_node: Make) -> None:
    nodes = [new_node(), new_node()]
    account = _at(nodes)
    target = open_target(account)
    old, new = version(1, "app", "old"), version(2, "app")
    _cannot_be_written(nodes[1])
    calls = [node.calls("acl|setuser") for node in nodes]
    refused = target.set([new, old], [], context(old, new))
    assert isinstance(refused, No_)
    assert [node.calls("acl|setuser") for node in nodes] == calls
    assert "ACL SAVE: There was an error trying to save the ACLs" in refused.detail
    assert [node.hashes("app") for node in nodes] == [{hashed("old")}] * 2


@pytest.mark.parametrize("retiring", [False, True])
def test_a_save_that_fails_afterwards_takes_the_change_back_everywhere(new_node: Make, retiring: bool) -> None:
    nodes = [new_node(), new_node()]
    target = open_target(_at(nodes))
    old, new = version(1, "app", "old"), version(2, "app")
    if retiring:
        assert target.set([new, old], [], context(old, new)) == Done()
    before = [node.hashes("app") for node in nodes]
    wanted, gone = ([_pair(new)], [_pair(old)]) if retiring else ([_pair(new), _pair(old)], [])
    with ExitStack() as held:
        ctx = context(old, new)
        sites = [
            target._site(held.enter_context(target._session(address, ctx)), wanted, gone)
            for address in target.settings.addresses
        ]
        _cannot_be_written(nodes[1])
        with pytest.raises(Answered, match="app is as it was") as caught:
            target._apply(sites)
    assert isinstance(caught.value.result, No_)
    assert [node.hashes("app") for node in nodes] == before
    nodes[0].restart()
    assert nodes[0].hashes("app") == before[0]


def _pair(one: SecretVersion) -> tuple[str, str]:
    return one.fields["username"].text(), hashed(password_of(one))


def _at(nodes: list[RedisNode]) -> TestAccount:
    """One account at several nodes, one rotator."""
    for node in nodes[1:]:
        plain(node)
        node.acl("vk_rotator", "resetpass", f"#{hashed(nodes[0].rotator)}")
    return plain(nodes[0], nodes=[{"host": HOST, "port": node.port} for node in nodes[1:]])


def test_a_name_with_a_quote_never_reaches_a_configuration_file(new_node: Make) -> None:
    """Also where the account is somebody else's: CONFIG REWRITE writes all of them."""
    node = new_node("config_file")
    target = open_target(plain(node))
    with node.client() as say:
        say("ACL", "SETUSER", "o'brien", "on", f"#{hashed('x')}")
    old, new = version(1, "app", "old"), version(2, "app")
    refused = target.set([new, old], [], context(old, new))
    assert isinstance(refused, No_)
    assert "o'brien" in refused.detail
    assert "does not start again" in refused.detail
    assert node.hashes("app") == {hashed("old")}
    node.save()  # what was spared them
    node.kill()
    with pytest.raises(RuntimeError, match="Unbalanced quotes"):
        node.start()


# ----------------------------------------------------------------------------------------------- what is refused


def test_an_account_that_takes_any_password_is_refused_everywhere(node: RedisNode) -> None:
    target = open_target(plain(node, "anybody"))
    node.acl("anybody", "nopass")
    old, new = version(1, "anybody", "old"), version(2, "anybody")
    (told,) = of("refuse", target.check(context(old)))
    assert "nopass" in told
    with pytest.raises(ChecksNothing, match="nopass"):
        target.observe([old], context(old))
    refused = target.set([new, old], [], context(old, new))
    assert isinstance(refused, No_)
    assert refused.why is No.UNCHECKED
    assert node.hashes("anybody") == set()


def test_an_account_that_is_off_or_not_there_is_named(node: RedisNode) -> None:
    missing = open_target(TestAccount("nobody", "", {**plain(node).settings, "user": "nobody"}))
    assert "no account nobody" in of("refuse", missing.check(context()))[0]
    new = version(2, "nobody")
    refused = missing.set([new], [], context(None, new))
    assert isinstance(refused, No_)
    assert "no account nobody" in refused.detail
    assert seen(missing, new).answers == {2: Login.REJECTED}
    with node.client() as say:
        assert say("ACL", "GETUSER", "nobody") is None
    target = open_target(plain(node, "sleeping"))
    node.acl("sleeping", "off")
    assert "is off" in of("refuse", target.check(context()))[0]
    assert accepted(target, version(1, "sleeping", "old")) == [False]


@pytest.mark.parametrize(
    ("keeps", "right"),
    [
        ("acl_file", "acl|setuser"),
        ("acl_file", "acl|save"),
        ("acl_file", "client|kill"),
        ("config_file", "acl|list"),
        ("config_file", "config|rewrite"),
        *(("acl_file", right) for right in ("acl|getuser", "info", "client|list", "config|get")),
    ],
)
def test_a_missing_privilege_is_named_exactly_by_check_and_by_what_needs_it(
    server: RedisServer, config_node: RedisNode, keeps: str, right: str
) -> None:
    node = server.node if keeps == "acl_file" else config_node
    target = open_target(plain(node, "app"), close_sessions=True)
    old, new = version(1, "app", "old"), version(2, "app")
    before = node.hashes("app")
    node.acl("vk_rotator", f"-{right}")
    try:
        command = right.upper().replace("|", " ")
        told = of("refuse", target.check(context(old)))
        assert [text for text in told if f"may not run {command}" in text or right == "info"], told
        assert f"ACL SETUSER vk_rotator +{right}" in told[0]
        assert len(told) == 1
        if right == "client|list":
            with pytest.raises(NotAuthorised, match=r"client\|list"):
                target.usage(old, datetime.now(UTC), context(old, new))
            return
        if right == "client|kill":
            refused = target.disconnect(old, context(old, new))
        else:
            refused = target.set([new, old], [], context(old, new))
        assert isinstance(refused, No_), refused
        assert refused.why is No.PRIVILEGE
        assert f"+{right}" in refused.detail
        assert node.hashes("app") == before
    finally:
        node.acl("vk_rotator", f"+{right}")


@pytest.fixture(scope="module")
def config_node() -> Iterator[RedisNode]:
    made = RedisNode("config_file")
    yield made
    made.stop()


def test_without_dryrun_nothing_is_claimed_beforehand(node: RedisNode) -> None:
    target = open_target(plain(node, "app"))
    node.acl("vk_rotator", "-acl|dryrun")
    findings = target.check(context(version(1, "app", "old")))
    node.acl("vk_rotator", "+acl|dryrun")
    assert of("refuse", findings) == []
    assert "acl|dryrun" in of("unchecked", findings)[0]


def test_an_admin_whose_password_is_wrong_is_no_answer_about_the_account(node: RedisNode, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong")
    admin = {"username": "vk_rotator", "password": {"file": str(tmp_path / "wrong")}}
    target = open_target(plain(node, "app"), admin=admin)
    one = version(1, "app", "old")
    assert "rejected the password of vk_rotator" in of("refuse", target.check(context(one)))[0]
    for act in (
        lambda: target.observe([one], context(one)),
        lambda: target.set([one], [], context(one)),
        lambda: target.usage(one, datetime.now(UTC), context(one)),
        lambda: target.disconnect(one, context(one)),
    ):
        with pytest.raises(NotAuthorised, match="vk_rotator"):
            act()


def test_nobody_who_logs_in_as_itself_is_told_from_an_admin_that_cannot(node: RedisNode) -> None:
    target = open_target(plain(node, "app"), admin="self")
    assert of("unchecked", target.check(context()))
    wrong = version(3, "app")
    assert target.observe([wrong], context(wrong)).basis is Basis.LOGIN  # type: ignore[union-attr]
    with pytest.raises(NotAuthorised, match="neither the pending nor the current"):
        target.set([wrong], [], context(wrong))


def test_a_server_that_is_down_is_unreachable_and_nothing_else(new_node: Make) -> None:
    node = new_node()
    target = open_target(plain(node))
    one = version(1, "app", "old")
    node.kill()
    assert [finding.level for finding in target.check(context(one))] == ["unchecked"]
    assert isinstance(target.observe([one], context(one)), Unknown)
    assert target.test(one, context(one)) is Login.UNREACHABLE
    for answer in (target.set([one], [], context(one)), target.disconnect(one, context(one))):
        assert isinstance(answer, Unknown)


@pytest.mark.parametrize(
    "said",
    [
        b"-ERR max number of clients reached\r\n",
        b"-ERR odd 'app' 'pw'\r\n",
        b"-LOADING Redis is loading\r\n",
        b"?\r\n",
    ],
)
def test_an_answer_that_says_nothing_about_the_password_is_no_rejection(said: bytes) -> None:
    with _answering(said) as port:
        with pytest.raises(connection.LoginFailed) as caught:
            wire.connect(connection.Address(HOST, port), username="app", password=b"pw", until_s=_soon(60))
        assert caught.value.denial is connection.Denial.UNREACHABLE
        assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"-DENIED Redis is running in protected mode because\r\n", "protected mode"),
        (b"-ERR wrong number of arguments for 'auth' command\r\n", "Redis 6"),
    ],
)
def test_what_no_waiting_changes_is_for_a_person(said: bytes, why: str) -> None:
    with _answering(said) as port, pytest.raises(connection.LoginFailed) as caught:
        wire.connect(connection.Address(HOST, port), username="app", password=b"pw", until_s=_soon(60))
    assert caught.value.denial is connection.Denial.CONFIGURATION
    assert why in str(caught.value)


def test_a_reply_that_drips_is_cut_off_by_the_deadline_and_a_long_one_by_its_length() -> None:
    with _answering(b"$100\r\n", drip=True) as port:
        address = connection.Address(HOST, port)
        slow = wire.Session(address, connection.opened(address, _soon(60)), _soon(0.3))
        with slow, pytest.raises(wire.ReplyLost):
            slow.ask(("PING",))
    too_long = b"$%d\r\n" % connection.MOST_BYTES + b"x" * connection.MOST_BYTES + b"\r\n"
    with _answering(b"+OK\r\n" + too_long) as port:
        address = connection.Address(HOST, port)
        long = wire.connect(address, username="app", password=b"pw", until_s=_soon(60))
        with long, pytest.raises(wire.ReplyLost):
            long.ask(("PING",))


def _soon(seconds: float) -> float:
    return time.monotonic() + seconds


class _answering:  # noqa: N801 - used as a function
    """Somebody who says this to whatever is asked, and listens on; `drip`: and more, byte after byte."""

    def __init__(self, said: bytes, *, drip: bool = False) -> None:
        self.said, self.drip = said, drip

    def __enter__(self) -> int:
        self.listener = socket.create_server((HOST, 0))
        self.over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()
        port: int = self.listener.getsockname()[1]
        return port

    def _serve(self) -> None:
        try:
            connection, _ = self.listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(self.said)
                while not self.over.wait(0.02):
                    connection.sendall(b"x" if self.drip else b"")
        except OSError:
            pass

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.listener.close()


# ------------------------------------------------------------------------------------------------------------ TLS


def test_tls_is_verified_in_full_and_never_fallen_back_from(new_node: Make, tmp_path: Path) -> None:
    made = tls.issue()
    node = new_node(certificates=made)
    (tmp_path / "other").write_text(tls.issue().ca)
    ours = {"ca": str(node.folder / "ca"), "certificate": str(node.folder / "crt"), "key": str(node.folder / "key")}
    account = plain(node)
    one = version(1, "app", "old")
    target = open_target(account, tls=ours)
    assert of("refuse", target.check(context(one))) == []
    assert accepted(target, one) == [True]
    for told in (
        {"ca": ours["ca"]},  # the server asks for a certificate of ours
        {**ours, "ca": str(tmp_path / "other")},
        {key: path for key, path in ours.items() if key != "ca"},  # the system's authorities
    ):
        other = open_target(account, tls=told)
        assert "no verified TLS connection" in of("refuse", other.check(context(one)))[0], told
        with pytest.raises(connection.LoginFailed, match="no verified TLS"):
            other.test(one, context(one))
    assert open_target(account).test(one, context(one)) is Login.UNREACHABLE  # plain, to a port that speaks TLS
    with pytest.raises(ConfigurationInvalid, match="nowhere"):
        open_target(account, tls={"ca": "/nowhere"}).test(one, context(one))
    (told_,) = of("refuse", open_target(account, tls={"ca": "/nowhere"}).check(context(one)))
    assert "/nowhere" in told_


def test_tls_to_a_server_without_it_is_no_verified_connection(node: RedisNode) -> None:
    target = open_target(plain(node, "app"), tls={"ca": None}, timeout=0.5)
    one = version(1, "app", "old")
    assert of("ok", target.check(context(one))) == []
    with pytest.raises(connection.LoginFailed):
        raise (
            connection.LoginFailed(connection.Denial.UNREACHABLE, "silent")
            if (target.test(one, context(one)) is Login.UNREACHABLE)
            else AssertionError
        )


@pytest.mark.parametrize(
    ("host", "said", "verified"),
    [
        ("cache.internal", None, True),
        ("10.0.0.5", None, True),
        ("localhost", None, False),
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("/run/redis/redis.sock", None, False),
        ("cache.internal", False, False),  # an unquoted `off` in YAML
        ("127.0.0.1", {"ca": "/ca.pem"}, True),
    ],
)
def test_tls_is_on_unless_it_is_said_or_there_is_nothing_to_overhear(host: str, said: object, verified: bool) -> None:
    settings = RedisSettings.model_validate({"host": host, "user": "app", "admin": "self", "tls": said})
    assert (settings.addresses[0].tls is not None) is verified
    if said is False:
        assert isinstance(
            RedisSettings.model_validate({"host": host, "user": "a", "admin": "self", "tls": "off"}), RedisSettings
        )


def test_a_unix_socket_is_as_good(node: RedisNode) -> None:
    target = open_target(plain(node, "app"), host=node.unix)
    one, new = version(1, "app", "old"), version(2, "app")
    assert of("refuse", target.check(context(one))) == []
    assert target.set([new, one], [], context(one, new)) == Done()
    assert accepted(target, new, one) == [True, True]
    assert target.set([one], [new], context(one, new)) == Done()


def test_plain_text_on_a_network_is_said_aloud(monkeypatch: pytest.MonkeyPatch, node: RedisNode) -> None:
    monkeypatch.setattr(connection.Address, "is_local", property(lambda _: False))
    target = open_target(plain(node, "app"), tls="off")
    assert "travels readable" in " ".join(of("warn", target.check(context(version(1, "app", "old")))))


# ------------------------------------------------------------------------------------------------ names and values


@pytest.mark.parametrize(
    "name", ["o'brien", 'a"b', "per%cent", "a@b", "ünï-名", "a=b", "#x", "a|b,c;{d}$e", "back\\slash"]
)
def test_an_odd_account_name_is_rotated_like_any_other(node: RedisNode, name: str) -> None:
    target = open_target(plain(node, name))
    old, new = version(1, name, "old"), version(2, name)
    assert of("refuse", target.check(context(old))) == []
    assert target.set([new, old], [], context(old, new)) == Done()
    with as_user(node, name, "old"):
        usage = target.usage(old, datetime.now(UTC), context(old, new))
        assert usage == Usage(in_use=None)
        assert target.disconnect(old, context(old, new)) == Done()
        assert node.sessions(name) == []
    assert target.set([new], [old], context(old, new)) == Done()
    assert accepted(target, new, old) == [True, False]
    assert target.test(version(3, name), context()) is Login.REJECTED


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\nb", "a\0b", ""])
def test_a_name_that_redis_cannot_have_is_refused_in_the_policy(name: str) -> None:
    with pytest.raises(ValueError, match="holds no blank"):
        RedisSettings.model_validate({"host": "h", "user": name, "admin": "self"})


def test_any_bytes_are_a_password_and_none_is_not(node: RedisNode) -> None:
    target = open_target(plain(node, "app"))
    old, new = version(1, "app", "old"), version(2, "app", bytes(range(256)))
    assert target.set([new, old], [], context(old, new)) == Done()
    assert logs_in(node.address, "app", bytes(range(256)))
    assert accepted(target, new) == [True]
    longest = version(4, "app", b"x" * (RedisTarget.capabilities.max_bytes or 0))
    assert target.set([old, longest], [new], context(old, new)) == Done()
    assert accepted(target, longest, new) == [True, False]
    assert target.set([old], [longest], context(old, longest)) == Done()
    empty = version(3, "app", b"")
    refused = target.set([empty, old], [], context(old, empty))
    assert isinstance(refused, No_)
    assert refused.why is No.VALUE


def test_a_value_is_adopted_for_the_policys_account_only(node: RedisNode) -> None:
    target = open_target(plain(node, "app"))
    with pytest.raises(ConfigurationInvalid, match="for other"):
        target.complete({"username": SecretBytes(b"other"), "password": SecretBytes(b"x")}, context(), adopting=True)


# -------------------------------------------------------------------------------------------------------- sessions


def test_sessions_older_than_the_newest_value_are_named_and_of_younger_ones_nothing_is_said(node: RedisNode) -> None:
    target = open_target(plain(node, "holder"))
    old = version(1, "holder", "old")
    new = version(2, "holder", made=datetime.now(UTC))
    ctx: Context = context(old, new)
    assert target.usage(old, datetime.now(UTC), ctx) == Usage(in_use=False)
    with as_user(node, "holder", "old") as session:
        identity = session("CLIENT", "ID")
        assert target.usage(old, datetime.now(UTC), ctx) == Usage(in_use=None)  # may have been opened with either
        later = replace(new, created_at=datetime.now(UTC) + timedelta(seconds=5))
        used = target.usage(old, datetime.now(UTC), context(old, later))
        assert used == Usage(True, (f"1 session of holder from {HOST} at {HOST}:{node.port} (id {identity})",))
        assert target.disconnect(old, ctx) == Done()
        with pytest.raises(OSError, match="hung up"):
            session("PING")


def test_a_login_that_takes_long_makes_no_session_older(node: RedisNode, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_target(plain(node, "late"))
    old, new = version(1, "late", "old"), version(2, "late")
    connect = target._connect
    with ExitStack() as held:

        def slowly(*words: Any) -> wire.Session:
            session = connect(*words)
            held.enter_context(as_user(node, "late", "old"))
            time.sleep(2.1)
            return session

        monkeypatch.setattr(target, "_connect", slowly)
        assert target.usage(old, datetime.now(UTC), context(old, new)) == Usage(in_use=None)


def test_our_own_session_is_neither_counted_nor_closed(node: RedisNode) -> None:
    target = open_target(plain(node, "alone"), admin="self")
    old, new = version(1, "alone", "old"), version(2, "alone")
    assert target.usage(old, datetime.now(UTC), context(old)) == Usage(in_use=False)
    with as_user(node, "alone", "old"):
        assert target.disconnect(old, context(old)) == Done()
        wait_until(lambda: node.sessions("alone") == [])  # ours ends by itself
    assert target.set([new], [old], context(old, new)) == Done()
    assert target.disconnect(old, context(old, new)) == Done()


# ------------------------------------------------------------------------------------- replicas, Sentinels, many nodes


def test_replicas_and_sentinels_that_log_in_as_the_account_are_named_first(new_node: Make) -> None:
    master = new_node(requirepass="old")
    source = f"replicaof {HOST} {master.port}"
    replica = new_node("config_file", lines=[source, "masterauth old"])
    new_node("sentinel", lines=[f"sentinel monitor cache {HOST} {master.port} 1", "sentinel auth-pass cache old"])
    wait_until(lambda: len({one["flags"] for one in master.sessions("default")}) == 3)  # a replica, a Sentinel's two
    old = version(1, "default", "old")
    findings = open_target(plain(master, "default")).check(context(old))
    (told,) = of("refuse", findings)
    assert "a Sentinel from 127.0.0.1, a replica from 127.0.0.1" in told
    assert "replication: delivered" in told
    assert "has 1 replica," in " ".join(of("warn", findings))
    of_it = open_target(plain(replica)).check(context(version(1, "app", "old")))
    assert [told for told in of("warn", of_it) if "replica" in told] == []
    declared = open_target(plain(master, "default"), replication="delivered")
    assert of("refuse", declared.check(context(old))) == []


def test_nodes_that_differ_are_told_before_a_rotation_and_made_equal_in_one(new_node: Make) -> None:
    nodes = [new_node(), new_node()]
    target = open_target(_at(nodes))
    old, new = version(1, "app", "old"), version(2, "app")
    nodes[1].acl("app", "resetpass", f"#{hashed(password_of(new))}")
    with pytest.raises(BackendError, match=f"{nodes[1].port} does not accept v1"):
        target.observe([old], context(old))
    assert "does not accept the current value" in of("refuse", target.check(context(old)))[0]
    with pytest.raises(BackendError, match=f"{nodes[0].port} accepts a password of app that {HOST}:{nodes[1].port}"):
        target.test(old, context(old))
    assert seen(target, old, new, current=old, pending=new).answers == {}  # neither accepted nor refused: set again
    assert target.set([new, old], [], context(old, new)) == Done()
    assert seen(target, old, new).answers == {1: Login.ACCEPTED, 2: Login.ACCEPTED}
    nodes[1].kill()
    assert isinstance(target.observe([old], context(old)), Unknown)
    assert target.test(old, context(old)) is Login.UNREACHABLE
    assert isinstance(target.set([new], [old], context(old, new)), Unknown)
    assert nodes[0].hashes("app") == {hashed("old"), hashed(password_of(new))}  # not before all answer


def test_a_cluster_named_by_one_node_is_pointed_out(new_node: Make) -> None:
    node = new_node(lines=["cluster-enabled yes"])
    told = of("warn", open_target(plain(node)).check(context(version(1, "app", "old"))))
    assert "each node has accounts of its own" in " ".join(told)


def test_nodes_are_named_once() -> None:
    base = {"host": "cache", "user": "app", "admin": "self"}
    with pytest.raises(ValueError, match="named once"):
        RedisSettings.model_validate({**base, "nodes": [{"host": "cache", "port": 6379}]})
    two = RedisTarget.open({**base, "nodes": [{"host": "replica"}]}, 1)
    assert two.system() == RedisTarget.open(base, 1).system()  # a replica more is the same system


# ------------------------------------------------------------------------------------------------ Valkey, by its INFO


class Scripted:
    """A session of a server that answers these replies."""

    address = connection.Address(HOST, 6379)

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)

    def run(self, *commands: wire.Command) -> list[Any]:
        return [self.replies.pop(0) for _ in commands]


def test_valkey_says_its_mode_and_version_in_words_of_its_own() -> None:
    """https://valkey.io/commands/info/"""
    told = ("# Server", "redis_version:7.2.4", "valkey_version:8.1.0", "server_mode:sentinel", "config_file:/s.conf")
    session: Any = Scripted(
        "\r\n".join(told).encode(), wire.Refusal("ERR", "unknown command 'CONFIG', with args"), None
    )
    node = acl.look(session, "vk", ["app"], saves=True)
    assert (node.version, node.is_sentinel, node.users) == ("8.1.0", True, {"app": None})
    assert node.savers() == [acl.ACL_SAVE, acl.FLUSH_CONFIG]
