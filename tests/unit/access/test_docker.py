"""What an Engine answers, and what it means when it does not. The server here says what each test tells it to."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import tls as certificates
from vaultkeeper.access import docker, process
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.docker import EngineSettings
from vaultkeeper.access.docker import context as docker_context
from vaultkeeper.access.docker.answers import Declined, EngineTrouble, no_connection
from vaultkeeper.errors import ConfigurationInvalid, NotFound
from vaultkeeper.model.outcome import No, Refused, Unknown
from vaultkeeper.model.secret import Fields, SecretBytes
from vaultkeeper.ports import Deadline

Reply = tuple[int, bytes]
DATE = "Sat, 21 Nov 2026 03:00:00 GMT"


class Around:
    """What the environment says of Docker."""

    def __init__(self, **said: str) -> None:
        self.said = said

    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        if reference != docker_context.SURROUNDINGS:
            raise NotFound("no")
        return {name: SecretBytes(value.encode()) for name, value in self.said.items()}


def soon(seconds: float = 60) -> Deadline:
    return Deadline(time.monotonic() + seconds)


@contextmanager
def served(
    at: Path | socket.socket, answer: Callable[[str], Reply | None], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[str]]]:
    """An address and the requests that came, one per connection; None: never answered."""
    asked = list[str]()
    listening = at if isinstance(at, socket.socket) else socket.socket(socket.AF_UNIX)
    url = f"tcp://127.0.0.1:{listening.getsockname()[1]}" if isinstance(at, socket.socket) else f"unix://{at / 's'}"
    if isinstance(at, Path):
        listening.bind(str(at / "s"))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        try:
            connection = tls.wrap_socket(connection, server_side=True) if tls else connection
        except OSError:
            return
        head = connection.makefile("rb")
        line = head.readline().decode()
        while head.readline().strip():
            pass
        asked.append(" ".join(line.split()[:2]))
        reply = answer(asked[-1])
        if reply is None:
            return
        status, body = reply
        lines = [f"HTTP/1.1 {status} X", f"Date: {DATE}", "Connection: close", f"Content-Length: {len(body)}", "", ""]
        connection.sendall("\r\n".join(lines).encode() + body)
        head.close()
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield url, asked
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def engine(url: str) -> docker.Engine:
    return docker.engine(EngineSettings(host=url), Around())


def versioned(answer: Reply, version: str = "1.99") -> Callable[[str], Reply]:
    return lambda asked: (200, json.dumps({"ApiVersion": version}).encode()) if asked == "GET /version" else answer


def test_it_speaks_the_version_that_the_engine_has_and_tells_its_clock(tmp_path: Path) -> None:
    with served(tmp_path, versioned((200, b'{"A": 1}'))) as (url, asked), engine(url) as opened:
        assert opened.get("/services/x", soon()) == {"A": 1}
        opened.get("/services/x", soon())
        assert asked == ["GET /version", "GET /v1.99/services/x", "GET /v1.99/services/x"]
        assert opened.now_s == 1795230000


@pytest.mark.parametrize(
    ("reply", "kind", "word"),
    [
        ((403, b"<html>Forbidden"), No.PRIVILEGE, "proxy"),
        ((401, b"{}"), No.PRIVILEGE, "does not know us"),
        (
            (503, b'{"message": "This node is not a swarm manager. Use docker swarm init"}'),
            No.UNSUPPORTED,
            "swarm init",
        ),
        (
            (503, b'{"message": "This node is not a swarm manager. Worker nodes can\'t be used to view"}'),
            No.UNSUPPORTED,
            "worker",
        ),
        ((503, b'{"message": "Swarm is encrypted and needs to be unlocked"}'), No.UNSUPPORTED, "unlock"),
        ((503, b'{"message": "busy"}'), None, "busy"),
        ((500, b'{"message": "rpc error: The swarm does not have a leader."}'), None, "leader"),
        ((429, b"slow down"), None, "slow down"),
        ((200, b"<html>"), None, "no JSON"),
        ((200, b'"' + bytes(docker.MAX_REPLY_BYTES) + b'"'), None, "more than"),
    ],
    ids=["proxy", "unknown", "swarm off", "worker", "locked", "busy", "no leader", "too often", "no JSON", "endless"],
)
def test_an_answer_about_the_engine_itself_says_so(tmp_path: Path, reply: Reply, kind: No | None, word: str) -> None:
    with served(tmp_path, versioned(reply)) as (url, _), engine(url) as opened:
        with pytest.raises(EngineTrouble) as caught:
            opened.get("/services", soon())
        result = caught.value.result
        assert isinstance(result, Refused if kind else Unknown)
        assert not isinstance(result, Refused) or result.why is kind
        assert word in result.detail


@pytest.mark.parametrize("told", ["1.40", "1.9", "x"])
def test_an_engine_that_is_too_old_is_not_spoken_to(tmp_path: Path, told: str) -> None:
    with served(tmp_path, versioned((200, b"{}"), told)) as (url, asked), engine(url) as opened:
        with pytest.raises(EngineTrouble):
            opened.get("/services", soon())
        assert asked == ["GET /version"]


@pytest.mark.parametrize(("status", "definite"), [(400, True), (409, True), (500, False)])
def test_a_refused_request_is_definite_and_a_broken_server_is_not(tmp_path: Path, status: int, definite: bool) -> None:
    with served(tmp_path, versioned((status, b'{"message": "no  such\\nthing"}'))) as (url, _), engine(url) as opened:
        with pytest.raises(Declined) as caught:
            opened.post("/secrets/create", soon(), {"Data": "vk-canary"})
        assert caught.value.said == "no such thing"
        assert isinstance(caught.value.result, Refused) is definite
        assert "canary" not in f"{caught.value!r}{caught.value.result}"


def test_what_is_absent_may_be(tmp_path: Path) -> None:
    with served(tmp_path, versioned((404, b"{}"))) as (url, _), engine(url) as opened:
        assert opened.get("/services/x", soon(), absent_ok=True) is None
        with pytest.raises(Declined):
            opened.get("/services/x", soon())


def test_silence_ends_at_the_deadline(tmp_path: Path) -> None:
    with served(tmp_path, lambda _: None) as (url, _), engine(url) as opened, pytest.raises(EngineTrouble) as caught:
        opened.get("/services", soon(0.2))
    assert isinstance(caught.value.result, Unknown)


@pytest.mark.parametrize(
    ("stream", "line"),
    [
        (b"", ""),
        (b"\x01\0\0\0\0\0\0\x06first\n\x02\0\0\0\0\0\0\x05last\n", "last"),
        (b"no frames\r\nof a terminal\x1b[0m\r\n", "of a terminal [0m"),
    ],
)
def test_the_last_line_of_a_log_is_found_in_frames_or_without(tmp_path: Path, stream: bytes, line: str) -> None:
    with served(tmp_path, versioned((200, stream))) as (url, _), engine(url) as opened:
        assert opened.last_line("/tasks/x/logs", soon()) == line


def test_a_log_that_cannot_be_had_is_empty(tmp_path: Path) -> None:
    with served(tmp_path, versioned((500, b"{}"))) as (url, _), engine(url) as opened:
        assert opened.last_line("/tasks/x/logs", soon()) == ""


def test_no_socket_is_told_from_a_socket_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(EngineTrouble, match="no such socket"):
        engine(f"unix://{tmp_path}/none").get("/info", soon())


def test_clear_text_must_be_said_except_on_loopback() -> None:
    far = "tcp://192.0.2.1:2375"
    with pytest.raises(Answered, match="clear text"):
        docker.engine(EngineSettings(host=far), Around())
    assert docker.engine(EngineSettings(host=far, tls="off"), Around()).endpoint.url == far
    near = "tcp://127.0.0.1:2375"
    assert docker.engine(EngineSettings(host=near), Around()).endpoint.url == near
    with pytest.raises(Answered, match="clear text"):
        docker.engine(EngineSettings(), Around(host=far))


def test_a_socket_that_is_not_ours_to_use_is_definite_and_says_what_helps() -> None:
    trouble = no_connection("unix:///s", PermissionError(13, "Permission denied"))
    assert isinstance(trouble.result, Refused)
    assert trouble.result.why is No.PRIVILEGE
    assert "group `docker`" in trouble.next


def test_tls_trusts_the_named_authority_only(tmp_path: Path) -> None:
    issued, other = certificates.issue(), certificates.issue()
    for name, text in (("ca", issued.ca), ("other", other.ca), ("cert", issued.certificate), ("key", issued.key)):
        (tmp_path / f"{name}.pem").write_text(text)
    ours, theirs = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context_ in (ours, theirs):
        context_.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    theirs.load_verify_locations(tmp_path / "ca.pem")
    theirs.verify_mode = ssl.CERT_REQUIRED  # as `dockerd --tlsverify`
    for server in (ours, theirs):
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        with served(listening, versioned((200, b"[]")), server) as (url, asked):
            files = {"ca": f"{tmp_path}/ca.pem", "cert": f"{tmp_path}/cert.pem", "key": f"{tmp_path}/key.pem"}
            said = EngineSettings.model_validate({"host": url, "tls": files})
            with docker.engine(said, Around()) as opened:
                assert opened.get("/services", soon()) == []
            wrong = EngineSettings.model_validate({"host": url, "tls": {"ca": f"{tmp_path}/other.pem"}})
            with docker.engine(wrong, Around()) as opened, pytest.raises(EngineTrouble, match="TLS"):
                opened.get("/services", soon())
            assert len(asked) == 2


def test_ssh_runs_dial_stdio_over_there_and_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program `ssh` here leads to a socket of this machine, and writes down how it was called."""
    program = tmp_path / "ssh"
    program.write_text(SSH.format(python=sys.executable, folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setattr(process, "ENVIRONMENT", {"PATH": str(tmp_path)})
    with served(tmp_path, versioned((200, b"[]"))) as (_, asked):
        settings = EngineSettings(host="ssh://deploy@manager.internal:2222")
        with docker.engine(settings, Around(ssh_auth_sock="/agent")) as opened:
            assert opened.get("/services", soon()) == []
    assert asked == ["GET /version", "GET /v1.99/services"]
    called = (tmp_path / "called").read_text().splitlines()[0]
    assert called == "-T -o BatchMode=yes -l deploy -p 2222 -- manager.internal docker system dial-stdio /agent"


SSH = """#!{python}
import os, socket, sys, threading
open("{folder}/called", "a").write(" ".join([*sys.argv[1:], os.environ.get("SSH_AUTH_SOCK", "")]) + "\\n")
there = socket.socket(socket.AF_UNIX)
there.connect("{folder}/s")
def back():
    while said := there.recv(4096):
        os.write(1, said)
    os._exit(0)
threading.Thread(target=back).start()
while said := os.read(0, 4096):
    there.sendall(said)
"""


# ---------------------------------------------------------------------------------------------------- which Engine


def context(config: Path, name: str, host: str, **more: object) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts/meta" / digest
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host, **more}}}))
    tls = config / "contexts/tls" / digest / "docker"
    tls.mkdir(parents=True)
    (tls / "ca.pem").touch()


