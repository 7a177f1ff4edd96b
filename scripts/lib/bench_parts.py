"""What a rotation of one PostgreSQL password cannot do without, and nothing else: the other side of the scale.

libpq's own blocking calls, through ctypes so that threads do not hold one another up, and plain system calls. No
journal, no judgement, no error handling: a failed part raises.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Self

import psycopg  # noqa: F401 - comes before its binary part

OK, BAD = 0, 1  # ConnStatusType
COMMAND_OK = 1  # ExecStatusType
BLOCK = b"\0" * 4096

ADMIN_LOGIN = "the admin's login"

COMMITS = 4
"""Open it, begin to set, to deliver; end it."""
RECORDS = 3
"""In the audit log: a change of the target begins, a delivery begins, it has ended."""
FILE = 2
"""The new file, and its name in the directory."""
FSYNCS = COMMITS + RECORDS + FILE
"""The server adds one for its own log: ten."""


class Bare:
    """One account and one file, changed by a single thread. `folder` is its own."""

    def __init__(
        self, address: tuple[str, int], admin: tuple[str, str], account: tuple[str, str], folder: Path
    ) -> None:
        self._address = address
        self._name, self._password = account
        self._old = self._password
        self._folder = folder
        folder.mkdir()
        self._journal = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._audit = os.open(folder / "audit", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._verifier = b""
        self._generation = 0
        self._admin = admin
        self._session: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._journal)
        os.close(self._audit)

    @property
    def parts(self) -> dict[str, Callable[[], None]]:
        """In their order. The sum of them is a rotation."""
        return {
            "the SCRAM verifier": self.encrypt,
            ADMIN_LOGIN: self.log_admin_in,
            "ALTER ROLE and its tag": self.alter,
            "one login": self.log_in,
            "one refused login": self.be_refused,
            f"{FSYNCS} fsyncs": self.sync,
        }

    def rotate(self) -> None:
        """All parts once."""
        for part in self.parts.values():
            part()

    def encrypt(self) -> None:
        self._old, self._password = self._password, secrets.token_urlsafe(24)
        self._generation += 1
        nowhere = _libpq().PQconnectStart(b"nowhere")  # an object, no connection
        made = _libpq().PQencryptPasswordConn(nowhere, self._password.encode(), self._name.encode(), b"scram-sha-256")
        self._verifier = ctypes.string_at(made)
        _libpq().PQfreemem(made)
        _libpq().PQfinish(nowhere)

    def log_admin_in(self) -> None:
        self._session = self._connected(*self._admin, OK)

    def alter(self) -> None:
        role = b'"' + self._name.encode() + b'"'
        tag = b"generation=%d" % self._generation
        statements = (
            b"BEGIN; SET LOCAL synchronous_commit = on",
            b"ALTER ROLE " + role + b" PASSWORD '" + self._verifier + b"'",
            b"COMMENT ON ROLE " + role + b" IS '[" + tag + b"]'",
            b"COMMIT",
        )
        result = _libpq().PQexec(self._session, b"; ".join(statements))
        if _libpq().PQresultStatus(result) != COMMAND_OK:
            raise RuntimeError("the server refused to alter the role")
        _libpq().PQclear(result)
        _libpq().PQfinish(self._session)

    def log_in(self) -> None:
        _libpq().PQfinish(self._connected(self._name, self._password, OK))

    def be_refused(self) -> None:
        _libpq().PQfinish(self._connected(self._name, self._old, BAD))

    def sync(self) -> None:
        for _ in range(COMMITS):
            os.write(self._journal, BLOCK)
            os.fdatasync(self._journal)
        for _ in range(RECORDS):
            os.write(self._audit, BLOCK[:400])
            os.fdatasync(self._audit)
        self._deliver()

    def _deliver(self) -> None:
        temporary = self._folder / "new"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(file, self._password.encode())
        os.fsync(file)
        os.close(file)
        temporary.rename(self._folder / "value")
        directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)

    def _connected(self, name: str, password: str, expected: int) -> Any:
        host, port = self._address
        login = f"host={host} port={port} user={name} password={password} dbname=postgres sslmode=disable"
        connection = _libpq().PQconnectdb(f"{login} gssencmode=disable require_auth=scram-sha-256".encode())
        if _libpq().PQstatus(connection) != expected:
            raise RuntimeError(f"a login of {name} did not end as it must")
        return connection


@cache
def _libpq() -> ctypes.CDLL:
    library = ctypes.CDLL(str(importlib.import_module("psycopg_binary.pq").__file__))
    for name in ("PQconnectdb", "PQconnectStart", "PQexec", "PQencryptPasswordConn"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("PQfinish", "PQstatus", "PQclear", "PQresultStatus", "PQfreemem"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.PQexec.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.PQencryptPasswordConn.argtypes = [ctypes.c_void_p, *[ctypes.c_char_p] * 3]
    return library
