"""An account (ACL user) of Redis 6 or newer, or of Valkey: it accepts old and new side by side, so none is cut off.

Also the password of `requirepass`, which is one of the account `default`. A node is sent SHA-256 hashes and, by AUTH
alone, passwords; what it accepts is read exactly (`ACL GETUSER`); hashes that are not ours stay. Nothing is changed
before the node has saved its accounts once, and each change is saved in the same breath, or taken back: otherwise a
restart brings the old password back. Replicas, Sentinels and cluster nodes have accounts of their own, and `nodes`
names them.

Tried on Redis 7.0.15 and Valkey 8.1.1; the tests of every run use Redis.

Privileges of the admin account: acl|getuser, acl|setuser, info, client|list, config|get and acl|save; without an ACL
file acl|list and config|rewrite (at a Sentinel sentinel|flushconfig); client|kill to close sessions; acl|dryrun lets
`check` name what is missing. Whoever has acl|setuser can make itself everything else.
https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Self

from vaultkeeper.access import redis as wire
from vaultkeeper.access import refused
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.redis import acl, advice
from vaultkeeper.access.redis.connection import Address, Denial, LoginFailed
from vaultkeeper.access.redis.settings import Admin, RedisSettings
from vaultkeeper.errors import BackendError, ChecksNothing, ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused, Result, Unknown, Usage
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

MAX_BYTES = 16384
"""Of one argument of a client that has not logged in yet, since 6.2.6 ("unauthenticated bulk length", networking.c)."""


class RedisTarget:
    """One account, at every node of it."""

    kind: ClassVar[str] = "redis"
    codec: ClassVar[int] = 1
    Settings: ClassVar[type[RedisSettings]] = RedisSettings
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.OVERLAP}),
        observes=frozenset({Basis.LISTING, Basis.LOGIN}),
        max_accepted=None,
        max_bytes=MAX_BYTES,
    )

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of redis have codec {codec}, this release knows {cls.codec}")
        return cls(RedisSettings.model_validate(settings))

    def system(self) -> str:
        """Without `nodes`: a replica more is the same system."""
        return f"{self.settings.addresses[0]}/{self.settings.user}"

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return _username(version), str(self.settings.addresses[0])

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Adds `username`. Raises ConfigurationInvalid where an adopted value is another account's."""
        name = given["username"].text() if "username" in given else self.settings.user
        if name != self.settings.user:
            raise ConfigurationInvalid(
                f"the value is for {name}", why=f"the policy's user is {self.settings.user}", next="name one account"
            )
        return {**given, "username": SecretBytes(name.encode())}

    # ------------------------------------------------------------------------------------------------------ looking

    def check(self, ctx: Context) -> Sequence[Finding]:
        if self._is_self and ctx.current is None:
            return [Finding("unchecked", "with `admin: self` there is nobody to log in as before the first version")]
        return [finding for address in self.settings.addresses for finding in self._check(address, ctx)]

    def _check(self, address: Address, ctx: Context) -> list[Finding]:
        said = self.settings
        plan = advice.Plan(
            user=said.user,
            admin=self._admin_name,
            hashed=_pair(ctx.current)[1] if ctx.current is not None and ctx.pending is None else None,
            nodes=len(said.addresses),
            exposed=address.tls is None and not address.is_local,
            persisted_by=said.persisted_by,
            close_sessions=said.close_sessions,
            replication_delivered=said.replication is not None,
        )
        try:
            with self._session(address, ctx) as session:
                return advice.findings(session, plan)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what, error.next)]
        except LoginFailed as error:
            level = "unchecked" if error.denial is Denial.UNREACHABLE else "refuse"
            return [Finding(level, str(error), error.next)]
        except wire.ReplyLost as error:
            return [Finding("unchecked", str(error))]
        except (NotAuthorised, ConfigurationInvalid) as error:
            return [Finding("refuse", str(error), error.next)]

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """What every node lists. With `admin: self` and no value that logs in, the engine has to try each.

        A value that only some nodes accept is neither accepted nor refused, and has no answer; the current one before
        a rotation is a BackendError. Raises ChecksNothing for an account that takes any password.
        """
        pairs = {version.number: _pair(version) for version in candidates}
        names = [self.settings.user, *(name for name, _ in pairs.values())]
        try:
            nodes = [self._look(address, names, ctx, candidates) for address in self.settings.addresses]
        except _NobodyLogsIn:
            return Observation({}, Basis.LOGIN)
        except BackendError as error:
            return _unknown(error)
        answers = {number: _held(nodes, *pair) for number, pair in pairs.items()}
        if ctx.pending is None and ctx.current is not None and answers.get(ctx.current.number, Login.ACCEPTED) is None:
            raise BackendError(
                f"{_where(nodes, *_pair(ctx.current))} does not accept v{ctx.current.number}, and other nodes do",
                next="give that node the accounts of the others, or take it out of `nodes`",
            )
        known = {hashed for _, hashed in pairs.values()}
        listed = {h for node in nodes for user in node.users.values() if user is not None for h in user.hashes}
        return Observation(
            {number: answer for number, answer in answers.items() if answer is not None},
            Basis.LISTING,
            foreign=len(listed - known),
            durable=self.settings.persisted_by or all(node.durable for node in nodes),
            account_usable=False,  # a new password takes nothing over: the others stay
        )

    def _look(self, address: Address, names: Sequence[str], ctx: Context, also: Sequence[SecretVersion]) -> acl.Node:
        with self._session(address, ctx, also) as session:
            node = acl.look(session, self._admin_name, names, saves=not self.settings.persisted_by)
        for name, user in node.users.items():
            if user is not None and user.nopass:
                raise acl.open_to_anybody(node.where, name)
        return node

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """One login at each node. Raises BackendError where they differ, LoginFailed where one cannot be used so."""
        found: dict[Login, Address] = {}
        for address in self.settings.addresses:
            answer = self._log_in(address, version, ctx)
            if answer is Login.UNREACHABLE:
                return answer
            found[answer] = address
        if len(found) > 1:
            yes, no = found[Login.ACCEPTED], found[Login.REJECTED]
            raise BackendError(f"{yes} accepts a password of {_username(version)} that {no} rejects")
        return next(iter(found))

    def _log_in(self, address: Address, version: SecretVersion, ctx: Context) -> Login:
        try:
            self._connect(address, _username(version), _password(version.fields), ctx).end()
        except LoginFailed as error:
            if error.denial is Denial.CONFIGURATION:
                raise
            return Login.REJECTED if error.denial is Denial.REJECTED else Login.UNREACHABLE
        return Login.ACCEPTED

    # ------------------------------------------------------------------------------------------------------ writing

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """Every node saves what it has before the first is changed; where one then cannot, all are as they were."""
        wanted, gone = [_pair(version) for version in accept], [_pair(version) for version in refuse]
        if not all(_password(version.fields) for version in accept):
            return Refused(No.VALUE, "an empty password")
        try:
            with ExitStack() as held:
                sites = [
                    self._site(held.enter_context(self._session(address, ctx)), wanted, gone)
                    for address in (reversed(self.settings.addresses) if wanted or gone else ())
                ]
                self._apply(sites)
        except Answered as error:
            return error.result if isinstance(error.result, Unknown) else _refused(error)
        except (LoginFailed, wire.ReplyLost) as error:
            return _unknown(error)
        return Done()

    def _site(self, session: wire.Session, wanted: Sequence[acl.Pair], gone: Sequence[acl.Pair]) -> _Site:
        admin, ours = self._admin_name, self.settings.persisted_by
        node = acl.look(session, admin, [name for name, _ in (*wanted, *gone)], saves=not ours)
        changes = acl.changes(node, wanted, gone)
        return _Site(session, changes, None if ours else acl.kept(session, admin, node))

    def _apply(self, sites: Sequence[_Site]) -> None:
        """Raises Answered: refused, and all is as it was; or unknown."""
        admin, done = self._admin_name, list[tuple[_Site, acl.Change]]()
        try:
            for site in sites:
                for change in site.changes:
                    acl.change(site.session, admin, change, site.save)
                    done.append((site, change))
        except Answered as error:
            if isinstance(error.result, Refused):
                for site, change in reversed(done):
                    acl.undo(site.session, change, site.save)
            raise

    # ----------------------------------------------------------------------------------------------------- sessions

    def usage(self, version: SecretVersion, since: datetime, ctx: Context) -> Usage | Unknown:
        """Sessions that are older than the newest value hold an older one. Of younger ones nobody can tell."""
        newest = ctx.pending.created_at if ctx.pending is not None else since
        holders, younger = list[str](), False
        try:
            for address in self.settings.addresses:
                with self._session(address, ctx) as session:
                    now = datetime.now(UTC)  # not before the login, in which sessions may begin
                    there = advice.present(session, self._admin_name, _username(version))
                old = there.older(newest, now)
                holders += there.holders(old)
                younger = younger or len(there.found) > len(old)
        except BackendError as error:
            return _unknown(error)
        return Usage(in_use=True if holders else None if younger else False, holders=tuple(holders))

    def disconnect(self, version: SecretVersion, ctx: Context) -> Result:
        """End the account's sessions, but ours: the one of a retired password cannot be told from the others."""
        try:
            for address in self.settings.addresses:
                with self._session(address, ctx) as session:
                    advice.kill(session, self._admin_name, _username(version))
        except Answered as error:
            return _refused(error) if isinstance(error.result, Refused) else error.unknown
        except (LoginFailed, wire.ReplyLost) as error:
            return _unknown(error)
        return Done()

    # ------------------------------------------------------------------------------------------------------ logging in

    @property
    def _is_self(self) -> bool:
        return self.settings.admin == "self"

    @property
    def _admin_name(self) -> str:
        admin = self.settings.admin
        return admin.username if isinstance(admin, Admin) else self.settings.user

    def _connect(self, address: Address, username: str, password: bytes, ctx: Context) -> wire.Session:
        until_s = min(ctx.deadline.at_monotonic_s, time.monotonic() + self.settings.timeout)
        return wire.connect(address, username=username, password=password, until_s=until_s)

    def _session(self, address: Address, ctx: Context, also: Sequence[SecretVersion] = ()) -> wire.Session:
        """As the admin; with `admin: self` as PENDING, then CURRENT, then `also`. Raises NotAuthorised, LoginFailed."""
        admin = self.settings.admin
        if not isinstance(admin, Admin):
            return self._own_session(address, ctx, also)
        password = _password(ctx.credentials.resolve(admin.password))

        def log_in() -> wire.Session:
            try:
                return self._connect(address, admin.username, password, ctx)
            except LoginFailed as error:
                if error.denial is Denial.REJECTED:
                    raise NotAuthorised(error.what, why="it is the policy's `admin`") from None
                raise

        return refused.once(address, admin.username, password, log_in)

    def _own_session(self, address: Address, ctx: Context, also: Sequence[SecretVersion]) -> wire.Session:
        tried: list[bytes] = []
        for version in (ctx.pending, ctx.current, *also):
            if version is None or (password := _password(version.fields)) in tried:
                continue
            tried.append(password)
            try:
                return self._connect(address, self.settings.user, password, ctx)
            except LoginFailed as error:
                if error.denial is not Denial.REJECTED:
                    raise
        raise _NobodyLogsIn(
            f"{self.settings.user} cannot log in at {address} to change its own password",
            why="neither the pending nor the current version is accepted",
            next="vaultkeeper adopt with the password that works",
        )


