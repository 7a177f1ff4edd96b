"""PostgreSQL through libpq: log in, run statements, make and compare SCRAM verifiers.

One level below psycopg's connection class, because three things are out of its reach: the SQLSTATE of a refused
login, a deadline on every single reply (a server that swallows one must not hold a hook), and several statements in
one round trip. Texts of libpq never leave this file: they quote their arguments. psycopg is imported on first use.
https://www.postgresql.org/docs/current/libpq.html and errcodes-appendix.html
"""

from __future__ import annotations

import base64
import ctypes
import functools
import hashlib
import hmac
import importlib
import os
import re
import select
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from vaultkeeper.access.address import Address
from vaultkeeper.errors import BackendError, ConfigurationInvalid

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

SCRAM_ONLY = "scram-sha-256"
SCRAM_OR_NOTHING = "scram-sha-256,none"  # for an admin: peer is fine, but no password ever goes out readable
Row = Mapping[str, str | None]

_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d{1,7}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
_MOST_ITERATIONS = 1_000_000  # about a second of work; a stored verifier must not be able to stall us
_VERBOSE = 2  # PQERRORS_VERBOSE: messages carry SQLSTATE and, untranslated, the server's function
_SQLSTATE = re.compile(rb" failed: [^:\n]*:  ([0-9A-Z]{5}): ")
_LOCATION = re.compile(rb"\nLOCATION:  (\w+), ")
_BUNDLES = (  # psycopg's wheel carries an OpenSSL that knows no distribution's path
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class Denial(Enum):
    """Why a login did not come about."""

    REJECTED = "rejected"  #: this name with this password, definitely
    UNREACHABLE = "unreachable"  #: also full, starting, shutting down
    UNCHECKED = "unchecked"  #: the server asked for something else than SCRAM, `trust` among it
    CONFIGURATION = "configuration"  #: TLS, pg_hba.conf, no such database: waiting will not help


class LoginFailed(BackendError):
    """A connection could not be made. `text` of libpq is not in it."""

    def __init__(self, denial: Denial, what: str, *, why: str = "", next: str = "") -> None:  # noqa: A002
        super().__init__(what, why=why, next=next)
        self.denial = denial


class StatementFailed(BackendError):
    """The server refused a statement; the transaction is undone. `concurrent`: somebody else changed the same row."""

    def __init__(self, sqlstate: str, *, concurrent: bool) -> None:
        super().__init__("PostgreSQL refused a statement", why=f"SQLSTATE {sqlstate}")
        self.sqlstate = sqlstate
        self.concurrent = concurrent


class ReplyLost(BackendError):
    """The connection ended or the deadline passed before the answer came: it may have been done or not."""


class Session:
    """One open connection. Not for several threads. Closing it undoes what was not committed."""

    def __init__(self, conn: PGconn, until_s: float) -> None:
        self._conn = conn
        self._until_s = until_s
        conn.nonblocking = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Idempotent."""
        self._conn.finish()

    @property
    def idle(self) -> bool:
        """Outside of any transaction."""
        return bool(self._conn.transaction_status == _pq().TransactionStatus.IDLE)

    def renew(self, until_s: float) -> bool:
        """Give it another deadline. False: the server ended it or has something to say, so use another one."""
        self._until_s = until_s
        return not _polled(self._conn.socket, select.POLLIN, 0)

    @property
    def version(self) -> int:
        """160004 for 16.4."""
        return self._conn.server_version

    @property
    def is_superuser(self) -> bool:
        return self._conn.parameter_status(b"is_superuser") == b"on"

    @property
    def encrypted(self) -> bool:
        return bool(self._conn.ssl_in_use)

    @property
    def left_ms(self) -> int:
        return max(int((self._until_s - time.monotonic()) * 1000), 1)

    def literal(self, value: str | None) -> str:
        if value is None:
            return "NULL"
        return bytes(_pq().Escaping(self._conn).escape_literal(_clean(value))).decode()

    def identifier(self, name: str) -> str:
        return bytes(_pq().Escaping(self._conn).escape_identifier(_clean(name))).decode()

    def literals(self, values: Sequence[str]) -> str:
        return ", ".join(self.literal(value) for value in values)

    def run(self, *statements: str) -> list[list[Row]]:
        """All statements in one round trip; the rows of those that yield any, one list each.

        Raises StatementFailed (what followed was not executed) or ReplyLost.
        """
        import psycopg

        try:
            self._conn.send_query(";\n".join(statements).encode())
            while self._conn.flush():
                self._wait(select.POLLOUT)
            results = self._results()
        except psycopg.Error:
            raise ReplyLost("the connection to PostgreSQL ended before it answered") from None
        for result in results:
            self._raise_where_failed(result)
        return [_rows(result) for result in results if result.nfields]

    def _results(self) -> list[PGresult]:
        results: list[PGresult] = []
        while True:
            while self._conn.is_busy():
                self._wait(select.POLLIN)
                self._conn.consume_input()
            result = self._conn.get_result()
            if result is None:
                return results
            results.append(result)

    def _wait(self, event: int) -> None:
        if not _ready(self._conn.socket, event, self._until_s):
            raise ReplyLost("PostgreSQL did not answer in time")

    def _raise_where_failed(self, result: PGresult) -> None:
        pq = _pq()
        if result.status in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY}:
            return
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        if not state or state.startswith(("08", "57P")):  # the connection ended, the server stops or crashed
            raise ReplyLost("the connection to PostgreSQL ended before it answered")
        # elog() texts are never translated: src/backend/access/heap/heapam.c, simple_heap_update
        text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        raise StatementFailed(state, concurrent=state == "XX000" and b"concurrently" in text)


def connect(
    address: Address, *, username: str, password: str, database: str, until_s: float, require: str = SCRAM_ONLY
) -> Session:
    """Log in once, without fallback of any kind. `until_s`: on the monotonic clock, also for every later statement.

    Raises LoginFailed. Environment variables of libpq (PGSSLMODE, PGOPTIONS, …) and password files have no effect.
    """
    options = {
        "host": address.host,
        "port": str(address.port),
        "user": username,
        "password": password,
        "dbname": database,
        "require_auth": require,
        "application_name": "vaultkeeper",
        "client_encoding": "UTF8",
        "options": "",
        "gssencmode": "disable",
        "target_session_attrs": "any",
        "passfile": "/dev/null",
        "hostaddr": "",
        "sslmode": "verify-full" if address.tls else "disable",
        **({"sslrootcert": address.ca or _system_authorities()} if address.tls else {}),
    }
    # Empty ones too: an option that is absent would come from the environment.
    text = b" ".join(name.encode() + b"='" + _conninfo_value(value) + b"'" for name, value in options.items())
    pq = _pq()
    conn = pq.PGconn.connect_start(text)
    try:
        libpq = _libpq()
        libpq.PQsetErrorVerbosity(conn.pgconn_ptr, _VERBOSE)
        status = pq.PollingStatus.WRITING
        while status not in {pq.PollingStatus.OK, pq.PollingStatus.FAILED}:
            if conn.status == pq.ConnStatus.BAD:
                break
            event = select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT
            if not _ready(conn.socket, event, until_s):
                raise LoginFailed(Denial.UNREACHABLE, f"PostgreSQL at {address} did not answer in time")
            status = libpq.PQconnectPoll(conn.pgconn_ptr)
        if conn.status != pq.ConnStatus.OK:
            raise _login_failure(conn.error_message, address, username, database)
        return Session(conn, until_s)
    except BaseException:
        conn.finish()
        raise


def _login_failure(message: bytes, address: Address, username: str, database: str) -> LoginFailed:
    """What libpq's text means. The text itself is dropped."""
    states, places = _SQLSTATE.findall(message), _LOCATION.findall(message)  # one per address that was tried
    state, place = states[-1].decode() if states else "", places[-1].decode() if places else ""
    where = f"PostgreSQL at {address}"
    if state == "28P01":
        return LoginFailed(Denial.REJECTED, f"{where} rejected the password of {username}")
    if state == "28000" and place == "InitializeSessionUserId":
        return LoginFailed(Denial.REJECTED, f"{where} does not let {username} log in", why="NOLOGIN, or no such role")
    if state == "28000":
        return LoginFailed(
            Denial.CONFIGURATION,
            f"{where} does not allow {username} from here",
            why="pg_hba.conf has no entry for this account, database and address, or one that rejects it",
            next=f"add: host{'ssl' if address.tls else ''} {database} {username} ADDRESS scram-sha-256",
        )
    if state in {"3D000", "42501", "42704"}:
        return LoginFailed(
            Denial.CONFIGURATION, f"{username} may not use database {database} at {address}", why=f"SQLSTATE {state}"
        )
    if state:
        return LoginFailed(Denial.UNREACHABLE, f"{where} takes no login now", why=f"SQLSTATE {state}")
    if b"authentication method requirement" in message:
        return LoginFailed(
            Denial.UNCHECKED,
            f"{where} does not check {username} by SCRAM",
            why="it accepts without a check (trust, peer) or asks for a readable or md5 password, which proves nothing",
            next="say scram-sha-256 for this account in pg_hba.conf, and reload",
        )
    if address.tls and re.search(rb"SSL|certificate", message):
        return LoginFailed(
            Denial.CONFIGURATION,
            f"no verified TLS connection to {where}",
            why="the server offers no TLS, or its certificate is not for this name, expired, or of another authority",
            next="name its authority with tls: {ca: PATH}; there is no fallback",
        )
    return LoginFailed(Denial.UNREACHABLE, f"{where} cannot be reached")


# ------------------------------------------------------------------------------------------------------------ verifiers


def encrypt(password: str, username: str) -> str:
    """A new SCRAM-SHA-256 verifier with a random salt, made by libpq (which prepares Unicode as the server does)."""
    libpq = _libpq()
    nowhere = _pq().PGconn.connect_start(b"nowhere")  # a conninfo without "=": an object, no connection
    try:
        made = libpq.PQencryptPasswordConn(nowhere.pgconn_ptr, _clean(password), _clean(username), b"scram-sha-256")
        if not made:
            raise BackendError("libpq made no verifier of a password")
        try:
            return ctypes.string_at(made).decode("ascii")
        finally:
            libpq.PQfreemem(made)
    finally:
        nowhere.finish()


def is_scram(stored: str) -> bool:
    """Tell whether this is a SCRAM-SHA-256 verifier."""
    return _VERIFIER.fullmatch(stored) is not None


def matches(stored: str | None, password: str, username: str) -> bool | None:
    """Does the server's stored form accept this password? None: cannot be told without a login."""
    if not stored:
        return False
    if re.fullmatch(r"md5[0-9a-f]{32}", stored):
        made = hashlib.md5((password + username).encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(stored[3:], made)
    found = _VERIFIER.fullmatch(stored)
    if found is None or not password.isascii() or int(found[1]) > _MOST_ITERATIONS:
        return None  # beyond ASCII the password is normalised first (SASLprep)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(found[2]), int(found[1]))
    key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return hmac.compare_digest(key, base64.b64decode(found[3]))


# -------------------------------------------------------------------------------------------------------------- helpers


@functools.cache
def _pq() -> Any:
    from psycopg import pq

    return pq


@functools.cache
def _libpq() -> ctypes.CDLL:
    """The libpq that psycopg's extension module is linked with.

    PQsetErrorVerbosity psycopg does not wrap; without it a refused login has no SQLSTATE, only a text in the server's
    language. During the others psycopg keeps the interpreter to itself, though they hash for milliseconds (SCRAM);
    ctypes lets other threads go on.
    """
    _pq()  # psycopg_binary insists on coming after psycopg
    try:
        library = ctypes.CDLL(str(importlib.import_module("psycopg_binary.pq").__file__))
        library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
        library.PQconnectPoll.argtypes = [ctypes.c_void_p]
        library.PQencryptPasswordConn.argtypes = [ctypes.c_void_p, *[ctypes.c_char_p] * 3]
        library.PQencryptPasswordConn.restype = ctypes.c_void_p
        library.PQfreemem.argtypes = [ctypes.c_void_p]
    except (ImportError, OSError, AttributeError):
        raise ConfigurationInvalid(
            "PostgreSQL cannot be used", why="psycopg has no binary part", next="pip install 'psycopg[binary]'"
        ) from None
    return library


def _ready(descriptor: int, event: int, until_s: float) -> bool:
    left_s = until_s - time.monotonic()
    return left_s > 0 and _polled(descriptor, event, left_s * 1000)


def _polled(descriptor: int, event: int, wait_ms: float) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, event)
    return bool(waiting.poll(wait_ms))


def _rows(result: PGresult) -> list[Row]:
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    return [
        {name: _text(result.get_value(row, column)) for column, name in enumerate(names)}
        for row in range(result.ntuples)
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _clean(value: str) -> bytes:
    """C strings end at NUL: a password cut short there would be another password."""
    if "\0" in value:
        raise BackendError("a value for PostgreSQL holds a NUL character")
    return value.encode()


def _conninfo_value(value: str) -> bytes:
    return _clean(value).replace(b"\\", b"\\\\").replace(b"'", b"\\'")


def _system_authorities() -> str:
    return next((path for path in _BUNDLES if os.path.exists(path)), "system")
