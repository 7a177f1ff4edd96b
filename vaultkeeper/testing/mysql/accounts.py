"""CREATE, ALTER and DROP USER, GRANT and REVOKE, as 15.7.1 and 8.2.15 of the manual have them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

from vaultkeeper.testing.mysql.hashes import NATIVE, SHA2, fits, is_stored_form, stored_form
from vaultkeeper.testing.mysql.state import Account, Connection, SqlError, State
from vaultkeeper.testing.mysql.words import Words, syntax_error

DUAL_SINCE = (8, 0, 14)  # 8.2.15: "Dual Password Support"
NATIVE_UNTIL = (8, 4)  # loaded by itself (8.4.1.1)
_LOCK = {"LOCK": True, "UNLOCK": False}
_RESETTING = {("FAILED_LOGIN_ATTEMPTS",), ("PASSWORD_LOCK_TIME",)}


def denied(privilege: str) -> SqlError:
    """What a missing global privilege is answered with."""
    text = f"Access denied; you need (at least one of) the {privilege} privilege(s) for this operation"
    return SqlError(1227, "42000", text)


@dataclass
class Change:
    """One auth_option of 15.7.1.1: what becomes of one account's passwords."""

    by: str | None = None
    plugin: str | None = None
    form: str | None = None
    retain: bool = False
    discard: bool = False


