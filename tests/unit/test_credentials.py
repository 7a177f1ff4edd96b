"""What references stand for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from vaultkeeper.errors import ConfigurationInvalid, NotFound
from vaultkeeper.model.secret import Acceptance, Binding, Fields, SecretBytes, StagingLabel, VersionRecord
from vaultkeeper.ports import Change
from vaultkeeper.testing.memory import MemoryEnvelope, MemoryStore
from vaultkeeper.wiring.credentials import References

IDENTITY = b"AGE-SECRET-KEY-1EXAMPLE"


@pytest.fixture
def learned() -> list[Fields]:
    return []


@pytest.fixture
def references(learned: list[Fields]) -> References:
    store, envelope = MemoryStore(), MemoryEnvelope()
    for number, (password, verified) in enumerate([(b"one", True), (b"two", True), (b"three", False)], 1):
        fields = {"username": SecretBytes(b"vk"), "password": SecretBytes(password)}
        sealed = envelope.seal(fields, secret="shop/db", bound_to=f"{number}:id{number}")
        record = VersionRecord(
            "shop/db",
            number,
            f"id{number}",
            Binding(None, None, {}, 0),
            datetime(2026, 1, 1, tzinfo=UTC),
            sealed,
            acceptance=Acceptance.ACCEPTED,
            verified=verified,
        )
        label = StagingLabel.CURRENT if verified else StagingLabel.PENDING
        store.amend("shop/db", Change(new_version=record, labels={label: number}))
    return References(
        store,
        envelope,
        identity=lambda: SecretBytes(IDENTITY),
        recipients=lambda: ["age1a", "age1b"],
        learn=learned.append,
    )


def text(fields: Fields, name: str = "value") -> str:
    return fields[name].text()


def test_a_secret_is_its_newest_proven_version_and_never_an_unproven_one(references: References) -> None:
    assert text(references.resolve({"secret": "shop/db", "field": "password"})) == "two"


def test_a_secret_without_a_field_is_all_of_them_with_the_main_one_as_value(references: References) -> None:
    found = references.resolve({"secret": "shop/db"})
    assert (text(found), text(found, "username"), text(found, "password")) == ("two", "vk", "two")


def test_a_secret_without_a_proven_version_is_not_found(references: References) -> None:
    with pytest.raises(NotFound, match="without a proven version"):
        references.resolve({"secret": "shop/other"})


@pytest.mark.parametrize(
    ("written", "expected"),
    [(b"a\n", b"a"), (b"a\r\n", b"a"), (b"a\n\n", b"a\n"), (b" a ", b" a "), (b"\xff\x00", b"\xff\x00")],
)
def test_of_a_file_one_trailing_line_break_is_dropped_and_nothing_else(
    references: References, tmp_path: Path, written: bytes, expected: bytes
) -> None:
    (tmp_path / "f").write_bytes(written)
    assert references.resolve({"file": str(tmp_path / "f")})["value"].reveal() == expected


def test_an_environment_variable_keeps_bytes_that_are_no_text(
    references: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VK_TEST", b"\xff\xfe".decode(errors="surrogateescape"))
    assert references.resolve({"env": "VK_TEST"})["value"].reveal() == b"\xff\xfe"


def test_a_credential_is_read_from_the_units_directory_and_from_nowhere_else(
    references: References, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "pg").write_text("s3cret\n")
    (tmp_path / "outside").write_text("x")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(NotFound, match="CREDENTIALS_DIRECTORY"):
        references.resolve({"credential": "pg"})
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert text(references.resolve({"credential": "pg"})) == "s3cret"
    with pytest.raises(ConfigurationInvalid):
        references.resolve({"credential": "../outside"})


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * ((1 << 20) + 1)])
def test_an_empty_or_huge_file_is_no_value(references: References, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match="is empty, or larger"):
        references.resolve({"file": str(tmp_path / "f")})


@pytest.mark.parametrize(
    "reference", [{}, {"fiel": "x"}, {"file": "a", "env": "b"}, {"env": "A", "field": "f"}, {"identity": "other"}]
)
def test_anything_else_is_no_reference(references: References, reference: dict[str, str]) -> None:
    with pytest.raises(ConfigurationInvalid):
        references.resolve(reference)


def test_every_resolved_value_is_learned_so_that_logs_can_be_cleaned_of_it(
    references: References, learned: list[Fields], tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("hunter2")
    references.resolve({"file": str(tmp_path / "f")})
    references.resolve({"identity": "vaultkeeper"})
    assert [text(fields) for fields in learned] == ["hunter2", IDENTITY.decode()]


def test_the_recipients_are_public_and_come_one_per_line(references: References, learned: list[Fields]) -> None:
    assert text(references.resolve({"recipients": "vaultkeeper"})) == "age1a\nage1b"
    assert learned == []
