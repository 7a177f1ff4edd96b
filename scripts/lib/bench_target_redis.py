"""What a rotation of one Redis account cannot do without: bare sockets, no journal, no judgement, no error handling."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from bench_target import COMMITS, RECORDS, Durable

from tests.servers.redis import Client, RedisServer, Refused, hashed
from vaultkeeper.model.policy import TargetSpec
from vaultkeeper.model.secret import Fields, SecretBytes, Strategy


class Subject:
    """One server with an ACL file, an account for vaultkeeper and another for the bare side."""

    def __init__(self, folder: Path) -> None:
        self._server = RedisServer()
        self._node = self._server.node
        account = self._server.account()
        settings = {name: value for name, value in account.settings.items() if name not in ("kind", "strategy")}
        self.target = TargetSpec("redis", Strategy.OVERLAP, {**settings, "port": self._node.port})
        self.works_today: Fields = {"password": SecretBytes(account.password.encode())}
        bare = self._server.account()
        self._name, self._password, self._old = bare.username, bare.password, bare.password
        self._disk = Durable(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()
        self._server.stop()

    @property
    def parts(self) -> Mapping[str, Callable[[], None]]:
        """In their order. The sum of them is a rotation."""
        return {
            "the admin's login": self.log_admin_in,
            "what the account accepts": self.look,
            "SETUSER and ACL SAVE": self.add,
            "one login": self.log_in,
            "one refused login": self.be_refused,
            "SETUSER and ACL SAVE, again": self.take,
            "the old one refused": self.be_refused,
            f"{COMMITS + RECORDS} fsyncs, a file": self.sync,
        }

    def log_admin_in(self) -> None:
        self._old, self._password = self._password, secrets.token_urlsafe(24)
        self._admin = Client(self._node.address)
        self._admin("AUTH", "vk_rotator", self._node.rotator)

    def look(self) -> None:
        self._admin("ACL", "GETUSER", self._name)

    def add(self) -> None:
        self._change(f"#{hashed(self._password)}")

    def take(self) -> None:
        self._change(f"!{hashed(self._old)}")
        self._admin.close()

    def _change(self, rule: str) -> None:
        self._admin.send("ACL", "SETUSER", self._name, rule)
        self._admin.send("ACL", "SAVE")
        for _ in range(2):
            self._admin.read()

    def log_in(self) -> None:
        with Client(self._node.address) as client:
            client("AUTH", self._name, self._password)

    def be_refused(self) -> None:
        with Client(self._node.address) as client:
            try:
                client("AUTH", self._name, os.urandom(16).hex())
            except Refused:
                return
        raise RuntimeError("a wrong password was accepted")

    def sync(self) -> None:
        self._disk.sync(self._password.encode())


def start(folder: Path) -> Subject:
    return Subject(folder)
