"""What a person must know about a MySQL server and its accounts before a rotation; and what MariaDB shares of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vaultkeeper.access.mysql import Session, slots
from vaultkeeper.access.mysql.people import Account, quoted
from vaultkeeper.access.mysql.settings import AccountSettings, Admin
from vaultkeeper.access.mysql.slots import Credential, Stored
from vaultkeeper.model.outcome import Finding

OLDEST = (8, 0, 0)
LOG_RAW_SINCE = (8, 0, 19)  # as a variable that can be read
MOST_FAILURES = 4
"""Refused logins in a row that a rotation may cause: a control and a proof, and each again after a lost answer."""


def about_server(session: Session, settings: AccountSettings) -> Iterator[Finding]:
    """Version, and options that stand in the way."""
    raw = "@@log_raw" if session.version >= LOG_RAW_SINCE else "0"
    query = f"SELECT CURRENT_USER(), @@read_only, @@innodb_flush_log_at_trx_commit, {raw}"
    [(me, read_only, flush, log_raw)] = session.rows(query)
    if session.version < OLDEST:
        yield Finding("refuse", f"MySQL {session.release} is too old: 8.0.14 or newer is needed")
    elif session.version < slots.SLOTS_SINCE and settings.users is None:
        text = f"MySQL {session.release} holds one password for an account: two of them need 8.0.14 or newer"
        yield Finding("refuse", text, "upgrade, or say strategy: alternating_users with `users: [A, B]`")
    else:
        yield Finding("ok", f"MySQL {session.release} as {me}{', TLS' if session.encrypted else ''}")
    yield from about_network(settings)
    if read_only:
        yield Finding("refuse", "this server is read-only, perhaps a replica", "name the primary in `host`")
    if log_raw and settings.users is None:
        yield Finding("refuse", "log_raw is on: the general log would show the password", "SET GLOBAL log_raw = OFF")
    if int(flush) != 1:
        text = f"innodb_flush_log_at_trx_commit is {flush}: a power failure may bring the old password back"
        yield Finding("warn", text, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")


def about_accounts(session: Session, settings: AccountSettings, known: Sequence[Credential]) -> Iterator[Finding]:
    """Each account that the policy names."""
    found = slots.read(session, settings.accounts)
    for name in settings.accounts:
        rows = [Account(name, host) for host in settings.hosts]
        for row in rows:
            if row in found:
                yield from _about(row, found[row], settings, known, tls=session.encrypted)
        yield from about_others(rows, found)


def _about(
    row: Account, stored: Stored, settings: AccountSettings, known: Sequence[Credential], *, tls: bool
) -> Iterator[Finding]:
    if stored.plugin not in slots.PLUGINS:
        text = f"{row} logs in by {stored.plugin}, which keeps no password that could be changed like this"
        yield Finding("refuse", text, f"ALTER USER {row} IDENTIFIED WITH caching_sha2_password BY …")
        return
    if stored.locked and settings.users is None:
        yield Finding("refuse", f"{row} is locked: nobody can log in", f"ALTER USER {row} ACCOUNT UNLOCK")
    if stored.is_open:
        yield Finding("refuse", f"{row} lets in whoever gives no password", f"ALTER USER {row} IDENTIFIED BY …")
    if stored.expired:
        yield Finding("warn", f"the password of {row} has expired; the rotation ends that")
    if 0 < stored.most_failures < MOST_FAILURES:
        text = (
            f"{row} has FAILED_LOGIN_ATTEMPTS {stored.most_failures}: refusals that a rotation asks for would lock it"
        )
        yield Finding("refuse", text, f"ALTER USER {row} FAILED_LOGIN_ATTEMPTS {MOST_FAILURES}, or more")
    yield from about_tls(row, stored.requires, tls=tls)
    if known and not stored.locked and isinstance(slots.slots_of(stored, known)[1], str):
        text = (
            f"the second password of {row} is not the current one; unless it is an older version of ours, there is no"
        )
        text += " room for a new one beside it"
        yield Finding("warn", text, f"where nobody uses it: ALTER USER {row} DISCARD OLD PASSWORD")


# -------------------------------------------------------------------------------------------------------------- shared


def about_network(settings: AccountSettings) -> Iterator[Finding]:
    """What can be overheard."""
    if settings.is_exposed:
        yield Finding("warn", "tls: off on a network: hashes and logins can be overheard", "give tls: {ca: PATH}")


def about_others(rows: Sequence[Account], found: Iterable[Account]) -> Iterator[Finding]:
    """Rows of one name that do not exist, and others: the server takes the one whose host fits best."""
    there = [account for account in found if account.name == rows[0].name and account.host]
    others = sorted((account for account in there if account not in rows), key=lambda account: account.host)
    for row in rows:
        if row not in there:
            following = f"CREATE USER {row} ACCOUNT LOCK, and its GRANTs"
            if others:
                following = f"say hosts: [{', '.join(quoted(other.host) for other in others)}], or {following}"
            yield Finding("refuse", f"the account {row} does not exist", following)
    if all(row in there for row in rows):
        for other in others:
            text = f"{other} exists too: whoever comes from there has that account's password, not {rows[0]}'s"
            yield Finding("warn", text, f"add {other.host} to `hosts`, or DROP USER {other}")


def about_tls(row: Account, requires: str, *, tls: bool) -> Iterator[Finding]:
    """An account that may only come over TLS answers as if the password were wrong."""
    if requires == "SSL" and not tls:
        yield Finding("refuse", f"{row} has REQUIRE SSL, and this connection has no TLS", "say tls: {ca: PATH}")
    elif requires not in {"", "SSL"}:
        text = f"{row} has REQUIRE {requires}: it needs a certificate of the client, and vaultkeeper has none"
        yield Finding("refuse", text, f"ALTER USER {row} REQUIRE SSL")


def doctor_sql(settings: AccountSettings, reading: str, killing: str) -> str:
    """Statements for root. Contains no password. `reading`: the table of accounts; `killing`: the privilege to KILL."""
    admin = settings.admin
    if not isinstance(admin, Admin):
        return f"-- admin: self: {quoted(settings.accounts[0])} changes its own password, see the how-to.\n"
    name = f"{quoted(admin.username)}@'HOST'"
    ending = "" if settings.close_sessions else "-- only for close_sessions and --emergency: "
    return f"""-- As root. HOST: where vaultkeeper comes from. The password is yours to set before the last statement.
CREATE USER {name} ACCOUNT LOCK;
GRANT CREATE USER, PROCESS ON *.* TO {name};  -- reaches every account, root too: guard its password like root's
GRANT SELECT ON {reading} TO {name};
{ending}GRANT {killing} ON *.* TO {name};
ALTER USER {name} ACCOUNT UNLOCK;
"""
