from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from tests.unit.encryption.making import House, new_house, new_identity
from vaultkeeper.encryption import age, identity, keyfile
from vaultkeeper.encryption.age import AgeEncryptor
from vaultkeeper.encryption.envelope import AgeEnvelope
from vaultkeeper.encryption.installation import KEY_FILE, PUBLIC_FILE, Installation, Public
from vaultkeeper.errors import ConfigurationInvalid, EnvelopeInvalid, NoKey
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.testing.clock import FakeClock


@pytest.fixture
def house(tmp_path: Path) -> House:
    return new_house(tmp_path)


def keys(installation: Installation) -> set[bytes]:
    return {
        installation.key.reveal(),
        installation.envelope_key.reveal(),
        installation.audit_key.reveal(),
        installation.fingerprint_key.reveal(),
    }


def test_both_identities_open_what_init_made_and_a_stranger_does_not(house: House) -> None:
    for opener in (house.service, house.recovery):
        opened = Installation.open(house.state, opener)
        assert opened.public == house.installation.public
        assert keys(opened) == keys(house.installation)
    with pytest.raises(NoKey, match="does not open this installation"):
        Installation.open(house.state, new_identity())


def test_every_purpose_has_a_key_of_its_own(house: House, tmp_path: Path) -> None:
    assert len(keys(house.installation)) == 4
    assert {len(key) for key in keys(house.installation)} == {32}
    assert not keys(house.installation) & keys(new_house(tmp_path / "other").installation)


def test_the_public_file_shows_recipients_and_no_key(house: House) -> None:
    content = (house.state / PUBLIC_FILE).read_text()
    assert json.loads(content) == {
        "schema": 1,
        "installation": house.installation.public.id,
        "service": list(house.service.recipients),
        "recovery": list(house.recovery.recipients),
        "recovery_waived": "",
    }
    assert Public.read(house.state) == house.installation.public
    assert {stat.S_IMODE(p.stat().st_mode) for p in house.state.iterdir()} == {0o600}
    assert {p.name for p in house.state.iterdir()} == {PUBLIC_FILE, KEY_FILE}, "no temporary file stays"
    assert "SecretBytes" not in repr(house.installation)


def test_recovery_is_either_possible_or_waived_with_a_reason(tmp_path: Path) -> None:
    service, recovery = new_identity(), new_identity()
    for names, waived in (([], ""), ([], "  "), (list(recovery.recipients), "no need")):
        with pytest.raises(ConfigurationInvalid, match="recovered from"):
            Installation.create(tmp_path, service, names, waived)
    assert not list(tmp_path.iterdir())
    made = Installation.create(tmp_path, service, [], "a test machine")
    assert Installation.open(tmp_path, service).public.waived == "a test machine"
    assert made.public.recipients == service.recipients


def test_the_service_s_own_key_is_no_recovery_key(tmp_path: Path) -> None:
    service = new_identity()
    with pytest.raises(ConfigurationInvalid, match="service's own key"):
        Installation.create(tmp_path, service, service.recipients)
    with pytest.raises(ConfigurationInvalid, match="not an age recipient"):
        Installation.create(tmp_path, service, ["age1wrong"])
    assert not list(tmp_path.iterdir())


def test_a_second_init_changes_nothing(house: House) -> None:
    before = {p.name: p.read_bytes() for p in house.state.iterdir()}
    with pytest.raises(ConfigurationInvalid, match="holds an installation already"):
        Installation.create(house.state, house.service, house.recovery.recipients)
    assert {p.name: p.read_bytes() for p in house.state.iterdir()} == before


def test_an_interrupted_init_is_finished_by_the_next_one_with_the_same_key(house: House) -> None:
    (house.state / PUBLIC_FILE).unlink()
    again = Installation.create(house.state, house.service, house.recovery.recipients)
    assert keys(again) == keys(house.installation)
    assert Installation.open(house.state, house.service).public == house.installation.public


def test_an_interrupted_init_is_not_taken_over_with_other_keys(house: House) -> None:
    (house.state / PUBLIC_FILE).unlink()
    before = (house.state / KEY_FILE).read_bytes()
    with pytest.raises(ConfigurationInvalid, match="other recipients"):
        Installation.create(house.state, house.service, new_identity().recipients)
    with pytest.raises(NoKey):
        Installation.create(house.state, new_identity(), house.recovery.recipients)
    assert (house.state / KEY_FILE).read_bytes() == before


def test_without_init_the_error_says_what_to_run(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ConfigurationInvalid) as caught:
            Installation.open(missing, new_identity())
        assert caught.value.next == "vaultkeeper init"


def test_a_changed_public_file_is_found(house: House) -> None:
    """Whoever adds a recipient to it would read every later version."""
    path = house.state / PUBLIC_FILE
    found = json.loads(path.read_text())
    found["recovery"].append(new_identity().recipients[0])
    path.write_text(json.dumps(found))
    with pytest.raises(EnvelopeInvalid, match="was changed"):
        Installation.open(house.state, house.service)


def test_the_files_of_two_installations_do_not_mix(house: House, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Installation.create(other, house.service, house.recovery.recipients)
    shutil.copy(other / KEY_FILE, house.state / KEY_FILE)
    with pytest.raises(EnvelopeInvalid, match="another installation"):
        Installation.open(house.state, house.service)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"schema": "1"}', b'{"schema": 1, "installation": 7}']
)
def test_a_damaged_public_file_is_named(house: House, content: bytes) -> None:
    (house.state / PUBLIC_FILE).write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match=f"{PUBLIC_FILE} is damaged"):
        Installation.open(house.state, house.service)


