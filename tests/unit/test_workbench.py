"""The rules that keep the rules: no silenced check without a reason, no script that cannot be run."""

from __future__ import annotations

import os
import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_ignored_lint_rule_has_a_written_reason() -> None:
    lint = tomllib.loads(PYPROJECT)["tool"]["ruff"]["lint"]
    for rule in {*lint["ignore"], *chain.from_iterable(lint["per-file-ignores"].values())}:
        lines = [line for line in PYPROJECT.splitlines() if f'"{rule}"' in line]
        assert lines
        for line in lines:
            assert re.search(r"# \S.{5}", line), f"no reason: {line.strip()}"


def test_every_script_can_be_run_and_ends_at_its_first_error() -> None:
    for script in (*(ROOT / "scripts").iterdir(), ROOT / "scripts/lib/make-env", ROOT / ".ci/run"):
        if script.is_dir() or script.suffix:
            continue
        first, *_ = text = script.read_text(encoding="utf-8").splitlines()
        assert first.startswith("#!/usr/bin/env "), script
        assert os.access(script, os.X_OK), script
        assert not first.endswith("bash") or "set -euo pipefail" in text, script


def test_uv_is_in_the_lock_file_with_a_hash_for_every_wheel() -> None:
    with (ROOT / "uv.lock").open("rb") as lock:
        (uv,) = (package for package in tomllib.load(lock)["package"] if package["name"] == "uv")
    assert uv["wheels"]
    assert all(wheel["hash"].startswith("sha256:") for wheel in uv["wheels"])


def test_the_lock_file_has_wheels_for_linux_and_macos() -> None:
    with (ROOT / "uv.lock").open("rb") as lock:
        packages = tomllib.load(lock)["package"]
    for package in packages:
        names = [wheel["url"].rsplit("/", 1)[1] for wheel in package.get("wheels", [])]
        if names and "win" not in package["name"] and not any("none-any" in name for name in names):
            assert any("manylinux" in name for name in names), package["name"]
            assert any("macosx" in name for name in names), package["name"]
