"""Env files as a destination: several secrets in one file that other people edit too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.delivery_kit import Delivery, spec, version
from vaultkeeper.destinations.dotenv import DotenvDestination
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import Done, Held, No, Prepared, Refused

THEIRS = b"# theirs \xe9\r\nOTHER='kept'  # so\r\nDB_PASSWORD=theirs # old\r\nEND=1"
NEW, OLD = version(2, "new-canary"), version(1, "old-canary")


def to(path: Path, *keys: str, **settings: object) -> Delivery:
    specs = [spec("dotenv", path, {key: "{password}"}, **settings) for key in keys]  # type: ignore[arg-type]
    return Delivery.of(DotenvDestination(), *specs)


def test_several_secrets_of_one_file_are_written_together_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(THEIRS)
    inode = path.stat().st_ino
    delivery = to(path, "DB_PASSWORD", "API_KEY")
    assert delivery.hand_over(NEW, OLD) == Done()
    assert path.read_bytes() == THEIRS.replace(b"=theirs", b"=new-canary") + b"\r\nAPI_KEY=old-canary\r\n"
    assert path.stat().st_ino != inode
    assert delivery.observe(NEW, OLD) == {"DB_PASSWORD": Held(2), "API_KEY": Held(1)}


def test_each_key_goes_back_to_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(THEIRS + b"\r\n")
    delivery = to(path, "DB_PASSWORD", "API_KEY")
    delivery.hand_over(NEW)
    assert delivery.deliver(None, NEW) == Done()
    assert b"DB_PASSWORD=theirs # old\r\n" in path.read_bytes()
    assert b"API_KEY=new-canary\r\n" in path.read_bytes()
    assert delivery.deliver(None, None) == Done()
    assert path.read_bytes() == THEIRS + b"\r\n"


def test_a_file_that_we_made_goes_when_its_last_key_goes(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    delivery = to(path, "A", "B")
    delivery.hand_over(NEW)
    assert delivery.deliver(None, NEW) == Done()
    assert path.read_bytes() == b"B=new-canary\n"
    assert delivery.deliver(None) == Done()
    assert not path.exists()


def test_an_empty_file_that_was_there_before_us_stays(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.touch()
    delivery = to(path, "A")
    delivery.hand_over(NEW)
    assert delivery.deliver(None) == Done()
    assert path.read_bytes() == b""


def test_a_value_that_no_env_file_carries_is_refused_before_anything_is_set(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(THEIRS)
    answer = to(path, "DB_PASSWORD").prepare(version(3, "two\nlines"))
    assert isinstance(answer, Refused)
    assert (answer.why, "two" in answer.detail) == (No.VALUE, False)
    assert path.read_bytes() == THEIRS


def test_the_same_value_in_another_spelling_is_ours_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b'A="new-canary"\n')
    delivery = to(path, "A")
    assert delivery.observe(NEW, OLD) == {"A": Held(2)}
    assert delivery.hand_over(NEW) == Done()
    assert path.read_bytes() == b'A="new-canary"\n'


def test_two_modes_for_one_file_are_refused_before_anything_is_set(tmp_path: Path) -> None:
    one = spec("dotenv", tmp_path / ".env", {"A": "{password}"}, mode="0600")
    two = spec("dotenv", tmp_path / ".env", {"B": "{password}"}, mode="0640")
    assert isinstance(Delivery.of(DotenvDestination(), one, two).prepare(NEW), Refused)
    assert isinstance(Delivery.of(DotenvDestination(), one, one).prepare(NEW), Prepared)


def test_a_lone_value_without_a_key_is_an_error_of_the_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid):
        DotenvDestination().spots(spec("dotenv", tmp_path / ".env", {"": "{password}"}), to(tmp_path / "x").ctx)


def test_consumers_of_one_file_are_told_once(tmp_path: Path) -> None:
    script = tmp_path / "reload"
    script.write_text('#!/bin/sh\necho told >>"$0.log"\n')
    script.chmod(0o755)
    delivery = to(tmp_path / ".env", "A", "B", reload={"command": [str(script)]})
    assert delivery.hand_over(NEW) == Done()
    assert (tmp_path / "reload.log").read_text() == "told\n"
