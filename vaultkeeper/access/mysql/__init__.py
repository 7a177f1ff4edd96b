"""MySQL and MariaDB through PyMySQL: log in, run statements, tell failures apart.

PyMySQL's texts never leave this file: a syntax error quotes the statement. It is imported on first use.
https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html and
https://mariadb.com/kb/en/mariadb-error-code-reference/
"""

from __future__ import annotations

import re
import select
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Self, cast

from vaultkeeper.access.address import Address
from vaultkeeper.access.mysql.wire import Limit, Methods, reached, trust
from vaultkeeper.errors import BackendError

Row = tuple[Any, ...]

LONGEST_ENCRYPTED = 213
"""Bytes of a password that a client can say without TLS: RSA of 2048 bits takes them and a NUL."""

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_OF_MARIADB = "5.5.5-"  # before its version, in every handshake up to 10.x, for the sake of old replicas
_BROKEN = (OSError, EOFError, struct.error, IndexError, ValueError, RuntimeError)
"""What PyMySQL raises on a torn or senseless packet, beside its own errors."""


class Denial(Enum):
    """Why a login did not come about."""

    REJECTED = "rejected"  #: this name with this password, definitely
    UNREACHABLE = "unreachable"  #: also full, starting, shutting down
    THROTTLED = "throttled"  #: the account or our address is blocked for a while, whatever the password
    CONFIGURATION = "configuration"  #: TLS, an expired password, no such method: waiting will not help


class LoginFailed(BackendError):
    """A connection could not be made. PyMySQL's text is not in it."""

    def __init__(self, denial: Denial, what: str, *, why: str = "", next: str = "") -> None:  # noqa: A002
        super().__init__(what, why=why, next=next)
        self.denial = denial


class StatementFailed(BackendError):
    """The server refused a statement, and it changed nothing. `number`: of the server's error reference."""

    def __init__(self, number: int) -> None:
        super().__init__("the server refused a statement", why=f"error {number}")
        self.number = number


class ReplyLost(BackendError):
    """The connection ended or the deadline passed before the answer came: it may have been done or not."""

    def __init__(self) -> None:
        super().__init__("the connection ended before the server answered")


class Session:
    """One open connection. Not for several threads."""

    def __init__(self, connection: Any, limit: Limit, *, tls: bool) -> None:
        self._connection = connection
        self._limit = limit
        self.encrypted = tls
        self.is_mariadb = _is_mariadb(connection)
        found = _VERSION.search(str(connection.get_server_info()).removeprefix(_OF_MARIADB))
        self.version = tuple(int(part) for part in found.groups()) if found else (0, 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Idempotent."""
        if self._connection.open:
            self._connection.close()

    @property
    def idle(self) -> bool:
        return bool(self._connection.open)

    @property
    def left_s(self) -> float:
        """Until the deadline, at least a millisecond."""
        return max(self._limit.until_s - time.monotonic(), 0.001)

    @property
    def release(self) -> str:
        return ".".join(map(str, self.version))

    def renew(self, until_s: float) -> bool:
        """Give it another deadline. False: the server ended it or has something to say, so use another one."""
        self._limit.renew(until_s)
        waiting = select.poll()
        waiting.register(self._connection._sock, select.POLLIN)  # noqa: SLF001 - no other way to its descriptor
        return not waiting.poll(0)

    def literal(self, text: str) -> str:
        """As a string literal, whatever the session's sql_mode says of backslashes."""
        return str(self._connection.escape(text))

    def literals(self, texts: Sequence[str]) -> str:
        return ", ".join(map(self.literal, texts))

    def rows(self, sql: str) -> Sequence[Row]:
        """Run one statement. Raises StatementFailed or ReplyLost."""
        import pymysql

        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql)
                return tuple(cursor.fetchall())
        except pymysql.MySQLError as error:
            number = _number(error)
            if _is_the_servers(number) and number not in _INTERRUPTED:
                raise StatementFailed(number) from None
            raise ReplyLost from None
        except _BROKEN:
            raise ReplyLost from None


