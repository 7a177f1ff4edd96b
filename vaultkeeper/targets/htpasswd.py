"""Users of a password file: htpasswd of Apache, nginx, Traefik and the Docker registry, or a Prometheus web config.

Passwords are hashed by bcrypt here, once; the line is stored with the version, so that every later set writes the same
bytes. Two users take turns, or one account gets another password. Lines, keys and comments that are not ours stay as
they are. The file is replaced by a rename, with mode and owner set before, and never left without a user: Prometheus
takes an empty one for "no authentication". nginx, Apache, the registry, Prometheus and Alertmanager look at the file on
every request (tried: nginx 1.22, Prometheus 2.42, Apache 2.4, registry 2.8, Alertmanager 0.25); Traefik (tried: 3.6)
reads it when it starts or its dynamic configuration changes, so it has to be told.

Privileges: write permission in the file's directory; CAP_CHOWN and CAP_FOWNER where it belongs to another user. Mount
the directory, not the file, into a container.
https://httpd.apache.org/docs/2.4/misc/password_encryptions.html,
https://nginx.org/en/docs/http/ngx_http_auth_basic_module.html, https://prometheus.io/docs/prometheus/latest/configuration/https/
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self

from vaultkeeper.access import accounts, consumers, files, htpasswd, probe
from vaultkeeper.access.answer import Answered, unknown
from vaultkeeper.access.htpasswd import Account, UserFile
from vaultkeeper.access.htpasswd.settings import HtpasswdSettings
from vaultkeeper.access.probe import BasicProbe
from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.model.outcome import Basis, Done, Finding, Login, No, Observation, Refused, Result, Unknown
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, Strategy, main_field
from vaultkeeper.ports import Capabilities, Context

LINE = "htpasswd"
"""The field that holds `user:hash`."""


class HtpasswdTarget:
    """Users in one file, or in a list that a destination carries."""

    kind: ClassVar[str] = "htpasswd"
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        strategies=frozenset({Strategy.SINGLE, Strategy.ALTERNATING_USERS}),
        observes=frozenset({Basis.VERIFIER, Basis.LOGIN, Basis.NONE}),
        max_accepted=2,
        forbidden=frozenset(map(chr, [*range(32), 127])),  # RFC 7617 section 2
        max_bytes=htpasswd.MAX_BYTES,
    )
    Settings: ClassVar[type[HtpasswdSettings]] = HtpasswdSettings

    def __init__(self, settings: HtpasswdSettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:
        """Raises ConfigurationInvalid for a codec of a newer release."""
        if codec > cls.codec:
            raise ConfigurationInvalid(f"settings of htpasswd have codec {codec}, this release knows {cls.codec}")
        return cls(HtpasswdSettings.model_validate(settings))

    # ------------------------------------------------------------------------------------------------------ looking

    def check(self, ctx: Context) -> Sequence[Finding]:
        findings = [*self._check_file(ctx), *self._check_probe(ctx)]
        return findings or [Finding("ok", "the file can be written and its reader asks for a password")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        """Adds `username` and the line; what was given stays, a line of another password excepted.

        Raises ConfigurationInvalid where an adopted value does not say whose it is, or bcrypt cannot take it.
        """
        name = accounts.name_of(given, self.settings, ctx, adopting=adopting)
        password = _password(given)
        kept = given[LINE].reveal() if LINE in given else b""
        owner, _, stored = kept.rpartition(b":")
        if owner != name.encode() or not htpasswd.holds(stored, Account(name, password, b"")):
            try:
                stored = htpasswd.hashed(password, self.settings.cost)
            except ValueError as error:
                raise ConfigurationInvalid("this password cannot be hashed", why=str(error)) from None
        line = SecretBytes(name.encode() + b":" + stored)
        return {**given, "username": SecretBytes(name.encode()), LINE: line}

    def observe(self, candidates: Sequence[SecretVersion], ctx: Context) -> Observation | Unknown:
        """By the hashes in the file. Where it does not tell what its reader holds, the engine logs in."""
        if self.settings.tells is None:
            return Observation({}, Basis.LOGIN if self.settings.probe else Basis.NONE)
        try:
            users = htpasswd.parse(files.read(self.settings.tells).content, self.settings.format)
        except Answered as error:
            return error.unknown
        usable = users.effective(accounts.next_one(self.settings, ctx)) is not None
        held = {version.number: htpasswd.accepts(users, _account_of(version)) for version in candidates}
        ours = {_account_of(version).name for version in candidates if held[version.number]}
        foreign = len(set(users.names()) - ours)
        if None in held.values():
            return Observation({}, Basis.LOGIN, foreign=foreign, account_usable=usable)
        answers = {number: Login.ACCEPTED if yes else Login.REJECTED for number, yes in held.items()}
        return Observation(answers, Basis.VERIFIER, foreign=foreign, durable=True, account_usable=usable)

    def system(self) -> str:
        found = self.settings.probe
        return self.settings.path or (found.http if isinstance(found, BasicProbe) else "")

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        address = probe.address_of(self.settings.probe)
        return f"htpasswd:{self.settings.path or address}:{version.fields['username'].text()}", address

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        """What the reader of the file says. Right after a change it may not have looked yet: that is no answer."""
        found, account = self.settings.probe, _account_of(version)
        if found is None:
            return Login.UNREACHABLE
        login = account.name.encode() + b":" + account.password
        asked_at, said = time.time(), probe.ask(found, login, ctx.deadline, secrets=[account.password])
        held = self._held(account, said)
        lags = held is not None and held[0] != (said is Login.ACCEPTED) and probe.is_young(held[1], asked_at)
        return Login.UNREACHABLE if lags else said

    def explain(self, version: SecretVersion, said: Login, ctx: Context) -> str:
        """Where file and reader disagree, it reads another one. With `via` the file cannot be looked at from here."""
        account, path = _account_of(version), self.settings.path
        if path is None and said in (Login.ACCEPTED, Login.REJECTED):
            sent = "the file was sent where `via` says, and its reader does not go by it: does it read it from there?"
            return sent if ctx.pending is not None else ""
        held = self._held(account, said)
        if held is None or held[0] == (said is Login.ACCEPTED):
            return ""
        if held[0]:
            return f"{path} has {account.name} with this password, and its reader refuses it: {_ELSEWHERE}"
        return f"{path} lets {account.name} in with this password no longer, and its reader still does: {_ELSEWHERE}"

    # ------------------------------------------------------------------------------------------------------ writing

    def set(self, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], ctx: Context) -> Result:
        """One rename, or nothing where the file is right already. Its reader is told in either case (after a crash)."""
        path = self.settings.path
        if path is None:
            return Refused(No.UNSUPPORTED, "the users travel with `via`; there is no `path` to write")
        wanted: dict[str, SecretVersion] = {}
        for version in accept:
            name = _account_of(version).name
            if _password(wanted.setdefault(name, version).fields) != _password(version.fields):
                return Refused(No.UNSUPPORTED, f"the user {name} can have only one password at a time")
        try:
            self._keep_the_gap_short(refuse, ctx)
            with files.alone(path):
                was = files.read(path)
                content = self._content(was.content, list(wanted.values()), refuse)
                mode, owner = self.settings.mode_bits(), self.settings.owner_ids()
                if content == (was.content or b"") and self.settings.dressed(was):
                    files.sweep(path)
                else:
                    files.replace(path, content, was, mode=mode, owner=owner)
        except Answered as error:
            return error.result
        how = self.settings.reload
        wrong = "" if isinstance(how, str) else consumers.reload(how, ctx.deadline)
        return Unknown(Login.UNREACHABLE, f"written, but its reader was not told: {wrong}") if wrong else Done()

    def _keep_the_gap_short(self, refuse: Sequence[SecretVersion], ctx: Context) -> None:
        """One account: the old password is refused from here on, so that its reader must answer. Raises Answered.

        Not on the way back, which puts right what is wrong already.
        """
        found, current = self.settings.probe, ctx.current
        going_on = current is not None and any(version.number == current.number for version in refuse)
        if self.settings.users is None and going_on and isinstance(found, BasicProbe):
            try:
                probe.ask_as_nobody(found, ctx.deadline)
            except BackendError as error:
                what = f"{error.what}: nothing was changed, because the new value could not be tried"
                raise unknown(what) from None

    def render(
        self, accept: Sequence[SecretVersion], existing: SecretBytes | None, refuse: Sequence[SecretVersion] = ()
    ) -> SecretBytes:
        """The file for a `via` destination. Raises Answered where `existing` cannot be edited."""
        return SecretBytes(self._content(existing.reveal() if existing else None, accept, refuse))

    def _content(self, before: bytes | None, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion]) -> bytes:
        users = htpasswd.parse(before, self.settings.format)
        was_empty = not users.names()
        htpasswd.edit(users, [_account_of(version) for version in accept], [_account_of(v) for v in refuse])
        if not users.names() and not was_empty:
            raise htpasswd.nobody_left(self.settings.format)
        return users.encode()

    # ---------------------------------------------------------------------------------------------------- small parts

    def _held(self, account: Account, said: Login) -> tuple[bool, files.Snapshot] | None:
        """Does the file let this login in? None: it does not tell, or is not here.

        The hash of a version says nothing of a wrong password that is tried in its name.
        """
        if self.settings.path is None or said not in (Login.ACCEPTED, Login.REJECTED):
            return None
        try:
            was = files.read(self.settings.path)
            users = htpasswd.parse(was.content, self.settings.format)
        except Answered:
            return None
        agrees = said is Login.ACCEPTED and users.effective(account.name) == account.hash
        held = True if agrees else htpasswd.accepts(users, replace(account, hash=b""))
        return None if held is None else (held, was)

    def _check_file(self, ctx: Context) -> list[Finding]:
        path = self.settings.path
        if path is None:
            return []
        try:
            files.check_writable(path, self.settings.owner_ids())
            was = files.read(path)
            users = htpasswd.parse(was.content, self.settings.format)
        except Answered as error:
            level = "refuse" if isinstance(error.result, Refused) else "unchecked"
            return [Finding(level, error.what if path in error.what else f"{path}: {error.what}", error.next)]
        except ConfigurationInvalid as error:
            return [Finding("refuse", error.what)]
        if was.content is None:
            return [Finding("warn", f"{path} does not exist yet", "say `owner` and `mode`: its reader must open it")]
        return [*self._doubled(users, path), *self._taken(users, ctx)]

    def _doubled(self, users: UserFile, path: str) -> list[Finding]:
        """The next set leaves one line each: nobody could say which of the two shall be retired."""
        counts = "last" if self.settings.format in htpasswd.LAST_WINS else "first"
        twice = [name for name in self.settings.accounts if len(users.hashes(name)) > 1]
        told = f"twice, and {self.settings.format} takes the {counts} one; the next set leaves a single line"
        return [Finding("warn", f"{path} has {name} {told}") for name in twice]

    def _taken(self, users: UserFile, ctx: Context) -> list[Finding]:
        """An idle user that is in the file may be somebody's: the next version takes its password away."""
        name = accounts.next_one(self.settings, ctx)
        if self.settings.users is None or ctx.current is None or ctx.pending is not None or not users.hashes(name):
            return []
        text = f"{name} can log in today: its password will be replaced, and whoever uses it is cut off"
        return [Finding("warn", text, "where nobody does, remove its line")]

    def _check_probe(self, ctx: Context) -> list[Finding]:
        """Somebody without a login must be refused, or the reader checks nothing; and today's goes by the file."""
        found = self.settings.probe
        if found is None:
            return [Finding("unchecked", "without a `probe` nothing shows what the reader accepts", "give `probe`")]
        if (unfit := probe.unfit(found)) or not isinstance(found, BasicProbe):
            return unfit
        try:
            said = probe.ask_as_nobody(found, ctx.deadline)
        except BackendError as error:
            return [Finding("unchecked", error.what)]
        if said is Login.ACCEPTED:
            further = _OPEN[self.settings.format in htpasswd.YAML]
            return [Finding("refuse", f"{found.http} lets anybody in without a login", further)]
        if said is not Login.REJECTED:
            return [Finding("warn", f"the probe's answer to nobody tells nothing ({said.value})")]
        if self.settings.tells is None or ctx.current is None:
            return []
        elsewhere = self.explain(ctx.current, self.test(ctx.current, ctx), ctx)
        return [Finding("refuse", elsewhere)] if elsewhere else []


_ELSEWHERE = (
    "does it read this very file? One that is mounted alone stays the old one after a rename: mount its folder; "
    "a reader that looks at start only needs `reload`"
)
_OPEN = {
    True: "name a first user in its `basic_auth_users` by hand, adopt it, then rotate",
    False: "probe an address that asks for a login; nginx answers `return` before it asks",
}


def _account_of(version: SecretVersion) -> Account:
    stored = version.fields[LINE].reveal().rpartition(b":")[2]
    return Account(version.fields["username"].text(), _password(version.fields), stored)


def _password(fields: Fields) -> bytes:
    return fields[main_field(set(fields) - {"username", LINE})].reveal()
