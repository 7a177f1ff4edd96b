"""The identity is lost. A backup of the state directory and the offline recovery key are all there is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import forked

POLICY = """
defaults: {min_interval: 0s}
secrets:
  shop/key:
    generator: {kind: hex}
    destinations: [{kind: file, path: ../../out/key, read: per_use}]
  shop/late:
    generator: {kind: hex}
    destinations:
      - {kind: file, path: ../../out/late, read: at_start, reload: {command: [/bin/true]},
         confirm: {command: [/bin/false]}, timeout: 1h}
"""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder.parent / "out"  # consumers are where they were
        self.out.mkdir(exist_ok=True)
        (folder / "policies").mkdir(parents=True)
        (folder / "policies" / "shop.yaml").write_text(POLICY)

    def run(self, *arguments: str, code: int = 0) -> str:
        places = {"STATE_DIR": "state", "IDENTITY": "identity.txt", "POLICIES": "policies"}
        environment = {f"VAULTKEEPER_{name}": str(self.folder / path) for name, path in places.items()}
        done = forked.run(arguments, env=environment, cwd=self.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout.decode()


@pytest.fixture
def lost(tmp_path: Path) -> tuple[Machine, Path, str]:
    """A new machine with a backup, the offline key, and a value of the old one. One rotation was still open."""
    old = Machine(tmp_path / "old")
    key = tmp_path / "offline.txt"
    old.run("init", "--new-recovery-key", str(key))
    old.run("rotate", "shop/key")
    (old.out / "late").write_text("made by hand")
    old.run("rotate", "shop/late", "--wait", "1s", code=5)
    new = Machine(tmp_path / "new")
    shutil.copytree(old.folder / "state", new.folder / "state")
    value = old.run("get", "shop/key")
    shutil.rmtree(old.folder)
    return new, key, value


def test_invariant_11_a_backup_and_the_recovery_key_make_a_working_installation(
    lost: tuple[Machine, Path, str],
) -> None:
    machine, key, value = lost
    machine.run("status", code=4)  # nothing opens
    machine.run("keys", "recover", str(key))
    assert "do not" not in machine.run("keys", "check")
    assert machine.run("get", "shop/key") == value
    machine.run("audit", "verify")
    rotated = json.loads(machine.run("rotate", "shop/key", "--json"))
    assert rotated["rotations"][0]["state"] == "done"
    assert (machine.out / "key").read_text() != value.strip()


def test_recovery_can_be_repeated_and_a_stranger_key_opens_nothing(lost: tuple[Machine, Path, str]) -> None:
    machine, key, value = lost
    stranger = Machine(machine.folder / "stranger")
    stranger.run("init", "--new-recovery-key", str(stranger.folder / "offline.txt"))
    machine.run("keys", "recover", str(stranger.folder / "offline.txt"), code=4)
    machine.run("keys", "recover", str(key))
    machine.run("keys", "recover", str(key))
    assert machine.run("get", "shop/key") == value


def test_an_open_rotation_goes_back_with_its_receipt_after_recovery(lost: tuple[Machine, Path, str]) -> None:
    machine, key, _ = lost
    machine.run("keys", "recover", str(key))
    assert (machine.out / "late").read_text() != "made by hand"
    machine.run("rollback", "shop/late", "--wait", "1s", code=5)  # put back; its confirm can never succeed
    assert (machine.out / "late").read_text() == "made by hand"
