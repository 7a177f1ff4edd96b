"""A list that travels in a destination which can be read back: our old tokens go, other people's lines stay."""

from __future__ import annotations

import os
from pathlib import Path

from tests import forked
from tests.servers.token_list import start


def test_a_list_that_is_read_back_loses_our_old_token_and_keeps_other_peoples(tmp_path: Path) -> None:
    server = start()
    foreign, ours = server.account(), server.account()
    probe = f'{{http: "{server.url}", accepted: [405], rejected: [401]}}'
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "secrets:\n  shop/otel:\n    generator: {kind: token, bytes: 32}\n    grace_period: 1s\n    min_interval: 0s\n"
        f"    target: {{kind: token_list, probe: {probe}, via: {{kind: file, path: {server.path}, read: per_use}}}}\n"
        "    destinations: [{kind: file, path: client, read: per_use}]\n"
    )
    names = {"STATE_DIR": tmp_path / "state", "POLICIES": policy, "IDENTITY": tmp_path / "identity"}
    env = {**os.environ, **{f"VAULTKEEPER_{name}": str(path) for name, path in names.items()}}

    def vaultkeeper(*words: str, given: str = "") -> None:
        ran = forked.run(words, env=env, cwd=tmp_path, stdin=given.encode())
        assert ran.returncode == 0, ran.stderr + ran.stdout

    try:
        vaultkeeper("init", "--without-recovery")
        vaultkeeper("adopt", "shop/otel", given=ours.password)
        held = ours.password
        for _ in range(2):
            vaultkeeper("rotate", "shop/otel", "--yes", "--wait", "60s")
            new = (tmp_path / "client").read_text()
            assert server.path.read_text().split("\n") == [new, foreign.password]
            assert [server.login("", token) for token in (new, held, foreign.password)] == [True, False, True]
            held = new
    finally:
        server.stop()
