"""PostgreSQL's login roles in SQL: their state, the tag in their comment, and how each change is spelled.

A rotator without CREATEROLE works through three SECURITY DEFINER functions in a schema `vaultkeeper` (see
`postgres_advice.doctor_sql`). They are used only where a superuser owns them: anybody else's could keep what they
are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vaultkeeper.access.postgres import Row, Session, StatementFailed, matches
from vaultkeeper.model.outcome import Done, Login, No, Refused, Result, Tag, Unknown

_TAG = re.compile(r"\s?\[vaultkeeper installation=(\S+) secret=(\S+) generation=(\d{1,18}) epoch=(\d{1,18})\]")

BUSY = {"23505", "40001", "40P01", "42710", "55P03", "57014"}  # lock or statement time-outs, a racing writer
PASSING = ("53", "58")  # out of memory, disk or connections; I/O errors: the transaction is undone, later it may work

UNLISTED = "not in vaultkeeper.accounts"  # no stored form of any password, so `matches` cannot tell

FUNCTIONS = """
SELECT p.proname AS name FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
WHERE n.nspname = 'vaultkeeper' AND p.prosecdef AND o.rolsuper
AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')"""


@dataclass(frozen=True)
class Credential:
    """A password, and the verifier that was made of it here."""

    verifier: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True)
class Role:
    """One login role as it stands. `stored`: its password's stored form; meaningless where not `readable`."""

    name: str
    can_login: bool
    superuser: bool
    expired: bool
    comment: str
    readable: bool
    stored: str | None

    @property
    def usable(self) -> bool:
        """Can it log in with some password? Where the stored form is unreadable: perhaps, so yes."""
        return self.can_login and not self.expired and (bool(self.stored) or not self.readable)

    @property
    def tag(self) -> Tag | None:
        return tag_in(self.comment)

    def holds(self, credential: Credential) -> bool | None:
        """Is this the stored password? An adopted one has another salt than ours. None: only a login can tell."""
        if self.stored and self.stored == credential.verifier:
            return True
        return matches(self.stored, credential.password, self.name)


@dataclass(frozen=True)
class Roles:
    """What an admin sees of some roles; those that do not exist are absent."""

    found: Mapping[str, Role]
    readable: bool  #: stored forms can be compared
    functions: frozenset[str]  #: names of the SECURITY DEFINER functions that may be called

    @property
    def tag(self) -> Tag | None:
        """The newest of their tags."""
        tags = [role.tag for role in self.found.values() if role.tag is not None]
        return max(tags, key=lambda tag: (tag.generation, tag.epoch), default=None)


@dataclass(frozen=True)
class Change:
    """What one account shall be. `verifier` None: no password. `login` None leaves the LOGIN attribute alone."""

    name: str
    verifier: str | None = field(repr=False)
    login: bool | None
    takes: Sequence[Credential] = ()  #: passwords that are ours to take away; a stored one beside them stays


def tag_in(comment: str) -> Tag | None:
    """The last tag in a comment, or None."""
    found = _TAG.findall(comment)
    if not found:
        return None
    installation, secret, generation, epoch = found[-1]
    return Tag(installation, secret, int(generation), int(epoch))


def with_tag(comment: str, tag: Tag) -> str:
    """The comment with this tag as its only one, at the end; a person's text around it stays."""
    mark = (
        f"[vaultkeeper installation={tag.installation} secret={tag.secret} "
        f"generation={tag.generation} epoch={tag.epoch}]"
    )
    text = _TAG.sub("", comment)
    return f"{text} {mark}" if text else mark


