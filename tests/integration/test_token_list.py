"""Lists of bearer tokens, with a real process that checks them. The contract runs in tests/contract."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.integration.delivery_kit import FileCredentials
from tests.servers.token_list import TokenListServer, start
from vaultkeeper.access import files
from vaultkeeper.access import probe as probes
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, NotYet, Observation, Refused, Unknown
from vaultkeeper.model.secret import SecretBytes, SecretVersion
from vaultkeeper.ports import Context, Deadline, Rendered
from vaultkeeper.targets.token_list import TokenListTarget
from vaultkeeper.testing.contract.trial import version


def token(number: int, value: str = "") -> SecretVersion:
    given = SecretBytes((value or secrets.token_urlsafe(32)).encode())
    return version(number, {"token": given}, "token_list", {})


def context(seconds: float = 60) -> Context:
    return Context("test", "shop/otel", 1, Deadline(time.monotonic() + seconds), FileCredentials(), None, None)


def target(path: Path | None, **settings: object) -> TokenListTarget:
    proof = {} if "probe" in settings else {"verify": "none", "reason": "a test"}
    return TokenListTarget.open({**({"path": str(path)} if path else {}), **proof, **settings}, 1)


def write(path: Path, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion] = ()) -> object:
    return target(path).set(accept, refuse, context())


@pytest.fixture
def server() -> Iterator[TokenListServer]:
    server = start()
    yield server
    server.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


OLD, NEW = token(1, "old-token"), token(2, "new-token")


def test_the_new_token_comes_first_and_no_line_is_blank(path: Path) -> None:
    path.write_text("\nold-token\r\n\n  theirs their comment\t\nlast\n")
    assert write(path, [NEW, OLD]) == Done()
    assert path.read_text() == "new-token\nold-token\ntheirs their comment\nlast"
    assert write(path, [NEW], [OLD]) == Done()
    assert path.read_text() == "new-token\ntheirs their comment\nlast"


def test_only_the_first_word_of_a_line_is_its_token(path: Path) -> None:
    path.write_text("old-token made in May\nother old-token\n# old-token\nold-tokens")
    assert write(path, [NEW], [OLD]) == Done()
    assert path.read_text() == "new-token\nother old-token\n# old-token\nold-tokens"


def test_going_back_takes_the_new_token_out_again(path: Path) -> None:
    path.write_text("old-token")
    write(path, [NEW, OLD])
    assert write(path, [OLD], [NEW]) == Done()
    assert path.read_text() == "old-token"


def test_a_list_is_never_emptied(path: Path) -> None:
    path.write_text("old-token\n")
    refused = write(path, [], [OLD])
    assert isinstance(refused, Refused)
    assert path.read_text() == "old-token\n"


def test_what_is_right_already_is_not_written_again(path: Path) -> None:
    write(path, [NEW, OLD])
    before = path.stat()
    assert write(path, [NEW, OLD]) == Done()
    assert path.stat() == before or path.stat().st_ino == before.st_ino


def test_the_list_is_renamed_into_place_with_the_collectors_owner_and_mode(path: Path) -> None:
    path.write_text("old-token")
    path.chmod(0o440)
    if os.geteuid() == 0:
        os.chown(path, 10001, 10001)
    before = path.stat()
    write(path, [NEW, OLD])
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert after.st_ino != before.st_ino


def test_a_reader_never_finds_a_torn_an_empty_or_a_missing_list(path: Path) -> None:
    versions = [token(number) for number in range(151)]
    known = {v.fields["token"].reveal() for v in versions} | {b"theirs"}
    path.write_text("theirs")
    write(path, versions[:1])
    over, wrong = threading.Event(), []

    def read() -> None:
        while not over.is_set():
            try:
                lines = path.read_bytes().split(b"\n")
            except FileNotFoundError:
                lines = []
            if not 2 <= len(lines) <= 3 or not set(lines) <= known or b"theirs" not in lines:
                wrong.append(lines)

    reader = threading.Thread(target=read)
    reader.start()
    for old, new in pairwise(versions):
        assert write(path, [new, old]) == Done()
        assert write(path, [new], [old]) == Done()
    over.set()
    reader.join()
    assert wrong == []
    assert [p.name for p in path.parent.iterdir()] == ["tokens"]


def _rotate(path: Path, name: str) -> None:
    held = token(0, f"{name}-0")
    for number in range(1, 26):
        new = token(number, f"{name}-{number}")
        for accept, refuse in (([new, held], []), ([new], [held])):
            while True:
                answer = write(path, accept, refuse)
                if answer == Done():
                    break
                assert isinstance(answer, NotYet) or (isinstance(answer, Refused) and answer.why is No.CONFLICT)
        held = new


def test_processes_that_rotate_different_secrets_in_one_list_lose_nothing(path: Path) -> None:
    names = ["a", "b", "c"]
    path.write_text("\n".join(["theirs", *(f"{name}-0" for name in names)]))
    processes = [multiprocessing.get_context("fork").Process(target=_rotate, args=(path, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    assert set(path.read_text().split("\n")) == {"theirs", "a-25", "b-25", "c-25"}


def test_leftovers_of_a_killed_write_go_with_the_next_set(path: Path) -> None:
    write(path, [OLD])
    (path.parent / f"{files._temporary('tokens')}dead").write_text("half")
    write(path, [OLD])
    assert [p.name for p in path.parent.iterdir()] == ["tokens"]


@pytest.mark.parametrize("value", ["a b", "a#", "a,b", "a\nb", "x" * 1025, "é", "\t"])
def test_a_token_that_no_checker_could_read_is_refused_and_not_shown(path: Path, value: str) -> None:
    path.write_text("old-token")
    refused = write(path, [token(3, value), OLD])
    assert isinstance(refused, Refused)
    assert refused.why is No.VALUE
    assert path.read_text() == "old-token"


def test_the_file_tells_what_is_accepted_and_how_many_are_not_ours(path: Path) -> None:
    path.write_text("theirs\nold-token\n\nmore of theirs")
    seen = target(path).observe([OLD, NEW], context())
    assert isinstance(seen, Observation)
    assert (seen.answers, seen.basis) == ({1: Login.ACCEPTED, 2: Login.REJECTED}, Basis.LISTING)
    assert (seen.foreign, seen.account_usable) == (2, False)


def test_a_directory_that_is_away_tells_nothing_and_a_missing_file_accepts_nobody(tmp_path: Path) -> None:
    assert isinstance(target(tmp_path / "unmounted" / "tokens").observe([OLD], context()), Unknown)
    seen = target(tmp_path / "tokens").observe([OLD], context())
    assert isinstance(seen, Observation)
    assert seen.answers == {1: Login.REJECTED}


def probing(server: TokenListServer, **probe: object) -> TokenListTarget:
    settings = server.account().settings["probe"]
    assert isinstance(settings, dict)
    return target(server.path, probe={**settings, **probe})


@pytest.fixture
def age(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The last change is young until this is called, however slow the machine is."""
    monkeypatch.setattr(probes, "RELOAD_TIME_S", 3600.0)
    return lambda: monkeypatch.setattr(probes, "RELOAD_TIME_S", 0.0)


