"""What the Redis tests have in common: hooks called directly with a hand-made context, and a whole installation."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.servers import TestAccount
from tests.servers.redis import Client, Node
from vaultkeeper import wiring
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.model.outcome import Finding, Login, Observation
from vaultkeeper.model.secret import Binding, Fields, SecretBytes, SecretVersion, StagingLabel, Strategy
from vaultkeeper.ports import Context, Deadline
from vaultkeeper.targets.redis import RedisTarget
from vaultkeeper.wiring.places import Wishes

NOT_THE_KINDS = ("kind", "strategy")


class Credentials:
    """Knows only `{file: PATH}`."""

    def resolve(self, reference: Mapping[str, Any]) -> Fields:
        return {"value": SecretBytes(Path(reference["file"]).read_bytes())}


def context(current: SecretVersion | None = None, pending: SecretVersion | None = None, seconds: float = 60) -> Context:
    deadline = Deadline(time.monotonic() + seconds)
    return Context("11111111-2222-3333-4444-555555555555", "shop/cache", 1, deadline, Credentials(), current, pending)


def open_target(account: TestAccount, **more: object) -> RedisTarget:
    settings = {name: value for name, value in account.settings.items() if name not in NOT_THE_KINDS} | more
    return RedisTarget.open(settings, 1)


def version(
    number: int, username: str, password: str | bytes | None = None, made: datetime | None = None
) -> SecretVersion:
    value = secrets.token_urlsafe(24) if password is None else password
    raw = value.encode() if isinstance(value, str) else value
    fields = {"username": SecretBytes(username.encode()), "password": SecretBytes(raw)}
    binding = Binding(Strategy.OVERLAP, "redis", {}, 1)
    return SecretVersion("shop/cache", number, secrets.token_hex(8), fields, binding, made or datetime.now(UTC))


def password_of(one: SecretVersion) -> bytes:
    return one.fields["password"].reveal()


def seen(target: RedisTarget, *candidates: SecretVersion, **ctx: Any) -> Observation:
    answer = target.observe(candidates, context(**ctx))
    assert isinstance(answer, Observation), answer
    return answer


def accepted(target: RedisTarget, *candidates: SecretVersion) -> list[bool]:
    """By listing and by login, which must agree."""
    listed = [seen(target, *candidates).answers[one.number] is Login.ACCEPTED for one in candidates]
    assert listed == [target.test(one, context()) is Login.ACCEPTED for one in candidates]
    return listed


def of(level: str, findings: Sequence[Finding]) -> list[str]:
    return [f"{finding.text} | {finding.next}" for finding in findings if finding.level == level]


def plain(node: Node, name: str = "app", password: str | bytes = "old", **more: object) -> TestAccount:
    """An account at one node, without a proxy; `default` stays as the node has it."""
    if name != "default":
        node.acl(name, "on", f"#{_hashed(password)}", "~*", "&*", "+@all")
    file = node.folder / "rotator-password"
    file.write_text(node.rotator)
    admin = {"username": "vk_rotator", "password": {"file": str(file)}}
    settings = {"kind": "redis", "host": "127.0.0.1", "port": node.port, "user": name, "admin": admin, **more}
    return TestAccount(name, password if isinstance(password, str) else "", settings)


def _hashed(password: str | bytes) -> str:
    from tests.servers.redis import hashed

    return hashed(password)


class Hurried:
    """A clock that sleeps at once."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, duration: timedelta) -> None:
        self.ahead += duration


class Installed:
    """One installation in this process, with one policy file of any number of accounts."""

    def __init__(self, home: Path, template: Path, accounts: Mapping[str, TestAccount], **keys: Any) -> None:
        shutil.copytree(template, home)
        self.home, self.accounts = home, dict(accounts)
        (home / "policies").mkdir()
        (home / "out").mkdir()
        body = {name: self.secret(name, account, keys) for name, account in accounts.items()}
        (home / "policies/cache.yaml").write_text(json.dumps({"secrets": body}))
        self.opened = wiring.open_installed(self.wishes)
        self.parts = wiring.parts(self.opened, self.wishes, parallel=1)

    def secret(self, name: str, account: TestAccount, keys: Mapping[str, Any]) -> dict[str, Any]:
        file = {"kind": "file", "path": str(self.out(name)), "read": "per_use", "value": "{username} {password}"}
        seen = {"confirm": {"command": ["/bin/true"]}, "healthy_for": "0s"}
        return {
            "generator": {"kind": "password"},
            "target": account.settings,
            "destinations": [{**file, **seen}],
            "grace_period": "0s",
            "min_interval": "0s",
            **keys,
        }

    def out(self, name: str) -> Path:
        return self.home / "out" / name.replace("/", "-")

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.home / "state", self.home / "policies", self.home / "identity.txt")

    def adopt(self, name: str, password: str | None = None) -> None:
        given = (password or self.accounts[name].password).encode()
        adopt(name, {"password": SecretBytes(given)}, self.parts)

    def rotate(self, *names: str, wait: timedelta = timedelta(minutes=5)) -> Any:
        """The report of the first one. A session that was just closed may still be listed, and is waited for."""
        return rotate(list(names) or list(self.accounts), self.parts, by_name=True, wait=wait)[0]

    def resume(self, name: str) -> Any:
        return resume([name], self.parts)[0]

    def current(self, name: str) -> str:
        book = Book(name, self.parts.store, self.parts.envelope, self.parts.redactor)
        found = book.labelled(StagingLabel.CURRENT)
        assert found is not None
        return found.fields["password"].text()

    def delivered(self, name: str) -> str:
        return self.out(name).read_text().partition(" ")[2]

    def close(self) -> None:
        self.opened.store.close()


class Monitor:
    """Everything that MONITOR shows at a node, until `text` is asked for."""

    def __init__(self, node: Node) -> None:
        self._node, self._client = node, node.client()
        self._client("MONITOR")

    def text(self) -> str:
        """Up to a command of ours that ends it."""
        end = secrets.token_hex(8)
        with self._node.client() as say:
            say("ECHO", end)
        lines: list[str] = []
        while not lines or end not in lines[-1]:
            lines.append(self._client.read().decode())
        self._client.close()
        return "\n".join(lines)


def wait_until(ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.005)


def as_user(node: Node, username: str, password: str | bytes) -> Client:
    """A consumer's session, that stays."""
    client = Client(node.address)
    client("AUTH", username, password)
    return client
