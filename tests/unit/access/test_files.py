from __future__ import annotations

import fcntl
import gc
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vaultkeeper.access import files
from vaultkeeper.access.answer import Answered
from vaultkeeper.model.outcome import No, NotYet, Refused, Unknown

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's files")
NOBODY = 65534


def put(path: Path, content: bytes, **options: object) -> None:
    files.replace(str(path), content, files.read(str(path)), **options)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def refusal(call: Callable[[], object]) -> Refused:
    with pytest.raises(Answered) as caught:
        call()
    assert isinstance(caught.value.result, Refused)
    return caught.value.result


def test_a_new_file_is_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        put(tmp_path / "new", b"value")
    finally:
        os.umask(old)
    assert (tmp_path / "new").read_bytes() == b"value"
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o600


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(0o440)
    put(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", 0o440)
    put(path, b"newer", mode=0o400)
    assert path.stat().st_mode & 0o7777 == 0o400


@as_root
def test_an_existing_file_keeps_its_owner_and_a_given_owner_wins(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.write_bytes(b"old")
    os.chown(path, NOBODY, 10001)
    put(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, 10001)
    put(path, b"newer", owner=files.Owner(10001))
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10001)


def test_mode_and_owner_are_right_before_the_file_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(0o444)
    seen = []
    real = os.rename

    def rename(source: str, name: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        seen.append(os.stat(source, dir_fd=src_dir_fd).st_mode & 0o7777)
        real(source, name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", rename)
    put(path, b"new")
    assert seen == [0o444]


def test_a_write_syncs_the_file_before_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    order: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        order.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")  # noqa: PTH112
        real_sync(fd)

    def rename(source: str, name: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        order.append("rename")
        real_rename(source, name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    put(path, b"value")
    assert order == ["file", "rename", "directory"]


def test_a_reader_never_sees_a_torn_an_empty_or_no_file(tmp_path: Path) -> None:
    path = tmp_path / "read-all-the-time"
    contents = [bytes([65 + n % 26]) * (9000 + n) for n in range(300)]
    put(path, contents[0])
    over, wrong, reads = threading.Event(), [], 0

    def read() -> None:
        nonlocal reads
        while not over.is_set():
            try:
                seen = path.read_bytes()
            except FileNotFoundError:
                seen = b""
            reads += 1
            if len(seen) < 9000 or seen.count(seen[:1]) != len(seen):
                wrong.append(seen[:20])

    reader = threading.Thread(target=read)
    reader.start()
    written = 0
    while reader.is_alive() and (written < len(contents) or reads <= len(contents) / 10):
        put(path, contents[written % len(contents)])
        written += 1
    over.set()
    reader.join()
    assert wrong == []
    assert reads > len(contents) / 10


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    put(path, b"old")

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "full")

    monkeypatch.setattr(os, "write", full)
    assert refusal(lambda: put(path, b"new secret")).why is No.CAPACITY
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_input_output_error_is_no_definite_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, "EIO")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(Answered) as caught:
        put(tmp_path / "file", b"value")
    assert isinstance(caught.value.result, Unknown)
    assert "value" not in str(caught.value)


@pytest.mark.parametrize("by_sweep", [True, False])
def test_leftovers_of_a_killed_write_are_swept_by_the_next_and_those_of_other_files_are_not(
    tmp_path: Path, by_sweep: bool
) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    pid = os.fork()
    if pid == 0:  # die between the temporary file and its rename
        os.rename = lambda *_, **__: os._exit(9)
        try:
            put(mine, b"half")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert len(files.strays(str(tmp_path))) == 1
    put(other, b"other")
    assert len(files.strays(str(tmp_path))) == 1
    if by_sweep:
        files.sweep(str(mine))
    else:
        put(mine, b"whole")
        mine.unlink()
    assert names(tmp_path) == ["other"]


def test_a_change_by_somebody_else_between_reading_and_writing_is_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    was = files.read(str(path))
    path.write_bytes(b"theirs")
    assert refusal(lambda: files.replace(str(path), b"ours", was)).why is No.CONFLICT
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["file"]


def test_a_file_that_appeared_since_it_was_looked_for_is_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / "file"
    was = files.read(str(path))
    path.write_bytes(b"theirs")
    assert refusal(lambda: files.replace(str(path), b"ours", was)).why is No.CONFLICT


def test_an_edit_that_keeps_size_and_modification_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    was = files.read(str(path))
    stamp = path.stat()
    path.write_bytes(b"odd")
    while path.stat().st_ctime_ns == stamp.st_ctime_ns:  # some kernels' clock for files goes on every 4 ms only
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert refusal(lambda: files.replace(str(path), b"ours", was)).why is No.CONFLICT


def test_a_file_that_is_a_link_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to("real")
    assert refusal(lambda: files.read(str(tmp_path / "link"))).why is No.PRIVILEGE
    assert refusal(lambda: files.replace(str(tmp_path / "link"), b"x", files.Snapshot(None))).why is No.CONFLICT
    assert (tmp_path / "real").read_bytes() == b"real"
    assert (tmp_path / "link").is_symlink()


def test_a_link_on_the_way_that_only_we_could_have_placed_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    put(tmp_path / "two" / ".." / "two" / "file", b"value")
    assert (tmp_path / "real" / "file").read_bytes() == b"value"


def test_a_link_in_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "shared"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    (tmp_path / "elsewhere").mkdir()
    (open_to_all / "way").symlink_to(tmp_path / "elsewhere")
    assert refusal(lambda: put(open_to_all / "way" / "file", b"value")).why is No.PRIVILEGE
    assert names(tmp_path / "elsewhere") == []


@as_root
def test_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "way").symlink_to(tmp_path / "elsewhere")
    os.lchown(tmp_path / "way", NOBODY, NOBODY)
    assert refusal(lambda: put(tmp_path / "way" / "file", b"value")).why is No.PRIVILEGE


def test_a_directory_swapped_in_the_middle_of_a_write_redirects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    real = os.fsync

    def swap(fd: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        (tmp_path / "right").rename(tmp_path / "moved")
        (tmp_path / "right").symlink_to("wrong")
        real(fd)

    monkeypatch.setattr(os, "fsync", swap)
    put(tmp_path / "right" / "file", b"value")
    assert names(tmp_path / "wrong") == []
    assert (tmp_path / "moved" / "file").read_bytes() == b"value"


def test_links_that_go_round_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert refusal(lambda: files.read(str(tmp_path / "a" / "file"))).why is No.PRIVILEGE


@pytest.mark.parametrize("path", ["relative/file", "/", "/tmp/", "/tmp/..", "/tmp/nul\0"])
def test_what_names_no_file_is_refused(path: str) -> None:
    assert refusal(lambda: files.read(path)).why is No.UNSUPPORTED


def test_a_pipe_and_a_directory_are_no_files_and_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    assert refusal(lambda: files.read(str(tmp_path / "pipe"))).why is No.UNSUPPORTED
    assert refusal(lambda: files.read(str(tmp_path / "directory"))).why is No.UNSUPPORTED


def test_a_huge_file_is_refused_and_a_missing_one_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"x" * 101)
    assert refusal(lambda: files.read(str(tmp_path / "huge"), limit_bytes=100)).why is No.UNSUPPORTED
    assert files.read(str(tmp_path / "huge"), limit_bytes=101).content == b"x" * 101
    assert not files.read(str(tmp_path / "missing")).exists
    assert refusal(lambda: files.read(str(tmp_path / "missing" / "below"))).why is No.UNSUPPORTED


def test_what_was_read_never_shows_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"canary")
    assert "canary" not in repr(files.read(str(tmp_path / "file")))


def test_removing_is_idempotent_and_spares_what_somebody_else_wrote(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"ours")
    was = files.read(str(path))
    files.remove(str(path), was)
    files.remove(str(path), files.read(str(path)))
    path.write_bytes(b"theirs")
    assert refusal(lambda: files.remove(str(path), was)).why is No.CONFLICT
    assert path.exists()


def test_one_process_at_a_time_edits_a_file_without_a_group(tmp_path: Path) -> None:
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(Answered) as caught, files.alone(str(tmp_path / "file")):
        pass
    assert isinstance(caught.value.result, NotYet)
    os.close(holder)
    with files.alone(str(tmp_path / "file")):
        pass


def test_every_descriptor_is_closed(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:  # alone: threads and garbage of earlier tests close theirs at any moment
        gc.disable()
        try:
            before = len(names(Path("/proc/self/fd")))
            for _ in range(3):
                put(tmp_path / "file", b"value")
                refusal(lambda: files.read(str(tmp_path / "missing" / "below")))
                refusal(lambda: put(tmp_path / "file" / "below", b"x"))
            os._exit(7 if len(names(Path("/proc/self/fd"))) == before else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_directory_that_cannot_be_written_is_found_before_anything_is_set(tmp_path: Path) -> None:
    files.check_writable(str(tmp_path / "file"))
    pid = os.fork()
    if pid == 0:
        tmp_path.chmod(0o555)
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        try:
            files.check_writable(str(tmp_path / "file"))
        except Answered:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@as_root
def test_who_may_not_keep_another_owner_is_told_what_it_takes_before_anything_is_written() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own lies where nobody else may go
        path = Path(folder) / "theirs"
        path.write_bytes(b"old")
        path.chmod(0o440)
        os.chown(path, 10001, NOBODY)
        os.chown(folder, NOBODY, NOBODY)
        files.check_writable(str(path))
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            acts: list[Callable[[], object]] = [lambda: files.check_writable(str(path)), lambda: put(path, b"new")]
            told = [refusal(act) for act in acts]
            exact = all(no.why is No.PRIVILEGE and "CAP_CHOWN and CAP_FOWNER" in no.detail for no in told)
            files.check_writable(str(path), files.Owner(NOBODY))
            os._exit(7 if exact else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert (names(Path(folder)), path.read_bytes()) == (["theirs"], b"old")
