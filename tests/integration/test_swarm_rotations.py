"""Rotations of a PostgreSQL password that consumers in a real swarm read from a secret object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.integration.swarm_kit import FILE, changed, one, stack
from tests.servers.docker import SECOND, Engine, digits
from tests.servers.docker_service import Service, reference
from tests.servers.postgres import PostgresServer

ROTATIONS = 5
KEPT = 2


def test_invariant_02_five_rotations_in_a_row_refuse_no_consumer_and_leave_no_heap_of_objects(
    docker: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    place = stack(tmp_path, docker, postgres)
    member = one(place, services=("api", "worker"), replicas=3, update={"Parallelism": 3}, environment={"EVERY": "0.3"})
    place.policy(member, destination={"keep": KEPT})
    worked: set[str] = set()
    works_on(member.services, member.first_value)
    for _ in range(ROTATIONS):
        assert place.rotated(member.name)[member.name]["state"] == "done"
        works_on(member.services, place.stored(member))
        for service in member.services:
            lines = service.logs()
            assert [line for line in lines if line.startswith("refused")] == []
            worked |= {line for line in lines if line.startswith("ok ")}
    assert place.agrees(member) == ""
    values = [member.first_value, *(place.stored(member, number) for number in range(2, ROTATIONS + 2))]
    assert worked == {f"ok {digits(value)}" for value in values}
    assert [place.accepts(value) for value in values] == [False] * ROTATIONS + [True]
    assert len([name for name in place.objects(member) if name != member.object]) == KEPT


def works_on(services: Sequence[Service], value: str) -> None:
    for service in services:
        service.engine.wait_for("it logs in", lambda s=service: f"ok {digits(value)}" in s.logs())  # type: ignore[misc]


def test_a_rotation_changes_two_leaves_of_a_rich_spec(docker: Engine, postgres: PostgresServer, tmp_path: Path) -> None:
    place = stack(tmp_path, docker, postgres)
    member = place.member("shop/db")
    service = place.service(member, "rich", **rich(docker, tmp_path, member.by_hand))
    place.policy(member)
    place.adopt(member)
    before = service.spec()
    assert place.rotated(member.name)[member.name]["state"] == "done"
    entry = next(
        number
        for number, each in enumerate(before["TaskTemplate"]["ContainerSpec"]["Secrets"])
        if each["SecretID"] == member.by_hand["ID"]
    )
    at = f"/TaskTemplate/ContainerSpec/Secrets/{entry}"
    assert changed(before, service.spec()) == {f"{at}/SecretID", f"{at}/SecretName"}
    assert place.agrees(member) == ""
    assert service.read("theirs") == {b"their own"}


def rich(docker: Engine, folder: Path, by_hand: Mapping[str, str]) -> dict[str, Any]:
    """Nearly everything that a spec may say."""
    (folder / "bound").mkdir()
    theirs = docker.secret("theirs", "their own")
    config = docker.name("config")
    config_id = docker.api("POST", "/configs/create", {"Name": config, "Data": "aGk=", "Labels": docker.labels})["ID"]
    network = docker.api(
        "POST", "/networks/create",
        {"Name": docker.name("net"), "Driver": "overlay", "Attachable": True, "Labels": docker.labels},
    )["Id"]  # fmt: skip
    container = {
        "Labels": {"theirs.container": "yes"},
        "Hostname": "{{.Service.Name}}-{{.Task.Slot}}",
        "Dir": "/tmp",
        "User": "0",
        "StopSignal": "SIGTERM",
        "StopGracePeriod": 2 * SECOND,
        "ReadOnly": False,
        "Hosts": ["10.0.0.9 somewhere"],
        "DNSConfig": {"Nameservers": ["127.0.0.53"], "Search": ["example.test"], "Options": ["timeout:3"]},
        "Mounts": [
            {"Type": "bind", "Source": str(folder / "bound"), "Target": "/bound", "ReadOnly": True},
            {"Type": "volume", "Source": docker.name("volume"), "Target": "/volume",
             "VolumeOptions": {"Labels": docker.labels, "NoCopy": True}},
            {"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}},
        ],
        "Secrets": [
            reference("theirs", theirs, uid="65534", gid="65534", mode=0o440),
            reference(FILE, by_hand, uid="7", gid="8", mode=0o440),
            reference("/data/again", theirs, mode=0o400),
        ],
        "Configs": [{"ConfigID": config_id, "ConfigName": config,
                     "File": {"Name": "/etc/theirs", "UID": "9", "GID": "9", "Mode": 0o440}}],
        "CapabilityAdd": ["CAP_NET_RAW"],
        "CapabilityDrop": ["CAP_MKNOD"],
        "Ulimits": [{"Name": "nofile", "Soft": 1000, "Hard": 2000}],
        "Sysctls": {"net.core.somaxconn": "200"},
        "Healthcheck": {"Test": ["CMD", "test", "-e", "/tmp/healthy"], "Interval": SECOND // 2,
                        "Timeout": 5 * SECOND, "Retries": 20, "StartPeriod": SECOND},
        "Privileges": {"CredentialSpec": None, "SELinuxContext": None},
        "Isolation": "default",
    }  # fmt: skip
    task = {
        "Networks": [{"Target": network, "Aliases": ["shop", "shop-alias"]}],
        "Placement": {
            "Constraints": ["node.role==manager"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
            "MaxReplicas": 9,
        },
        "Resources": {
            "Limits": {"NanoCPUs": SECOND // 2, "MemoryBytes": 64 << 20, "Pids": 50},
            "Reservations": {"MemoryBytes": 8 << 20},
        },
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m", "max-file": "2"}},
        "RestartPolicy": {"Condition": "any", "Delay": SECOND // 2, "MaxAttempts": 9, "Window": 30 * SECOND},
        "ForceUpdate": 3,
    }
    return {
        "container": container,
        "task": task,
        "environment": {"PGPORT": "", "THEIRS": "a=b=c"},
        "update": {"Delay": SECOND // 10},
        "Labels": {**docker.labels, "theirs.service": "yes"},
        "RollbackConfig": {"Parallelism": 2, "Order": "start-first", "FailureAction": "continue", "Monitor": SECOND},
        "EndpointSpec": {"Mode": "dnsrr"},
    }
