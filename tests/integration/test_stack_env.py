"""`vaultkeeper env` and a real `docker stack deploy`: its file restarts nothing, an old one takes everything back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ran, command
from tests.integration.shop_kit import installed
from tests.servers.docker import Engine

NAME = "shop/db"


class Stack:
    """Two services of one secret, deployed from a stack file: `api` reads at every start, `store` only at its first."""

    def __init__(self, docker: Engine, home: Path) -> None:
        self.docker = docker
        self.home = home
        self.name = docker.name("stack")
        self.base = docker.name("db")
        docker.secret(self.base, "by hand")
        stem = "VK_" + self.base.upper().replace("-", "_")
        self.variables = {"api": stem, "store": f"{stem}_FIRST_START"}
        self.env = home / "vaultkeeper.env"
        self.file = home / "stack.yaml"
        self.file.write_text(json.dumps(self._document()))
        self.env.write_text("".join(f"{variable}={self.base}\n" for variable in self.variables.values()))

    def _document(self) -> dict[str, Any]:
        def service(secret: str) -> dict[str, Any]:
            return {
                "image": self.docker.tag,
                "command": ["sleep", "inf"],
                "init": True,
                "networks": ["host"],
                "secrets": [{"source": secret, "target": "db"}],
                "stop_grace_period": "1s",
                "deploy": {
                    "labels": self.docker.labels,
                    "update_config": {"order": "start-first", "monitor": "1s", "failure_action": "rollback"},
                },
            }

        return {
            "version": "3.8",
            "services": {name: service(name) for name in self.variables},
            "networks": {"host": {"external": True, "name": "host"}},
            "secrets": {
                name: {"external": True, "name": f"${{{variable}:?run vaultkeeper env}}"}
                for name, variable in self.variables.items()
            },
        }

    def policy(self) -> None:
        common = {"kind": "swarm", "host": self.docker.url, "secret": self.base, "mount": {"target": "db"}}
        destinations = [
            {**common, "services": [f"{self.name}_api"]},
            {**common, "services": [f"{self.name}_store"], "read": "first_start"},
        ]
        secret = {"generator": {"kind": "token"}, "min_interval": "0s", "destinations": destinations}
        (self.home / "policies/stack.yaml").write_text(json.dumps({"secrets": {NAME: secret}}))

    def deploy(self) -> subprocess.CompletedProcess[str]:
        script = 'set -a; . "$1"; exec docker stack deploy --resolve-image never --compose-file "$2" "$3"'
        argv = ["sh", "-c", script, "sh", str(self.env), str(self.file), self.name]
        around = {**os.environ, "DOCKER_HOST": self.docker.url}
        return subprocess.run(argv, env=around, capture_output=True, text=True, check=False)

    def vk(self, *arguments: str | Path) -> Ran:
        return command(self.home)(*arguments)

    def tasks(self, service: str) -> list[tuple[str, str]]:
        """Id and the name of its secret, of every task that runs or shall run."""
        filters = {"service": [f"{self.name}_{service}"], "desired-state": ["running"]}
        found = self.docker.api("GET", "/tasks", filters=filters)
        return [(task["ID"], task["Spec"]["ContainerSpec"]["Secrets"][0]["SecretName"]) for task in found]

    def settled(self) -> dict[str, list[tuple[str, str]]]:
        def all_run() -> dict[str, list[tuple[str, str]]]:
            found = {name: self.tasks(name) for name in self.variables}
            states = self.docker.api("GET", "/tasks", filters={"desired-state": ["running"]})
            updating = [s for s in self.docker.services() if (s.get("UpdateStatus") or {}).get("State") == "updating"]
            ready = all(task["Status"]["State"] == "running" for task in states) and not updating
            return found if ready and all(len(tasks) == 1 for tasks in found.values()) else {}

        return self.docker.wait_for("every task runs", all_run)


@pytest.fixture
def stack(docker: Engine, tmp_path: Path) -> Stack:
    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed: apt-get install docker.io")
    return Stack(docker, installed(tmp_path))


def test_a_stack_deployed_with_the_current_names_restarts_nothing_and_with_old_ones_goes_back(stack: Stack) -> None:
    first = stack.deploy()
    assert first.returncode == 0, first.stderr
    stack.settled()
    stack.policy()
    old = stack.env.read_text()
    rotated = stack.vk("rotate", NAME)
    assert rotated.code == 0, rotated.err
    now = f"{stack.base}_v1"
    names = {stack.variables["api"]: now, stack.variables["store"]: stack.base}
    kept = stack.vk("env", "--format", "stack", stack.env, "--json")
    assert (kept.code, kept.json["changed"], kept.json["names"]) == (0, True, names), kept.err
    before = stack.settled()
    assert [name for tasks in before.values() for _, name in tasks] == [now, stack.base]
    assert stack.deploy().returncode == 0
    assert stack.settled() == before
    stack.env.write_text(old)
    assert stack.deploy().returncode == 0
    stack.docker.wait_for("the old name is back", lambda: [n for _, n in stack.tasks("api")] == [stack.base])
    refused = stack.vk("env", "--format", "stack", stack.env)
    assert refused.code == 3
    assert f"vaultkeeper reconcile {NAME}" in refused.err
    assert stack.env.read_text() == old
    assert stack.vk("reconcile", NAME, "--apply", "deliver").code == 0
    assert stack.vk("env", "--format", "stack", stack.env, "--json").json["names"] == names


def test_the_file_is_kept_in_the_format_asked_for_and_touched_only_where_it_changes(stack: Stack) -> None:
    assert stack.deploy().returncode == 0
    stack.settled()
    stack.policy()
    file = stack.home / "names.sh"
    assert stack.vk("env", "--format", "shell", file).code == 0
    exports = [f"export {variable}='{stack.base}'" for variable in stack.variables.values()]
    assert file.read_text().splitlines()[1:] == exports
    assert file.stat().st_mode & 0o777 == 0o644
    before = file.stat()
    again = stack.vk("env", "--format", "shell", file, "--json")
    assert not again.json["changed"]
    assert file.stat().st_ino == before.st_ino
    policy = stack.home / "policies/stack.yaml"
    policy.write_text(policy.read_text().replace(stack.docker.url, "unix:///nonexistent/docker.sock"))
    away = stack.vk("env", "--format", "shell", file)
    assert away.code == 3
    assert "cannot be reached" in away.err
    assert file.stat().st_ino == before.st_ino


def test_without_the_file_a_deploy_fails_and_changes_nothing(stack: Stack) -> None:
    assert stack.deploy().returncode == 0
    before = stack.settled()
    stack.env.write_text("")
    stale = stack.deploy()
    assert stale.returncode != 0
    assert "run vaultkeeper env" in stale.stderr
    assert stack.settled() == before
