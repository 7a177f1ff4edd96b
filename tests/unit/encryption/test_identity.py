from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.unit.encryption.making import new_identity, scrypt_file
from vaultkeeper.encryption import identity, keyfile
from vaultkeeper.errors import ConfigurationInvalid, EnvelopeInvalid, NoKey, NotAuthorised


@pytest.fixture
def key() -> str:
    return str(pyrage.x25519.Identity.generate())


@pytest.fixture
def path(tmp_path: Path, key: str) -> Path:
    tmp_path.chmod(0o700)
    return placed(tmp_path / "identity.txt", key.encode())


def placed(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_generated_identity_is_0600_and_loads_as_what_was_returned(tmp_path: Path) -> None:
    path = tmp_path / "new" / "identity.txt"
    before = os.umask(0)
    try:
        made = identity.generate(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert identity.load([path]).recipients == made.recipients
    assert [p.name for p in path.parent.iterdir()] == ["identity.txt"], "no temporary file stays"


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigurationInvalid, match="exists already"):
        identity.generate(path)
    link = path.with_name("link")
    link.symlink_to(path.with_name("nowhere"))
    with pytest.raises(ConfigurationInvalid, match="exists already"):
        identity.generate(link)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["identity.txt", "link"]


def test_an_identity_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noting(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            calls.append(name)
            real(*arguments, **options)

        return call

    for name in ("fsync", "link"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    identity.generate(tmp_path / "identity.txt")
    assert calls == ["fsync", "link", "fsync"], "the file, its name, the directory"


def test_several_keys_comments_blank_lines_and_carriage_returns_are_read(path: Path) -> None:
    two = [str(pyrage.x25519.Identity.generate()) for _ in range(2)]
    placed(path, f"# created: today\r\n\r\n{two[0]}\r\n  # a comment\n{two[1]}\n".encode())
    loaded = identity.load([path])
    assert [str(k) for k in loaded.keys] == two
    assert loaded.source == str(path)


def test_the_first_candidate_that_exists_is_taken(path: Path) -> None:
    other = placed(path.with_name("other.txt"), str(pyrage.x25519.Identity.generate()).encode())
    missing = path.with_name("missing")
    assert identity.load([missing, path.with_name("no") / "way", path, other]).source == str(path)


def test_a_bad_candidate_is_an_error_and_not_passed_over(path: Path) -> None:
    bad = placed(path.with_name("bad.txt"), path.read_bytes(), 0o644)
    with pytest.raises(NotAuthorised):
        identity.load([bad, path])


def test_without_any_candidate_the_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoKey, match=r"one.*two") as caught:
        identity.load([tmp_path / "one", tmp_path / "two"])
    assert "vaultkeeper init" in caught.value.next
    with pytest.raises(NoKey):
        identity.load([])


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o602, 0o700, 0o440 | stat.S_IROTH, 0o4600])
def test_a_mode_that_lets_others_in_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(NotAuthorised, match=f"mode is {mode:04o}") as caught:
        identity.load([path])
    assert "chmod 0600" in caught.value.next


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_mode_for_us_alone_is_accepted(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert identity.load([path]).recipients


def owned(monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> None:
    """Every file looks as if it belonged to them; changing real owners takes root."""
    fstat = os.fstat

    def pretend(descriptor: int) -> os.stat_result:
        found = list(fstat(descriptor))
        found[4:6] = uid, gid
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", pretend)


def test_a_file_of_another_user_is_refused_and_one_of_root_is_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        owned(context, 54321, 54321)
        with pytest.raises(NotAuthorised, match="uid 54321"):
            identity.load([path])
    owned(monkeypatch, 0, 0)
    assert identity.load([path]).recipients


def test_a_systemd_credential_is_accepted_at_0440_for_root_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o440)
    for uid, gid in ((os.geteuid(), 100), (0, 100)):
        with monkeypatch.context() as context:
            owned(context, uid, gid)
            with pytest.raises(NotAuthorised, match="0440"):
                identity.load([path])
    owned(monkeypatch, 0, 0)
    assert identity.load([path]).recipients


def test_a_directory_that_everybody_may_write_to_is_refused_unless_sticky(path: Path) -> None:
    path.parent.chmod(0o777)
    with pytest.raises(NotAuthorised, match="everybody may write"):
        identity.load([path])
    path.parent.chmod(0o1777)
    assert identity.load([path]).recipients


def test_symbolic_links_directories_pipes_and_sockets_are_refused_at_once(path: Path) -> None:
    link, fifo, folder = (path.with_name(name) for name in ("link", "fifo", "folder"))
    link.symlink_to(path)
    os.mkfifo(fifo, 0o600)
    folder.mkdir(mode=0o700)
    for other, why in ((link, "symbolic link"), (fifo, "regular"), (folder, "regular"), (path / "below", "directory")):
        with pytest.raises(NotAuthorised, match=why):
            identity.load([other])


def test_a_huge_file_is_not_read(path: Path) -> None:
    placed(path, b"#" * (keyfile.MAX_BYTES + 1))
    with pytest.raises(ConfigurationInvalid, match="larger than 64 KiB"):
        identity.load([path])


@pytest.mark.parametrize(
    "content",
    [b"", b"\n# only a comment\n", b"\xff\xfe\x00A", b"AGE-SECRET-KEY-1QQQ", b"AGE-PLUGIN-X-1AAA", b"\0" * 99],
)
def test_a_file_without_a_usable_key_says_which_line_is_wrong(path: Path, content: bytes) -> None:
    placed(path, content)
    with pytest.raises(NoKey, match="no usable identity"):
        identity.load([path])


def test_a_key_with_a_typing_error_is_not_quoted(path: Path, key: str) -> None:
    broken = key[:-1] + ("Q" if key[-1] != "Q" else "P")
    placed(path, f"# comment\n{broken}\n".encode())
    with pytest.raises(NoKey, match="line 2") as caught:
        identity.load([path])
    assert broken[20:] not in f"{caught.value} {caught.value.next}"
    assert caught.value.__suppress_context__


def test_a_protected_identity_asks_for_its_passphrase_and_names_its_file(path: Path, key: str) -> None:
    placed(path, scrypt_file(key.encode(), "correct horse"))
    asked: list[Path] = []

    def answer(where: Path) -> str:
        asked.append(where)
        return "correct horse"

    assert [str(k) for k in identity.load([path], answer).keys] == [key]
    assert asked == [path]
    with pytest.raises(NoKey, match="none was given"):
        identity.load([path])
    with pytest.raises(NoKey, match="passphrase does not open"):
        identity.load([path], lambda _: "wrong")


def test_damaged_armor_is_refused(path: Path) -> None:
    for content in (b"AAAA\n", b"AAAA\n-----END AGE ENCRYPTED FILE-----\n", b"!\n-----END AGE ENCRYPTED FILE-----"):
        placed(path, identity.ARMOR_BEGIN + b"\n" + content)
        with pytest.raises((NoKey, EnvelopeInvalid)):
            identity.load([path], lambda _: "pass")


def test_an_identity_file_encrypted_to_a_key_instead_of_a_passphrase_is_refused(path: Path) -> None:
    sealed = pyrage.encrypt(b"x", [new_identity().keys[0].to_public()])
    placed(path, sealed)
    with pytest.raises(EnvelopeInvalid, match="not protected by a passphrase"):
        identity.load([path], lambda _: "pass")
