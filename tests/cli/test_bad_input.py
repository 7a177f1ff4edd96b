"""Whatever is put before it: the right exit code, a clear error with a next step, no traceback, and nothing lost."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Ran, command, environment
from tests.integration.shop_kit import NAME, Shop, shop, told
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

POLICY = """\
secrets:
  app/key:
    min_interval: 0s
    generator: {kind: password, length: 32}
    destinations: [{kind: file, path: ../out/key, read: per_use}]
"""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one delivered version, to be copied."""
    home = tmp_path_factory.mktemp("kept") / "home"
    initialise(Wishes(state(home), None, identity(home)), Recovery())
    for name in ("policies", "out"):
        (home / name).mkdir()
    (home / "policies/app.yaml").write_text(POLICY)
    ran = command(home)("rotate", "app/key")
    assert ran.code == 0, ran.err
    return home


@pytest.fixture
def kept(rotated: Path, home: Path) -> Path:
    shutil.copytree(rotated, home, dirs_exist_ok=True)
    return home


def state(home: Path) -> Path:
    return home / ".local/state/vaultkeeper"


def identity(home: Path) -> Path:
    return home / ".config/vaultkeeper/identity.txt"


def refused(ran: Ran, code: int, *, works: bool = False) -> dict[str, str]:
    """The error, judged by its form."""
    assert ran.code == code, f"{ran.code}: {ran.out}{ran.err}"
    assert "Traceback" not in ran.err + ran.out
    assert len(ran.err) < 20_000
    error = told(ran)
    assert error["code"].startswith("VK-")
    assert error["code"] != "VK-UNEXPECTED"
    assert error["what"]
    assert error.get("next"), error
    assert error.get("works") or not works, error
    return error


def unchanged(home: Path) -> bool:
    """Once things are put right, everything is as it was."""
    ran = command(home)("get", "app/key")
    assert ran.code == 0, ran.err
    status = command(home)("status", "--json").json["secrets"][0]
    return (home / "out/key").read_text() == ran.out and (status["version"], status["state"]) == (1, "ok")


# -------------------------------------------------------------------------------------------------------- policy files

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 9)}]\n" for name in "bcdefghij"
)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def for_everybody(path: Path) -> None:
    path.write_text(POLICY)
    path.chmod(0o666)


def socket_at(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have 107 bytes
    try:
        with closing(socket.socket(socket.AF_UNIX)) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


BAD: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 16),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "UTF-16": lambda path: path.write_bytes(POLICY.encode("utf-16")),
    "UTF-16 without a mark": lambda path: path.write_bytes(POLICY.encode("utf-16-le")),
    "Latin-1": lambda path: path.write_bytes(POLICY.replace("app/key", "app/k\xe9y").encode("latin-1")),
    "tabs": lambda path: path.write_text(POLICY.replace("    ", "\t\t")),
    "huge": lambda path: path.write_text(POLICY + "#" * (1 << 20)),
    "huge and sparse": sparse,
    "a bomb of aliases": lambda path: path.write_text(BOMB + POLICY),
    "deep": lambda path: path.write_text("secrets: " + "{a: " * 5000),
    "a bomb of brackets": lambda path: path.write_text("[" * 500_000),
    "two documents": lambda path: path.write_text(POLICY + "---\n" + POLICY),
    "a pipe": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a socket": socket_at,
    "writable by everybody": for_everybody,
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_policy_file_is_refused_by_name_and_nothing_is_rotated(kept: Path, name: str) -> None:
    vk, path = command(kept), kept / "policies/bad.yaml"
    BAD[name](path)
    error = refused(vk("rotate", "--all"), 3)
    assert "bad.yaml" in error["what"] + error.get("why", "")
    path.unlink()
    assert unchanged(kept)


def test_a_policy_file_that_may_not_be_read_is_refused_by_name(kept: Path) -> None:
    (kept / "policies/app.yaml").chmod(0)
    error = refused(powerless(kept, "rotate", "--all"), 3)
    assert "app.yaml" in error["what"] + error.get("why", "")
    (kept / "policies/app.yaml").chmod(0o644)
    assert unchanged(kept)


def powerless(home: Path, *arguments: str) -> Ran:
    """Root reads everything; without its capabilities it is a user like others."""
    lowered = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    argv = [*lowered, sys.executable, "-m", "vaultkeeper", *arguments]
    done = subprocess.run(argv, env=environment(home), cwd=home, capture_output=True, check=False, timeout=120)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_no_policies_at_all_are_refused_with_where_they_were_looked_for(kept: Path) -> None:
    (kept / "policies").rename(kept / "elsewhere")
    error = refused(command(kept)("rotate", "--all"), 3)
    assert "/policies" in error["why"]
    (kept / "elsewhere").rename(kept / "policies")
    assert unchanged(kept)


# ------------------------------------------------------------------------------------------------------------ identity