def test_a_deaf_checker_is_no_answer_at_first_and_then_the_truth(
    server: TokenListServer, age: Callable[[], None]
) -> None:
    opened = probing(server)
    new, old = token(2), token(1)
    opened.set([old], [], context())
    assert opened.test(old, context()) is Login.ACCEPTED
    with server.fault("deaf"):
        opened.set([new], [old], context())
        assert opened.test(new, context()) is Login.UNREACHABLE
        assert opened.test(old, context()) is Login.UNREACHABLE
        age()
        assert opened.test(new, context()) is Login.REJECTED
        assert opened.test(old, context()) is Login.ACCEPTED
    assert opened.test(new, context()) is Login.ACCEPTED


def test_a_list_is_young_since_it_stands_there_and_when_its_checker_was_asked(
    server: TokenListServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content may be written long before: syncing it takes seconds on a slow disk. And our machine may stall."""
    monkeypatch.setattr(probes, "RELOAD_TIME_S", 600.0)
    opened, held = probing(server), token(1)
    with server.fault("deaf"):
        opened.set([held], [], context())
        stamp = server.path.stat()
        os.utime(server.path, (stamp.st_atime, stamp.st_mtime - 3600))
        assert opened.test(held, context()) is Login.UNREACHABLE
        asked, ahead = probes.ask, [0.0]

        def stalled(*given: Any) -> Login:
            said = asked(*given)
            ahead[0] = 3600.0
            return said

        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
        monkeypatch.setattr(probes, "ask", stalled)
        assert opened.test(held, context()) is Login.UNREACHABLE
        assert opened.test(held, context()) is Login.REJECTED


def test_a_deaf_checker_is_named_by_check_and_by_what_it_is_asked_for(
    server: TokenListServer, age: Callable[[], None]
) -> None:
    opened, new, old = probing(server), token(2), token(1)
    opened.set([old], [], context())
    today = replace(context(), current=new)
    with server.fault("deaf"):
        opened.set([new], [old], context())
        assert not refusals(opened, today)  # it may still be on its way
        age()
        (found,) = refusals(opened, today)
        assert found.text == opened.explain(new, Login.REJECTED, today)
        assert found.text.startswith(f"{server.path} lists this token and the checker refuses it: it no longer reads")
        assert opened.explain(old, Login.ACCEPTED, today).startswith(f"{server.path} no longer lists this token")
        assert opened.explain(old, Login.REJECTED, today) == opened.explain(new, Login.ACCEPTED, today) == ""
    assert not refusals(opened, today)


def test_with_via_a_checker_that_does_not_go_by_its_list_is_asked_about() -> None:
    opened = target(None, probe={"http": "http://127.0.0.1:9/"})
    assert "does it read it from there?" in opened.explain(NEW, Login.REJECTED, replace(context(), pending=NEW))
    assert opened.explain(NEW, Login.REJECTED, context()) == ""  # adopting: the token is wrong


def test_a_list_that_nobody_may_read_is_refused_before_it_is_written(server: TokenListServer) -> None:
    opened = probing(server)
    server.path.chmod(0)
    (found,) = refusals(opened, context())
    refused = opened.set([NEW], [], context())
    assert isinstance(refused, Refused)
    assert refused.detail == found.text
    if os.geteuid() == 0:  # others cannot even read it
        assert refused.detail.startswith(f"{server.path} has a mode that lets nobody read it")
        assert target(server.path, mode="0600").set([NEW], [], context()) == Done()
        assert server.path.read_text().startswith("new-token\n")


def refusals(opened: TokenListTarget, ctx: Context) -> list[Finding]:
    return [finding for finding in opened.check(ctx) if finding.level == "refuse"]


def test_a_checker_that_accepts_everybody_is_found_by_check_and_by_a_wrong_token(
    server: TokenListServer, age: Callable[[], None]
) -> None:
    opened = probing(server)
    assert [finding.level for finding in opened.check(context())] == ["ok"]
    age()
    with server.fault("accepts-all"):
        assert "refuse" in [finding.level for finding in opened.check(context())]
        assert opened.test(token(9), context()) is Login.ACCEPTED


def test_any_other_answer_is_no_answer(server: TokenListServer, age: Callable[[], None]) -> None:
    held = token(1, server.account().password)
    assert probing(server, accepted=[200]).test(held, context()) is Login.UNREACHABLE
    assert probing(server, scheme="Basic").test(held, context()) is Login.UNREACHABLE  # young, and the file disagrees
    with server.fault("unreachable"):
        assert probing(server).test(held, context()) is Login.UNREACHABLE
    with server.fault("silent"):
        assert probing(server).test(held, context(0.5)) is Login.UNREACHABLE


def test_a_throttling_proxy_before_the_checker_is_no_rejection(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert target(path, probe={"http": url}).test(OLD, context()) is Login.THROTTLED


def test_a_token_never_leaves_this_machine_over_plain_http(path: Path) -> None:
    probe = {"http": "http://192.0.2.1:4318/v1/traces"}
    with pytest.raises(ConfigurationInvalid) as caught:
        target(path, probe=probe).test(OLD, context(5))
    assert "old-token" not in str(caught.value)
    assert "refuse" in [finding.level for finding in target(path, probe=probe).check(context(5))]
    assert TokenListTarget.Settings.model_validate({"probe": {**probe, "tls": "off"}}).probe.tls == "off"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("code", "answer"),
    [(0, Login.ACCEPTED), (1, Login.REJECTED), (75, Login.THROTTLED), (2, Login.UNREACHABLE), (127, Login.UNREACHABLE)],
)
def test_a_command_gets_the_token_on_stdin_and_answers_by_its_code(tmp_path: Path, code: int, answer: Login) -> None:
    script = tmp_path / "probe"
    script.write_text(
        f"import sys\nassert sys.argv[1:] == []\nassert sys.stdin.read() == 'old-token'\nsys.exit({code})\n"
    )
    probe = {"command": [sys.executable, "-I", str(script)]}
    assert target(None, probe=probe).test(OLD, context()) is answer


def test_a_comment_line_and_a_list_for_everybodys_eyes_are_pointed_out(server: TokenListServer) -> None:
    server.write(["# tokens of the shop", "theirs"])
    server.path.chmod(0o644)
    told = " ".join(finding.text for finding in probing(server).check(context()))
    assert "`#`" in told
    assert "every user" in told


def test_without_a_probe_nothing_is_claimed(path: Path) -> None:
    opened = target(path)
    write(path, [OLD])
    assert [finding.level for finding in opened.check(context())] == ["unchecked"]
    assert opened.test(OLD, context()) is Login.UNREACHABLE
    with pytest.raises(ValueError, match="verify: none"):
        TokenListTarget.Settings.model_validate({"path": "/tokens"})


def test_a_list_that_travels_elsewhere_is_rendered_and_observed_by_login() -> None:
    opened = target(None, probe={"http": "http://127.0.0.1:9/"})
    assert isinstance(opened, Rendered)
    assert opened.render([NEW, OLD], None) == SecretBytes(b"new-token\nold-token")
    assert opened.render([NEW], SecretBytes(b"old-token\ntheirs x\n"), [OLD]) == SecretBytes(b"new-token\ntheirs x")
    seen = opened.observe([NEW], context())
    assert isinstance(seen, Observation)
    assert (seen.answers, seen.basis) == ({}, Basis.LOGIN)
    assert isinstance(opened.set([NEW], [], context()), Refused)
    assert opened.login_key(NEW) == ("token_list:127.0.0.1:9", "127.0.0.1:9")
