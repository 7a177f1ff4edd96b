"""One PostgreSQL credential in three kinds of places: an application in Dokploy, a path in Vault, a Swarm service.

PostgreSQL, dockerd and the consumers are real; Dokploy and Vault are simulators. Three secrets rotate side by side:
first all goes through, then each of them fails at its second destination, which is of another kind each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration import dokploy_kit
from tests.integration.shop_kit import identity_of, state_of
from tests.integration.swarm_kit import FILE, Member, Stack, stack
from tests.servers.docker import Engine, digits
from tests.servers.dokploy import SPEED
from tests.servers.postgres import PostgresServer
from tests.servers.vaults import Vaults
from vaultkeeper import wiring
from vaultkeeper.access import vault as logins
from vaultkeeper.access.dokploy.env import parse
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.reconcile import reconcile
from vaultkeeper.model.secret import SecretBytes, StagingLabel
from vaultkeeper.testing.dokploy import Service
from vaultkeeper.testing.dokploy.server import Seen
from vaultkeeper.wiring.places import Wishes

ORDERS = {
    "swarm": ("dokploy", "swarm", "vault_kv"),
    "dokploy": ("vault_kv", "dokploy", "swarm"),
    "vault_kv": ("dokploy", "vault_kv", "swarm"),
}
"""By the kind that stands second, and fails."""

CAUSE = {"swarm": "delivery", "dokploy": "delivery", "vault_kv": "privilege"}
WHY = {
    "swarm": "task: non-zero exit (3); its last line: broken ",
    "dokploy": "application web-dokploy: a task failed on the new value, and Docker Swarm went back to the old one",
    "vault_kv": "the token's policy does not allow this",
}


@dataclass
class Everywhere:
    """One member of the stack, its application and its path; `second` is the kind that will fail."""

    second: str
    member: Member
    web: Service
    path: str
    place: Stack
    shop: dokploy_kit.Shop
    vault: Vaults
    handed_over: list[str] = field(default_factory=list)  #: what the application was to be given, in this order

    def saves(self, seen: Seen) -> bool:
        return seen.procedure == "application.saveEnvironment" and seen.given["applicationId"] == self.web.id

    def watch(self, seen: Seen) -> None:
        if self.saves(seen):
            self.handed_over.append(_pair(parse(seen.given["env"])))

    @property
    def users(self) -> list[str]:
        """The two that take turns."""
        return [f"{self.member.account.settings['owner_role']}_{turn}" for turn in "ab"]

    def written(self) -> list[str]:
        """What its path in Vault was made to hold after people wrote it."""
        versions = [self.vault.get(self.path, number) for number in range(2, 6)]
        return [f"{kept['username']} {kept['password']}" for kept in versions if kept]

    def delivered(self) -> Mapping[str, set[str]]:
        """By place, what all that runs there was given; a path is read as it is."""
        (swarm,) = self.member.services
        with self.shop.dokploy.state.lock:
            running = self.shop.dokploy.state.running(self.web)
        kept = self.vault.get(self.path) or {}
        assert kept.pop("theirs") == "stays"
        return {
            "dokploy": {_pair(env) for env in running},
            "text": {_pair(parse(str(self.web.row["env"])))},
            "vault_kv": {f"{kept['username']} {kept['password']}"},
            "swarm": {(value or b"").decode() for value in swarm.read(FILE)},
        }

    def all_on(self, value: str) -> None:
        self.shop.dokploy.state.advance(30)
        assert self.delivered() == {name: {value} for name in ("dokploy", "text", "vault_kv", "swarm")}

    def policy(self) -> None:
        self.place.policy(self.member, destination={"healthy_for": "2s"})
        (swarm,) = self.place.policies[self.member.name]["destinations"]
        dokploy = {
            "kind": "dokploy",
            "url": self.shop.dokploy.url,
            "api_key": {"file": str(self.shop.folder / "key")},
            "application": self.web.id,
            "values": {"DB_USER": "{username}", "DB_PASSWORD": "{password}"},
        }
        vault = {
            "kind": "vault_kv",
            "mount": self.vault.mount,
            "path": self.path,
            "values": {"username": "{username}", "password": "{password}"},
            **self.vault.connection(),
        }
        found: Mapping[str, Any] = {"dokploy": dokploy, "vault_kv": vault, "swarm": swarm}
        self.place.policy(self.member, destinations=[found[kind] for kind in ORDERS[self.second]])


def _pair(env: Mapping[str, str]) -> str:
    return f"{env['DB_USER']} {env['DB_PASSWORD']}"


@dataclass
class Three:
    """All of them, by the kind that stands second."""

    place: Stack
    found: Mapping[str, Everywhere]

    @contextmanager
    def parts(self) -> Iterator[Parts]:
        """Without a process: adopting and looking are not what is tried here."""
        wishes = Wishes(state_of(self.place.home), self.place.home / "policies", identity_of(self.place.home))
        opened = wiring.open_installed(wishes)
        try:
            yield wiring.parts(opened, wishes, parallel=1)
        finally:
            logins.end()
            opened.store.close()

    def adopt(self) -> None:
        with self.parts() as parts:
            for each in self.found.values():
                account = each.member.account
                given = {"username": account.username, "password": account.password}
                fields = {name: SecretBytes(value.encode()) for name, value in given.items()}
                adopt(each.member.name, fields, parts)

    def rotated(self, *, code: int) -> dict[str, Any]:
        """By the command, all of them at once; until nothing is open."""
        entries = self.place.ok("rotate", "--all", "--parallel", "16", "--wait", "240s", "--json", code=code).json
        return {entry["secret"]: entry for entry in entries["rotations"]}

    def current(self) -> dict[str, str]:
        """CURRENT of each; with nothing open, and nothing that target or destinations hold otherwise."""
        found = {}
        with self.parts() as parts:
            assert parts.store.open_rotations() == []
            for second, each in self.found.items():
                book = Book(each.member.name, parts.store, parts.envelope, parts.redactor)
                version = book.labelled(StagingLabel.CURRENT)
                assert version is not None
                found[second] = " ".join(version.fields[name].text() for name in ("username", "password"))
                assert reconcile(each.member.name, parts) == []
        return found


@pytest.fixture
def everywhere(docker: Engine, postgres: PostgresServer, tmp_path: Path) -> Iterator[Three]:
    place, shop, vault = stack(tmp_path, docker, postgres), dokploy_kit.open_shop(tmp_path, speed=SPEED), Vaults()
    made = Three(place, {second: _one(place, shop, vault, second) for second in ORDERS})
    for each in made.found.values():
        docker.wait_for(f"{each.second} runs", each.member.services[0].all_running)
    made.adopt()
    yield made
    shop.dokploy.stop()
    vault.stop()


def _one(place: Stack, shop: dokploy_kit.Shop, vault: Vaults, second: str) -> Everywhere:
    """Everybody has the first user already, as the people wrote it there."""
    member = place.member(f"shop/{second}")
    place.service(member, second, started=False, environment={"EVERY": "0.2"})
    user, password = member.account.username, member.account.password
    web = shop.add("application", f"web-{second}", f"# by hand\nDB_USER={user}\nDB_PASSWORD={password}\nPORT=80\n")
    path = f"shop/{second}"
    vault.put(path, {"username": user, "password": password, "theirs": "stays"})
    made = Everywhere(second, member, web, path, place, shop, vault)
    shop.dokploy.before.append(made.watch)
    made.policy()
    return made


def test_all_three_carry_the_new_user_and_all_three_go_back_where_the_second_one_fails(everywhere: Three) -> None:
    first = {second: each.member.first_value for second, each in everywhere.found.items()}
    ran = everywhere.rotated(code=0)
    assert {entry["state"] for entry in ran.values()} == {"done"}
    now = everywhere.current()
    for second, each in everywhere.found.items():
        assert now[second].startswith(f"{each.users[1]} ")
        each.all_on(now[second])
        assert [each.place.accepts(value) for value in (now[second], first[second])] == [True, False]

    for second, each in everywhere.found.items():
        _break(each, now[second])
    ran = everywhere.rotated(code=5)
    for second, each in everywhere.found.items():
        entry = ran[each.member.name]
        assert (entry["state"], entry["to_version"]) == ("rolled_back", 3)
        assert entry["error"]["what"] == f"{each.member.name}: rolled back ({CAUSE[second]})"
        assert WHY[second] in entry["error"]["why"]
        assert entry["error"]["works"] == "v2 (old): target and consumers are on it"
        assert f"vaultkeeper rotate {each.member.name}" in entry["error"]["next"]
        each.all_on(now[second])
        assert (each.handed_over[0], each.handed_over[2:]) == (now[second], [now[second]])
        new = each.handed_over[1]
        assert new.startswith(f"{each.users[0]} ")
        assert [each.place.accepts(value) for value in (now[second], new)] == [True, False]
        assert each.written() == [now[second]] + ([] if second == "vault_kv" else [new, now[second]])
        (service,) = each.member.services
        assert [line for line in service.logs() if line.startswith("refused")] == []
    assert everywhere.current() == now


def _break(each: Everywhere, old: str) -> None:
    """From now on the second destination cannot do with another value than `old`."""
    if each.second == "dokploy":
        each.web.breaks_on = lambda env: _pair(env) != old
    elif each.second == "swarm":
        (service,) = each.member.services

        def on_old_only(spec: dict[str, Any]) -> None:
            spec["TaskTemplate"]["ContainerSpec"]["Env"] += ["BREAKS=exit", f"WORKS_ON={digits(old)}"]

        service.set(on_old_only)
        each.place.docker.wait_for("the service is updated", lambda: service.update_state() == "completed")
    else:

        def forbid(seen: Seen) -> None:
            """Somebody takes the right away while the rotation is under way: the application has the new value."""
            if each.saves(seen):
                rules = {**each.vault.rules(), f"{each.vault.mount}/data/{each.path}": ["read"]}
                each.vault.policy(each.vault.policy_name, rules)

        each.shop.dokploy.before.append(forbid)