@pytest.mark.parametrize(
    ("spoil", "next_step"),
    [
        (lambda path: path.chmod(0o644), "chmod"),
        (lambda path: path.unlink(), "--identity"),
        (lambda path: path.write_bytes(bytes(range(1, 256))), "age-keygen"),
        (lambda path: path.write_text(""), "age-keygen"),
        (lambda path: path.write_text("AGE-SECRET-KEY-1" + "Q" * 58 + "\n"), "age-keygen"),
    ],
    ids=["0644", "missing", "binary", "empty", "mistyped"],
)
def test_a_bad_identity_is_refused_with_4_and_what_to_do(
    kept: Path, spoil: Callable[[Path], None], next_step: str
) -> None:
    path = identity(kept)
    kept_bytes = path.read_bytes()
    spoil(path)
    error = refused(command(kept)("rotate", "--all"), 4)
    assert next_step in error["next"]
    assert "SECRET-KEY-1Q" not in str(error)
    path.write_bytes(kept_bytes)
    path.chmod(0o600)
    assert unchanged(kept)


def test_a_lost_identity_is_not_answered_with_init_which_would_refuse(kept: Path) -> None:
    identity(kept).unlink()
    following = refused(command(kept)("status"), 4)["next"]
    assert ("vaultkeeper keys recover" in following, "init" in following) == (True, False)