def read(session: Session, names: Sequence[str], *before: str) -> Roles:
    """The state of these roles; `before` goes ahead in the same round trip. Writes nothing.

    One round trip; two where the stored forms come from the function.
    """
    known = session.is_superuser
    state = f"""
SELECT r.rolname AS name, r.rolcanlogin AS login, r.rolsuper AS super,
COALESCE(r.rolvaliduntil <= pg_catalog.now(), false) AS expired, {"r.rolpassword" if known else "NULL"} AS stored,
pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment
FROM pg_catalog.{"pg_authid" if known else "pg_roles"} r WHERE r.rolname IN ({session.literals(names)})"""  # noqa: S608 - libpq quotes the names
    if known:
        return Roles(_by_name(session.run(*before, state)[0], readable=True), readable=True, functions=frozenset())
    rows, offered = session.run(*before, state, FUNCTIONS)
    functions = frozenset(str(row["name"]) for row in offered)
    if "verifier" not in functions:
        return Roles(_by_name(rows, readable=False), readable=False, functions=functions)
    forms = verifiers(session, names)
    rows = [{**row, "stored": forms.get(str(row["name"]))} for row in rows]
    return Roles(_by_name(rows, readable=True), readable=True, functions=functions)


def verifiers(session: Session, names: Sequence[str]) -> Mapping[str, str | None]:
    """Stored forms by the SECURITY DEFINER function; UNLISTED for an account that it does not reach."""
    values = ", ".join(f"({name}::name)" for name in map(session.literal, names))
    rows = session.run(f"SELECT n AS name, vaultkeeper.verifier(n) AS stored FROM (VALUES {values}) v(n)")[0]  # noqa: S608 - as above
    return {str(row["name"]): row["stored"] for row in rows}


def _by_name(rows: Sequence[Row], *, readable: bool) -> Mapping[str, Role]:
    return {
        str(row["name"]): Role(
            name=str(row["name"]),
            can_login=row["login"] == "t",
            superuser=row["super"] == "t",
            expired=row["expired"] == "t",
            comment=row["comment"] or "",
            readable=readable,
            stored=row["stored"],
        )
        for row in rows
    }


def apply(
    session: Session, changes: Sequence[Change], tag: Tag, *, also: Sequence[str], create: bool, owner: str | None
) -> Result:
    """All changes and their tags in one transaction of three round trips: look; change; tag and commit.

    `also`: accounts whose tags count, too. The tags are judged again after the change: from then on the rows are
    ours, so that a faster writer has either committed, and its newer tag is seen, or one of us two fails with "tuple
    concurrently updated". Raises ReplyLost where the outcome is unknown.
    """
    try:
        state = read(session, sorted({*also, *(change.name for change in changes)}), *_begin(session))
        stale = _stale([role.tag for role in state.found.values()], tag)
        if stale:
            return stale
        statements: list[str] = []
        touched: list[str] = []
        for change in changes:
            role = state.found.get(change.name)
            if role is None and change.verifier is not None and not create:
                return Refused(No.UNSUPPORTED, f"the role {change.name} does not exist (create_users: true makes it)")
            made = _statements(session, change, role, owner, state.functions)
            statements += made
            touched += [change.name] if made else []
        if not statements:
            return Done()
        rows = session.run(*statements, _comments(session, touched))[-1]
        texts = {str(row["name"]): row["comment"] or "" for row in rows}
        stale = _stale([tag_in(text) for text in texts.values()], tag)
        if stale:
            session.run("ROLLBACK")
            return stale
        notes = [_comment(session, name, with_tag(texts.get(name, ""), tag), state.functions) for name in touched]
        session.run(*notes, "COMMIT")
    except StatementFailed as error:
        return _meaning(error, [change.name for change in changes])
    return Done()


def apply_own(session: Session, change: Change) -> Result:
    """An account changes its own password: one round trip, no tag, because a role cannot comment on itself."""
    try:
        session.run(*_begin(session), _alter(session, change, frozenset()), "COMMIT")
    except StatementFailed as error:
        return _meaning(error, [change.name])
    return Done()


def _statements(
    session: Session, change: Change, role: Role | None, owner: str | None, functions: frozenset[str]
) -> list[str]:
    """What the account still needs: nothing where it is so already, or where its password is not ours to take."""
    if role is None:
        return [] if change.verifier is None else _create(session, change.name, change.verifier, owner)
    if role.readable and change.verifier is None and all(role.holds(taken) is False for taken in change.takes):
        return []
    if role.readable and role.stored == change.verifier and change.login in {None, role.can_login}:
        return []
    return [_alter(session, change, functions)]