def connect(
    address: Address, *, username: str, password: str, until_s: float, prepare: Callable[[bool], str] | None = None
) -> Session:
    """Log in once, without fallback of any kind. `until_s`: on the monotonic clock, also for every later statement.

    `prepare`: the statement that comes first, told whether it is a MariaDB; None for a login that runs nothing.
    Raises LoginFailed. Option files have no effect.
    """
    import pymysql
    from pymysql.connections import Connection

    limit, secret = Limit(until_s), password.encode()  # text would go out as latin-1, and clients say UTF-8
    connection: Any = Connection(
        host="localhost" if address.is_socket else address.host,
        port=address.port,
        user=username,
        password=secret,
        charset="utf8mb4",
        autocommit=None,
        defer_connect=True,
        program_name="vaultkeeper",
        auth_plugin_map=cast("Any", Methods(secret)),
        ssl=_trusted(address, limit) if address.tls else None,
        ssl_disabled=not address.tls,
    )
    if prepare is None:
        connection.set_character_set = lambda *_: None  # it would be a statement, and the handshake says it too
    connection._secure = address.is_socket  # noqa: SLF001 - what it sets where it connects itself
    try:
        connection.connect(reached(address, limit))
        session = Session(connection, limit, tls=address.tls)
        if prepare is not None:
            session.rows(prepare(session.is_mariadb))
        return session
    except pymysql.MySQLError as error:
        raise _login_failure(error, address, username, is_mariadb=_is_mariadb(connection)) from None
    except StatementFailed as error:
        connection.close()
        raise _denied(error.number, address, username, is_mariadb=_is_mariadb(connection)) from None
    except (*_BROKEN, ReplyLost) as error:
        if isinstance(error, ValueError) and len(secret) > LONGEST_ENCRYPTED and not (address.tls or address.is_socket):
            raise LoginFailed(
                Denial.CONFIGURATION,
                f"the server at {address} cannot be used by {username}",
                why="its password is longer than what is encrypted without TLS",
                next="say tls: {ca: PATH}, or a Unix socket as the host",
            ) from None
        raise LoginFailed(Denial.UNREACHABLE, f"the server at {address} cannot be reached") from None


def _trusted(address: Address, limit: Limit) -> ssl.SSLContext:
    try:
        return trust(address, limit)
    except OSError:
        raise LoginFailed(
            Denial.CONFIGURATION,
            f"no authority can be read from {address.ca}",
            next="name a PEM file in tls: {ca: PATH}",
        ) from None


# -------------------------------------------------------------------------------------------------------------- errors

_INTERRUPTED = {1053, 1317, 1927}  # shutdown, KILL: perhaps after it was done
_REJECTED = {1045, 1698}
_LOCKED, _LOCKED_AT_MARIADB = 3118, 4151
_EXPIRED = {1820, 1862}
_BLOCKED = {
    1129: ("max_connect_errors: too many broken connections from this machine", "FLUSH HOSTS"),
    1226: ("MAX_CONNECTIONS_PER_HOUR or another limit of the account is used up", "wait, or raise the limit"),
    3955: ("FAILED_LOGIN_ATTEMPTS: the account is locked for a while", "wait, or ALTER USER … ACCOUNT UNLOCK"),
    4150: ("max_password_errors: the account is blocked", "FLUSH PRIVILEGES"),
}
_UNUSABLE = {
    1130: ("no account of this server may log in from this machine", "give the account a host that fits: `%` is any"),
    1251: ("the account's method of authentication is too old", "ALTER USER … IDENTIFIED BY"),
    1275: ("the account's method of authentication is too old", "ALTER USER … IDENTIFIED BY"),
    1524: ("the account's method of authentication is not loaded at the server", "INSTALL PLUGIN, or another method"),
    2026: ("it offers no TLS", "turn TLS on at the server; there is no fallback"),
    3159: ("it takes logins over TLS only", "say tls: {ca: PATH}"),
}


def _login_failure(error: BaseException, address: Address, username: str, *, is_mariadb: bool) -> LoginFailed:
    """What PyMySQL's error means. Its text is dropped."""
    cause = getattr(error, "original_exception", None)
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return LoginFailed(
            Denial.CONFIGURATION,
            f"no verified TLS connection to the server at {address}",
            why="its certificate is not for this name, expired, or of another authority",
            next="name its authority with tls: {ca: PATH}; there is no fallback",
        )
    return _denied(_number(error), address, username, is_mariadb=is_mariadb)


def _denied(number: int, address: Address, username: str, *, is_mariadb: bool) -> LoginFailed:
    where = f"the server at {address}"
    if number in _REJECTED:
        return LoginFailed(Denial.REJECTED, f"{where} rejected the password of {username}")
    if number == (_LOCKED_AT_MARIADB if is_mariadb else _LOCKED):
        return LoginFailed(Denial.REJECTED, f"{where} does not let {username} log in", why="the account is locked")
    if number in _EXPIRED:
        return LoginFailed(
            Denial.CONFIGURATION,
            f"{where} lets {username} do nothing but change its password",
            why="the password has expired",
            next="ALTER USER … PASSWORD EXPIRE NEVER, or have an admin change it",
        )
    if number in _BLOCKED:
        why, following = _BLOCKED[number]
        return LoginFailed(Denial.THROTTLED, f"{where} takes no login of {username} now", why=why, next=following)
    if number in _UNUSABLE:
        why, following = _UNUSABLE[number]
        return LoginFailed(Denial.CONFIGURATION, f"{where} cannot be used by {username}", why=why, next=following)
    if _is_the_servers(number):
        return LoginFailed(Denial.UNREACHABLE, f"{where} takes no login now", why=f"error {number}")
    return LoginFailed(Denial.UNREACHABLE, f"{where} cannot be reached")


def _is_the_servers(number: int) -> bool:
    return 1000 <= number < 2000 or number >= 3000  # between them are the client's own


def _number(error: BaseException) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _is_mariadb(connection: Any) -> bool:
    return "mariadb" in str(getattr(connection, "server_version", "")).lower()
