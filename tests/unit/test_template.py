from __future__ import annotations

import pytest

from vaultkeeper.model.secret import Fields, SecretBytes
from vaultkeeper.model.template import Template


def fields(**values: str | bytes) -> Fields:
    return {name: SecretBytes(v if isinstance(v, bytes) else v.encode()) for name, v in values.items()}


def render(text: str, primary: Fields, *others: Fields) -> bytes:
    return Template.parse(text).render(primary, [primary, *others]).reveal()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{password}", "a b/$\"'ü"),
        ("x{password}y", "xa b/$\"'üy"),
        ("{password|url}", "a%20b%2F%24%22%27%C3%BC"),
        ("{password|json}", '"a b/$\\"\'\\u00fc"'),
        ("{password|base64}", "YSBiLyQiJ8O8"),
        ("{password|sh}", "'a b/$\"'\"'\"'ü'"),
        ("{password|compose}", "a b/$$\"'ü"),
        ("{ password | url | compose }", "a%20b%2F%24%22%27%C3%BC"),
        ("{password|base64|url}", "YSBiLyQiJ8O8"),
        ("{{{password}}}", "{a b/$\"'ü}"),
        ("{{}}", "{}"),
        ("", ""),
    ],
)
def test_filters_escape_for_what_they_are_named_after(text: str, expected: str) -> None:
    assert render(text, fields(password="a b/$\"'ü")) == expected.encode()


def test_older_versions_are_listed_without_the_first() -> None:
    new, old, oldest = (fields(key=key) for key in ("new", "o,d", "oldest"))
    assert render("{key}", new, old) == b"new"
    assert render("{previous.key|join(',')}", new, old, oldest) == b"o,d,oldest"
    assert render("[{previous.key|json|join(', ')}]", new, old, oldest) == b'["o,d", "oldest"]'
    assert render("{previous.key|join('}|')|base64}", new, old, oldest) == b"byxkfXxvbGRlc3Q="
    assert render("{previous.key|join(',')}", new) == b""
    assert render("{key}\n{previous.key|join('\n')}", new, old, oldest) == b"new\no,d\noldest"


def test_accepted_is_the_main_field_of_the_first_and_the_last() -> None:
    new, old = fields(token="new", username="u"), fields(token="old", username="u")
    assert render("{accepted[0]}\n{accepted[-1]}", new, old) == b"new\nold"
    assert render("{accepted[0]}\n{accepted[-1]}", new) == b"new\nnew"
    assert Template.parse("{accepted[0]}").render(new).reveal() == b"new"


def test_bytes_pass_where_nothing_reads_them_as_text() -> None:
    raw = fields(value=b"\xff\x00")
    assert render("{value}", raw) == b"\xff\x00"
    assert render("{accepted[0]}", raw) == b"\xff\x00"
    assert render("{value|base64}", raw) == b"/wA="
    for text in ("{value|url}", "{value|json}", "{value|sh}", "{value|compose}", "x{value}"):
        with pytest.raises(ValueError, match="not UTF-8 text"):
            render(text, raw)


def test_a_missing_field_is_named_and_no_value_is() -> None:
    with pytest.raises(ValueError, match=r"no field `pasword`, only password, username") as caught:
        render("{pasword}", fields(password="hunter22", username="u"))
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ab{", "character 3: a `{` that is not closed"),
        ("a}b", "character 2: a lone `}`"),
        ("{a", "character 1: a `{` that is not closed"),
        ("{a{b}}", "character 1: a `{` that is not closed"),
        ("{}", "character 1: `{}` names no field"),
        ("x{a b}", "character 2: `{a b}` names no field"),
        ("{a|urll}", "character 1: `urll` is no filter; expected one of url, json, base64, sh, compose, join"),
        ("{a|}", "character 1: `` is no filter"),
        ("{a|join(',')}", "character 1: `join` belongs once, to `previous.a`"),
        ("{previous.a}", "character 1: a list needs a separator: `{previous.a|join(',')}`"),
        ("{previous.a|join(',')|join(',')}", "`join` belongs once"),
        ("{accepted[1]}", "expected accepted[0] (the first) or accepted[-1] (the last)"),
    ],
)
def test_a_malformed_template_is_refused_with_its_position(text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        Template.parse(text)
    assert told in str(caught.value)


def test_it_tells_which_fields_it_uses_and_which_go_in_raw() -> None:
    template = Template.parse("{username}:{password|url}:{previous.key|join(',')}:{accepted[0]|compose}")
    assert template.fields() == {"username", "password", "key"}
    assert [insert.field for insert in template.raw_uses()] == ["username", "key", None]


@pytest.mark.parametrize(
    ("text", "characters", "into"),
    [
        ("postgresql://u:{p}@h", "a@", "a URL"),
        ("https://h/?k={p}", "%", "a URL"),
        ("see https://h/ and {p}", "@", None),
        ("postgresql://u:{p}@h", "aZ09-._~", None),
        ("postgresql://u:{p|base64}@h", "@", None),
        ("host=h password={p}", "a'", "a connection string"),
        ("host=h password={p}", "a@", None),
        ("password={p}", " ", None),
        ('{{"p": "{p}"}}', "\\", "JSON"),
        ('{{"p": "{p}"}}', "ab", None),
        ('{{"p": {p}}}', "ab", "JSON"),
        ('{{"p": {p}}}', "01", None),
        ("{p}", " @\"'", None),
    ],
)
def test_a_raw_value_that_breaks_out_is_a_risk(text: str, characters: str, into: str | None) -> None:
    risks = Template.parse(text).risks({"p": frozenset(characters)})
    assert [risk.into for risk in risks] == ([into] if into else [])


def test_fields_of_unknown_content_are_no_risk_yet() -> None:
    assert Template.parse("x://{p}").risks({"q": frozenset("@")}) == []
