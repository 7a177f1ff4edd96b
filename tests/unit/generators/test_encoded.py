from __future__ import annotations

import base64
import math
import string
import uuid
from typing import Any

import pytest
from pydantic import ValidationError

from vaultkeeper.errors import BackendError
from vaultkeeper.generators.base64 import Base64Generator
from vaultkeeper.generators.hex import HexGenerator
from vaultkeeper.generators.token import TokenGenerator
from vaultkeeper.generators.uuid import UuidGenerator

NOTHING: frozenset[str] = frozenset()
ALL: list[Any] = [TokenGenerator(), HexGenerator(), Base64Generator(), UuidGenerator()]


def drawn(generator: Any, forbidden: frozenset[str] = NOTHING, **asked: object) -> str:
    fields = generator.generate(asked, forbidden, None)
    assert list(fields) == [generator.field]
    return str(fields[generator.field].text())


@pytest.mark.parametrize("size", range(1, 50))
def test_values_decode_to_as_many_bytes_as_asked_for_and_hold_as_many_bits(size: int) -> None:
    token = drawn(TokenGenerator(), bytes=size)
    padded = token + "=" * (-len(token) % 4)
    decoded = base64.b64decode(padded, altchars=b"-_", validate=True)
    assert len(decoded) == size
    assert base64.urlsafe_b64encode(decoded).decode() == padded, "the unused bits of the last character are zero"
    plain = drawn(Base64Generator(), bytes=size)
    assert len(base64.b64decode(plain, validate=True)) == size
    assert base64.b64encode(base64.b64decode(plain)).decode() == plain
    assert len(bytes.fromhex(drawn(HexGenerator(), bytes=size))) == size
    for generator in (TokenGenerator(), Base64Generator(), HexGenerator()):
        assert generator.entropy_bits({"bytes": size}, NOTHING) == pytest.approx(8 * size)


def test_a_uuid_is_a_version_4_one_of_122_bits() -> None:
    text = drawn(UuidGenerator())
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant, str(parsed)) == (4, uuid.RFC_4122, text)
    assert UuidGenerator().entropy_bits({}, NOTHING) == pytest.approx(122)


@pytest.mark.parametrize(("generator", "field"), list(zip(ALL, ["token", "value", "value", "value"], strict=True)))
def test_each_kind_yields_the_field_that_the_format_names(generator: Any, field: str) -> None:
    assert generator.field == field
    assert drawn(generator) != drawn(generator)


@pytest.mark.parametrize("generator", [TokenGenerator(), Base64Generator()])
def test_a_prefix_stands_before_the_value_adds_no_entropy_and_belongs_to_the_alphabet(generator: Any) -> None:
    value = drawn(generator, prefix="base64:")
    assert value.startswith("base64:")
    assert len(value) == len(drawn(generator)) + 7
    assert generator.entropy_bits({"prefix": "base64:"}, NOTHING) == pytest.approx(256)
    assert ":" in generator.alphabet({"prefix": "base64:"})
    with pytest.raises(BackendError, match="':'"):
        generator.generate({"prefix": "base64:"}, frozenset(":"), None)


@pytest.mark.parametrize("generator", ALL)
def test_no_value_leaves_its_alphabet(generator: Any) -> None:
    seen = set("".join(drawn(generator) for _ in range(300)))
    assert seen == generator.alphabet({}), "300 values use every character"


@pytest.mark.parametrize(("generator", "forbidden"), [(TokenGenerator(), "-_"), (Base64Generator(), "+/")])
def test_a_narrower_target_costs_exactly_the_bits_of_the_missing_characters(generator: Any, forbidden: str) -> None:
    values = "".join(drawn(generator, frozenset(forbidden)) for _ in range(50))
    assert not set(forbidden) & set(values)
    # the last character of 32 bytes has 16 forms; neither of the two forbidden ones is among them
    assert generator.entropy_bits({}, frozenset(forbidden)) == pytest.approx(42 * math.log2(62) + 4)


@pytest.mark.parametrize(
    ("generator", "forbidden"),
    [(HexGenerator(), string.hexdigits), (UuidGenerator(), "-"), (UuidGenerator(), "4"), (Base64Generator(), "=")],
)
def test_a_target_that_cannot_take_the_encoding_is_an_error(generator: Any, forbidden: str) -> None:
    assert generator.entropy_bits({}, frozenset(forbidden)) == 0.0
    with pytest.raises(BackendError, match="no value can be made"):
        generator.generate({}, frozenset(forbidden), None)


@pytest.mark.parametrize(("generator", "length"), list(zip(ALL, [43, 64, 44, 36], strict=True)))
def test_a_value_longer_than_the_target_takes_is_refused_not_cut(generator: Any, length: int) -> None:
    assert len(generator.generate({}, NOTHING, length)[generator.field].reveal()) == length
    with pytest.raises(BackendError, match=f"{length} bytes"):
        generator.generate({}, NOTHING, length - 1)


@pytest.mark.parametrize("generator", ALL)
@pytest.mark.parametrize("asked", [{"bytes": 0}, {"bytes": 513}, {"bytes": "32"}, {"bytes": 1.5}, {"lenght": 3}])
def test_settings_out_of_range_or_unknown_are_refused(generator: Any, asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        generator.Settings.model_validate(asked)


@pytest.mark.parametrize("prefix", ["a b", "é", "\n", "x" * 65])
def test_a_prefix_that_is_not_short_printable_ascii_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError):
        TokenGenerator.Settings.model_validate({"prefix": prefix})
