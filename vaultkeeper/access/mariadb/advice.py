"""What a person must know about a MariaDB server and its accounts before a rotation, and what puts it right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vaultkeeper.access.mariadb import methods
from vaultkeeper.access.mariadb.methods import SILENT, Credential, Stored
from vaultkeeper.access.mysql import Session
from vaultkeeper.access.mysql import advice as common
from vaultkeeper.access.mysql.advice import MOST_FAILURES
from vaultkeeper.access.mysql.people import Account
from vaultkeeper.access.mysql.settings import AccountSettings
from vaultkeeper.model.outcome import Finding

OLDEST = (10, 4, 3)

_SERVER = """
SELECT CURRENT_USER(), @@read_only, @@max_password_errors, @@aria_group_commit,
@@strict_password_validation AND EXISTS (SELECT * FROM information_schema.PLUGINS
WHERE PLUGIN_TYPE = 'PASSWORD VALIDATION' AND PLUGIN_STATUS = 'ACTIVE')"""


def about_server(session: Session, settings: AccountSettings) -> Iterator[Finding]:
    """Version, and options that stand in the way."""
    [(me, read_only, most_errors, group_commit, strict)] = session.rows(_SERVER)
    if session.version < OLDEST:
        yield Finding("refuse", f"MariaDB {session.release} is too old: 10.4.3 or newer is needed")
    else:
        yield Finding("ok", f"MariaDB {session.release} as {me}{', TLS' if session.encrypted else ''}")
    yield from common.about_network(settings)
    if read_only:
        yield Finding("refuse", "this server is read-only, perhaps a replica", "name the primary in `host`")
    if strict:
        text = "a password validation plugin and strict_password_validation refuse hashes, which cannot be judged"
        yield Finding("refuse", text, "SET GLOBAL strict_password_validation = OFF")
    if group_commit == "soft":
        text = "aria_group_commit is soft: a power failure may bring the old password back"
        yield Finding("warn", text, "SET GLOBAL aria_group_commit = none")
    if int(most_errors) < MOST_FAILURES:
        text = f"max_password_errors is {most_errors}: the refusals that a rotation asks for would block the account"
        yield Finding("refuse", text, f"SET GLOBAL max_password_errors = {MOST_FAILURES}, or more")


def about_own(session: Session, known: Sequence[Credential]) -> Iterator[Finding]:
    """An account that changes itself."""
    foreign = [method for method in methods.read_own(session) if not any(one.fits(method) for one in known)]
    if any(method not in SILENT for method in (each.plugin for each in foreign)):
        text = "the account has another method of its own, which SET PASSWORD may take for ours"
        yield Finding("warn", text, "name an admin instead of `admin: self`")


def about_accounts(session: Session, settings: AccountSettings, known: Sequence[Credential]) -> Iterator[Finding]:
    """Each account that the policy names."""
    found = methods.read(session, settings.accounts)
    for name in settings.accounts:
        rows = [Account(name, host) for host in settings.hosts]
        for row in rows:
            if row in found:
                yield from _about(row, found[row], settings, known, tls=session.encrypted)
        yield from common.about_others(rows, found)


def _about(
    row: Account, stored: Stored, settings: AccountSettings, known: Sequence[Credential], *, tls: bool
) -> Iterator[Finding]:
    if stored.locked and settings.users is None:
        yield Finding("refuse", f"{row} is locked: nobody can log in", f"ALTER USER {row} ACCOUNT UNLOCK")
    if not stored.locked and any(method.is_open for method in stored.methods):
        following = f"ALTER USER {row} IDENTIFIED VIA mysql_native_password USING 'invalid'"
        yield Finding("refuse", f"{row} lets in whoever gives no password", following)
    if stored.expired:
        yield Finding("warn", f"the password of {row} has expired; the rotation ends that")
    yield from common.about_tls(row, stored.requires, tls=tls)
    others = [m for m in stored.foreign(known) if m.plugin not in SILENT] if known and not stored.locked else []
    if others and settings.users is None:
        text = (
            f"{row} has other methods of authentication ({', '.join(m.plugin for m in others)}), which are kept: while"
        )
        text += " old and new are both accepted they come third, where some clients (PyMySQL, Go's) fail with them"
        yield Finding("warn", text, "give whoever uses them an account of their own")
