"""One variable of an environment in Dokploy. That reading is dotenv's own is shown in tests/integration/."""

from __future__ import annotations

import pytest

from vaultkeeper.access.answer import Answered
from vaultkeeper.access.dokploy.env import EnvText, only_reference, parse, references, resolve, spliced
from vaultkeeper.model.outcome import No, Refused


def put(text: str, slot: str, value: str, *, bare_only: bool = False) -> str:
    env = EnvText(text, bare_only=bare_only)
    env.put(slot, value.encode())
    return env.text


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("A=1\nK=old\n", "new", "A=1\nK=new\n"),
        ("K=first\nK=last\nB=2\n", "new", "K=first\nK=new\nB=2\n"),
        ("K=old # why\r\nB=2\r\n", "new", "K=new # why\r\nB=2\r\n"),
        ("\texport K = 'old' # why\n", "new", "\texport K = new # why\n"),
        ("K: old\n", "new", "K: new\n"),
        ("K=\nB=2", "new", "K=new\nB=2"),
        ("K='two\r\nlines'\r\nB=2\r\n", "new", "K=new\r\nB=2\r\n"),
        ("", "new", "K=new\n"),
        ("# no end", "new", "# no end\nK=new"),
        ("A=1\r\n", "new", "A=1\r\nK=new\r\n"),
        ("K=old\n", "a#b", "K='a#b'\n"),
        ("K=old\n", "it's #1", "K=`it's #1`\n"),
        ("K=old\n", "it's `#1`", 'K="it\'s `#1`"\n'),
        ("K=old\n", "", "K=''\n"),
        ("K=old\n", " x ", "K=' x '\n"),
        ("K=old\n", "two\nlines", "K='two\nlines'\n"),
        ("K=old\n", "ends in \\", "K=ends in \\\n"),
        ("K=old\n", "$HOME", "K='$HOME'\n"),
    ],
)
def test_only_the_value_of_the_last_assignment_changes(before: str, value: str, after: str) -> None:
    assert put(before, "K", value) == after
    back = EnvText(after)
    back.restore("K", EnvText(before).get("K"))
    assert back.text == before


@pytest.mark.parametrize("value", ["# and \\", "`\"'#", "x{{y}}", "a\rb", "a\0b", "${{project.X}}"])
def test_what_no_spelling_carries_is_refused_without_the_value(value: str) -> None:
    with pytest.raises(Answered) as error:
        put("K=old\nB='#foo'\n", "K", value)
    assert isinstance(error.value.result, Refused)
    assert error.value.result.why is No.VALUE
    assert value not in str(error.value)


def test_a_neighbours_open_quote_is_not_closed_by_a_value() -> None:
    assert parse("A='open\nNEW=b'\n") == {"A": "open\nNEW=b"}
    assert parse(put("A='open\n", "NEW", "b'")) == {"A": "'open", "NEW": "b'"}


def test_compose_takes_only_what_it_reads_unchanged() -> None:
    assert put("K=old\n", "K", "a-B_9.x/=", bare_only=True) == "K=a-B_9.x/=\n"
    for value in ("pa$$", "a b", "a#b", "'"):
        with pytest.raises(Answered, match="Compose"):
            put("K=old\n", "K", value, bare_only=True)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(Answered, match="no name"):
        put("", "TWO WORDS", "x")


def test_a_text_that_is_encrypted_or_too_large_is_not_touched() -> None:
    for text in (" enc:v1:abc", "A" * (1 << 20) + "A"):
        with pytest.raises(Answered):
            EnvText(text)


def test_references_are_found_and_filled_in_as_dokploy_does() -> None:
    text = "A='${{project.P}}'\nB=x-${{environment.E}}-${{A2}}\nA2=own\nV=${{vault.bao.a/b:c}}\n"
    assert list(references(text)) == [
        ("A", "project", "P"), ("B", "environment", "E"), ("B", "", "A2"), ("V", "vault", "bao.a/b:c"),
    ]  # fmt: skip
    assert resolve(text, "P=${{environment.E}}\n", "E='#e'\n") == {
        "A": "#e", "B": "x-#e-own", "A2": "own", "V": "${{vault.bao.a/b:c}}",
    }  # fmt: skip
    with pytest.raises(Answered, match="NOPE"):
        resolve("A=${{project.NOPE}}", "", "")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("${{project.X}}", ("project", "X")),
        (" ${{environment.X}} ", ("environment", "X")),
        ("${{OTHER}}", ("", "OTHER")),
        ("${{vault.a.b/c:d}}", ("vault", "a.b/c:d")),
        ("x${{project.X}}", None),
        ("${{project.X}}${{project.Y}}", None),
        ("", None),
    ],
)
def test_a_value_that_is_one_reference_is_told_from_one_that_holds_some(
    value: str, found: tuple[str, str] | None
) -> None:
    assert only_reference(value) == found


def test_a_vaults_value_is_judged_as_it_will_be_read_after_it_was_put_in() -> None:
    quoted, bare = "K='${{vault.a.b}}'\nB=2\n", "K=${{vault.a.b}}\nB=2\n"
    assert spliced(quoted, "K", b"x#y") == {"K": "x#y", "B": "2"}
    for text, value in ((bare, b"x#y"), (quoted, b"it's #1"), (bare, b" x"), (quoted, b"x{{y")):
        with pytest.raises(Answered):
            spliced(text, "K", value)


def test_javascript_means_other_blanks_and_line_ends_than_python() -> None:
    assert parse("A=x\x85\nB=\ufeffy\u2028C=z\x0b") == {"A": "x\x85", "B": "y\u2028C=z"}
