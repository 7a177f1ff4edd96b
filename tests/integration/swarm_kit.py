"""A stack on a real Engine: secrets of PostgreSQL accounts in one policy file, services that log in with them.

Every secret begins as people have it before they know vaultkeeper: an object that was made by hand, without labels.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cli.conftest import Ran, Vk, command, environment
from tests.integration.shop_kit import installed, taking_turns
from tests.servers import TestAccount
from tests.servers.docker import Engine, digits
from tests.servers.docker_service import Service
from tests.servers.postgres import PostgresServer

FILE = "db"  # below /run/secrets


@dataclass
class Member:
    """One secret: its account, its services, and the object that was made by hand."""

    name: str
    account: TestAccount
    object: str  #: the name of the hand-made object, and what vaultkeeper's objects begin with
    by_hand: Mapping[str, str]
    services: list[Service] = field(default_factory=list)

    @property
    def first_value(self) -> str:
        return f"{self.account.username} {self.account.password}"


@dataclass
class Stack:
    """`home` holds the state, the identity and `policies/stack.yaml`."""

    home: Path
    docker: Engine
    server: PostgresServer
    members: dict[str, Member] = field(default_factory=dict)
    policies: dict[str, Any] = field(default_factory=dict)

    @property
    def vk(self) -> Vk:
        return command(self.home)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The command in the background."""
        with (self.home / "answered").open("wb") as answered, (self.home / "said").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "vaultkeeper", *arguments],
                env=environment(self.home), cwd=self.home, stdin=subprocess.DEVNULL, stdout=answered, stderr=said,
            )  # fmt: skip

    @property
    def answered(self) -> str:
        """Its stdout so far."""
        return (self.home / "answered").read_text()

    @property
    def said(self) -> str:
        """Its stderr so far."""
        return (self.home / "said").read_text()

    def ok(self, *arguments: str, stdin: str = "", code: int = 0) -> Ran:
        ran = self.vk(*arguments, stdin=stdin)
        assert ran.code == code, f"{arguments} exited {ran.code}\n{ran.out}{ran.err}\n{self.docker.told()}"
        return ran

    def member(self, name: str, account: TestAccount | None = None) -> Member:
        """An account and a hand-made object with its password, still unknown to vaultkeeper."""
        account = account or taking_turns(self.server)
        object_ = self.docker.name(name.replace("/", "-"))
        made = self.docker.secret(object_, f"{account.username} {account.password}")
        self.members[name] = Member(name, account, object_, made)
        return self.members[name]

    def service(self, member: Member, base: str = "app", **options: Any) -> Service:
        """A service of consumers that log in with the member's secret."""
        around = {"PGHOST": self.server.host, "PGPORT": self.server.port, "PGDATABASE": "postgres"}
        options["environment"] = {**around, **options.get("environment", {})}
        if options.get("breaks"):
            options.setdefault("works_on", [digits(member.first_value)])
        service = self.docker.service(base, {FILE: member.by_hand}, **options)
        member.services.append(service)
        return service

    def policy(self, member: Member, *, destination: Mapping[str, object] | None = None, **keys: Any) -> None:
        """JSON is YAML."""
        grace = {} if member.account.settings["strategy"] == "single" else {"grace_period": "1s"}
        swarm = {
            "kind": "swarm",
            "host": self.docker.url,
            "secret": member.object,
            "value": "{username} {password}",
            "mount": {"target": FILE},
            "services": [service.name for service in member.services],
            **(destination or {}),
        }
        self.policies[member.name] = {
            "generator": {"kind": "password", "length": 32},
            "target": {**member.account.settings, "timeout": "30s"},
            "destinations": [swarm],
            "min_interval": "0s",
            **grace,
            **keys,
        }
        (self.home / "policies/stack.yaml").write_text(json.dumps({"secrets": self.policies}))

    def adopt(self, member: Member) -> None:
        given = {"username": member.account.username, "password": member.account.password}
        self.ok("adopt", member.name, stdin=json.dumps(given))

    def rotated(self, *names: str, code: int = 0) -> dict[str, Any]:
        """Entries of `rotate --json` by secret; no name: all of them, side by side."""
        which = names or ("--all", "--parallel", "16")
        entries = self.ok("rotate", *which, "--json", code=code).json["rotations"]
        return {entry["secret"]: entry for entry in entries}

    def stored(self, member: Member, version: int | None = None) -> str:
        chosen = ["--version", str(version)] if version else []
        return " ".join(
            self.ok("get", member.name, "--field", field_, *chosen).out for field_ in ("username", "password")
        )

    def accepts(self, value: str) -> bool:
        return self.server.login(*value.split(" "))

    def agrees(self, member: Member) -> str:
        """Empty where store, target and every task hold one value that works; else what is wrong."""
        current = self.stored(member)
        for service in member.services:
            held = {value.decode() if value else None for value in service.read(FILE)}
            if held != {current}:
                return f"{service.name} does not run on the current value"
            if not service.all_running():
                return f"{service.name} does not run"
        if not self.accepts(current):
            return "the current value is not accepted"
        proposals = self.ok("reconcile", member.name, "--json").json["proposals"]
        return f"{proposals}" if proposals else ""

    def objects(self, member: Member) -> list[str]:
        """Names of its secret objects that the Engine has, the hand-made one included."""
        names = [found["Spec"]["Name"] for found in self.docker.secrets()]
        return sorted(name for name in names if name.startswith(member.object))


def stack(folder: Path, docker: Engine, server: PostgresServer) -> Stack:
    return Stack(installed(folder), docker, server)


def one(place: Stack, name: str = "shop/db", *, services: Sequence[str] = ("app",), **options: Any) -> Member:
    """One adopted member with services of the same kind."""
    member = place.member(name)
    for base in services:
        place.service(member, base, **options)
    place.policy(member)
    place.adopt(member)
    return member


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of a document with its path; empty lists and objects count as leaves."""
    if not isinstance(document, dict | list) or not document:
        yield path, document
        return
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inner:
        yield from leaves(value, f"{path}/{key}")


def changed(before: Any, after: Any) -> set[str]:
    """Paths of the leaves that differ between two documents."""
    old, new = dict(leaves(before)), dict(leaves(after))
    return {path for path in old.keys() | new.keys() if old.get(path, ...) != new.get(path, ...)}
