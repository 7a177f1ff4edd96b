from __future__ import annotations

import os

import pytest

from tests.unit.policyfile.conftest import Folder

GOOD = "secrets:\n  s: {static: x}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "shop.yaml:1:1: expected keys such as `secrets:`; the file is empty"),
        ("# nothing yet\n", "shop.yaml:1:1: expected keys such as `secrets:`; the file is empty"),
        ("- a\n", "shop.yaml:1:1: expected keys such as `secrets:`; something else stands here"),
        ("secrets:\n\ts: {}\n", "shop.yaml:2:1: a tab: expected spaces for indentation"),
        ("secrets: {s: {static: x}\n", "shop.yaml:2:1: while parsing a flow mapping, did not find expected ',' or '}'"),
        (GOOD + "---\n" + GOOD, "shop.yaml:3:1: a second document: expected one per file"),
        ("secrets:\n  s: {static: \x07}\n", "shop.yaml:2:15: a control character: expected printable text"),
        ('secrets:\n  s: {static: "\\x07"}\n', "shop.yaml:2:15: a control character: expected printable text"),
        (GOOD.encode("utf-16"), "shop.yaml: UTF-16: expected UTF-8"),
        (b"secrets:\n  s: {static: \xff}\n", "shop.yaml:2:15: not UTF-8: expected a text file"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "shop.yaml:1:1: a control character: expected printable text"),
        (GOOD + "#" * (1 << 20), "shop.yaml: larger than 1 MiB: expected several smaller files"),
        ("[" * 200_000, "shop.yaml:1:21: nested deeper than 20 levels"),
        ("{a: " * 100_000, "shop.yaml:1:81: nested deeper than 20 levels"),
        ("- " * 100_000, "shop.yaml:1:41: nested deeper than 20 levels"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_is_no_policy_is_refused_with_its_place(folder: Folder, text: str | bytes, expected: str) -> None:
    folder.write("shop.yaml", text)
    assert folder.errors() == [expected]


def test_a_bomb_of_aliases_is_never_expanded(folder: Folder) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    told = folder.errors("\n".join(lines) + "\n" + GOOD)
    assert "shop.yaml:1:4: an anchor (`&`): expected `connections` and `use` for parts that are shared" in told
    assert sum("an alias" in line for line in told) == 72


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("s: &x {static: x}", "an anchor"),
        ("s: *x", "an alias"),
        ("s: {<<: {static: x}}", "a merge key"),
        ("s: !!map {static: x}", "a tag"),
        ("s: {static: !secret x}", "a tag"),
        ("? [a]\n  : {static: x}", "expected a name as key"),
    ],
)
def test_yaml_that_hides_what_it_says_is_refused(folder: Folder, line: str, expected: str) -> None:
    (told,) = folder.errors(f"secrets:\n  {line}\n")
    assert told.startswith("shop.yaml:2:")
    assert expected in told


def test_a_duplicate_key_is_told_with_both_lines(folder: Folder) -> None:
    told = folder.errors("secrets:\n  s:\n    static: x\n    owner: me\n    static: y\n")
    assert told == ["shop.yaml:5:5 static: a duplicate key; the first one stands in line 3"]


def test_plain_words_are_text_and_not_what_yaml_1_1_makes_of_them(folder: Folder) -> None:
    policy = folder.load("secrets:\n  s: {static: no, description: 12:30, owner: off}\n")["s"]
    assert (policy.static, policy.description, policy.owner) == ("no", "12:30", "off")


def test_a_number_where_text_belongs_is_refused(folder: Folder) -> None:
    assert folder.error("static: 5") == "s.static: expected text, in quotes"


def test_a_file_that_every_user_may_write_is_refused(folder: Folder) -> None:
    folder.write("shop.yaml", GOOD).chmod(0o666)
    assert folder.errors() == ["shop.yaml: every user may write this file: expected mode 0644 or less (chmod o-w)"]


def test_a_pipe_is_refused_and_not_waited_for(folder: Folder) -> None:
    os.mkfifo(folder.path / "shop.yaml")
    assert folder.errors() == ["shop.yaml: expected a regular file"]


def test_a_file_that_cannot_be_opened_is_refused(folder: Folder) -> None:
    (folder.path / "shop.yaml").symlink_to("shop.yaml")
    assert folder.errors() == ["shop.yaml: cannot be read: Too many levels of symbolic links"]


def test_a_byte_order_mark_is_no_error(folder: Folder) -> None:
    assert folder.load("\ufeff" + GOOD)["s"].place.line == 2
