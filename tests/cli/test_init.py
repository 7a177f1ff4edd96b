from __future__ import annotations

import shlex
from pathlib import Path

import pyrage
import pytest

from tests.cli.conftest import Vk

STATE = Path(".local/state/vaultkeeper")
IDENTITY = Path(".config/vaultkeeper/identity.txt")


def files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def test_init_without_a_choice_of_recovery_names_the_three_ways_and_makes_nothing(vk: Vk, home: Path) -> None:
    ran = vk("init")
    assert ran.code == 2
    for way in ("--recovery-recipient", "--new-recovery-key", "--without-recovery"):
        assert way in ran.err
    assert files(home) == set()


def test_two_ways_of_recovery_at_once_are_a_usage_error(vk: Vk, home: Path) -> None:
    assert vk("init", "--without-recovery", "--new-recovery-key", "r.txt").code == 2
    assert files(home) == set()


def test_init_writes_only_state_identity_and_recovery_key_and_nobody_else_can_read_them(vk: Vk, home: Path) -> None:
    ran = vk("init", "--new-recovery-key", "recovery.txt")
    assert ran.code == 0, ran.err
    outside = {name for name in files(home) if not name.startswith(str(STATE))}
    assert outside == {str(IDENTITY), "recovery.txt"}
    assert {oct(path.stat().st_mode & 0o077) for path in home.rglob("*")} == {"0o0"}
    assert "AGE-SECRET-KEY" not in ran.out + ran.err


def test_init_says_how_to_test_the_recovery_key_and_that_works_as_shown(vk: Vk) -> None:
    ran = vk("init", "--new-recovery-key", "recovery.txt")
    shown = ran.err.partition("vaultkeeper keys check ")[2].splitlines()[0]
    tried = vk("keys", "check", *shlex.split(shown))
    assert (tried.code, tried.err.strip().endswith("recovery.txt.")) == (0, True)


def test_a_second_init_refuses_and_says_what_is_there(installed: Vk, home: Path) -> None:
    before = {name: (home / name).read_bytes() for name in files(home)}
    ran = installed("init", "--without-recovery")
    assert ran.code == 3
    assert "initialised already" in ran.err
    assert str(home / STATE) in ran.err
    assert {name: (home / name).read_bytes() for name in files(home)} == before


def test_a_recovery_recipient_is_shown_without_the_identity(vk: Vk, home: Path) -> None:
    offline = str(pyrage.x25519.Identity.generate().to_public())
    assert vk("init", "--recovery-recipient", offline).code == 0
    (home / IDENTITY).unlink()
    shown = vk("keys", "show", "--json").json
    assert {"recipient": offline, "role": "recovery"} in shown["recipients"]


def test_a_private_key_given_as_recipient_is_refused_and_not_repeated(vk: Vk) -> None:
    private = str(pyrage.x25519.Identity.generate())
    ran = vk("init", "--recovery-recipient", private)
    assert ran.code == 3
    assert private not in ran.out + ran.err


def test_an_interrupted_init_is_completed_by_the_next_one(vk: Vk, home: Path) -> None:
    assert vk("init", "--new-recovery-key", "r.txt").code == 0
    (home / STATE / "installation.json").unlink()  # what a kill before the last write leaves
    ran = vk("init", "--new-recovery-key", "r.txt")
    assert ran.code == 0, ran.err
    assert vk("keys", "check").code == 0


def test_an_identity_that_is_there_already_is_used_and_not_replaced(vk: Vk, home: Path) -> None:
    assert vk("init", "--without-recovery", "--state-dir", "one").code == 0
    before = (home / IDENTITY).read_bytes()
    ran = vk("init", "--without-recovery", "--state-dir", "two")
    assert ran.code == 0, ran.err
    assert "was there already" in ran.err
    assert (home / IDENTITY).read_bytes() == before


@pytest.mark.parametrize(
    "place", ["--state-dir", "VAULTKEEPER_STATE_DIR", "VAULTKEEPER_STATE_DIR_FILE", "STATE_DIRECTORY"]
)
def test_the_state_directory_can_be_said_in_each_documented_way(vk: Vk, home: Path, place: str) -> None:
    elsewhere = home / "elsewhere"
    if place == "--state-dir":
        ran = vk("init", "--without-recovery", place, elsewhere)
    else:
        (home / "twin").write_text(f"{elsewhere}\n")
        value = str(home / "twin") if place.endswith("_FILE") else str(elsewhere)
        ran = vk("init", "--without-recovery", env={place: value})
    assert ran.code == 0, ran.err
    assert (elsewhere / "state.db").exists()