class AccountStatements:
    """Statements that change accounts. A statement with several accounts is atomic (15.1.1)."""

    def __init__(self, state: State) -> None:
        self._state = state

    def create(self, words: Words, me: Connection) -> None:
        self._needs(me, "CREATE USER")
        words.skip("IF", "NOT", "EXISTS")
        made: list[Account] = []

        def one() -> None:
            name, host = words.account()
            account = Account(name, host)
            if self._state.account(name, host):
                raise SqlError(1396, "HY000", f"Operation CREATE USER failed for '{name}'@'{host}'")
            self._apply(account, self._auth_option(words), me)
            made.append(account)

        words.separated(one)
        self._options(words, made)
        self._state.accounts += made

    def alter(self, words: Words, me: Connection) -> None:
        words.skip("IF", "EXISTS")
        before = [(account, deepcopy(vars(account))) for account in self._state.accounts]
        try:
            self._alter(words, me)
        except SqlError:
            for account, kept in before:
                vars(account).update(kept)
            raise

    def _alter(self, words: Words, me: Connection) -> None:
        changed: list[Account] = []

        def one() -> None:
            own = words.skip("USER", "(", ")")
            name, host = (me.account.name, me.account.host) if own else words.account()
            account = self._state.account(name, host)
            if not own:
                self._needs(me, "CREATE USER")
            if account is None:
                raise SqlError(1396, "HY000", f"Operation ALTER USER failed for '{name}'@'{host}'")
            if account.may("SYSTEM_USER") and not me.account.may("SYSTEM_USER"):
                raise denied("SYSTEM_USER")  # 8.2.11, "Account Categories"
            change = self._auth_option(words)
            if own and (change.form is not None or change.plugin):
                raise syntax_error()  # user_func_auth_option knows BY and DISCARD only
            if own and (change.retain or change.discard) and not me.account.may("CREATE USER"):
                self._needs(me, "APPLICATION_PASSWORD_ADMIN")
            if own and account.says_current and change.by is not None and not me.account.may("CREATE USER"):
                raise SqlError(3892, "HY000", "Current password needs to be specified in the REPLACE clause")
            self._apply(account, change, me)
            changed.append(account)

        words.separated(one)
        self._options(words, changed)

    def drop(self, words: Words, me: Connection) -> None:
        self._needs(me, "CREATE USER")
        words.skip("IF", "EXISTS")

        def one() -> None:
            name, host = words.account()
            self._state.accounts = [a for a in self._state.accounts if (a.name, a.host) != (name, host)]

        words.separated(one)

    def grant(self, words: Words, me: Connection, *, revoke: bool) -> None:
        if not me.account.may("ALL PRIVILEGES"):
            raise SqlError(1045, "28000", "Access denied")
        privileges: list[str] = []

        def one() -> None:
            said = words.take("word")
            while not words.over and not (words.next_is(",") or words.next_is("ON")):
                said += " " + words.take("word")
            privileges.append("ALL PRIVILEGES" if said.upper() == "ALL" else said.upper())

        words.separated(one)
        words.demand("ON")
        level = ""
        while not (words.over or words.next_is("TO") or words.next_is("FROM")):
            level += words.take("mark", "word", "name")
        words.demand("FROM" if revoke else "TO")
        account = self._state.account(*words.account())
        if account is None:
            raise SqlError(1410, "42000", "You are not allowed to create a user with GRANT")
        pairs = {(level, privilege) for privilege in privileges}
        account.grants = account.grants - pairs if revoke else account.grants | pairs

    # ------------------------------------------------------------------------------------------------------- passwords

    def _auth_option(self, words: Words) -> Change:
        if words.skip("DISCARD", "OLD", "PASSWORD"):
            self._dual()
            return Change(discard=True)
        if not words.skip("IDENTIFIED"):
            return Change()
        change = Change()
        if words.skip("WITH"):
            change.plugin = words.take("word", "text", "name")
            if words.skip("AS"):
                change.form = words.literal()  # with RETAIN too, which 15.7.1.1 does not say and replicas are told
        if change.form is None and words.skip("BY"):
            change.by = words.literal()
        if (change.by, change.form) != (None, None) and words.skip("RETAIN", "CURRENT", "PASSWORD"):
            self._dual()
            change.retain = True
        return change

    def _dual(self) -> None:
        if self._state.number < DUAL_SINCE:
            raise syntax_error()

    def _apply(self, account: Account, change: Change, me: Connection) -> None:
        """8.2.15: RETAIN saves the primary as second, dropping what was there; without it the second stays as it is.

        A new plugin drops the second password; an empty one cannot be retained, and empties both.
        """
        if change.discard:
            account.secondary = ""
            return
        if change.by is None and change.form is None:
            account.plugin = change.plugin or account.plugin
            return
        plugin = change.plugin or account.plugin
        if plugin not in ({SHA2} if self._state.number >= NATIVE_UNTIL else {SHA2, NATIVE}):
            raise SqlError(1524, "HY000", f"Plugin '{plugin}' is not loaded")
        if change.retain and plugin != account.plugin:
            raise SqlError(3894, "HY000", "Current password can not be retained while changing authentication plugin")
        if change.retain and not account.primary:
            raise SqlError(3878, "HY000", "Empty password can not be retained as second password")
        if change.retain and not (change.by or change.form):
            raise SqlError(3895, "HY000", "Current password can not be retained because new password is empty.")
        form = self._form(account, plugin, change)
        if plugin != account.plugin:
            account.secondary = ""
        if change.retain:
            account.secondary = account.primary
        if not form:
            account.secondary = ""
        account.plugin, account.primary, account.expired = plugin, form, False
        account.cached = {}  # 8.4.1.2: a changed password leaves the cache
        account.past.insert(0, form)

    def _form(self, account: Account, plugin: str, change: Change) -> str:
        """Rules judge passwords, not stored forms (8.2.15 "Password Reuse Policy", 8.4.3)."""
        if change.form is not None:
            if change.form and not is_stored_form(plugin, change.form):
                raise SqlError(1827, "HY000", "The password hash doesn't have the expected format.")
            return change.form
        password = (change.by or "").encode()
        history = self._state.globals["password_history"] if account.history is None else account.history
        if any(fits(plugin, form, password) for form in account.past[:history]):
            raise SqlError(
                3638, "HY000", "Cannot use these credentials because they contradict the password history policy"
            )
        if len(password) < self._state.globals["validate_password.length"]:
            raise SqlError(1819, "HY000", "Your password does not satisfy the current policy requirements")
        return stored_form(plugin, password)

    def _options(self, words: Words, accounts: list[Account]) -> None:
        """REQUIRE, PASSWORD EXPIRE, ACCOUNT LOCK and the like, which hold for every account of the statement."""
        readers: dict[tuple[str, ...], Callable[[Account, str], None]] = {
            ("REQUIRE",): lambda a, said: setattr(a, "ssl_type", {"SSL": "ANY", "NONE": ""}.get(said, said)),
            ("ACCOUNT",): lambda a, said: setattr(a, "locked", _LOCK[said]),
            ("FAILED_LOGIN_ATTEMPTS",): lambda a, said: setattr(a, "most_failures", int(said)),
            ("PASSWORD_LOCK_TIME",): lambda _account, _days: None,  # no clock passes here
            ("PASSWORD", "HISTORY"): lambda a, said: setattr(a, "history", int(said)),
        }
        while not words.over:
            if words.skip("PASSWORD", "EXPIRE"):
                never = words.skip("NEVER")
                for account in accounts:
                    account.expired = not never
                continue
            if words.skip("PASSWORD", "REQUIRE", "CURRENT"):
                says_current = not words.skip("OPTIONAL")
                for account in accounts:
                    account.says_current = says_current
                continue
            key = next((key for key in readers if words.skip(*key)), None)
            if key is None:
                raise syntax_error()
            said = words.take("word", "number").upper()
            for account in accounts:
                readers[key](account, said)
                if key in _RESETTING or (key == ("ACCOUNT",) and said == "UNLOCK"):
                    account.failures = 0  # 8.2.15, "Failed-Login Tracking"; a new password alone does not

    def _needs(self, me: Connection, privilege: str) -> None:
        if not me.account.may(privilege):
            raise denied(privilege)
        writes = me.account.may("ALL PRIVILEGES") or me.account.may("CONNECTION_ADMIN")
        if self._state.globals["read_only"] and not writes:
            text = "The MySQL server is running with the --read-only option so it cannot execute this statement"
            raise SqlError(1290, "HY000", text)
