"""Files and their consumers; what every written destination does is tried here once."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.delivery_kit import Delivery, spec, version
from vaultkeeper.access import files
from vaultkeeper.access.answer import refused
from vaultkeeper.destinations.file import FileDestination
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import (
    Confirmed,
    Done,
    Failed,
    Held,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Unknown,
)
from vaultkeeper.model.policy import Read

NEW, OLD = version(2, "new-canary"), version(1, "old-canary")


def to(path: Path, read: Read = Read.PER_USE, **settings: object) -> Delivery:
    return Delivery.of(FileDestination(), spec("file", path, {"": "{password}"}, read, **settings))  # type: ignore[arg-type]


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that says "told" for every SIGHUP, and has a pid file."""
    code = (
        "import signal\n"
        "signal.signal(signal.SIGHUP, lambda *_: print('told', flush=True))\n"
        "print('up', flush=True)\n"
        "while True: signal.pause()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    (tmp_path / "pid").write_text(f"{child.pid}\n")
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_mode_and_owner_of_the_policy_hold_for_new_and_existing_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    delivery = to(path, mode="0440", owner=f"{os.geteuid()}:{os.getegid()}")
    assert delivery.hand_over(NEW) == Done()
    assert path.stat().st_mode & 0o7777 == 0o440
    path.chmod(0o644)
    assert delivery.deliver(NEW) == Done()
    assert path.stat().st_mode & 0o7777 == 0o440


def test_delivering_again_writes_nothing_and_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    delivery = to(path)
    delivery.hand_over(NEW)
    inode = path.stat().st_ino
    stray = tmp_path / f"{files._temporary('secret')}dead"
    stray.write_bytes(b"half")
    assert delivery.deliver(NEW) == Done()
    assert (path.stat().st_ino, stray.exists()) == (inode, False)


def test_a_linked_file_is_refused_before_anything_is_set(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    answer = to(tmp_path / "link").prepare(NEW)
    assert isinstance(answer, Refused)
    assert (tmp_path / "real").read_bytes() == b"x"


def test_a_missing_directory_is_refused_before_anything_is_set(tmp_path: Path) -> None:
    delivery = to(tmp_path / "none" / "secret")
    assert isinstance(delivery.prepare(NEW), Refused)
    assert [f.level for f in delivery.destination.check(delivery.group, delivery.items(NEW), delivery.ctx)] == [
        "refuse"
    ]


def test_somebody_elses_edit_in_the_middle_is_a_conflict_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"before")
    delivery = to(path)
    delivery.prepare(NEW)
    real = os.fsync

    def interfere(fd: int) -> None:
        path.write_bytes(b"theirs!")
        real(fd)

    monkeypatch.setattr(os, "fsync", interfere)
    answer = delivery.deliver(NEW)
    assert isinstance(answer, Refused)
    assert answer.why is No.CONFLICT
    assert path.read_bytes() == b"theirs!"


def test_a_file_that_somebody_put_back_is_seen_and_not_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    delivery = to(path)
    delivery.hand_over(NEW)
    assert delivery.observe(NEW, OLD) == {"": Held(2)}
    path.write_bytes(b"old-canary")
    assert delivery.observe(NEW, OLD) == {"": Held(1)}
    assert isinstance(delivery.confirm(NEW), NotYet)


def test_a_list_of_old_keys_is_recognised_with_its_order(tmp_path: Path) -> None:
    one = spec("file", tmp_path / "keys", {"": "{password}:{previous.password|join(',')}"})
    delivery = Delivery.of(FileDestination(), one)
    for first, second in ((OLD, NEW), (NEW, OLD)):
        (tmp_path / "keys").write_bytes(b":".join(v.fields["password"].reveal() for v in (first, second)))
        assert delivery.observe(NEW, OLD) == {"": Held(first.number)}


def test_consumers_are_told_by_signal_on_every_delivery(tmp_path: Path, consumer: subprocess.Popen[str]) -> None:
    delivery = to(tmp_path / "secret", Read.AT_START, reload={"signal": "HUP", "pid_file": str(tmp_path / "pid")})
    assert consumer.stdout is not None
    assert delivery.hand_over(NEW) == Done()
    assert consumer.stdout.readline() == "told\n"
    assert delivery.deliver(NEW) == Done()  # after a crash between the write and the signal
    assert consumer.stdout.readline() == "told\n"


@pytest.mark.parametrize("content", ["", "x", "1", "-5", "99999999", "12 34"])
def test_a_pid_file_that_names_no_process_leaves_the_outcome_unknown(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    delivery = to(tmp_path / "secret", reload={"signal": "HUP", "pid_file": str(tmp_path / "pid")})
    assert isinstance(delivery.hand_over(NEW), Unknown)
    assert (tmp_path / "secret").read_bytes() == b"new-canary"


def test_a_pid_file_that_others_may_write_is_not_believed(tmp_path: Path, consumer: subprocess.Popen[str]) -> None:
    (tmp_path / "pid").chmod(0o666)
    delivery = to(tmp_path / "secret", reload={"signal": "HUP", "pid_file": str(tmp_path / "pid")})
    assert isinstance(delivery.hand_over(NEW), Unknown)
    consumer.send_signal(signal.SIGHUP)
    assert consumer.stdout is not None
    assert consumer.stdout.readline() == "told\n"  # ours alone
    assert consumer.poll() is None


def test_a_reload_command_gets_no_value_and_its_failure_is_reported_without_one(tmp_path: Path) -> None:
    script = tmp_path / "reload"
    script.write_text(
        '#!/bin/sh\necho "$@" >"$0.args"; env >>"$0.args"; cat >>"$0.args"; cat "$0.secret" >&2; exit 3\n'
    )
    script.chmod(0o755)
    (tmp_path / "reload.secret").write_bytes(b"no such thing")
    delivery = to(tmp_path / "secret", Read.AT_START, reload={"command": [str(script), "now"]})
    answer = delivery.hand_over(NEW)
    assert isinstance(answer, Unknown)
    assert "exited 3: no such thing" in answer.detail
    told = (tmp_path / "reload.args").read_text()
    assert told.startswith("now\n")
    assert "canary" not in told


class _Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(_Health.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def health() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _Health.status = 200
    yield f"http://127.0.0.1:{server.server_port}/health"
    server.shutdown()
    server.server_close()


def test_a_consumer_that_was_told_and_is_healthy_is_a_demonstration(tmp_path: Path, health: str) -> None:
    delivery = to(tmp_path / "secret", Read.AT_START, reload={"command": ["/bin/true"]}, confirm={"http": health})
    delivery.hand_over(NEW)
    _Health.status = 503
    answer = delivery.confirm(NEW)
    assert isinstance(answer, NotYet)
    assert "503" in answer.reason
    _Health.status = 200
    assert delivery.confirm(NEW) == Confirmed(Proof.DEMONSTRATED)


def test_health_right_after_the_reload_proves_nothing_yet(tmp_path: Path) -> None:
    settings = {
        "reload": {"command": ["/bin/true"]},
        "confirm": {"command": ["/bin/true"]},
    }
    one = spec("file", tmp_path / "secret", {"": "{password}"}, Read.AT_START, timedelta(minutes=5), **settings)
    delivery = Delivery.of(FileDestination(), one)
    delivery.hand_over(NEW)
    answer = delivery.confirm(NEW)
    assert isinstance(answer, NotYet)
    assert timedelta(minutes=4) < answer.after <= timedelta(minutes=5)
    early = (tmp_path / "secret").stat().st_mtime - 301
    os.utime(tmp_path / "secret", (early, early))
    assert delivery.confirm(NEW) == Confirmed(Proof.DEMONSTRATED)


@pytest.mark.parametrize(
    ("read", "settings", "proof"),
    [
        (Read.PER_USE, {}, Proof.DEMONSTRATED),
        (Read.COPY, {}, Proof.DEMONSTRATED),
        (Read.AT_START, {}, Proof.WRITTEN),
        (Read.AT_START, {"reload": {"command": ["/bin/true"]}}, Proof.WRITTEN),
        (Read.AT_START, {"confirm": {"command": ["/bin/true"]}}, Proof.WRITTEN),
    ],
)
def test_what_a_confirm_is_worth_depends_on_how_consumers_read(
    tmp_path: Path, read: Read, settings: dict[str, object], proof: Proof
) -> None:
    delivery = to(tmp_path / "secret", read, **settings)
    delivery.hand_over(NEW)
    assert delivery.confirm(NEW) == Confirmed(proof)


def test_a_consumer_of_its_first_start_is_neither_told_nor_waited_for(tmp_path: Path) -> None:
    delivery = to(
        tmp_path / "secret",
        Read.FIRST_START,
        reload={"command": ["/bin/false"]},
        confirm={"command": ["/bin/false"]},
    )
    assert delivery.hand_over(NEW) == Done()
    assert isinstance(delivery.confirm(NEW), Confirmed)


def test_a_file_that_can_no_longer_be_read_fails_its_consumer(tmp_path: Path) -> None:
    delivery = to(tmp_path / "secret")
    delivery.hand_over(NEW)
    (tmp_path / "secret").unlink()
    (tmp_path / "secret").mkdir()
    assert isinstance(delivery.confirm(NEW), Failed)


def test_a_file_that_we_may_no_longer_read_fails_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back could not be written: a target that is given the old value alone would refuse its consumer."""
    delivery = to(tmp_path / "secret")
    delivery.hand_over(NEW)

    def denied(*_: object, **__: object) -> None:
        raise refused(No.PRIVILEGE, "permission denied")

    monkeypatch.setattr(files, "read", denied)
    assert isinstance(delivery.confirm(NEW), Unknown)


def test_going_back_without_a_receipt_leaves_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"theirs")
    assert to(tmp_path / "secret").deliver(None) == Done()
    assert (tmp_path / "secret").read_bytes() == b"theirs"


def test_a_receipt_survives_a_second_prepare_after_the_delivery(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"theirs")
    delivery = to(tmp_path / "secret")
    assert isinstance(delivery.prepare(NEW), Prepared)
    delivery.deliver(NEW)
    again = delivery.destination.prepare(delivery.group, delivery.items(NEW), delivery.ctx)
    assert isinstance(again, Prepared)
    assert again.receipts == delivery.receipts
    delivery.deliver(None)
    assert (tmp_path / "secret").read_bytes() == b"theirs"


def test_two_values_for_one_file_are_an_error_of_the_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid):
        FileDestination().spots(spec("file", tmp_path / "x", {"a": "", "b": ""}), to(tmp_path / "x").ctx)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "0777"},
        {"mode": "4755"},
        {"mode": 0o600},
        {"owner": "a b"},
        {"reload": {"command": ["nginx", "-s"]}},
        {"reload": {"signal": "KILL", "pid_file": "/p"}},
        {"confirm": {"http": "http://u:p@h/"}},
        {"pathh": "/x"},
        {"path": ""},
    ],
)
def test_settings_that_would_not_do_are_refused_at_load(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        FileDestination.Settings.model_validate({"path": "/x", **settings})


def test_an_unknown_owner_is_found_before_anything_is_set(tmp_path: Path) -> None:
    answer = to(tmp_path / "secret", owner="no-such-user").prepare(NEW)
    assert isinstance(answer, Refused)
