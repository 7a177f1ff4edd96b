from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.encryption.making import House, new_house
from vaultkeeper.encryption import age
from vaultkeeper.encryption.age import AgeEncryptor
from vaultkeeper.encryption.envelope import AgeEnvelope
from vaultkeeper.encryption.installation import Installation
from vaultkeeper.errors import EnvelopeInvalid, NoKey
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.testing.clock import FakeClock

VALUE = SecretBytes(b"a value of this test")
FIELDS = {"username": SecretBytes(b"shop_a"), "password": VALUE}
CASES = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return new_house(tmp_path_factory.mktemp("house"))


@CASES
@given(fields=st.dictionaries(st.text(max_size=20), st.binary(max_size=100), max_size=4), data=st.data())
def test_what_is_sealed_opens_as_it_was(house: House, fields: dict[str, bytes], data: st.DataObject) -> None:
    secret, bound_to = data.draw(st.text(max_size=30)), data.draw(st.text(max_size=30))
    given_fields = {name: SecretBytes(value) for name, value in fields.items()}
    sealed = house.envelope().seal(given_fields, secret=secret, bound_to=bound_to)
    assert house.envelope().open(sealed, secret=secret, bound_to=bound_to) == given_fields


def test_invariant_10_a_ciphertext_opens_only_as_what_it_was_made_for(house: House) -> None:
    """Rows swapped between secrets, versions and receipts: each opens in its own place only."""
    envelope = house.envelope()
    places = list(itertools.product(("shop/db", "shop/redis"), ("1:aaaa", "2:bbbb", "2:aaaa", "receipt:r1:file")))
    rows = {place: envelope.seal(FIELDS, secret=place[0], bound_to=place[1]) for place in places}
    for row, place in itertools.product(places, places):
        if row == place:
            assert envelope.open(rows[row], secret=place[0], bound_to=place[1]) == FIELDS
        else:
            with pytest.raises(EnvelopeInvalid, match="sealed for another"):
                envelope.open(rows[row], secret=place[0], bound_to=place[1])


def test_invariant_10_the_parts_of_a_place_cannot_run_into_each_other(house: House) -> None:
    sealed = house.envelope().seal(FIELDS, secret="shop/db1", bound_to="1:a")
    with pytest.raises(EnvelopeInvalid):
        house.envelope().open(sealed, secret="shop/db", bound_to="11:a")


def test_invariant_10_another_installation_with_the_same_recipients_is_refused(house: House, tmp_path: Path) -> None:
    """Everybody who knows the public keys can make ciphertexts for them. Only the installation's key makes ours."""
    foreign = Installation.create(tmp_path, house.service, house.recovery.recipients)
    stranger = AgeEnvelope(AgeEncryptor(foreign.public.recipients), foreign, FakeClock())
    sealed = stranger.seal(FIELDS, secret="shop/db", bound_to="1:a")
    with pytest.raises(EnvelopeInvalid, match="another installation"):
        house.envelope().open(sealed, secret="shop/db", bound_to="1:a")


def test_invariant_10_a_copied_installation_key_under_another_id_is_refused(house: House) -> None:
    twin = Installation(type(house.installation.public)("0" * 16, *forms(house)), house.installation.key)
    sealed = AgeEnvelope(AgeEncryptor(twin.public.recipients), twin, FakeClock()).seal(
        FIELDS, secret="shop/db", bound_to="1:a"
    )
    with pytest.raises(EnvelopeInvalid):
        house.envelope().open(sealed, secret="shop/db", bound_to="1:a")


def test_invariant_10_the_installation_is_compared_and_not_only_its_key(house: House) -> None:
    envelope = house.envelope()
    envelope._installation = "another"
    sealed = envelope.seal(FIELDS, secret="shop/db", bound_to="1:a")
    with pytest.raises(EnvelopeInvalid, match="sealed for another installation"):
        house.envelope().open(sealed, secret="shop/db", bound_to="1:a")


