from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import tls
from vaultkeeper.access import http
from vaultkeeper.access.settings import host_of, judge_url
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.ports import Deadline

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve = Callable[[socket.socket], None]


def soon(seconds: float = 60) -> Deadline:
    return Deadline(time.monotonic() + seconds)


@contextmanager
def server(serve: Serve, tls_context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """A listener that answers every connection with `serve`; its URL, and what was asked."""
    scheme = "https" if tls_context else "http"
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def loop() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if tls_context:
                try:
                    connection = tls_context.wrap_socket(connection, server_side=True)
                except OSError:
                    continue
            with connection:
                connection.settimeout(60)
                try:
                    asked.append(_whole(connection))
                    serve(connection)
                except OSError:
                    pass

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/v1", asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(15)


def _whole(connection: socket.socket) -> bytes:
    """One request: head and body may come one after the other."""
    seen = connection.recv(65536)
    head, _, body = seen.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    missing = int(length[1]) - len(body) if length else 0
    return seen + connection.recv(missing, socket.MSG_WAITALL) if missing else seen


def answer(reply: bytes) -> Serve:
    return lambda connection: connection.sendall(reply)


def test_a_request_carries_its_header_and_nothing_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with server(answer(OK)) as (url, asked):
        reply = http.call("GET", url, soon(), headers={"Authorization": "Bearer tok"})
    assert (reply.status, reply.body) == (200, b"ok")
    assert asked[0].startswith(b"GET /v1 HTTP/1.1\r\n")
    assert asked[0].count(b"Authorization") == 1
    assert b"Authorization: Bearer tok\r\n" in asked[0]


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with server(answer(OK)) as (elsewhere, asked):
        moved = b"HTTP/1.1 302 Found\r\nLocation: " + elsewhere.encode() + b"\r\nContent-Length: 0\r\n\r\n"
        with server(answer(moved)) as (url, _):
            assert http.call("GET", url, soon()).status == 302
    assert asked == []


def test_an_endless_reply_is_cut() -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with server(endless) as (url, _):
        assert len(http.call("GET", url, soon(), limit_bytes=1000).body) == 1000


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_one_deadline_holds_however_slowly_a_server_drips(beginning: bytes) -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(beginning)
        while not over.wait(0.05):
            connection.sendall(b"X")

    with server(drip) as (url, _):
        try:
            with pytest.raises(http.HttpError):
                http.call("GET", url, soon(0.5))
        finally:
            over.set()


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
def test_what_is_no_whole_answer_is_an_error(reply: bytes) -> None:
    with server(answer(reply)) as (url, _), pytest.raises(http.HttpError):
        http.call("GET", url, soon())


def test_nobody_there_is_an_error_that_names_the_host() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody else gets it, and nobody listens
        port = unused.getsockname()[1]
        with pytest.raises(http.HttpError, match=f":{port} "):
            http.call("GET", f"http://127.0.0.1:{port}/", soon())


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[::169.254.169.254]",
        "[64:ff9b::169.254.169.254]",  # by NAT64
        "[64:ff9b:1::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",  # by 6to4
        "[2001:0:c000:204::5601:5601]",  # by Teredo, which turns the bits of its client's address round
        "2852039166",
        "0xa9fea9fe",
        "[fd00:ec2::254]",
        "[fd00:ec2::23]",
        "[fd20:ce::254]",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",  # noqa: S104 - it must be refused
        "224.0.0.1",
    ],
)
def test_metadata_and_link_local_addresses_are_never_asked(host: str) -> None:
    with pytest.raises(ConfigurationInvalid):
        http.call("GET", f"http://{host}/latest", soon(), plain_ok=True)


