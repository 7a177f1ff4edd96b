"""What the `age` command writes we read, and the other way round."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.unit.encryption.making import new_identity
from vaultkeeper.encryption import identity
from vaultkeeper.encryption.age import AgeEncryptor

BOTH = new_identity().recipients + new_identity().recipients


def run(*argv: str, document: bytes = b"") -> bytes:
    try:
        return subprocess.run(argv, input=document, capture_output=True, check=True, timeout=300).stdout
    except FileNotFoundError:
        pytest.skip("the Debian package `age` is not installed")


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
def test_the_age_command_reads_ours_and_we_read_the_age_commands(size: int, tmp_path: Path) -> None:
    run("age-keygen", "-o", str(tmp_path / "theirs.txt"))
    theirs = identity.load([tmp_path / "theirs.txt"])
    assert run("age-keygen", "-y", str(tmp_path / "theirs.txt")).decode().split() == list(theirs.recipients)
    document = os.urandom(size)
    encryptor = AgeEncryptor(theirs.recipients + BOTH, theirs)
    (tmp_path / "ours.age").write_bytes(encryptor.encrypt(document))
    assert run("age", "-d", "-i", str(tmp_path / "theirs.txt"), str(tmp_path / "ours.age")) == document
    named = [part for name in theirs.recipients + BOTH for part in ("-r", name)]
    assert encryptor.decrypt(run("age", *named, document=document)) == document


def test_the_age_command_reads_an_identity_that_we_made(tmp_path: Path) -> None:
    made = identity.generate(tmp_path / "identity.txt")
    assert run("age-keygen", "-y", made.source).decode().split() == list(made.recipients)
    assert run("age", "-d", "-i", made.source, document=AgeEncryptor(made.recipients).encrypt(b"x")) == b"x"


def test_an_identity_protected_by_the_age_command_opens_with_its_passphrase(tmp_path: Path) -> None:
    made = identity.generate(tmp_path / "plain.txt")
    protected = tmp_path / "protected.age"
    run("age", "--version")
    child, terminal = pty.fork()  # the command asks on its terminal and nowhere else
    if child == 0:  # pragma: no cover - another process
        os.execvp("age", ["age", "-p", "-a", "-o", str(protected), str(tmp_path / "plain.txt")])  # noqa: S606 - no shell
    for prompt in (b"nter passphrase", b"onfirm passphrase"):
        seen = b""
        while prompt not in seen:
            seen += os.read(terminal, 1024)
        os.write(terminal, b"correct horse\n")
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    protected.chmod(0o600)
    assert identity.load([protected], lambda _: "correct horse").recipients == made.recipients
