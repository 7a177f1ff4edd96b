"""MySQL accounts, version 8.0.14 and newer: two slots for passwords, or two users that take turns (from 8.0.0 on).

Written after the manual of 8.4, tried on 9.7.4; the tests of every run use the simulator in `vaultkeeper.testing`.

A new password is said by `IDENTIFIED BY … RETAIN CURRENT PASSWORD`, over TLS or on this machine only: the manual's
grammar has no hash there. The server rewrites it in its logs, unless `log_raw` is on. Retiring is DISCARD OLD
PASSWORD; going back, and all of alternating users, is said as hashes, which `password_history` does not judge.

RETAIN is not safe to repeat, so the slots are read first, under an advisory lock, and changed only where they differ
(access/mysql/slots.py). A second password that is not ours is left, and there is no room then. What the server accepts
is compared by its stored forms, so that observing costs no login.

Privileges of the admin account: CREATE USER ON *.* and SELECT ON mysql.user; PROCESS ON *.* to see sessions,
CONNECTION_ADMIN ON *.* to end them; SYSTEM_USER ON *.* where the account has it. With `admin: self`: none for
`strategy: single`; APPLICATION_PASSWORD_ADMIN ON *.* and SELECT ON mysql.user for `overlap`.
https://dev.mysql.com/doc/refman/8.4/en/alter-user.html and password-management.html#dual-passwords
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import ClassVar, Self

from pydantic import model_validator

from vaultkeeper.access import accounts
from vaultkeeper.access.mysql import LONGEST_ENCRYPTED, Session, advice, hashes, people, slots
from vaultkeeper.access.mysql import target as shared
from vaultkeeper.access.mysql.people import Account
from vaultkeeper.access.mysql.settings import AccountSettings
from vaultkeeper.access.mysql.slots import Credential, Move, Stored
from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused, Result, Unknown
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Capabilities, Context

LONGEST_NAME = 32
_OWN = ("APPLICATION_PASSWORD_ADMIN", "*.*")


class MysqlSettings(AccountSettings):
    """What a policy says beside `kind: mysql`."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.user is not None and self.is_exposed:
            raise ValueError("`tls: off` would send a new password readable over the network: give tls: {ca: PATH}")
        if any(len(name) > LONGEST_NAME for name in self.accounts):
            raise ValueError(f"a user name of MySQL has at most {LONGEST_NAME} characters")
        return self