def _begin(session: Session) -> list[str]:
    """Limits below the client's own, so that a wait for somebody's lock ends in a definite answer."""
    limit_ms = max(session.left_ms * 4 // 5, 1)
    return [
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        "SET LOCAL synchronous_commit = on",
        f"SET LOCAL lock_timeout = {limit_ms}",
        f"SET LOCAL statement_timeout = {limit_ms}",
    ]


def _stale(found: Iterable[Tag | None], ours: Tag) -> Refused | None:
    """A newer generation, or the same one under a newer epoch, wins over us.

    Generations compare across installations, because `reconcile` lifts ours above any; epochs do not, and they count
    only within a generation: a restored store has lower ones than what was written before.
    """
    for tag in found:
        if tag is None:
            continue
        own = (tag.installation, tag.secret) == (ours.installation, ours.secret)
        overtaken = tag.generation == ours.generation and own and tag.epoch > ours.epoch
        if tag.generation > ours.generation or overtaken:
            return Refused(
                No.STALE,
                f"the role was last written as generation {tag.generation} of {tag.secret} (epoch {tag.epoch}, "
                f"installation {tag.installation}); this is generation {ours.generation} (epoch {ours.epoch})",
            )
    return None


def _meaning(error: StatementFailed, names: Sequence[str]) -> Result:
    """A failed statement undoes its transaction, so all but a passing shortage are definite."""
    accounts = ", ".join(names)
    if error.concurrent or error.sqlstate in BUSY:
        return Refused(No.CONFLICT, f"somebody else is changing {accounts} ({error.sqlstate})")
    if error.sqlstate == "42501":
        return Refused(No.PRIVILEGE, f"the admin may not change {accounts}; `vaultkeeper doctor --sql` says how")
    if error.sqlstate.startswith("22"):
        return Refused(No.VALUE, f"the server does not take this password for {accounts} ({error.sqlstate})")
    if error.sqlstate.startswith(PASSING):
        return Unknown(Login.UNREACHABLE, str(error))
    if error.sqlstate == "25006":
        return Refused(No.UNSUPPORTED, "the server is a read-only standby")
    return Refused(No.UNSUPPORTED, f"{accounts}: {error}")


def _comments(session: Session, names: Sequence[str]) -> str:
    """A query for `name` and `comment`. After an ALTER ROLE of the same transaction nobody else can change them."""
    return (
        "SELECT r.rolname AS name, pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment"  # noqa: S608 - as above
        f" FROM pg_catalog.pg_roles r WHERE r.rolname IN ({session.literals(names)})"
    )


def _alter(session: Session, change: Change, functions: frozenset[str]) -> str:
    name, verifier = session.literal(change.name), session.literal(change.verifier)
    if "set_login" in functions:
        login = "NULL" if change.login is None else str(change.login).lower()
        return f"SELECT vaultkeeper.set_login({name}, {verifier}, {login})"
    attribute = "" if change.login is None else "LOGIN" if change.login else "NOLOGIN"
    return f"ALTER ROLE {session.identifier(change.name)} {attribute} PASSWORD {verifier}"


def _create(session: Session, name: str, verifier: str, owner: str | None) -> list[str]:
    """A new login role that acts as `owner`: what it makes then belongs to the owner, and both users may use it."""
    role = session.identifier(name)
    if owner is None:
        return [f"CREATE ROLE {role} LOGIN PASSWORD {session.literal(verifier)}"]
    return [
        f"CREATE ROLE {role} LOGIN IN ROLE {session.identifier(owner)} PASSWORD {session.literal(verifier)}",
        f"ALTER ROLE {role} SET role = {session.literal(owner)}",
    ]


def _comment(session: Session, name: str, text: str, functions: frozenset[str]) -> str:
    """Replace the role's comment."""
    if "set_comment" in functions:
        return f"SELECT vaultkeeper.set_comment({session.literal(name)}, {session.literal(text)})"
    return f"COMMENT ON ROLE {session.identifier(name)} IS {session.literal(text)}"