def forms(house: House) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return house.installation.public.service, house.installation.public.recovery


def test_a_document_that_was_edited_by_a_holder_of_the_identity_is_refused(house: House) -> None:
    """Encrypted again after a change: age is content, the installation's key is not."""
    encryptor = AgeEncryptor(house.installation.public.recipients, house.service)
    sealed = house.envelope().seal(FIELDS, secret="shop/db", bound_to="1:a")
    plain = encryptor.decrypt(sealed)
    edited = plain.replace(b'"1:a"', b'"2:a"')
    assert edited != plain
    for forged in (edited, plain[:-2] + b"\n", b"", b"\n", plain + b"\n", json.dumps({"v": 1}).encode()):
        with pytest.raises(EnvelopeInvalid, match="another installation"):
            house.envelope().open(encryptor.encrypt(forged), secret="shop/db", bound_to="2:a")


def test_every_truncation_and_every_flipped_byte_is_refused(house: House) -> None:
    sealed = house.envelope().seal(FIELDS, secret="shop/db", bound_to="1:a")
    flipped = (sealed[:i] + bytes([sealed[i] ^ 0x10]) + sealed[i + 1 :] for i in range(len(sealed)))
    cut = (sealed[:i] for i in range(len(sealed)))
    refused = 0
    for damaged in itertools.chain(flipped, cut):
        with pytest.raises((EnvelopeInvalid, NoKey)):
            house.envelope().open(damaged, secret="shop/db", bound_to="1:a")
        refused += 1
    assert refused == 2 * len(sealed) >= 738


def test_a_newer_format_is_named_as_such(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setattr("vaultkeeper.encryption.envelope.VERSION", 2)
        sealed = house.envelope().seal(FIELDS, secret="shop/db", bound_to="1:a")
    with pytest.raises(EnvelopeInvalid, match="format 2 is newer"):
        house.envelope().open(sealed, secret="shop/db", bound_to="1:a")


def test_errors_show_neither_values_nor_what_else_was_sealed(house: House) -> None:
    sealed = house.envelope().seal(FIELDS, secret="shop/db", bound_to="1:a")
    with pytest.raises(EnvelopeInvalid) as caught:
        house.envelope().open(sealed, secret="shop/db", bound_to="9:z")
    shown = f"{caught.value!r} {caught.value} {caught.value.why} {caught.value.works} {caught.value.next}"
    for form in (VALUE.reveal().decode(), base64.b64encode(VALUE.reveal()).decode()):
        assert form not in shown


def test_the_recovery_key_and_plain_age_show_a_person_what_is_inside(house: House) -> None:
    sealed = house.envelope().seal(FIELDS, secret="shop/db", bound_to="1:a")
    document, tag, end = age.decrypt(sealed, house.recovery.keys).split(b"\n")
    found = json.loads(document)
    assert base64.b64decode(found["fields"]["password"]) == VALUE.reveal()
    assert (found["v"], found["installation"]) == (1, house.installation.public.id)
    assert (found["secret"], found["bound_to"], found["created"][:10]) == ("shop/db", "1:a", "2026-01-05")
    assert (len(tag), end) == (64, b"")


def test_the_same_fields_are_never_sealed_alike(house: House) -> None:
    seals = {house.envelope().seal(FIELDS, secret="shop/db", bound_to="1:a") for _ in range(3)}
    assert len(seals) == 3


def test_fingerprints_tell_values_apart_here_and_nothing_elsewhere(house: House, tmp_path: Path) -> None:
    same = SecretBytes(VALUE.reveal())
    fingerprint = house.envelope().fingerprint(VALUE)
    assert fingerprint == house.envelope().fingerprint(same)
    assert fingerprint != house.envelope().fingerprint(SecretBytes(b"another"))
    assert fingerprint != new_house(tmp_path).envelope().fingerprint(same)
    assert len(fingerprint) == 32
