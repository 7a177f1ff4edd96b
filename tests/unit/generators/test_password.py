from __future__ import annotations

import itertools
import math
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vaultkeeper.errors import BackendError
from vaultkeeper.generators.password import PasswordGenerator, Settings
from vaultkeeper.model.password import PasswordPolicy

NOTHING: frozenset[str] = frozenset()
GENERATOR = PasswordGenerator()


def drawn(forbidden: frozenset[str] = NOTHING, **asked: object) -> str:
    fields = GENERATOR.generate(asked, forbidden, None)
    assert list(fields) == ["password"]
    return fields["password"].text()


def test_a_default_password_is_32_letters_and_digits_with_a_letter_first() -> None:
    password = drawn()
    assert len(password) == 32
    assert password.isascii()
    assert password.isalnum()
    assert password[0].isalpha()
    assert GENERATOR.entropy_bits({}, NOTHING) == pytest.approx(math.log2(52) + 31 * math.log2(62))


@pytest.mark.parametrize("letter_first", [True, False])
@pytest.mark.parametrize(
    ("alphabet", "minimums"),
    [
        ("abC1!", {}),
        ("abC1!", {"lower": 1, "upper": 1, "digits": 1, "symbols": 1}),
        ("abCD12", {"lower": 2, "digits": 1}),
        ("aB1", {"upper": 3}),
        ("12!", {"digits": 2}),
    ],
)
def test_the_entropy_is_that_of_the_passwords_counted_one_by_one(
    alphabet: str, minimums: dict[str, int], letter_first: bool
) -> None:
    policy = PasswordPolicy(4, frozenset(alphabet), letter_first=letter_first, **minimums)
    allowed = sum(policy.admits("".join(characters)) for characters in itertools.product(alphabet, repeat=4))
    assert policy.count == allowed
    assert policy.entropy_bits == (math.log2(allowed) if allowed else 0.0)


def test_class_rules_cost_entropy_and_the_cost_is_counted() -> None:
    rules = {"lower": 1, "upper": 1, "digits": 1, "symbols": 1}
    asked: dict[str, object] = {"length": 20, "symbols": "-", "first": "any"}
    assert GENERATOR.entropy_bits(asked, NOTHING) == pytest.approx(119.5, abs=0.1)
    assert GENERATOR.entropy_bits(asked | {"minimum": rules}, NOTHING) == pytest.approx(117.6, abs=0.1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 40),
    st.fixed_dictionaries({k: st.integers(0, 2) for k in ("lower", "upper", "digits", "symbols")}),
    st.sampled_from(["letter", "any"]),
    st.frozensets(st.sampled_from(string.ascii_letters + string.digits + "!-_"), max_size=9),
)
def test_every_password_keeps_its_rules_and_what_the_target_can_take(
    length: int, minimum: dict[str, int], first: str, forbidden: frozenset[str]
) -> None:
    asked: dict[str, object] = {"length": length, "minimum": minimum, "first": first, "symbols": "!-_#+@"}
    try:
        password = drawn(forbidden, **asked)
    except BackendError:
        assert max(minimum.values()) == 2, "these rules leave plenty"
        return
    assert len(password) == length
    assert not forbidden & set(password)
    assert sum(c.islower() for c in password) >= minimum["lower"]
    assert sum(c.isupper() for c in password) >= minimum["upper"]
    assert sum(c.isdigit() for c in password) >= minimum["digits"]
    assert sum(not c.isalnum() for c in password) >= minimum["symbols"]
    assert first == "any" or password[0].isalpha()
    assert set(password) <= GENERATOR.alphabet(asked)


def test_excluded_characters_never_appear_and_leave_the_alphabet() -> None:
    asked: dict[str, object] = {"exclude": "lIO01o", "length": 256}
    assert not set("lIO01o") & GENERATOR.alphabet(asked)
    assert not set("lIO01o") & set(drawn(NOTHING, **asked))


def test_a_narrower_target_narrows_the_entropy_too() -> None:
    hexadecimal = frozenset(string.ascii_letters + string.digits) - frozenset(string.hexdigits.lower())
    assert GENERATOR.entropy_bits({"first": "any"}, hexadecimal) == pytest.approx(128)
    assert set(drawn(hexadecimal, first="any")) <= set(string.hexdigits.lower())


def test_a_password_longer_than_the_target_takes_is_refused_not_cut() -> None:
    assert len(GENERATOR.generate({}, NOTHING, 32)["password"].reveal()) == 32
    with pytest.raises(BackendError, match=r"32 bytes.*at most 31"):
        GENERATOR.generate({}, NOTHING, 31)


def test_a_target_that_takes_no_required_character_is_an_error_not_an_endless_loop() -> None:
    asked: dict[str, object] = {"minimum": {"digits": 1}}
    assert GENERATOR.entropy_bits(asked, frozenset(string.digits)) == 0.0
    with pytest.raises(BackendError, match="too few passwords"):
        GENERATOR.generate(asked, frozenset(string.digits), None)


def test_rules_that_hardly_any_draw_keeps_are_an_error_not_an_endless_loop() -> None:
    with pytest.raises(BackendError, match="too few passwords"):
        GENERATOR.generate({"length": 32, "minimum": {"digits": 31}}, NOTHING, None)


@pytest.mark.parametrize(
    "asked",
    [
        {"length": 0},
        {"length": 257},
        {"length": "32"},
        {"length": True},
        {"size": 32},
        {"symbols": "é"},
        {"symbols": "a"},
        {"symbols": " "},
        {"minimum": {"digits": -1}},
        {"minimum": {"symbols": 1}},
        {"length": 4, "minimum": {"digits": 2, "upper": 3}},
        {"exclude": string.ascii_letters},
    ],
)
def test_settings_that_no_password_can_keep_are_refused(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(asked)
