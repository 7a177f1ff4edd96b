"""What a rotation of a user of a password file cannot do without, with nginx as its reader and two users in turn."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import bcrypt
from bench_target import COMMITS, RECORDS, Durable

from tests.servers.htpasswd import HtpasswdServer
from tests.servers.webservers import asked
from vaultkeeper.model.policy import TargetSpec
from vaultkeeper.model.secret import Fields, SecretBytes, Strategy

COST = 5  # the default


class Subject:
    """One nginx, a list for vaultkeeper and another for the bare side."""

    def __init__(self, folder: Path) -> None:
        self._server = HtpasswdServer()
        account = self._server.account(cost=COST)
        settings = {name: value for name, value in account.settings.items() if name != "strategy"}
        self.target = TargetSpec("htpasswd", Strategy.ALTERNATING_USERS, settings)
        self.works_today: Fields = {
            "username": SecretBytes(account.username.encode()), "password": SecretBytes(account.password.encode()),
        }  # fmt: skip
        bare = self._server.account()
        self._path, self._port = Path(str(bare.settings["path"])), self._server.nginx.port
        self._now, self._password = bare.username, bare.password
        self._users = [bare.username, f"{bare.username[:-1]}b"]
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
            "the hash": self.hash,
            "the file, both users": self.add,
            "one login": self.log_in,
            "one refused login": self.be_refused,
            "the file, the new user": self.take,
            "the old one refused": self.refuse_old,
            f"{COMMITS + RECORDS} fsyncs, a file": self.sync,
        }

    def hash(self) -> None:
        self._old, self._old_password = self._now, self._password
        self._now = next(user for user in self._users if user != self._old)
        self._password = secrets.token_urlsafe(24)
        self._line = f"{self._now}:{bcrypt.hashpw(self._password.encode(), bcrypt.gensalt(COST)).decode()}"

    def add(self) -> None:
        self._write([*self._path.read_text().splitlines(), self._line])

    def take(self) -> None:
        self._write([line for line in self._path.read_text().splitlines() if not line.startswith(f"{self._old}:")])

    def _write(self, lines: list[str]) -> None:
        beside = self._path.with_name("beside")
        with beside.open("w") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

    def log_in(self) -> None:
        self._expect(200, self._now, self._password)

    def be_refused(self) -> None:
        self._expect(401, self._now, "wrong")

    def refuse_old(self) -> None:
        self._expect(401, self._old, self._old_password)

    def _expect(self, status: int, user: str, password: str) -> None:
        if asked(self._port, f"/{self._path.parent.name}/", f"{user}:{password}") != status:
            raise RuntimeError("a login did not end as it must")

    def sync(self) -> None:
        self._disk.sync(self._password.encode())


def start(folder: Path) -> Subject:
    return Subject(folder)
