"""SOPS files that a person made and others can open, edited with the real binary."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from tests.integration.delivery_kit import Delivery, FileCredentials, spec, version
from vaultkeeper.access import sops
from vaultkeeper.destinations.sops import SopsDestination
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import Done, Held, No, Prepared, Refused

NEW, OLD = version(2, "new-canary"), version(1, "old-canary")
THEIRS = """\
# the shop
db:
    # whose this is
    url: old
    port: 5432
    ratio: 1.50
    since: 2020-01-01T00:00:00Z
    "y": "no"
    nothing: null
hosts:
    - a
    - {b: 1}
text: |
    # no comment
    two lines
"""


class Team:
    """vaultkeeper's identity, a colleague's, and their file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        made = [pyrage.x25519.Identity.generate() for _ in range(2)]
        self.ours, self.theirs = (str(identity) for identity in made)
        self.our_recipient, self.their_recipient = (str(identity.to_public()) for identity in made)
        self.credentials = FileCredentials(identity=self.ours, recipients=self.our_recipient)

    def sops(self, *words: str, key: str = "") -> str:
        """As a person calls it."""
        (self.folder / "key").write_text(key or self.theirs)
        env = {**os.environ, "SOPS_AGE_KEY_FILE": str(self.folder / "key"), "SOPS_DISABLE_VERSION_CHECK": "1"}
        argv = [sops.locate(), "--config", "/dev/null", *words]
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout

    def file(self, name: str, text: str, *words: str, recipients: Sequence[str] = ()) -> Path:
        path = self.folder / name
        path.write_text(text)
        to = ",".join(recipients or (self.our_recipient, self.their_recipient))
        self.sops("encrypt", "--age", to, *words, "--in-place", str(path))
        return path

    def delivery(self, path: Path, *names: str, **settings: object) -> Delivery:
        values = dict.fromkeys(names, "{password}")
        one = spec("sops", path, values, **settings)  # type: ignore[arg-type]
        return Delivery.of(SopsDestination(), one, credentials=self.credentials)


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def recipients(path: Path) -> list[str]:
    document: Any = yaml.safe_load(path.read_text())
    return [entry["recipient"] for entry in document["sops"]["age"]]


def test_a_key_changes_and_everything_else_of_a_yaml_file_stays(team: Team) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    before = team.sops("decrypt", str(path))
    assert team.delivery(path, "db.url").hand_over(NEW) == Done()
    assert team.sops("decrypt", str(path)) == before.replace("url: old", "url: new-canary")
    assert "canary" not in path.read_text()


def test_missing_levels_are_made_and_go_again_with_their_only_value(team: Team) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    before = team.sops("decrypt", str(path))
    delivery = team.delivery(path, "db.password", "cache.main.password")
    assert delivery.hand_over(NEW) == Done()
    assert yaml.safe_load(team.sops("decrypt", str(path)))["cache"] == {"main": {"password": "new-canary"}}
    assert delivery.observe(NEW, OLD) == {"db.password": Held(2), "cache.main.password": Held(2)}
    assert delivery.deliver(None) == Done()
    assert team.sops("decrypt", str(path)) == before


def test_other_recipients_are_never_dropped_and_asked_ones_are_added(team: Team) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    third = str(pyrage.x25519.Identity.generate().to_public())
    assert team.delivery(path, "db.url", recipients=[third]).hand_over(NEW) == Done()
    assert sorted(recipients(path)) == sorted([team.our_recipient, team.their_recipient, third])
    assert "new-canary" in team.sops("decrypt", str(path), key=team.theirs)


def test_a_new_file_is_for_vaultkeepers_recipients_or_those_of_the_policy(team: Team) -> None:
    for name, settings, wanted in (
        ("a.yaml", {}, [team.our_recipient]),
        ("b.yaml", {"recipients": [team.our_recipient, team.their_recipient]}, None),
    ):
        path = team.folder / name
        delivery = team.delivery(path, "db.url", **settings)
        assert delivery.hand_over(NEW) == Done()
        assert recipients(path) == (wanted or [team.our_recipient, team.their_recipient])
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_file_that_we_could_not_read_again_is_refused(team: Team) -> None:
    answer = team.delivery(team.folder / "a.yaml", "k", recipients=[team.their_recipient]).prepare(NEW)
    assert isinstance(answer, Refused)
    assert not (team.folder / "a.yaml").exists()


