"""A slot that reads the same before and after (a user name) must not keep a rotation from ending."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import forked

POLICY = """
secrets:
  shop/key:
    min_interval: 0s
    generator: {kind: hex}
    destinations:
      - {kind: dotenv, path: app.env, values: {USER: "always-alike", KEY: "{value}"}, reload: {command: [/bin/true]},
         confirm: {command: [/bin/sh, -c, "test ! -e SICK"]}, timeout: 1s, healthy_for: 0s}
"""


def test_going_back_ends_where_a_slot_reads_the_same_for_both_versions(tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    (tmp_path / "policy.yaml").write_text(POLICY.replace("SICK", str(sick)))
    places = {"STATE_DIR": "state", "IDENTITY": "identity.txt", "POLICIES": "policy.yaml"}
    environment = {f"VAULTKEEPER_{name}": str(tmp_path / path) for name, path in places.items()}

    def run(*arguments: str) -> int:
        return forked.run(arguments, env=environment, cwd=tmp_path, timeout=60).returncode

    assert run("init", "--without-recovery") == 0
    assert run("rotate", "--all") == 0
    before = (tmp_path / "app.env").read_text()
    sick.touch()
    rotating = subprocess.Popen(
        [sys.executable, "-m", "vaultkeeper", "rotate", "--all", "--wait", "20s"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while (tmp_path / "app.env").read_text() == before:
        assert rotating.poll() is None
        os.sched_yield()
    while (tmp_path / "app.env").read_text() != before and rotating.poll() is None:
        os.sched_yield()  # put back; now its consumer recovers
    sick.unlink()
    assert rotating.wait(60) == 5
    assert (tmp_path / "app.env").read_text() == before
    assert run("rotate", "--all") == 0
