from __future__ import annotations

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.encryption.making import new_identity, scrypt_file
from vaultkeeper.encryption import age
from vaultkeeper.encryption.age import AgeEncryptor
from vaultkeeper.errors import ConfigurationInvalid, EnvelopeInvalid, NoKey, VaultkeeperError

SERVICE, RECOVERY, STRANGER = new_identity(), new_identity(), new_identity()
BOTH = SERVICE.recipients + RECOVERY.recipients
ENCRYPTOR = AgeEncryptor(BOTH, SERVICE)
SEALED = ENCRYPTOR.encrypt(b"the document")
CASES = settings(max_examples=60, deadline=None)


@CASES
@given(st.binary(max_size=200_000))
def test_each_recipient_reads_back_what_was_encrypted_and_nobody_else_does(document: bytes) -> None:
    sealed = ENCRYPTOR.encrypt(document)
    assert ENCRYPTOR.decrypt(sealed) == document
    assert AgeEncryptor(BOTH, RECOVERY).decrypt(sealed) == document
    with pytest.raises(NoKey):
        AgeEncryptor(BOTH, STRANGER).decrypt(sealed)


def test_without_an_identity_it_encrypts_and_says_that_it_cannot_decrypt() -> None:
    alone = AgeEncryptor(BOTH)
    assert ENCRYPTOR.decrypt(alone.encrypt(b"x")) == b"x"
    with pytest.raises(NoKey):
        alone.decrypt(SEALED)
    assert tuple(alone.recipients()) == BOTH


def test_every_truncation_is_refused() -> None:
    for length in range(len(SEALED)):
        with pytest.raises((EnvelopeInvalid, NoKey)):
            ENCRYPTOR.decrypt(SEALED[:length])


@pytest.mark.parametrize("bit", [1, 128])
def test_a_flipped_bit_is_refused_in_every_byte(bit: int) -> None:
    for at in range(len(SEALED)):
        damaged = bytearray(SEALED)
        damaged[at] ^= bit
        with pytest.raises((EnvelopeInvalid, NoKey)):
            ENCRYPTOR.decrypt(bytes(damaged))


@CASES
@given(st.binary(max_size=300), st.integers(0, len(SEALED)), st.integers(0, 40))
def test_inserted_replaced_and_appended_bytes_are_refused_without_any_other_error(
    other: bytes, at: int, gone: int
) -> None:
    damaged = SEALED[:at] + other + SEALED[at + gone :]
    if damaged != SEALED:
        with pytest.raises((EnvelopeInvalid, NoKey)):
            ENCRYPTOR.decrypt(damaged)


@CASES
@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda rest: age.VERSION_LINE + b"\n-> " + rest))
def test_garbage_is_refused_without_any_other_error(garbage: bytes) -> None:
    with pytest.raises(VaultkeeperError):
        age.stanza_types(garbage)


def test_headers_that_the_library_writes_are_all_accepted() -> None:
    """It adds a random stanza of grease to each file, so one file is not enough."""
    for _ in range(200):
        assert age.stanza_types(ENCRYPTOR.encrypt(b"")).count("X25519") == 2


def test_a_recipient_stanza_without_a_body_is_refused() -> None:
    header, rest = SEALED.split(b"\n---", 1)
    for forged in (header + b"\n-> nobody\n---" + rest, header + b"\n-> nobody\n" + b"A" * 64 + b"\n---" + rest):
        with pytest.raises(EnvelopeInvalid, match="cut short"):
            ENCRYPTOR.decrypt(forged)


def test_a_header_has_a_largest_size() -> None:
    header, rest = SEALED.split(b"\n---", 1)
    stanza = b"\n-> x" + b" y" * 500 + b"\n"
    fits, too_many = (header + stanza * count + b"\n---" + rest for count in (60, 70))
    assert age.stanza_types(fits).count("x") == 60
    with pytest.raises(EnvelopeInvalid):
        age.stanza_types(too_many)


@pytest.mark.parametrize("factor", ["19", "23", "30", "64", "99"])
def test_a_scrypt_bomb_is_refused_before_any_key_is_derived(factor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = scrypt_file(b"x", "pass", factor)
    monkeypatch.setattr(pyrage, "decrypt", lambda *_: pytest.fail("handed to the library"))
    monkeypatch.setattr(pyrage.passphrase, "decrypt", lambda *_: pytest.fail("handed to the library"))
    with pytest.raises(EnvelopeInvalid, match=f"work factor is {factor}"):
        age.decrypt_with_passphrase(bomb, "pass")
    with pytest.raises(EnvelopeInvalid, match=f"work factor is {factor}"):
        ENCRYPTOR.decrypt(bomb)


@pytest.mark.parametrize("factor", ["", "0", "-1", "010", "1e1", "100", "999999999999999999999", "\u0661"])
def test_a_work_factor_that_is_no_plain_number_is_refused(factor: str) -> None:
    with pytest.raises(EnvelopeInvalid):
        age.decrypt_with_passphrase(scrypt_file(b"x", "pass", factor), "pass")


def test_a_passphrase_opens_its_file_and_another_one_does_not() -> None:
    sealed = scrypt_file(b"the document", "correct horse")
    assert age.decrypt_with_passphrase(sealed, "correct horse") == b"the document"
    with pytest.raises(NoKey, match="passphrase"):
        age.decrypt_with_passphrase(sealed, "correct horsf")
    with pytest.raises(EnvelopeInvalid, match="not protected by a passphrase"):
        age.decrypt_with_passphrase(SEALED, "correct horse")


def test_a_passphrase_beside_other_recipients_is_refused() -> None:
    mixed = scrypt_file(b"x", "pass", extra=b"-> X25519 AAAA\nAAAA\n")
    with pytest.raises(EnvelopeInvalid, match="beside other recipients"):
        age.decrypt_with_passphrase(mixed, "pass")


def test_documents_and_ciphertexts_have_a_largest_size() -> None:
    assert len(ENCRYPTOR.encrypt(bytes(age.MAX_DOCUMENT_BYTES))) <= age.MAX_CIPHERTEXT_BYTES
    with pytest.raises(EnvelopeInvalid, match="too large"):
        ENCRYPTOR.encrypt(bytes(age.MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(EnvelopeInvalid, match="too large"):
        ENCRYPTOR.decrypt(SEALED + bytes(age.MAX_CIPHERTEXT_BYTES))


def test_a_wrong_recipient_is_named_but_a_secret_key_given_by_mistake_is_not() -> None:
    with pytest.raises(ConfigurationInvalid, match="age1nonsense"):
        AgeEncryptor(["age1nonsense"])
    secret_key = str(SERVICE.keys[0])
    with pytest.raises(ConfigurationInvalid) as caught:
        AgeEncryptor([secret_key])
    assert secret_key not in f"{caught.value} {caught.value.why} {caught.value.next}"
    assert caught.value.__suppress_context__
    with pytest.raises(ConfigurationInvalid, match="no recipient"):
        AgeEncryptor([])


def test_no_representation_of_an_identity_shows_its_key() -> None:
    secret_key = str(SERVICE.keys[0])
    assert secret_key not in f"{SERVICE!r} {SERVICE} {SERVICE.keys} {vars(ENCRYPTOR)}"