def test_a_file_for_others_only_is_refused_and_stays(team: Team) -> None:
    path = team.file("shop.sops.yaml", THEIRS, recipients=[team.their_recipient])
    before = path.read_bytes()
    answer = team.delivery(path, "db.url").prepare(NEW)
    assert isinstance(answer, Refused)
    assert answer.why is No.PRIVILEGE
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [("nothing: null", "nothing: null\n    injected: canary"), (" {4}ratio: .*\\n", ""), ("ratio:", "ration:")],
)
def test_a_file_that_was_altered_without_a_key_is_refused(team: Team, change: tuple[str, str]) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    path.write_text(re.sub(*change, path.read_text()))
    answer = team.delivery(path, "db.url").prepare(NEW)
    assert isinstance(answer, Refused)
    assert "canary" not in answer.detail
    assert "altered" in answer.detail


def test_a_plain_file_and_the_configuration_of_sops_are_left_to_people(team: Team) -> None:
    path = team.folder / "plain.yaml"
    path.write_text(THEIRS)
    assert isinstance(team.delivery(path, "db.url").prepare(NEW), Refused)
    assert path.read_text() == THEIRS
    for name in (".sops.yaml", "unclear"):
        with pytest.raises(PolicyInvalid):
            team.delivery(team.folder / name, "a").items(NEW)


@pytest.mark.parametrize(
    ("name", "words", "key"),
    [
        ("suffix", ("--unencrypted-suffix", "_plain"), "token_plain"),
        ("regex", ("--encrypted-regex", "^secret_"), "token"),
        ("default", (), "token_unencrypted"),
    ],
)
def test_a_key_that_the_files_rules_leave_unencrypted_is_refused(
    team: Team, name: str, words: tuple[str, ...], key: str
) -> None:
    path = team.file(f"{name}.yaml", "a: 1\nsecret_b: 2\n", *words)
    before = path.read_bytes()
    answer = team.delivery(path, key).prepare(NEW)
    assert isinstance(answer, Refused)
    assert "unencrypted" in answer.detail
    assert path.read_bytes() == before


def test_the_files_own_rules_hold_after_an_edit(team: Team) -> None:
    path = team.file("rules.yaml", "plain: readable\nsecret_b: hidden\n", "--encrypted-regex", "^secret_")
    assert team.delivery(path, "secret_b").hand_over(NEW) == Done()
    document = yaml.safe_load(path.read_text())
    assert document["plain"] == "readable"
    assert document["sops"]["encrypted_regex"] == "^secret_"
    assert document["secret_b"].startswith("ENC[")


def test_recipients_that_cannot_be_encrypted_for_are_not_dropped_but_refused(team: Team) -> None:
    path = team.file("shop.sops.yaml", "a: 1\n")
    text = path.read_text().replace("    age:", "    pgp:\n        - fp: ABCD\n          enc: x\n    age:")
    path.write_text(text)
    answer = team.delivery(path, "a").prepare(NEW)
    assert isinstance(answer, Refused)
    assert "pgp" in answer.detail
    assert path.read_text() == text


@pytest.mark.parametrize("slot", ["db", "hosts", "hosts.a", "text.below", "db.port.deep"])
def test_a_collection_is_never_overwritten_by_a_value(team: Team, slot: str) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    before = path.read_bytes()
    assert isinstance(team.delivery(path, slot).prepare(NEW), Refused)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "value",
    ["123", "true", "null", "", " edge ", "a: b # c", "two\nlines\n", "é'\"\\", "- x", "{}", "1e3", "~", "yes", "012"],
)
def test_a_value_stays_text_whatever_it_looks_like(team: Team, value: str) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    delivery, carried = team.delivery(path, "db.url"), version(3, value)
    assert delivery.hand_over(carried) == Done()
    assert yaml.safe_load(team.sops("decrypt", str(path)))["db"]["url"] == value
    assert delivery.observe(carried, OLD) == {"db.url": Held(3)}