class _NobodyLogsIn(NotAuthorised):
    """With `admin: self`: every value that could be tried was rejected."""


@dataclass(frozen=True)
class _Site:
    """One node in hand: what has to change there, and the command that has just saved what it had."""

    session: wire.Session
    changes: Sequence[acl.Change]
    save: wire.Command | None  #: None: a destination keeps it


def _username(version: SecretVersion) -> str:
    return version.fields["username"].text()


def _password(fields: Fields) -> bytes:
    return fields[main_field(set(fields) - {"username"})].reveal()


def _pair(version: SecretVersion) -> acl.Pair:
    return _username(version), acl.hashed(_password(version.fields))


def _held(nodes: Sequence[acl.Node], name: str, hashed: str) -> Login | None:
    """None: some nodes accept it, and some do not."""
    found = {node.accepts(name, hashed) for node in nodes}
    if len(found) > 1:
        return None
    return Login.ACCEPTED if found == {True} else Login.REJECTED


def _where(nodes: Sequence[acl.Node], name: str, hashed: str) -> str:
    return ", ".join(node.where for node in nodes if not node.accepts(name, hashed))


def _refused(error: Answered) -> Refused:
    """With the way out."""
    why = error.result.why if isinstance(error.result, Refused) else No.UNSUPPORTED
    return Refused(why, f"{error.what}; {error.next}" if error.next else error.what)


def _unknown(error: BackendError) -> Unknown:
    """What passes by itself. Raises the others again, as what they are: for a person."""
    if isinstance(error, wire.ReplyLost):
        return Unknown(Login.UNREACHABLE, str(error))
    if isinstance(error, LoginFailed) and error.denial is Denial.UNREACHABLE:
        return Unknown(Login.UNREACHABLE, str(error))
    if isinstance(error, Answered) and isinstance(error.result, Refused):
        meaning = {No.PRIVILEGE: NotAuthorised, No.UNCHECKED: ChecksNothing}.get(error.result.why, BackendError)
        raise meaning(error.what, next=error.next) from None
    if isinstance(error, Answered):
        return error.unknown
    raise error
