"""The statements that the simulated server knows, and what each answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vaultkeeper.testing.mysql.accounts import AccountStatements, denied
from vaultkeeper.testing.mysql.state import Account, Connection, SqlError, State
from vaultkeeper.testing.mysql.words import Words, syntax_error

LOG_RAW_SINCE = (8, 0, 19)
USER_ATTRIBUTES_SINCE = (8, 0, 14)
_SECRET = re.compile(r"((?:BY|REPLACE)\s+)'(?:[^'\\]|''|\\.)*'", re.IGNORECASE | re.DOTALL)
_STATIC = {"ALL PRIVILEGES", "SELECT", "PROCESS", "CREATE USER"}  # 8.2.2; the others of ours are dynamic ones


def _query(text: str) -> re.Pattern[str]:
    return re.compile(rf"\s*{text.replace(' ', chr(92) + 's+')}\s*", re.DOTALL)


_ACCOUNTS = _query(
    r"SELECT User, Host, plugin, authentication_string, account_locked = 'Y', password_expired = 'Y', ssl_type, "
    r"(?P<more>NULL, NULL|User_attributes ->> '\$\.additional_password', "
    r"User_attributes ->> '\$\.Password_locking\.failed_login_attempts') "
    r"FROM mysql\.user WHERE User IN \((?P<names>.*)\)"
)
_PROCESSES = _query(
    r"SELECT ID, HOST, TIME FROM information_schema\.PROCESSLIST WHERE USER = (?P<name>'.*') "
    r"AND ID <> CONNECTION_ID\(\) AND COMMAND <> 'Killed' ORDER BY ID"
)


@dataclass(frozen=True)
class Rows:
    """A result set. Everything travels as text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def shown(statement: str, *, raw: bool) -> str:
    """As the general log has it (8.1.2.3, "Passwords and Logging"): passwords rewritten, unless log_raw; no hashes."""
    return statement if raw else _SECRET.sub(lambda found: f"{found[1]}<secret>", statement)