def url(settings: EngineSettings, **around: str) -> str:
    tls = settings.tls
    assert tls is None or tls == "off"
    return docker_context.find(settings.host, settings.context, None, Around(**around)).url


def test_the_policy_goes_before_the_environment_and_that_before_the_current_context(tmp_path: Path) -> None:
    context(tmp_path, "one", "tcp://one:1")
    context(tmp_path, "two", "tcp://two:2")
    config = {"config": str(tmp_path)}
    (tmp_path / "config.json").write_text('{"currentContext": "two"}')
    everything = {**config, "host": "tcp://env:3", "context": "one"}
    assert url(EngineSettings(host="unix:///p"), **everything) == "unix:///p"
    assert url(EngineSettings(context="one"), **everything) == "tcp://one:1"
    assert url(EngineSettings(), **everything) == "tcp://env:3"
    assert url(EngineSettings(), **config, context="one") == "tcp://one:1"
    assert url(EngineSettings(), **config) == "tcp://two:2"
    assert url(EngineSettings(context="default"), **config) == docker_context.DEFAULT_URL
    assert url(EngineSettings()) == docker_context.DEFAULT_URL


def test_a_context_brings_its_tls_files_and_one_that_verifies_nothing_is_refused(tmp_path: Path) -> None:
    context(tmp_path, "one", "tcp://one:1")
    context(tmp_path, "lax", "tcp://lax:1", SkipTLSVerify=True)
    found = docker_context.find(None, "one", None, Around(config=str(tmp_path)))
    assert found.tls is not None
    assert str(found.tls[0]).endswith("docker/ca.pem")
    assert found.environment["DOCKER_TLS_VERIFY"] == "1"
    for name in ("lax", "none"):
        with pytest.raises(ConfigurationInvalid):
            docker_context.find(None, name, None, Around(config=str(tmp_path)))


def test_docker_tls_verify_asks_for_tls_with_the_files_of_docker_cert_path(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    around = Around(host="tcp://env:3", tls_verify="1", cert_path=str(tmp_path))
    assert docker_context.find(None, None, None, around).tls == (f"{tmp_path}/ca.pem", None, None)
