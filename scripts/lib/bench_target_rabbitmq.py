"""What a rotation of a RabbitMQ user cannot do without, two in turn: one kept HTTP connection, and pika's logins."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from bench_target import COMMITS, RECORDS, Durable

from tests.servers.rabbitmq import ADMIN, RabbitServer, part
from vaultkeeper.model.policy import TargetSpec
from vaultkeeper.model.secret import Fields, SecretBytes, Strategy

SHA256 = "rabbit_password_hashing_sha256"


class Subject:
    """One server, two users for vaultkeeper and two for the bare side."""

    def __init__(self, folder: Path) -> None:
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # it calls each refused login an error
        self._server = RabbitServer()
        account, bare = self._server.alternating(), self._server.alternating()
        ports = self._server.ports
        direct = {"url": f"http://127.0.0.1:{ports['http']}", "amqp": f"amqp://127.0.0.1:{ports['amqp']}"}
        settings = {name: value for name, value in account.settings.items() if name != "strategy"}
        self.target = TargetSpec("rabbitmq", Strategy.ALTERNATING_USERS, {**settings, **direct})
        self.works_today: Fields = {
            "username": SecretBytes(account.username.encode()), "password": SecretBytes(account.password.encode()),
        }  # fmt: skip
        self._now, self._password = bare.username, bare.password
        self._users = [bare.username, f"{bare.username[:-1]}b"]
        self._server.user(self._users[1], None)
        self._connection = http.client.HTTPConnection("127.0.0.1", ports["http"])
        basic = base64.b64encode(f"{ADMIN}:{self._server.admin_password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
        self._disk = Durable(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()
        self._connection.close()
        self._server.stop()

    @property
    def parts(self) -> Mapping[str, Callable[[], None]]:
        """In their order. The sum of them is a rotation."""
        return {
            "both users": self.look,
            "what they may": self.compare,
            "PUT, the new password": self.give,
            "one login": self.log_in,
            "one refused login": self.be_refused,
            "connections of the old one": self.look_for_use,
            "PUT, no password": self.take,
            "the old one refused": self.refuse_old,
            f"{COMMITS + RECORDS} fsyncs, a file": self.sync,
        }

    def look(self) -> None:
        self._old, self._old_password = self._now, self._password
        self._now = next(user for user in self._users if user != self._old)
        self._tags = {user: self._ask("GET", f"users/{part(user)}")["tags"] for user in self._users}

    def compare(self) -> None:
        for user in self._users:
            for kind in ("permissions", "topic-permissions"):
                self._ask("GET", f"users/{part(user)}/{kind}")

    def give(self) -> None:
        self._password, salt = secrets.token_urlsafe(24), secrets.token_bytes(4)
        self._put(self._now, base64.b64encode(salt + hashlib.sha256(salt + self._password.encode()).digest()).decode())

    def take(self) -> None:
        self._put(self._old, "")

    def look_for_use(self) -> None:
        self._ask("GET", f"connections/username/{part(self._old)}")

    def _put(self, user: str, stored: str) -> None:
        body = {"password_hash": stored, "hashing_algorithm": SHA256, "tags": self._tags[user]}
        self._ask("PUT", f"users/{part(user)}", body)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        self._connection.request(method, f"/api/{path}", None if body is None else json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status}")
        return json.loads(raw) if raw else None

    def log_in(self) -> None:
        self._expect(self._now, self._password, accepted=True)

    def be_refused(self) -> None:
        self._expect(self._now, "wrong", accepted=False)

    def refuse_old(self) -> None:
        self._expect(self._old, self._old_password, accepted=False)

    def _expect(self, user: str, password: str, *, accepted: bool) -> None:
        if self._server.login(user, password) is not accepted:
            raise RuntimeError("a login did not end as it must")

    def sync(self) -> None:
        self._disk.sync(self._password.encode())


def start(folder: Path) -> Subject:
    return Subject(folder)