def test_the_identity_of_another_installation_is_refused_with_4(kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    initialise(Wishes(state(other), None, identity(other)), Recovery())
    refused(command(kept)("rotate", "--all", "--identity", str(identity(other))), 4)
    assert unchanged(kept)


# --------------------------------------------------------------------------------------------------------------- state


@root_only
def test_a_state_of_another_user_is_refused_with_4(kept: Path) -> None:
    os.chown(state(kept), 65534, 65534)
    error = refused(command(kept)("rotate", "--all"), 4, works=True)
    assert "nobody" in error["what"]
    os.chown(state(kept), 0, 0)
    assert unchanged(kept)


def test_a_state_that_others_may_read_is_refused_with_4(kept: Path) -> None:
    state(kept).chmod(0o755)
    assert "chmod 700" in refused(command(kept)("rotate", "--all"), 4, works=True)["next"]
    state(kept).chmod(0o700)
    assert unchanged(kept)


def test_a_secret_that_another_process_works_on_is_7_by_name_and_skipped_by_all(kept: Path) -> None:
    vk = command(kept)
    with lock_files(state(kept)):
        refused(vk("rotate", "app/key"), 7, works=True)
        everything = vk("rotate", "--all", "--json")
        assert (everything.code, everything.json["changed"]) == (0, 0)
    assert unchanged(kept)


@contextmanager
def lock_files(directory: Path) -> Iterator[None]:
    """As another vaultkeeper holds them."""
    locks = [path.open("ab") for path in (directory / "locks").iterdir()]
    assert locks
    for lock in locks:
        fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    for lock in locks:
        lock.close()


def test_a_database_that_another_process_does_not_let_go_is_7(kept: Path) -> None:
    with closing(sqlite3.connect(state(kept) / "state.db", isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        refused(command(kept)("rotate", "app/key"), 7, works=True)
    assert unchanged(kept)


@pytest.mark.parametrize("damage", ["header", "pages", "cut", "empty", "text"])
def test_a_damaged_database_is_told_and_left_as_it_is(kept: Path, damage: str) -> None:
    path = state(kept) / "state.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    good = path.read_bytes()
    bad = {
        "header": b"\xff" * 64 + good[64:],
        "pages": good[:4096] + b"\xa5" * (len(good) - 4096),
        "cut": good[: len(good) // 2 + 100],
        "empty": b"",
        "text": b"dear diary\n" * 1000,
    }[damage]
    path.write_bytes(bad)
    for arguments in (["rotate", "--all"], ["status"], ["get", "app/key"]):
        refused(command(kept)(*arguments), 3 if damage == "empty" else 1)
    assert path.read_bytes() == bad or damage == "empty"
    path.write_bytes(good)
    assert unchanged(kept)


def test_a_state_of_a_newer_version_is_refused_with_3_and_left_as_it_is(kept: Path) -> None:
    path = state(kept) / "state.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        ((before,),) = db.execute("SELECT version_num FROM alembic_version")
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    digest = hashlib.sha256(path.read_bytes()).digest()
    error = refused(command(kept)("rotate", "--all"), 3, works=True)
    assert "newer" in error["what"] + error.get("why", "")
    assert hashlib.sha256(path.read_bytes()).digest() == digest
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE alembic_version SET version_num = ?", [before])
    assert unchanged(kept)


@pytest.mark.parametrize("lost", ["installation.json", "state.db", "installation.key"])
def test_a_state_with_a_file_missing_is_refused_and_names_it(kept: Path, lost: str) -> None:
    found = [path for path in state(kept).iterdir() if path.is_file() and path.name.startswith(lost.partition(".")[0])]
    away = kept / "away"
    away.mkdir()
    for path in found:
        path.rename(away / path.name)
    ran = command(kept)("rotate", "--all")
    assert ran.code in {3, 4}, ran.err
    refused(ran, ran.code)
    for path in found:
        (away / path.name).rename(path)
    assert unchanged(kept)


# ----------------------------------------------------------------------------------------------------------- disk full


@pytest.fixture
def small_disk(kept: Path) -> Iterator[Path]:
    """The state on a file system of 4 MiB, or skipped where none may be mounted."""
    place = state(kept)
    if os.geteuid() != 0:
        pytest.skip("needs root")
    moved = kept / "moved"
    place.rename(moved)
    place.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", place], check=False)
    if mounted.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    shutil.copytree(moved, place, dirs_exist_ok=True)
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place: Path) -> Path:
    """To the last byte."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def test_a_full_disk_refuses_to_begin_and_nothing_is_changed(kept: Path, small_disk: Path) -> None:
    filler = fill(small_disk)
    error = refused(command(kept)("rotate", "--all"), 5, works=True)
    assert error["code"] in {"VK-FULL", "VK-AUDIT"}
    filler.unlink()
    assert unchanged(kept)
    assert command(kept)("rotate", "--all").code == 0


def test_a_rotation_that_is_open_can_still_end_on_a_full_disk(kept: Path, small_disk: Path) -> None:
    """The room for that was set aside before it began."""
    marker = kept / "healthy"
    text = POLICY.replace(
        "read: per_use}",
        f'read: at_start, confirm: {{command: ["/usr/bin/test", "-e", "{marker}"]}}, healthy_for: 0s}}',
    )
    (kept / "policies/app.yaml").write_text(text)
    vk = command(kept)
    opened = vk("rotate", "app/key", "--wait", "0s")
    assert opened.code in {5, 6}, opened.err
    filler = fill(small_disk)
    marker.touch()
    ran = vk("resume", "--all", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rotations"][0]["state"] == "done"
    filler.unlink()
    assert vk("get", "app/key").out == (kept / "out/key").read_text()


def test_a_limit_on_the_size_of_files_is_told_as_a_full_disk(kept: Path) -> None:
    biggest = max(path.stat().st_size for path in state(kept).rglob("*"))
    argv = ["prlimit", f"--fsize={biggest // 2}", sys.executable, "-m", "vaultkeeper", "rotate", "--all"]
    done = subprocess.run(argv, env=environment(kept), cwd=kept, capture_output=True, check=False, timeout=120)
    error = refused(Ran(done.returncode, done.stdout.decode(), done.stderr.decode()), 5, works=True)
    assert "vaultkeeper resume --all" in error["next"]
    assert command(kept)("status", "--json").json["secrets"][0]["version"] == 1
    vk = command(kept)
    assert vk("resume", "--all").code == 0
    assert vk("get", "app/key").out == (kept / "out/key").read_text()


# --------------------------------------------------------------------------------------- a target that answers garbage


class Nonsense(socketserver.BaseRequestHandler):
    """Says what its server was told to say."""

    def handle(self) -> None:
        with suppress(OSError):
            self.request.recv(4096)
            for chunk in self.server.says():  # type: ignore[attr-defined]
                self.request.sendall(chunk)


def endless() -> Iterator[bytes]:
    for _ in range(16_384):  # 1 GiB is endless enough: nobody may read it
        yield os.urandom(1 << 16)


GARBAGE: dict[str, Callable[[], Iterator[bytes]]] = {
    "random bytes": lambda: iter([os.urandom(512)]),
    "HTTP": lambda: iter([b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno!"]),
    "SSH": lambda: iter([b"SSH-2.0-OpenSSH_9.2\r\n"]),
    "endless": endless,
    "hangs up": lambda: iter([]),
    "a huge message": lambda: iter([b"R\x7f\xff\xff\xff", bytes(1 << 16)]),
    "an error with control characters": lambda: iter([b"E\0\0\0\x18SFATAL\0C28P01\0M\x1b[2J\0\0"]),
}


@pytest.fixture
def behind(postgres: PostgresServer, tmp_path: Path) -> Iterator[tuple[Shop, Proxy]]:
    """A shop that reaches its server through a proxy of its own."""
    with Proxy(postgres.port) as proxy:
        account = postgres.account()
        target = {**account.settings, "port": proxy.port, "timeout": "1min"}
        yield shop(tmp_path, postgres, account, target=target), proxy


@pytest.mark.parametrize("name", GARBAGE)
def test_a_target_that_answers_garbage_is_told_and_nothing_is_lost(behind: tuple[Shop, Proxy], name: str) -> None:
    place, proxy = behind
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Nonsense) as server:
        server.says = GARBAGE[name]  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        real, proxy._upstream = proxy._upstream, server.server_address  # type: ignore[assignment]
        ran = place.vk("rotate", NAME, "--wait", "0s")
        checked = place.vk("check")
        server.shutdown()
    error = refused(ran, 5, works=True)
    assert error["works"].startswith("v1 (old)")
    assert error.get("why")
    assert "\x1b" not in ran.err
    assert "Traceback" not in checked.err
    status = place.status()
    assert status["version"] == 1
    assert place.logs_in(place.stored())
    proxy._upstream = real
    ended = place.vk("resume" if status["state"] == "waiting" else "rotate", NAME, "--wait", "90s")
    assert ended.code == 0, ended.err
    assert place.agrees() == ""
