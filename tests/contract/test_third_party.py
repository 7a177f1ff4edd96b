"""Somebody else's target: CONTRIBUTING's, for memcached, its files and its commands followed to the letter."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from vaultkeeper.registry import Registry

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?\n)```\n", PAGE, re.DOTALL))
INSTALL, CONTRACT, CHECK = (shlex.split(line) for line in re.findall(r"^\$ (python .*)$", PAGE, re.MULTILINE))
HOOKS_AT_MOST = 75


class Stranger:
    """A folder with the page's files, and an environment with what ours has and what is installed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "vk-memcached", folder / "home"
        for made in (self.folder, self.home):
            made.mkdir()
        for name, text in FILES.items():
            (self.folder / name).write_text(text)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
        self.bin = folder / "env/bin"
        (packages,) = (folder / "env").glob("lib/python*/site-packages")
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        self.done(INSTALL)

    def done(self, argv: list[str], *, stdin: str = "") -> str:
        """What it said; it must have gone well."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        env = {**kept, "PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.home), "NO_COLOR": "1"}
        program = [str(self.bin / argv[0]), *argv[1:]]
        ran = subprocess.run(
            program, cwd=self.folder, env=env, input=stdin, capture_output=True, text=True, check=False, timeout=1200
        )
        assert ran.returncode == 0, f"{shlex.join(argv)} exited {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout + ran.stderr

    def server(self, folder: Path) -> Any:
        spec = spec_from_file_location("memcached_server", self.folder / "memcached_server.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look there
        spec.loader.exec_module(module)
        del sys.modules[spec.name]
        return module.MemcachedServer(folder)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    if shutil.which("memcached") is None:
        pytest.skip("memcached is not installed")
    return Stranger(tmp_path_factory.mktemp("stranger"))


def test_its_contract_is_green(stranger: Stranger) -> None:
    said = stranger.done(CONTRACT)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
    assert counts.keys() == {"passed"}, said
    assert counts["passed"] > 20


def test_a_policy_rotates_a_password_of_a_real_memcached(stranger: Stranger, tmp_path: Path) -> None:
    assert "1 policy is valid" in stranger.done(CHECK)
    server, delivered = stranger.server(tmp_path), tmp_path / "delivered"
    try:
        user = server.account()
        foreign = server.foreign(user)
        text = FILES["shop.yaml"]
        for said, here in {
            "/etc/memcached/users": str(server.file),
            "user: shop": f"user: {user.username}\n      port: {server.port}",
            "{command: [/usr/bin/systemctl, kill, --signal=HUP, memcached]}": json.dumps(user.settings["reload"]),
            "/srv/shop/memcached-password": str(delivered),
            "grace_period: 24h": "grace_period: 1s",
        }.items():
            assert text.count(said) == 1, said
            text = text.replace(said, here)
        (stranger.folder / "real.yaml").write_text(text)
        vaultkeeper = ["python", "-m", "vaultkeeper", "--policies", "real.yaml"]
        stranger.done([*vaultkeeper, "init", "--without-recovery"])
        stranger.done([*vaultkeeper, "adopt", "shop/cache"], stdin=user.password)
        stranger.done([*vaultkeeper, "check"])
        stranger.done([*vaultkeeper, "rotate", "shop/cache", "--yes", "--wait", "10min"])
        new = delivered.read_text()
        assert [server.login(user.username, password) for password in (new, user.password)] == [True, False]
        assert server.login(*foreign)
        assert server.login("theirs", "kept")
    finally:
        server.stop()


def test_it_is_as_short_as_promised() -> None:
    (made,) = (node for node in ast.parse(FILES["vk_memcached.py"]).body if getattr(node, "name", "") == "Memcached")
    lines = FILES["vk_memcached.py"].splitlines()[made.lineno - 1 : made.end_lineno]
    assert len([line for line in lines if line.strip()]) <= HOOKS_AT_MOST


def test_nothing_of_it_is_left_where_it_is_not_installed() -> None:
    assert "memcached" not in Registry().kinds("targets")
