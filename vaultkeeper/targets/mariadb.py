"""MariaDB accounts, version 10.4.3 and newer: old and new password side by side, or two users that take turns.

An account has a list of methods, `IDENTIFIED VIA mysql_native_password USING '<new>' OR mysql_native_password USING
'<old>'`, which one ALTER USER replaces: saying it twice changes nothing. The server is sent hashes that are made
here, never a password. Methods that are not ours stay, behind ours (access/mariadb/methods.py says why).

What the server accepts is read and compared, so that observing costs no login. Grant tables are Aria's: each ALTER
USER is on the disk when it answers. There is no place for a tag, so a restored store is noticed by its hashes only.

Privileges of the admin account: CREATE USER ON *.* and SELECT ON mysql.global_priv; PROCESS ON *.* to see sessions,
CONNECTION ADMIN ON *.* to end them. CREATE USER can change every account, the root's too. With `admin: self` none, and
then one password at a time (`strategy: single`), by SET PASSWORD.
https://mariadb.com/kb/en/alter-user/, /authentication-from-mariadb-104/, /mysqlglobal_priv-table/, /set-password/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Self

from vaultkeeper.access import accounts
from vaultkeeper.access.mariadb import advice, methods
from vaultkeeper.access.mariadb.methods import Credential, Stored
from vaultkeeper.access.mysql import Session, hashes, people
from vaultkeeper.access.mysql import advice as common
from vaultkeeper.access.mysql import target as shared
from vaultkeeper.access.mysql.people import Account
from vaultkeeper.access.mysql.settings import AccountSettings
from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused, Result, Unknown
from vaultkeeper.model.secret import SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context


class MariadbSettings(AccountSettings):
    """What a policy says beside `kind: mariadb`."""


class MariadbTarget(shared.Accounts):
    """Accounts of one server."""

    kind: ClassVar[str] = "mariadb"
    codec: ClassVar[int] = 1
    is_mariadb: ClassVar[bool] = True
    kills: ClassVar[str] = "CONNECTION ADMIN"
    Settings: ClassVar[type[MariadbSettings]] = MariadbSettings
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.OVERLAP, Strategy.ALTERNATING_USERS, Strategy.SINGLE}),
        observes=frozenset({Basis.LISTING, Basis.LOGIN}),
        max_accepted=None,
        tells_lockouts=True,
        forbidden=shared.CONTROL_CHARACTERS,
        max_bytes=shared.MAX_BYTES,
    )

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of mariadb have codec {codec}, this release knows {cls.codec}")
        return cls(MariadbSettings.model_validate(settings))

    @classmethod
    def doctor_sql(cls, settings: Mapping[str, object]) -> str:
        """The statements that make a least-privilege admin account for these settings, for root to run."""
        return common.doctor_sql(MariadbSettings.model_validate(settings), methods.READING[1], cls.kills)

    # --------------------------------------------------------------------------------------------------------- looking

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By the stored hashes. With `admin: self` the engine logs in."""
        if self._is_self:
            return Observation({}, Basis.LOGIN)
        ours = {version.number: _credential(version) for version in candidates}
        following = accounts.next_one(self.settings, ctx)
        rows = [row for name in self.settings.accounts for row in self._rows_of(name)]
        try:
            with self._session(ctx) as session:
                found = methods.read(session, self.settings.accounts)
                [(group_commit,)] = session.rows("SELECT @@aria_group_commit")
        except BackendError as error:
            return shared.unknown(error)
        there = [found[row] for row in rows if row in found]
        return Observation(
            {v.number: self._answer(v, ours[v.number], found) for v in candidates},
            Basis.LISTING,
            foreign=sum(len(stored.foreign(list(ours.values()))) for stored in there),
            durable=group_commit != "soft",
            account_usable=any(stored.usable for stored in there if stored.account.name == following),
        )

    def _answer(self, version: SecretVersion, credential: Credential, found: Mapping[Account, Stored]) -> Login:
        """Accepted is what every row of the account accepts: consumers come from any of its hosts."""
        rows = [found.get(row) for row in self._rows_of(shared.username(version))]
        fits = all(stored is not None and stored.accepts(credential) for stored in rows)
        return Login.ACCEPTED if fits else Login.REJECTED

    def _findings(self, session: Session, ctx: Context) -> Iterator[Finding]:
        known = [_credential(v) for v in (ctx.pending, ctx.current) if v is not None]
        yield from advice.about_server(session, self.settings)
        if self._is_self:
            yield from advice.about_own(session, known)
            return
        yield from self._privileges(session, methods.CHANGING, methods.READING)
        if people.grants(session).has(*methods.READING):
            yield from advice.about_accounts(session, self.settings, known)

    # --------------------------------------------------------------------------------------------------------- writing

    def _set(self, session: Session, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion]) -> Result:
        """One statement for each user: first what accepts, then what only refuses."""
        names = list(dict.fromkeys(map(shared.username, (*accept, *refuse))))
        found = methods.read(session, names)
        statements: list[str] = []
        for name in names:
            accepted = [_credential(v) for v in accept if shared.username(v) == name]
            refused = [_credential(v) for v in refuse if shared.username(v) == name]
            unfit = self._unfit(name, found) if accepted else None
            if unfit:
                return unfit
            there = [found[row] for row in self._rows_of(name) if row in found]
            lists = [(stored, methods.wanted(stored, accepted, refused)) for stored in there]
            unlock = bool(accepted) and any(stored.locked for stored in there)
            changed = [(one.account, after) for one, after in lists if after != one.methods or (unlock and one.locked)]
            statements += [methods.statement(session, changed, unlock=unlock)] if changed else []
        for statement in statements:
            people.asked(session, statement, *methods.CHANGING)
        return Done()

    def _unfit(self, name: str, found: Mapping[Account, Stored]) -> Refused | None:
        """Why this account can be made to accept nothing."""
        for row in self._rows_of(name):
            stored = found.get(row)
            if stored is None:
                return Refused(No.UNSUPPORTED, f"the account {row} does not exist")
            if stored.locked and self.settings.users is None:
                text = f"{stored.account} is locked: ALTER USER {stored.account} ACCOUNT UNLOCK"
                return Refused(No.UNSUPPORTED, text)
            if not stored.locked and any(method.is_open for method in stored.methods):
                return Refused(No.UNCHECKED, f"{stored.account} lets in whoever gives no password; see `check`")
        return None

    def _set_own(
        self, session: Session, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context
    ) -> Result:
        """SET PASSWORD, which replaces the first password of the list and is granted to everybody."""
        wanted = list(dict.fromkeys(_credential(v).method for v in accept))
        gone = [_credential(v).method for v in refuse]
        there = methods.read_own(session)
        left = [method for method in there if method in gone and method not in wanted]
        if all(method in there for method in wanted) and not left:
            return Done()
        if len(wanted) != 1:
            text = "with `admin: self` an account has one password at a time: say strategy: single"
            return Refused(No.UNSUPPORTED, text)
        first = next((method for method in there if method.plugin == hashes.NATIVE), None)
        ours = [_credential(v).method for v in (*refuse, ctx.pending, ctx.current) if v is not None]
        if first not in ours or any(method != first for method in left):
            text = f"SET PASSWORD changes the first password of {self.settings.user}, which is not ours"
            return Refused(No.CAPACITY, f"{text}: name an admin instead of `admin: self`")
        session.rows(f"SET PASSWORD = {session.literal(wanted[0].text)}")
        return Done()


def _credential(version: SecretVersion) -> Credential:
    return Credential(shared.password(version.fields).encode())
