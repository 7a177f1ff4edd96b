from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.store.conftest import Place
from tests.unit.store.samples import AUDIT_KEY, NOW, rotation
from vaultkeeper.errors import AuditUnwritable
from vaultkeeper.model.rotation import State
from vaultkeeper.ports import Change
from vaultkeeper.store.audit import AuditLog, BadRecord, Fault, Head, verify

RECORDS = 200


def log_at(path: Path, head: Head = Head()) -> AuditLog:  # noqa: B008 - frozen
    return AuditLog(path, AUDIT_KEY, head, lambda: NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def written(path: Path) -> tuple[list[bytes], Head]:
    log = log_at(path)
    for number in range(1, RECORDS + 1):
        log.append({"event": "set", "secret": "shop/db", "version": number})
    log.close()
    return path.read_bytes().splitlines(keepends=True), log.head


def test_a_record_says_what_was_given_and_when(path: Path) -> None:
    log_at(path).append(
        {"event": "set", "due": NOW, "grace": timedelta(minutes=1), "state": State.DONE, "on": {"b", "a"}}
    )
    (line,) = path.read_text().splitlines()
    body = json.loads(line)
    assert body["seq"] == 1
    assert body["at"] == "2026-11-21T12:00:00.123456+00:00"
    assert body["record"] == {
        "event": "set", "due": NOW.isoformat(), "grace": 60.0, "state": "done", "on": ["a", "b"],
    }  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_whole_log_is_found_whole(path: Path, written: tuple[list[bytes], Head]) -> None:
    assert verify(path, AUDIT_KEY, written[1]) is None
    assert verify(path, AUDIT_KEY, Head()) is None  # the database may be behind: the process died before its commit
    assert verify(path, b"x" * 32, written[1]) == BadRecord(1, Fault.EDITED)


def test_every_edited_record_is_named(path: Path, written: tuple[list[bytes], Head]) -> None:
    lines, head = written
    for index in range(RECORDS):
        for old, new in ((b'"version":', b'"versiom":'), (b'"mac":"', b'"mac":"0'), (b'"seq":', b'"seq": ')):
            forged = lines[index].replace(old, new)
            assert forged != lines[index]
            path.write_bytes(b"".join([*lines[:index], forged, *lines[index + 1 :]]))
            assert verify(path, AUDIT_KEY, head) == BadRecord(index + 1, Fault.EDITED)


def test_every_deleted_record_is_named(path: Path, written: tuple[list[bytes], Head]) -> None:
    lines, head = written
    for index in range(RECORDS):
        path.write_bytes(b"".join(lines[:index] + lines[index + 1 :]))
        fault = Fault.DELETED if index + 1 < RECORDS else Fault.TRUNCATED
        assert verify(path, AUDIT_KEY, head) == BadRecord(index + 1, fault)


def test_every_swap_of_two_records_is_named_at_the_first(path: Path, written: tuple[list[bytes], Head]) -> None:
    lines, head = written
    for first, second in itertools.combinations([*range(0, RECORDS, 9), 1, RECORDS - 1], 2):
        swapped = list(lines)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        path.write_bytes(b"".join(swapped))
        assert verify(path, AUDIT_KEY, head) == BadRecord(min(first, second) + 1, Fault.REORDERED)
    for first in range(RECORDS - 1):
        path.write_bytes(b"".join([*lines[:first], lines[first + 1], lines[first], *lines[first + 2 :]]))
        assert verify(path, AUDIT_KEY, head) == BadRecord(first + 1, Fault.REORDERED)


def test_every_repeated_record_is_named(path: Path, written: tuple[list[bytes], Head]) -> None:
    lines, head = written
    for index in range(RECORDS):
        path.write_bytes(b"".join([*lines[: index + 1], *lines[index:]]))
        assert verify(path, AUDIT_KEY, head) == BadRecord(index + 2, Fault.REORDERED)


def test_every_cut_between_records_is_named_by_the_head(path: Path, written: tuple[list[bytes], Head]) -> None:
    lines, head = written
    for kept in range(RECORDS):
        path.write_bytes(b"".join(lines[:kept]))
        assert verify(path, AUDIT_KEY, head) == BadRecord(kept + 1, Fault.TRUNCATED)


def test_a_cut_inside_a_record_is_named(path: Path, written: tuple[list[bytes], Head]) -> None:
    lines, head = written
    for cut in range(1, len(lines[-1])):
        path.write_bytes(b"".join(lines)[:-cut])
        assert verify(path, AUDIT_KEY, head) == BadRecord(RECORDS, Fault.TORN)


def test_a_log_written_anew_with_our_key_is_not_the_one_the_database_knows(
    path: Path, written: tuple[list[bytes], Head]
) -> None:
    _, head = written
    path.unlink()
    log = log_at(path)
    for _ in range(RECORDS):
        log.append({"event": "nothing happened"})
    assert verify(path, AUDIT_KEY, head) == BadRecord(RECORDS, Fault.REPLACED)


def test_records_spliced_in_from_another_log_of_our_key_are_named(
    path: Path, tmp_path: Path, written: tuple[list[bytes], Head]
) -> None:
    lines, head = written
    other = log_at(tmp_path / "other")
    for _ in range(RECORDS):
        other.append({"event": "nothing happened"})
    theirs = (tmp_path / "other").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:99], *theirs[99:]]))
    assert verify(path, AUDIT_KEY, head) == BadRecord(100, Fault.REPLACED)


