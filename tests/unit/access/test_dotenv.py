"""The editor of env files, judged by its readers: python-dotenv, dash, bash, and a port of compose-go's parser."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Mapping
from pathlib import Path

import dotenv as python_dotenv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultkeeper.access import dotenv
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.dotenv import EnvText
from vaultkeeper.model.outcome import No, Refused

TEXT = st.text(alphabet="aZ0_ \t'\"\\$`{}#=!~*?[]()&;|<>%+,.:/@^-é…\n\r\0", max_size=12)


def by_python(data: bytes) -> Mapping[str, str | None]:
    return python_dotenv.dotenv_values(stream=io.StringIO(data.decode()))


def by_shell(path: Path, name: str, shell: str) -> bytes:
    script = 'set -eu; . "$1"; eval "printf %s. \\"\\${$2}\\""'
    return subprocess.run([shell, "-c", script, shell, path, name], capture_output=True, check=True).stdout[:-1]


def by_compose(stored: str) -> str:
    """github.com/compose-spec/compose-go dotenv/parser.go, extractVarValue; no variable is set."""
    quote = stored[:1]
    if quote not in ("'", '"'):
        value = stored.partition("\n")[0].partition(" #")[0].rstrip()
        assert "$" not in value
        return value
    chars, escaped = "", False
    for char in stored[1:]:
        if char != quote:
            if not escaped and char == "\\":
                escaped = True
                continue
            chars += ("\\" if escaped else "") + char
            escaped = False
        elif escaped:
            chars, escaped = chars + char, False
        else:
            assert quote == "'" or not set(chars) & set("\\$"), "expanded by Compose"
            return chars
    raise AssertionError("unterminated")


def edited(data: bytes, key: str, value: bytes) -> bytes:
    text = EnvText(data)
    text.put(key, value)
    return text.encode()


def why(value: bytes) -> No:
    with pytest.raises(Answered) as caught:
        dotenv.spell(value)
    assert isinstance(caught.value.result, Refused)
    return caught.value.result.why


@pytest.mark.parametrize(
    "value",
    ["plain",
     "", "a b", "it's", '"quoted"', "$HOME", "a$b", "`id`", "$(id)", "#x", "a #b", "a\\b", "a\\\\b", "\\n", "é…",
     " edge ",
     "{}", "a;b&c|d>e", "~", "!x", "tab\there", "x=y", "postgresql://u:p@h/db?a=b&c=d#e", "*", "a\\'b"],
)  # fmt: skip
def test_every_reader_reads_the_value_that_was_written_or_it_is_refused(tmp_path: Path, value: str) -> None:
    try:
        data = edited(b"", "KEY", value.encode())
    except Answered:
        assert value in ("a\\'b", "a\\\\b")
        return
    path = tmp_path / "env"
    path.write_bytes(data)
    assert by_python(data)["KEY"] == value
    assert by_compose(data.decode().removeprefix("KEY=").removesuffix("\n")) == value
    for shell in ("/bin/dash", "/bin/bash"):
        assert by_shell(path, "KEY", shell) == value.encode()
    assert EnvText(data).carries("KEY", value.encode())


@settings(max_examples=400, deadline=None)
@given(TEXT)
def test_no_value_is_read_differently_by_anybody(value: str) -> None:
    try:
        stored = dotenv.spell(value.encode())
    except Answered:
        return
    assert by_python(b"KEY=" + stored + b"\n")["KEY"] == value
    assert by_compose(stored.decode()) == value
    assert dotenv.read(stored) == value.encode()


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXT, min_size=8, max_size=8))
def test_a_shell_reads_what_was_written(values: list[str]) -> None:
    text, wanted = EnvText(b""), {}
    for number, value in enumerate(values):
        try:
            text.put(f"K{number}", value.encode())
            wanted[f"K{number}"] = value.encode()
        except Answered:
            pass
    script = text.encode() + b"".join(b'printf "%%s\\0" "$%s"\n' % name.encode() for name in wanted)
    ran = subprocess.run(["/bin/dash"], input=script, capture_output=True, check=True)
    assert ran.stderr == b""
    assert ran.stdout.split(b"\0")[:-1] == list(wanted.values())


@pytest.mark.parametrize("value", [b"a\nb", b"a\rb", b"\0", b"\x1b", b"\xff", b"${x}", b"'\\\\", b"a'\"b", b"'\\"])
def test_what_no_reader_agrees_on_is_refused_without_showing_it(value: bytes) -> None:
    assert why(b"canary" + value) is No.VALUE
    with pytest.raises(Answered) as caught:
        dotenv.spell(b"canary" + value)
    assert "canary" not in str(caught.value)


FILE = (
    b"# comment \xff\xfe\n"
    b"export FIRST = 'one'   # keep\r\n"
    b"\n"
    b"KEY=old # trailing\n"
    b"MULTI='a\nb=c\n'\n"
    b'  KEY="last"\t# this one wins\r\n'
    b"NOEQUALS\n"
    b"KEYS=other\n"
    b"LAST=no newline"
)


def test_only_the_value_that_wins_changes_and_every_other_byte_stays() -> None:
    assert edited(FILE, "KEY", b"new") == FILE.replace(b'"last"', b"new")
    assert edited(FILE, "FIRST", b"a b") == FILE.replace(b"'one'", b"'a b'")
    assert edited(FILE, "MULTI", b"x") == FILE.replace(b"'a\nb=c\n'", b"x")
    assert edited(FILE, "LAST", b"x") == FILE.replace(b"no newline", b"x")


def test_a_missing_key_goes_to_the_end_with_the_files_own_line_ends() -> None:
    assert edited(FILE, "NEW", b"x") == FILE + b"\nNEW=x\n"
    assert edited(b"A=1\r\nB=2\r\n", "NEW", b"x") == b"A=1\r\nB=2\r\nNEW=x\r\n"
    assert edited(b"A=1", "NEW", b"x") == b"A=1\nNEW=x\n"
    assert edited(b"", "NEW", b"x") == b"NEW=x\n"
    assert edited(b"\xef\xbb\xbfNEW=old\n", "NEW", b"x") == b"\xef\xbb\xbfNEW=old\nNEW=x\n"


def test_comments_and_look_alikes_are_no_assignments() -> None:
    data = b"#KEY=a\n# KEY=b\nMYKEY=c\nKEY2=d\nKEY\n"
    assert edited(data, "KEY", b"x") == data + b"KEY=x\n"
    assert EnvText(data).get("KEY") is None


def test_an_assignment_within_another_values_quotes_is_left_to_a_person() -> None:
    for data in (b"A='x\nKEY=inner\n'\n", b'KEY=a\nA="x\nKEY=inner\n"\n'):
        with pytest.raises(Answered):
            edited(data, "KEY", b"x")


def test_an_unclosed_quote_ends_with_its_line() -> None:
    data = b"A='open\nKEY=old\nB=it's\n"
    assert edited(data, "KEY", b"new") == b"A='open\nKEY=new\nB=it's\n"


@pytest.mark.parametrize("data", [FILE, b"KEY=a\n", b"A=1\n", b"KEY = '' # x", b"export KEY=${OTHER:-x}\n"])
def test_restoring_what_was_there_undoes_a_put(data: bytes) -> None:
    before = EnvText(data).get("KEY")
    text = EnvText(data)
    text.put("KEY", b"new value")
    text.restore("KEY", before)
    assert text.encode() == data


def test_removing_a_key_takes_its_line_and_nothing_else() -> None:
    text = EnvText(b"A=1\nKEY='x' # y\r\nB=2\n")
    text.restore("KEY", None)
    text.restore("KEY", None)
    assert text.encode() == b"A=1\nB=2\n"


@pytest.mark.parametrize("key", ["1A", "A-B", "", "A B", "A\n", "A=B"])
def test_a_key_that_a_shell_cannot_assign_is_refused(key: str) -> None:
    with pytest.raises(Answered):
        edited(b"", key, b"x")


@pytest.mark.parametrize("stored", [b"'a\\\\b'", b'"a$b"', b"a$b", b'"a\\nb"', b"'x", b"a'b'", b"'${A}'"])
def test_a_spelling_that_readers_take_differently_is_nobodys_value(stored: bytes) -> None:
    assert dotenv.read(stored) is None


def test_a_file_of_many_lines_is_edited_at_once() -> None:
    data = b"".join(b"K%d='%d'\n" % (n, n) for n in range(20000)) + b"X=" + b" " * 200_000 + b"'\n"
    assert edited(data, "K19999", b"x").count(b"\n") == 20001