def test_a_name_that_leads_to_metadata_is_refused_whatever_else_it_leads_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[object]:
        found = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*found, ("127.0.0.1", 80)), (*found, ("169.254.169.254", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ConfigurationInvalid):
        http.call("GET", "http://collector.example/", soon(), plain_ok=True)


def test_a_name_is_resolved_once_so_that_it_cannot_change_its_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, *rest: object, **options: object) -> object:
        asked_for.append(host)
        return real("127.0.0.1" if host == "collector.example" else host, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with server(answer(OK)) as (url, _):
        assert http.call("GET", url.replace("127.0.0.1", "collector.example"), soon()).status == 200
    assert asked_for.count("collector.example") == 1


def test_a_credential_goes_over_plain_http_to_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere)
    with pytest.raises(ConfigurationInvalid) as caught:
        http.call("GET", "http://collector.example/", soon(0.2), headers={"Authorization": "Bearer canary"})
    assert "canary" not in str(caught.value)
    with pytest.raises(http.HttpError):  # allowed, and then nobody is there
        http.call("GET", "http://collector.example/", soon(0.2), headers={"A": "canary"}, plain_ok=True)


def test_a_certificate_of_nobody_we_trust_is_refused_and_a_named_authority_is_trusted(
    tmp_path: Path,
) -> None:
    made = tls.issue()
    for name, text in (("ca", made.ca), ("chain", made.certificate), ("key", made.key)):
        (tmp_path / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    with server(answer(OK), context) as (url, asked):
        with pytest.raises(http.HttpError, match="cannot be reached: TLS: unable to get local issuer"):
            http.call("GET", url, soon(), headers={"Authorization": "Bearer canary"})
        assert asked == []
        assert http.call("GET", url, soon(), ca_file=str(tmp_path / "ca")).status == 200


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file or directory"), ("nonsense", "holds no certificate in PEM")]
)
def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, content: str | None, why: str) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)
    with pytest.raises(http.HttpError) as caught:
        http.call("GET", "https://127.0.0.1:9/", soon(), ca_file=str(ca))
    assert str(caught.value) == f"nothing can be sent: ca: {ca}: {why}"


def test_a_header_that_cannot_be_sent_is_an_error_without_it() -> None:
    with server(answer(OK)) as (url, asked), pytest.raises(http.HttpError) as caught:
        http.call("GET", url, soon(), headers={"Authorization": "Bearer can\r\nary: x"})
    assert "can" not in str(caught.value).replace("cannot", "")
    assert all(b"ary" not in one for one in asked)


@pytest.mark.parametrize(
    "url",
    ["ftp://a/", "http://", "https://user:pw@host/", "http://host:99999/", "http://ho st/", "//host", "http://hö/"],
)
def test_a_url_that_may_not_stand_in_a_policy_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        judge_url(url)


def test_a_login_is_charged_to_host_and_port() -> None:
    assert host_of("https://Otel.example.com/v1") == "otel.example.com:443"
    assert host_of("http://[::1]:4318/v1") == "::1:4318"


def test_how_long_to_wait_is_passed_on() -> None:
    with server(answer(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")) as (url, _):
        assert http.call("GET", url, soon()).retry_after_s == 7.0


@pytest.mark.parametrize(
    "date", [b"soon", b"Mon, 01 Jan 2024 00:00:00 +9999999999999999", b"Mon, 01 Jan 99999 00:00 GMT"]
)
def test_a_date_that_is_none_is_left_out(date: bytes) -> None:
    with server(answer(b"HTTP/1.1 200 OK\r\nDate: " + date + b"\r\nContent-Length: 0\r\n\r\n")) as (url, _):
        assert http.call("GET", url, soon()).date is None


def test_a_channel_keeps_its_connection_and_each_request_has_its_own_deadline() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(OK)
        connection.recv(65536)
        connection.sendall(OK)
        connection.recv(65536)
        connection.recv(65536)

    channel = http.Channel()
    with server(serve) as (url, asked):
        assert channel.call("POST", url, soon(), headers={"A": "b"}, content=b'{"x": 1}').body == b"ok"
        assert channel.call("GET", url, soon()).status == 200
        with pytest.raises(http.HttpError, match="in time"):
            channel.call("GET", url, soon(0.2))
        channel.close()
        assert len(asked) == 1
        assert b"Content-Length: 8\r\n" in asked[0]
        assert asked[0].endswith(b'{"x": 1}')
        assert channel.call("GET", url, soon()).status == 200
        channel.close()  # or the server waits for more