def test_appending_after_a_cut_leaves_a_gap_that_stays(path: Path, written: tuple[list[bytes], Head]) -> None:
    lines, head = written
    path.write_bytes(b"".join(lines[:150]))
    log = log_at(path, head)
    log.append({"event": "later"})
    assert log.head.seq == RECORDS + 1
    assert verify(path, AUDIT_KEY, log.head) == BadRecord(151, Fault.DELETED)


def test_a_line_torn_by_a_crash_is_removed_and_the_next_record_says_so(
    path: Path, written: tuple[list[bytes], Head]
) -> None:
    lines, head = written
    path.write_bytes(b"".join(lines) + lines[0][:37])
    log = log_at(path, head)
    log.append({"event": "next"})
    log.append({"event": "one more"})
    assert path.read_bytes().startswith(b"".join(lines))
    last = [json.loads(line) for line in path.read_text().splitlines()[-2:]]
    assert [(r["seq"], r.get("torn_bytes")) for r in last] == [(RECORDS + 1, 37), (RECORDS + 2, None)]
    assert verify(path, AUDIT_KEY, log.head) is None


def test_a_long_record_and_a_long_torn_line_do_not_hide_the_tail(path: Path) -> None:
    log = log_at(path)
    log.append({"event": "x" * 200_000})
    with path.open("ab") as file:
        file.write(b"y" * 300_000)
    again = log_at(path, log.head)
    again.append({"event": "next"})
    assert again.head.seq == 2
    assert verify(path, AUDIT_KEY, again.head) is None


def test_line_breaks_and_terminal_sequences_in_names_stay_inside_their_record(path: Path) -> None:
    log = log_at(path)
    nasty = 'a\nb\r\u2028\x1b[2J","mac":"' + "0" * 64 + '"}'
    log.append({"secret": nasty})
    raw = path.read_bytes()
    assert raw.count(b"\n") == 1
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert json.loads(raw)["record"]["secret"] == nasty
    assert verify(path, AUDIT_KEY, log.head) is None


def test_what_json_does_not_know_is_refused_not_guessed(path: Path) -> None:
    log = log_at(path)
    with pytest.raises(TypeError, match="bytes"):
        log.append({"value": b"canary"})
    assert path.read_bytes() == b""


def test_a_log_that_was_moved_away_by_logrotate_is_followed(path: Path, written: tuple[list[bytes], Head]) -> None:
    _, head = written
    log = log_at(path, head)
    log.append({})
    path.rename(path.with_suffix(".1"))
    log.append({})
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["seq"] == RECORDS + 2


def test_a_link_in_place_of_the_log_is_refused(tmp_path: Path, path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditUnwritable):
        log_at(path)


# ------------------------------------------------------------------------------------------- together with a store


def test_the_next_commit_brings_the_head_into_the_database(place: Place) -> None:
    store = place.create()
    opened = store.open_rotation(rotation(), Change())
    store.audit({"event": "set"})
    assert store.audit_head() == Head()
    store.commit(Change(rotation=opened))
    assert store.audit_head().seq == 1
    other = place.open()
    other.audit({"event": "by another process"})
    other.pause("x", None)
    store.audit({"event": "after it"})
    assert store.audit_head().seq == 2
    store.commit(Change(rotation=replace(opened, at=1)))
    assert store.audit_head().seq == 3
    assert store.verify_audit() is None


def test_a_commit_that_failed_does_not_count_its_head_as_kept(place: Place) -> None:
    store = place.create()
    opened = store.open_rotation(rotation(), Change())
    store.audit({"event": "set"})
    with pytest.raises(Exception, match="no such rotation"):
        store.commit(Change(rotation=rotation()))
    assert store.audit_head() == Head()
    store.commit(Change(rotation=opened))
    assert store.audit_head().seq == 1


def test_a_log_cut_while_nobody_ran_is_found_and_stays_found(place: Place) -> None:
    store = place.create()
    for number in range(5):
        store.audit({"n": number})
    store.pause("x", None)
    log = place.state_dir / "audit.log"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
    assert store.verify_audit() == BadRecord(4, Fault.TRUNCATED)
    again = place.open()
    again.audit({"n": 5})
    again.pause("x", None)
    assert again.verify_audit() == BadRecord(4, Fault.DELETED)


def test_invariant_14_an_audit_log_that_cannot_be_written_is_loud(here: Place) -> None:
    store = here.create()
    log = here.state_dir / "audit.log"
    log.unlink()
    log.mkdir()
    with pytest.raises(AuditUnwritable) as caught:
        store.audit({"event": "set"})
    assert caught.value.exit_code == 5
    assert "audit.log" in caught.value.what
    assert caught.value.works
    assert caught.value.next
    log.rmdir()
    store.audit({"event": "set"})
    assert store.verify_audit() is None


def test_invariant_14_a_record_whose_sync_failed_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_at(path)
    log.append({"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", _input_output_error)
        with pytest.raises(AuditUnwritable, match="Input/output error"):
            log.append({"n": 2})
    log.append({"n": 3})
    assert [json.loads(line)["record"]["n"] for line in path.read_text().splitlines()] == [1, 3]
    assert verify(path, AUDIT_KEY, log.head) is None


def _input_output_error(_descriptor: int) -> None:
    raise OSError(5, "Input/output error")
