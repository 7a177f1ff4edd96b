"""A slot that reads the same before and after (a user name) must not keep a rotation from ending."""

from __future__ import annotations

from pathlib import Path

from tests import forked

POLICY = """
secrets:
  shop/key:
    min_interval: 0s
    generator: {kind: hex}
    destinations:
      - {kind: dotenv, path: app.env, values: {USER: "always-alike", KEY: "{value}"}, reload: {command: [/bin/true]},
         confirm: {command: [/bin/sh, -c, "test ! -e SICK || cmp -s FOLDER/app.env SICK"]},
         timeout: 1s, healthy_for: 0s}
"""


def test_going_back_ends_where_a_slot_reads_the_same_for_both_versions(tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    (tmp_path / "policy.yaml").write_text(POLICY.replace("SICK", str(sick)).replace("FOLDER", str(tmp_path)))
    places = {"STATE_DIR": "state", "IDENTITY": "identity.txt", "POLICIES": "policy.yaml"}
    environment = {f"VAULTKEEPER_{name}": str(tmp_path / path) for name, path in places.items()}

    def run(*arguments: str) -> int:
        return forked.run(arguments, env=environment, cwd=tmp_path).returncode

    assert run("init", "--without-recovery") == 0
    assert run("rotate", "--all") == 0
    before = (tmp_path / "app.env").read_text()
    sick.write_text(before)  # its consumer is well on this alone
    assert run("rotate", "--all", "--wait", "90s") == 5
    assert (tmp_path / "app.env").read_text() == before
    sick.unlink()
    assert run("rotate", "--all") == 0