class Statements:
    """Carries them out, one at a time."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._accounts = AccountStatements(state)

    def run(self, statement: str, me: Connection) -> Rows | None:
        """None: OK without rows. Raises SqlError."""
        lock = re.fullmatch(r"SELECT GET_LOCK\('(?P<name>[^']*)', (?P<seconds>\d+)\)", statement)
        if lock:
            return Rows(["GET_LOCK"], [[self._get_lock(lock["name"], int(lock["seconds"]), me)]])
        with self._state.lock:
            if me.account.expired and not statement.upper().startswith(("ALTER USER", "SET ")):
                text = "You must reset your password using ALTER USER statement before executing this statement."
                raise SqlError(1820, "HY000", text)  # 8.2.16, "Server Handling of Expired Passwords"
            return self._run(statement, me)

    def _run(self, statement: str, me: Connection) -> Rows | None:
        said = statement.strip()
        words = Words(statement)
        changes: dict[tuple[str, ...], Callable[[], None]] = {
            ("CREATE", "USER"): lambda: self._accounts.create(words, me),
            ("ALTER", "USER"): lambda: self._accounts.alter(words, me),
            ("DROP", "USER"): lambda: self._accounts.drop(words, me),
            ("GRANT",): lambda: self._accounts.grant(words, me, revoke=False),
            ("REVOKE",): lambda: self._accounts.grant(words, me, revoke=True),
            ("KILL", "CONNECTION"): lambda: self._kill(int(words.take("number")), me),
            ("SET", "GLOBAL"): lambda: self._set_global(words, me),
            ("SET",): lambda: None,  # of the session: nothing here depends on it
            ("DO", "RELEASE_LOCK"): lambda: self._release(said, me),
        }
        key = next((key for key in changes if words.skip(*key)), None)
        if key is not None:
            changes[key]()
            return None
        if said.upper() == "SHOW GRANTS":
            return Rows(["Grants"], [[line] for line in _grants(me.account)])
        return self._accounts_read(said, me) or self._processes(said, me) or self._expressions(said, me)

    # --------------------------------------------------------------------------------------------------------- reading

    def _accounts_read(self, said: str, me: Connection) -> Rows | None:
        """8.2.3, "Grant Tables"; 29.12.… shows nothing of a second password, `User_attributes` does."""
        found = _ACCOUNTS.fullmatch(said)
        if found is None:
            return None
        if not me.account.may("SELECT", "mysql.user"):
            raise SqlError(1142, "42000", f"SELECT command denied to user '{me.account.name}' for table 'user'")
        attributes = found["more"] != "NULL, NULL"
        if attributes and self._state.number < USER_ATTRIBUTES_SINCE:
            raise SqlError(1054, "42S22", "Unknown column 'User_attributes' in 'field list'")
        words, names = Words(found["names"]), []
        words.separated(lambda: names.append(words.literal()))
        rows = [
            [
                one.name, one.host, one.plugin, one.primary, int(one.locked), int(one.expired), one.ssl_type,
                (one.secondary or None) if attributes else None,
                (str(one.most_failures) if one.most_failures else None) if attributes else None,
            ]
            for one in self._state.accounts
            if one.name in names
        ]  # fmt: skip
        return Rows(["User", "Host", "plugin", "authentication_string", "l", "e", "ssl_type", "a", "f"], rows)

    def _processes(self, said: str, me: Connection) -> Rows | None:
        """28.3.22: without PROCESS only one's own sessions."""
        found = _PROCESSES.fullmatch(said)
        if found is None:
            return None
        name, now = Words(found["name"]).literal(), time.monotonic()
        rows = [
            [one.id, one.origin, int(now - one.since)]
            for one in sorted(self._state.connections.values(), key=lambda one: one.id)
            if one.account.name == name and one.id != me.id
            if me.account.may("PROCESS") or one.account.name == me.account.name
        ]
        return Rows(["ID", "HOST", "TIME"], rows)

    def _expressions(self, said: str, me: Connection) -> Rows:
        """SELECT of functions and system variables (7.1.8)."""
        if not said.upper().startswith("SELECT "):
            raise syntax_error()
        values: list[object] = []
        for expression in said[len("SELECT ") :].split(", "):
            name = expression.removeprefix("@@")
            if expression == "CURRENT_USER()":
                values.append(f"{me.account.name}@{me.account.host}")
            elif expression == "CONNECTION_ID()":
                values.append(me.id)
            elif expression.isdigit():
                values.append(int(expression))
            elif name in self._state.globals and not (name == "log_raw" and self._state.number < LOG_RAW_SINCE):
                values.append(self._state.globals[name])
            else:
                raise SqlError(1193, "HY000", f"Unknown system variable '{name}'")
        return Rows([f"c{number}" for number in range(len(values))], [values])

    # ---------------------------------------------------------------------------------------------------------- acting

    def _get_lock(self, name: str, seconds: int, me: Connection) -> int:
        """14.14, "Locking Functions": 1 once it is held, 0 where the time is over."""
        until = time.monotonic() + seconds
        with self._state.released:
            while self._state.held.get(name, me.id) != me.id:
                left = until - time.monotonic()
                if left <= 0 or not self._state.released.wait(left):
                    return 0
            self._state.held[name] = me.id
            return 1

    def _release(self, said: str, me: Connection) -> None:
        name = said.partition("('")[2].partition("')")[0]
        if self._state.held.get(name) == me.id:
            del self._state.held[name]
            self._state.released.notify_all()

    def _kill(self, number: int, me: Connection) -> None:
        """15.7.8.4: CONNECTION_ADMIN, but for one's own sessions; SYSTEM_USER too for who has it (8.2.11)."""
        victim = self._state.connections.get(number)
        if victim is None:
            raise SqlError(1094, "HY000", f"Unknown thread id: {number}")
        needs = {"CONNECTION_ADMIN"} | ({"SYSTEM_USER"} if victim.account.may("SYSTEM_USER") else set())
        if victim.account.name != me.account.name and not all(map(me.account.may, needs)):
            raise SqlError(1095, "HY000", f"You are not owner of thread {number}")
        self._state.end(victim)
        victim.close()

    def _set_global(self, words: Words, me: Connection) -> None:
        if not me.account.may("SYSTEM_VARIABLES_ADMIN"):
            raise denied("SUPER or SYSTEM_VARIABLES_ADMIN")
        name = words.take("word")
        words.demand("=")
        self._state.globals[name] = int(words.take("number"))


def _grants(account: Account) -> list[str]:
    """15.7.7.22, "SHOW GRANTS": a line for each level, and one for dynamic privileges, with no space between them."""
    lines = []
    for level in sorted({level for level, _ in account.grants} | {"*.*"}):
        held = sorted(name for place, name in account.grants if place == level)
        static, dynamic = [name for name in held if name in _STATIC], [name for name in held if name not in _STATIC]
        where = ".".join(part if part == "*" else f"`{part}`" for part in level.split("."))
        if static or level == "*.*":
            lines.append(f"GRANT {', '.join(static) or 'USAGE'} ON {where} TO {account.spelt}")
        if dynamic:
            lines.append(f"GRANT {','.join(dynamic)} ON {where} TO {account.spelt}")
    return lines
