"""RabbitMQ users, over the management interface: two that take turns, or one account.

The server gets a salted SHA-256 hash that was made here once and is stored with the version, so that every later set
writes the same bytes and none shows a password. What a user holds is read back exactly. A login over AMQP, as an
application makes it, is the test. The idle user is given what CURRENT's user may and it may not, before it gets a
password; what it has stays. A retired user keeps its tags and permissions and has no password any more, so that going
back is one request.

A user holds no tag of ours: the server's own tags are rights. Written for RabbitMQ 3.8 to 4; tried on 3.10.

Privileges of the admin account: the tag `administrator`.
https://www.rabbitmq.com/docs/access-control, /docs/passwords
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Self, TypeVar

from vaultkeeper.access import accounts, rabbitmq
from vaultkeeper.access.answer import Answered, refused, unknown
from vaultkeeper.access.rabbitmq import NOBODY, Channels, LoginRefused, Management, User, amqp
from vaultkeeper.access.rabbitmq.settings import Admin, RabbitmqSettings
from vaultkeeper.access.settings import host_of
from vaultkeeper.errors import BackendError, ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused, Result, Unknown, Usage
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

T = TypeVar("T")
HASH = "password_hash"
"""The field that holds what the server stores."""

_SHOWN = 10  # connections that are named


class RabbitmqTarget:
    """Users of one server or cluster."""

    kind: ClassVar[str] = "rabbitmq"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.SINGLE, Strategy.ALTERNATING_USERS}),
        observes=frozenset({Basis.VERIFIER, Basis.LOGIN}),
        max_accepted=2,
        forbidden=frozenset(map(chr, [*range(32), 127])),
        max_bytes=1024,
    )
    Settings: ClassVar[type[RabbitmqSettings]] = RabbitmqSettings

    def __init__(self, settings: RabbitmqSettings) -> None:
        self.settings = settings
        self._channels = Channels(plain_ok=settings.tls == "off", ca=settings.ca)

    def close(self) -> None:
        self._channels.end()

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of rabbitmq have codec {codec}, this release knows {cls.codec}")
        return cls(RabbitmqSettings.model_validate(settings))

    # ------------------------------------------------------------------------------------------------------ looking

    def check(self, ctx: Context) -> Sequence[Finding]:
        if self.settings.admin == "self" and ctx.current is None:
            return [Finding("unchecked", "with `admin: self` there is nobody to log in as before the first version")]
        findings: list[Finding] = []
        try:
            findings += self._manage(ctx, lambda server: list(self._findings(server, ctx)))
            if ctx.epoch == 0:  # in a rotation nobody reads what stops nothing, and `test` finds out by itself
                amqp.reach(self.settings.broker, ctx.deadline)
            else:
                amqp.address_of(self.settings.broker)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what, error.next)]
        except ConfigurationInvalid as error:
            return [Finding("refuse", error.what, error.next)]
        except BackendError as error:
            return [*findings, Finding("unchecked", error.what, error.next)]
        return findings or [Finding("ok", "the users can be changed, and logins over AMQP are answered")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Adds `username` and the salted hash; what was given stays, a hash of another password excepted.

        Raises ConfigurationInvalid where an adopted value does not say whose it is.
        """
        name = accounts.name_of(given, self.settings, ctx, adopting=adopting)
        password = _password(given)
        if "\0" in password:
            raise ConfigurationInvalid("no login can carry this password", why="it holds a NUL (RFC 4616)")
        stored = given[HASH].text() if HASH in given else NOBODY
        if not User(name, (), stored).holds(password):
            stored = rabbitmq.hashed(password)
        return {**given, "username": SecretBytes(name.encode()), HASH: SecretBytes(stored.encode())}

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By the stored hash. Where the server hashes in a way of its own, the engine logs in."""
        names = sorted({*self.settings.accounts, *map(_username, candidates)})
        try:
            users = self._manage(ctx, lambda server: {name: server.user(name) for name in names})
        except LoginRefused as error:
            if self.settings.admin != "self":
                raise NotAuthorised(error.what, next=error.next) from None
            return Observation({}, Basis.LOGIN)  # neither of its passwords is right: logins tell what is
        except Answered as error:
            if isinstance(error.result, Refused):
                raise NotAuthorised(error.what, next=error.next) from None
            return error.unknown
        following = users[accounts.next_one(self.settings, ctx)]
        usable = following is not None and following.usable
        held = {version.number: _held(users[_username(version)], version) for version in candidates}
        ours = {_username(version) for version in candidates if held[version.number]}
        foreign = sum(user is not None and user.usable and name not in ours for name, user in users.items())
        if None in held.values():
            return Observation({}, Basis.LOGIN, foreign=foreign, account_usable=usable)
        answers = {number: Login.ACCEPTED if yes else Login.REJECTED for number, yes in held.items()}
        return Observation(answers, Basis.VERIFIER, foreign=foreign, durable=True, account_usable=usable)

    def system(self) -> str:
        return host_of(self.settings.url)

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return f"rabbitmq:{_username(version)}", str(self.settings.broker)

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """Raises BackendError where the user may not use the policy's `vhost`: that is no rejected password."""
        return amqp.log_in(self.settings.broker, _username(version), _password(version.fields), ctx.deadline)

    # ------------------------------------------------------------------------------------------------------ writing

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """User by user: rights first, then the password, so that whoever can log in may do everything."""
        wanted: dict[str, SecretVersion] = {}
        for version in accept:
            name = _username(version)
            if _password(wanted.setdefault(name, version).fields) != _password(version.fields):
                return Refused(No.UNSUPPORTED, f"the user {name} can have only one password at a time")
        try:
            self._keep_the_gap_short(refuse, ctx)
            return self._manage(ctx, lambda server: self._write(server, wanted, refuse, ctx))
        except Answered as error:
            return error.result

    def _write(
        self, server: Management, wanted: Mapping[str, SecretVersion], refuse: Sequence[SecretVersion], ctx: Context
    ) -> Result:
        for name, version in wanted.items():
            user = server.user(name)
            if user is not None and user.holds(_password(version.fields)):
                continue
            tags = self._ready(server, name, user, ctx)
            if isinstance(tags, Refused):
                return tags
            server.put_user(name, tags, version.fields[HASH].text())
        for version in refuse:
            name = _username(version)
            user = None if name in wanted else server.user(name)
            if user is not None and user.usable and _held(user, version) is not False:
                server.put_user(name, user.tags, NOBODY)
        return Done()

    def _ready(self, server: Management, name: str, user: User | None, ctx: Context) -> Sequence[str] | Refused:
        """The tags of a user that may do what CURRENT's may. What it has stays as it is."""
        like = _username(ctx.current) if ctx.current is not None else name
        if user is None:
            model = server.user(like) if like != name and self.settings.create_users else None
            if model is None:
                return Refused(No.UNSUPPORTED, f"the user {name} does not exist")
            user = User(name, model.tags, NOBODY)
            server.put_user(name, user.tags, NOBODY)
        for permission in _missing(server, name, like):
            server.permit(name, permission)
        return user.tags

    def _keep_the_gap_short(self, refuse: Sequence[SecretVersion], ctx: Context) -> None:
        """One account: the old password is refused from here on, so that logins must be answered. Raises Answered.

        Not on the way back, which puts right what is wrong already.
        """
        current = ctx.current
        going_on = current is not None and any(version.number == current.number for version in refuse)
        if self.settings.users is None and going_on:
            try:
                amqp.reach(self.settings.broker, ctx.deadline)
            except ConfigurationInvalid:
                raise
            except BackendError as error:
                what = f"{error.what}: nothing was changed, because the new value could not be tried"
                raise unknown(what) from None

    # ----------------------------------------------------------------------------------------------------- sessions

    def usage(self, version: SecretVersion, since: datetime, ctx: Context) -> Usage | Unknown:
        """Every open connection of the user counts. With `single` old and new ones have one name: nothing is known."""
        if self.settings.users is None:
            return Usage(in_use=None)
        name = _username(version)
        try:
            found = self._manage(ctx, lambda server: server.connections(name))
        except Answered as error:
            return error.unknown
        told = [f"{name} from {each.get('name', '?')}, vhost {each.get('vhost', '?')}" for each in found[:_SHOWN]]
        more = [f"and {len(found) - _SHOWN} more connections of {name}"] if len(found) > _SHOWN else []
        return Usage(in_use=bool(found), holders=[*told, *more])

    def disconnect(self, version: SecretVersion, ctx: Context) -> Result:
        """Close the user's connections. None left is Done."""
        try:
            self._manage(ctx, lambda server: server.close_connections(_username(version)))
        except Answered as error:
            return error.result
        return Done()

    # -------------------------------------------------------------------------------------------------- small parts

    def _manage(self, ctx: Context, act: Callable[[Management], T]) -> T:
        """As the admin; with `admin: self` as PENDING, then CURRENT. Raises Answered."""
        error: LoginRefused | None = None
        for login in self._logins(ctx):
            try:
                with self._channels.borrow() as channel:
                    return act(Management(channel, self.settings.url, login, ctx.deadline))
            except LoginRefused as other:
                error = other
        raise error or refused(No.PRIVILEGE, "there is no version yet to log in as", next="vaultkeeper adopt")

    def _logins(self, ctx: Context) -> Iterator[tuple[str, SecretBytes]]:
        admin = self.settings.admin
        if isinstance(admin, Admin):
            fields = ctx.credentials.resolve(admin.password)
            yield admin.username, fields[main_field(set(fields) - {"username", HASH})]
            return
        for version in (ctx.pending, ctx.current):
            if version is not None:
                yield _username(version), version.fields[main_field(set(version.fields) - {"username", HASH})]

    def _findings(self, server: Management, ctx: Context) -> Iterator[Finding]:
        users = {name: server.user(name) for name in self.settings.accounts}
        next_name, now = accounts.next_one(self.settings, ctx), _username(ctx.current) if ctx.current else None
        following = users[next_name]
        if following is None and not (self.settings.create_users and now):
            yield Finding("refuse", f"the user {next_name} does not exist", self._how_to_make(now))
        if now in users and self.settings.users is not None and ctx.pending is None:
            if following is not None and following.usable:
                text = f"{next_name} can log in today: its password will be replaced, and whoever uses it is cut off"
                yield Finding("warn", text, f"where nobody does: rabbitmqctl clear_password {next_name}")
            vhosts = sorted({permission["vhost"] for permission in server.permissions(now)})
            if self.settings.vhost not in vhosts:
                text = f"{now} has no permission on the virtual host {self.settings.vhost}, where logins are tried"
                yield Finding("refuse", text, f"say vhost: {vhosts[0]}" if vhosts else "rabbitmqctl set_permissions")
        for path in server.config_files() if ctx.epoch == 0 else ():
            if rabbitmq.brings_users_back(path):
                text = f"{path} loads definitions at each start: they may bring an old password back"
                yield Finding("warn", text, "take `users` out of them; docs/how-to/rabbitmq.md")

    def _how_to_make(self, now: str | None) -> str:
        if self.settings.users is None:
            return f"rabbitmqctl add_user {self.settings.user}"
        return "say create_users: true" if now else "vaultkeeper adopt   with the user that works today"


def _missing(server: Management, name: str, like: str) -> list[rabbitmq.Permission]:
    """What `like` may somewhere where `name` may nothing yet."""
    if like == name:
        return []
    have = {permission["vhost"] for permission in server.permissions(name)}
    topics = {(permission["vhost"], permission["exchange"]) for permission in server.topic_permissions(name)}
    return [
        *(each for each in server.permissions(like) if each["vhost"] not in have),
        *(each for each in server.topic_permissions(like) if (each["vhost"], each["exchange"]) not in topics),
    ]


def _held(user: User | None, version: SecretVersion) -> bool | None:
    """None: hashed in a way that is not known here."""
    return False if user is None else user.holds(_password(version.fields))


def _username(version: SecretVersion) -> str:
    return version.fields["username"].text()


def _password(fields: Fields) -> str:
    return fields[main_field(set(fields) - {"username", HASH})].text()