class MysqlTarget(shared.Accounts):
    """Accounts of one server."""

    kind: ClassVar[str] = "mysql"
    codec: ClassVar[int] = 1
    is_mariadb: ClassVar[bool] = False
    kills: ClassVar[str] = "CONNECTION_ADMIN"
    Settings: ClassVar[type[MysqlSettings]] = MysqlSettings
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.OVERLAP, Strategy.ALTERNATING_USERS, Strategy.SINGLE}),
        observes=frozenset({Basis.LISTING, Basis.LOGIN}),
        max_accepted=2,
        tells_lockouts=True,
        forbidden=shared.CONTROL_CHARACTERS,
        max_bytes=LONGEST_ENCRYPTED,  # with TLS it would be 255; some consumer may have none
    )

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of mysql have codec {codec}, this release knows {cls.codec}")
        return cls(MysqlSettings.model_validate(settings))

    @classmethod
    def doctor_sql(cls, settings: Mapping[str, object]) -> str:
        """The statements that make a least-privilege admin account for these settings, for root to run."""
        return advice.doctor_sql(MysqlSettings.model_validate(settings), slots.READING[1], cls.kills)

    # --------------------------------------------------------------------------------------------------------- looking

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Adds `username`, and `verifier` with a salt of its own; a verifier of another password is replaced."""
        fields = super().complete(given, ctx, adopting=adopting)
        value = shared.password(fields).encode()
        kept = fields["verifier"].text() if "verifier" in fields else ""
        verifier = kept if hashes.matches_sha2(kept, value) else hashes.sha2(value)
        return {**fields, "verifier": SecretBytes(verifier.encode())}

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By the stored forms. With `admin: self`, and where they take too long to compare, the engine logs in."""
        if self._is_self:
            return Observation({}, Basis.LOGIN)
        ours = {version.number: _credential(version) for version in candidates}
        following = accounts.next_one(self.settings, ctx)
        rows = [row for name in self.settings.accounts for row in self._rows_of(name)]
        try:
            with self._session(ctx) as session:
                found = slots.read(session, self.settings.accounts)
                [(flush,)] = session.rows("SELECT @@innodb_flush_log_at_trx_commit")
        except BackendError as error:
            return shared.unknown(error)
        there = [found[row] for row in rows if row in found]
        usable = any(stored.usable for stored in there if stored.account.name == following)
        answers = {v.number: self._answer(v, ours[v.number], found) for v in candidates}
        if None in answers.values():
            return Observation({}, Basis.LOGIN, durable=flush == 1, account_usable=usable)
        known = list(ours.values())
        strangers = [held for one in there for held in slots.slots_of(one, known) if isinstance(held, str)]
        logins = {number: Login.ACCEPTED if yes else Login.REJECTED for number, yes in answers.items()}
        return Observation(logins, Basis.LISTING, foreign=len(strangers), durable=flush == 1, account_usable=usable)

    def _answer(self, version: SecretVersion, credential: Credential, found: Mapping[Account, Stored]) -> bool | None:
        """Accepted is what every row of the account accepts: consumers come from any of its hosts."""
        rows = [found.get(row) for row in self._rows_of(shared.username(version))]
        said = [stored.accepts(credential) if stored is not None else False for stored in rows]
        return False if False in said else None if None in said else True

    def _findings(self, session: Session, ctx: Context) -> Iterator[Finding]:
        yield from advice.about_server(session, self.settings)
        may = people.grants(session)
        if self._is_self:
            for privilege, level in (_OWN, slots.READING):
                if not may.has(privilege, level):
                    text = f"{may.grantee} lacks {privilege} ON {level}: one password at a time (strategy: single)"
                    yield Finding("warn", text, may.statement(privilege, level=level))
            return
        yield from self._privileges(session, slots.CHANGING, slots.READING)
        if may.has(*slots.READING):
            known = [_credential(v) for v in (ctx.pending, ctx.current) if v is not None]
            yield from advice.about_accounts(session, self.settings, known)

    # --------------------------------------------------------------------------------------------------------- writing

    def _set(self, session: Session, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion]) -> Result:
        """For each user as few statements as can do it, each for all its hosts; none where it is so already."""
        names = list(dict.fromkeys(map(shared.username, (*accept, *refuse))))
        found = slots.read(session, names)
        statements: list[str] = []
        for name in names:
            accepted = [_credential(v) for v in accept if shared.username(v) == name]
            refused = [_credential(v) for v in refuse if shared.username(v) == name]
            unfit = self._unfit(name, found) if accepted else None
            if unfit:
                return unfit
            there = [found[row] for row in self._rows_of(name) if row in found]
            made = self._statements(session, there, accepted, refused)
            if isinstance(made, Refused):
                return made
            statements += made
        for statement in statements:
            people.asked(session, statement, *slots.CHANGING)
        return Done()

    def _unfit(self, name: str, found: Mapping[Account, Stored]) -> Refused | None:
        """Why this account can be made to accept nothing."""
        for row in self._rows_of(name):
            stored = found.get(row)
            if stored is None:
                return Refused(No.UNSUPPORTED, f"the account {row} does not exist")
            if stored.plugin not in slots.PLUGINS:
                return Refused(No.UNSUPPORTED, f"{row} logs in by {stored.plugin}, which keeps no password here")
            if stored.locked and self.settings.users is None:
                return Refused(No.UNSUPPORTED, f"{row} is locked: ALTER USER {row} ACCOUNT UNLOCK")
            if stored.is_open:
                return Refused(No.UNCHECKED, f"{row} lets in whoever gives no password; see `check`")
        return None

    def _statements(
        self, session: Session, there: Sequence[Stored], accept: Sequence[Credential], refuse: Sequence[Credential],
        *, own: bool = False,
    ) -> list[str] | Refused:  # fmt: skip
        """ALTER USER for all hosts of one user, or why there is no way. A locked account forgets what it had."""
        ours = list({one.password: one for one in (*accept, *refuse)}.values())
        wanted = [number for number, one in enumerate(ours) if one.password in {kept.password for kept in accept}]
        gone = [number for number in range(len(ours)) if number not in wanted]
        room = 2 if session.version >= slots.SLOTS_SINCE else 1
        ways: list[list[Move]] = []
        for stored in there:
            forgets = stored.locked and bool(wanted)
            way = slots.moves(slots.slots_of(stored, ours), wanted, gone, room=room, forgets=forgets)
            if way is None or (own and any(isinstance(move.to, str) for move in way)):
                return Refused(No.CAPACITY, self._no_room(stored, room))
            ways.append(way)
        if self.settings.is_exposed and any(move.retain for way in ways for move in way):
            return Refused(
                No.UNSUPPORTED, "beside a password that is not ours a new one is said readable: it needs TLS"
            )
        unlock = bool(wanted) and any(stored.locked for stored in there)
        steps = list(zip_longest(*ways)) or ([(None,) * len(there)] if unlock else [])
        statements = []
        for number, step in enumerate(steps, 1):
            opens = unlock and number == len(steps)
            parts = [
                slots.spelt(session, one, move, ours, own=own) if move else slots.named(session, one)
                for one, move in zip(there, step, strict=True)
                if move or opens
            ]
            statements.append(f"ALTER USER {', '.join(parts)}" + (" ACCOUNT UNLOCK" if opens else ""))
        return statements

    def _no_room(self, stored: Stored, room: int) -> str:
        if room == 1:
            return f"{stored.account} holds one password before MySQL 8.0.14, and it is not ours"
        following = f"where nobody uses it: ALTER USER {stored.account} DISCARD OLD PASSWORD"
        return f"{stored.account} holds a password that is not ours, and there are two slots only; {following}"

    def _set_own(
        self, session: Session, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context
    ) -> Result:
        """By USER(). Where the slots cannot be read, who could log in tells what the account accepts."""
        may = people.grants(session)
        accepted, refused = [_credential(v) for v in accept], [_credential(v) for v in refuse]
        if may.has(*slots.READING):
            stored = slots.read(session, [may.grantee.name]).get(may.grantee)
            made = self._statements(session, [stored] if stored else [], accepted, refused, own=True)
            if isinstance(made, Refused):
                return made
            for statement in made:
                people.asked(session, statement, *_OWN)
            return Done()
        if len({one.password for one in accepted}) != 1:
            needs = "; ".join(may.statement(privilege, level=level) for privilege, level in (_OWN, slots.READING))
            return Refused(No.PRIVILEGE, f"two passwords side by side with `admin: self` need: {needs}")
        if self.test(accept[0], ctx) is not Login.ACCEPTED:
            session.rows(f"ALTER USER USER() IDENTIFIED BY {session.literal(shared.password(accept[0].fields))}")
        return Done()


def _credential(version: SecretVersion) -> Credential:
    return Credential(shared.password(version.fields).encode(), version.fields["verifier"].text())