def test_a_state_of_a_newer_version_is_left_alone(house: House) -> None:
    (house.state / PUBLIC_FILE).write_text('{"schema": 2, "something": "else"}')
    with pytest.raises(ConfigurationInvalid, match="newer version"):
        Installation.open(house.state, house.service)


@pytest.mark.parametrize("key", ["", "!", "AAAA", 7, None])
def test_a_key_file_that_somebody_else_made_for_us_is_refused(house: House, key: object) -> None:
    forged = json.loads((house.state / PUBLIC_FILE).read_text()) | {"key": key}
    sealed = AgeEncryptor(house.service.recipients).encrypt(json.dumps(forged).encode())
    (house.state / KEY_FILE).write_bytes(sealed)
    with pytest.raises(ConfigurationInvalid, match="damaged"):
        Installation.open(house.state, house.service)


def test_a_damaged_key_file_is_refused_whatever_its_damage(house: House) -> None:
    path = house.state / KEY_FILE
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises((EnvelopeInvalid, NoKey)):
            Installation.open(house.state, house.service)


# ------------------------------------------------------------------------------------------------------------ recovery


def sealed_versions(house: House, count: int) -> dict[str, bytes]:
    return {
        f"{n}:id{n}": house.envelope().seal(
            {"password": SecretBytes(f"value {n}".encode())}, secret="shop/db", bound_to=f"{n}:id{n}"
        )
        for n in range(count)
    }


def test_invariant_11_a_backup_and_the_recovery_key_alone_bring_back_a_working_installation(tmp_path: Path) -> None:
    house = new_house(tmp_path / "lost")
    versions = sealed_versions(house, 20)
    fingerprint = house.envelope().fingerprint(SecretBytes(b"value 3"))
    backup, offline = tmp_path / "backup", tmp_path / "offline.txt"
    shutil.copytree(house.state, backup)
    shutil.move(house.recovery.source, offline)
    shutil.rmtree(tmp_path / "lost")  # the machine is gone: its identity with it

    recovery = identity.load([offline])
    recovered = Installation.recover(backup, recovery, tmp_path / "new" / "identity.txt")
    moving = AgeEncryptor(recovered.public.recipients, recovery)
    versions = {bound_to: moving.encrypt(moving.decrypt(sealed)) for bound_to, sealed in versions.items()}

    service = identity.load([tmp_path / "new" / "identity.txt"])
    opened = Installation.open(backup, service)
    for reader in (service, recovery):
        envelope = AgeEnvelope(AgeEncryptor(opened.public.recipients, reader), opened, FakeClock())
        assert envelope.fingerprint(SecretBytes(b"value 3")) == fingerprint, "the audit log still speaks of the same"
        for n, (bound_to, sealed) in enumerate(versions.items()):
            assert envelope.open(sealed, secret="shop/db", bound_to=bound_to)["password"].text() == f"value {n}"
    assert opened.public.id == house.installation.public.id
    assert opened.public.recovery == house.recovery.recipients
    with pytest.raises(NoKey):
        Installation.open(backup, house.service)
    for sealed in versions.values():
        with pytest.raises(NoKey):
            age.decrypt(sealed, house.service.keys)


def test_invariant_11_the_key_file_alone_is_enough_where_the_public_file_is_lost(house: House, tmp_path: Path) -> None:
    (house.state / PUBLIC_FILE).unlink()
    recovered = Installation.recover(house.state, house.recovery, tmp_path / "new.txt")
    assert recovered.public.id == Public.read(house.state).id == house.installation.public.id


@pytest.mark.parametrize("completed_writes", [0, 1])
def test_invariant_11_an_interrupted_recovery_is_finished_by_the_next_one(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, completed_writes: int
) -> None:
    versions = sealed_versions(house, 2)
    write, writes = keyfile.replace, 0

    def dies(path: Path, content: bytes) -> None:
        nonlocal writes
        if writes == completed_writes:
            raise KeyboardInterrupt
        writes += 1
        write(path, content)

    with monkeypatch.context() as context:
        context.setattr(keyfile, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            Installation.recover(house.state, house.recovery, tmp_path / "new.txt")
    recovered = Installation.recover(house.state, house.recovery, tmp_path / "new.txt")
    service = identity.load([tmp_path / "new.txt"])
    assert recovered.public.service == service.recipients
    assert keys(Installation.open(house.state, service)) == keys(house.installation)
    envelope = AgeEnvelope(AgeEncryptor(recovered.public.recipients, house.recovery), recovered, FakeClock())
    for bound_to, sealed in versions.items():
        assert envelope.open(sealed, secret="shop/db", bound_to=bound_to)


def test_a_stranger_s_key_recovers_nothing_and_leaves_nothing_behind(house: House, tmp_path: Path) -> None:
    with pytest.raises(NoKey):
        Installation.recover(house.state, new_identity(), tmp_path / "new.txt")
    assert not (tmp_path / "new.txt").exists()
    assert Installation.open(house.state, house.service).public == house.installation.public


def test_the_recovery_key_does_not_become_the_service_s_key(house: House) -> None:
    with pytest.raises(ConfigurationInvalid, match="service's own key"):
        Installation.recover(house.state, house.recovery, Path(house.recovery.source))
    assert Installation.open(house.state, house.service).public == house.installation.public