def test_a_number_that_was_there_comes_back_as_a_number(team: Team) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    before = team.sops("decrypt", str(path))
    delivery = team.delivery(path, "db.port", "db.since", "db.nothing", "text")
    assert delivery.hand_over(NEW) == Done()
    assert delivery.deliver(None) == Done()
    assert team.sops("decrypt", str(path)) == before


@pytest.mark.parametrize("value", [b"\xff", b"a\0b", b"a\x1bb"])
def test_what_no_yaml_carries_is_refused_without_showing_it(team: Team, value: bytes) -> None:
    answer = team.delivery(team.folder / "a.yaml", "k").prepare(version(3, b"canary" + value))
    assert isinstance(answer, Refused)
    assert (answer.why, "canary" in answer.detail) == (No.VALUE, False)


ENV = '# theirs\nOTHER=a b # not a comment to sops\nDB="quoted"\nDOUBLE=1\nDOUBLE=2\n'


def test_a_key_of_an_env_file_changes_and_the_others_stay(team: Team) -> None:
    path = team.file("shop.env", ENV)
    delivery = team.delivery(path, "DB", "NEW_KEY")
    assert delivery.hand_over(NEW) == Done()
    assert team.sops("decrypt", str(path)) == ENV.replace('"quoted"', "new-canary") + "NEW_KEY=new-canary\n"
    assert delivery.deliver(None) == Done()
    assert team.sops("decrypt", str(path)) == ENV


def test_what_exec_env_and_decrypt_would_read_differently_is_refused(team: Team) -> None:
    path = team.file("shop.env", ENV)
    for value in ("a b", "x'y", "a#b", "$x", "a\nb"):
        answer = team.delivery(path, "DB").prepare(version(3, value))
        assert isinstance(answer, Refused)
        assert answer.why is No.VALUE
    assert team.sops("decrypt", str(path)) == ENV


def test_nothing_of_ours_reaches_arguments_environment_or_disk(team: Team, tmp_path: Path) -> None:
    """A sops that writes down all it can see before it does its work."""
    log = tmp_path / "seen"
    spy = tmp_path / "sops-spy"
    spy.write_text(
        f'#!/bin/sh\n{{ echo "$@"; env; tr "\\0" "\\n" </proc/$$/environ; }} >>{log}\nexec {sops.locate()} "$@"\n'
    )
    spy.chmod(0o755)
    path = team.file("shop.sops.yaml", THEIRS)
    delivery = team.delivery(path, "db.url")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sops, "locate", lambda: str(spy))
        assert delivery.hand_over(NEW) == Done()
    seen = log.read_text()
    assert "--config /dev/null" in seen
    assert "SOPS_AGE_KEY_FILE=/proc/self/fd/" in seen
    for secret in ("canary", team.ours, "AGE-SECRET-KEY", "whose this is"):
        assert secret not in seen
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key", "seen", "shop.sops.yaml", "sops-spy"]


def test_a_sops_that_encrypts_something_else_is_found_out(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    before = path.read_bytes()
    real = sops.encrypt
    monkeypatch.setattr(sops, "encrypt", lambda plain, *rest: real(plain.replace(b"5432", b"5433"), *rest))
    assert isinstance(team.delivery(path, "db.url").prepare(NEW), Refused)
    monkeypatch.setattr(sops, "encrypt", lambda plain, *rest: real(plain.replace(b"# whose this is", b""), *rest))
    assert isinstance(team.delivery(path, "db.url").prepare(NEW), Refused)
    assert path.read_bytes() == before


def test_delivering_what_is_there_rewrites_nothing(team: Team) -> None:
    path = team.file("shop.sops.yaml", THEIRS)
    delivery = team.delivery(path, "db.url")
    delivery.hand_over(NEW)
    before = path.read_bytes()
    assert delivery.deliver(NEW) == Done()
    assert isinstance(delivery.prepare(NEW), Prepared)
    assert path.read_bytes() == before


def test_the_wrapper_script_of_the_package_is_not_taken_for_sops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "sops"
    script.write_text("#!/usr/bin/python3\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sops.locate() != str(script)
    script.write_bytes(b"\x7fELF")
    assert sops.locate() == str(script)
