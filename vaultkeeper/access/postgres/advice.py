"""What a person must know about a PostgreSQL server before a rotation, and the SQL that puts it right.

Privileges: https://www.postgresql.org/docs/16/role-attributes.html (CREATEROLE needs ADMIN OPTION from 16 on) and
https://www.postgresql.org/docs/current/predefined-roles.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from vaultkeeper.access.postgres import Row, Session
from vaultkeeper.access.postgres.roles import FUNCTIONS, UNLISTED, verifiers
from vaultkeeper.model.outcome import Finding

OLDEST = 120000
ADMIN_OPTION_NEEDED = 160000
ALL_FUNCTIONS = frozenset({"verifier", "set_login", "set_comment"})


@dataclass(frozen=True)
class Plan:
    """What is going to be done on the server."""

    accounts: tuple[str, ...]
    admin: str | None  #: None: the account itself
    database: str  #: where the admin logs in
    owner: str | None
    create: bool
    alternating: bool
    close_sessions: bool
    exposed: bool  #: neither TLS nor local


def findings(session: Session, plan: Plan) -> list[Finding]:
    """Everything of note, read-only, in one round trip."""
    names = session.literals(plan.accounts)
    owner = session.literal(plan.owner)
    asked = [_SERVER, _ACCOUNTS.format(names, owner), _OWNER.format(owner)]
    [server], accounts, owners, *offered = session.run(*asked, *([] if session.is_superuser else [FUNCTIONS]))
    functions = frozenset(str(row["name"]) for row in chain(*offered))
    reached = _reached(session, plan.accounts) if functions >= ALL_FUNCTIONS else None
    found = list(_about_server(session, server, plan))
    known = {str(row["name"]): row for row in accounts}
    for name in plan.accounts:
        row = known.get(name)
        if row is None:
            found += _about_missing(session, name, server, owners, plan)
        else:
            found += _about_account(session, row, server, reached, plan)
    if plan.owner and not owners:
        found.append(
            Finding("refuse", f"the owner role {plan.owner} does not exist", f"CREATE ROLE {quoted(plan.owner)}")
        )
    return found


_SERVER = """
SELECT current_user AS me, pg_catalog.pg_is_in_recovery() AS standby, pg_catalog.current_setting('fsync') AS fsync,
pg_catalog.current_setting('synchronous_commit') AS sync,
pg_catalog.current_setting('password_encryption') AS encryption,
r.rolsuper AS super, r.rolcreaterole AS createrole,
pg_catalog.pg_has_role(r.oid, 'pg_read_all_stats', 'USAGE') AS stats,
pg_catalog.pg_has_role(r.oid, 'pg_signal_backend', 'USAGE') AS signals
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user"""

_ACCOUNTS = """
SELECT r.rolname AS name, r.rolsuper AS super, r.rolcanlogin AS login, r.rolconnlimit AS connections,
COALESCE(r.rolvaliduntil <= pg_catalog.now(), false) AS expired, r.rolvaliduntil AS until,
pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION') AS admin,
(SELECT pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER') FROM pg_catalog.pg_roles o WHERE o.rolname = {1}) AS member,
EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
        WHERE s.setrole = r.oid AND c = 'role=' || {1}) AS acts
FROM pg_catalog.pg_roles r WHERE r.rolname IN ({0})"""

_OWNER = """
SELECT pg_catalog.pg_has_role(current_user, o.oid, 'MEMBER WITH ADMIN OPTION') AS admin
FROM pg_catalog.pg_roles o WHERE o.rolname = {0}"""


def _reached(session: Session, names: Sequence[str]) -> frozenset[str]:
    return frozenset(name for name, stored in verifiers(session, names).items() if stored != UNLISTED)


def _about_server(session: Session, server: Row, plan: Plan) -> Iterator[Finding]:
    major = session.version // 10000
    if session.version < OLDEST:
        yield Finding("refuse", f"PostgreSQL {major} is too old: 12 or newer is needed")
    else:
        yield Finding("ok", f"PostgreSQL {major} as {server['me']}{', TLS' if session.encrypted else ''}")
    if plan.exposed:
        yield Finding("warn", "tls: off on a network: statements and verifiers travel readable", "give tls: {ca: PATH}")
    if server["standby"] == "t":
        yield Finding("refuse", "this server is a read-only standby", "name the primary in `host`")
    if server["fsync"] == "off":
        yield Finding("warn", "fsync is off: a crash of the server may bring the old password back", "fsync = on")
    if server["sync"] == "off":
        yield Finding("warn", "synchronous_commit is off; vaultkeeper turns it on for its own changes only")
    if server["encryption"] != "scram-sha-256":
        text = f"password_encryption is {server['encryption']}: passwords set by hand will not pass SCRAM"
        yield Finding("warn", text, "password_encryption = 'scram-sha-256'")
    if plan.admin is None:
        yield Finding("warn", "admin: self leaves no tag, so a restored store or server is noticed by its logins only")
        return
    if plan.alternating and server["stats"] != "t":
        yield Finding(
            "warn",
            "sessions can be counted, but not told where they come from",
            f"GRANT pg_monitor TO {quoted(plan.admin)}",
        )
    if plan.close_sessions and server["signals"] != "t":
        yield Finding(
            "refuse", f"{plan.admin} may not close sessions", f"GRANT pg_signal_backend TO {quoted(plan.admin)}"
        )


def _about_account(
    session: Session, row: Row, server: Row, reached: frozenset[str] | None, plan: Plan
) -> Iterator[Finding]:
    name = str(row["name"])
    if row["expired"] == "t":
        next_step = f"ALTER ROLE {quoted(name)} VALID UNTIL 'infinity'"
        yield Finding("refuse", f"{name} is VALID UNTIL {row['until']}, which is past: no password works", next_step)
    if row["connections"] == "0":
        next_step = f"ALTER ROLE {quoted(name)} CONNECTION LIMIT -1"
        yield Finding("refuse", f"{name} has CONNECTION LIMIT 0: nobody can log in as it", next_step)
    if row["login"] != "t" and not plan.alternating:
        yield Finding("refuse", f"{name} has NOLOGIN", f"ALTER ROLE {quoted(name)} LOGIN")
    if plan.admin is not None and server["super"] != "t":
        if reached is None:
            yield from _about_power(session, row, server, plan.admin)
        elif name in reached:
            yield Finding("ok", f"{plan.admin} changes {name} through the functions of schema vaultkeeper")
        else:
            next_step = f"INSERT INTO vaultkeeper.accounts VALUES ({_literal(name)})"  # noqa: S608 - for a person
            yield Finding("refuse", f"the functions of schema vaultkeeper do not reach {name}", next_step)
    if plan.owner and row["super"] != "t":
        if row["member"] == "f":
            next_step = f"GRANT {quoted(plan.owner)} TO {quoted(name)}"
            yield Finding(
                "refuse", f"{name} is no member of {plan.owner}: it cannot use what the other made", next_step
            )
        elif row["acts"] != "t":
            next_step = f"ALTER ROLE {quoted(name)} SET role = {_literal(plan.owner)}"
            yield Finding("warn", f"what {name} makes will belong to it, not to {plan.owner}", next_step)


def _about_power(session: Session, row: Row, server: Row, admin: str) -> Iterator[Finding]:
    """Whether the admin, who is no superuser, may change this account."""
    name = str(row["name"])
    if row["super"] == "t":
        yield Finding(
            "refuse",
            f"{name} is a superuser, which only a superuser may change",
            f"say admin: self with user: {name}, or ALTER ROLE {quoted(name)} NOSUPERUSER",
        )
        return
    if server["createrole"] != "t":
        yield Finding("refuse", f"{admin} lacks CREATEROLE", f"ALTER ROLE {quoted(admin)} CREATEROLE")
    if session.version >= ADMIN_OPTION_NEEDED and row["admin"] != "t":
        yield Finding("refuse", f"{admin} lacks ADMIN OPTION on {name}", _grant(name, admin))


def _about_missing(session: Session, name: str, server: Row, owners: Sequence[Row], plan: Plan) -> Iterator[Finding]:
    if not plan.create:
        yield Finding("refuse", f"the role {name} does not exist", "create it, or say create_users: true")
        return
    yield Finding("ok", f"{name} will be created")
    if plan.admin is None or server["super"] == "t":
        return
    if server["createrole"] != "t":
        yield Finding("refuse", f"{plan.admin} lacks CREATEROLE", f"ALTER ROLE {quoted(plan.admin)} CREATEROLE")
    if plan.owner and session.version >= ADMIN_OPTION_NEEDED and owners and owners[0]["admin"] != "t":
        yield Finding("refuse", f"{plan.admin} lacks ADMIN OPTION on {plan.owner}", _grant(plan.owner, plan.admin))


# ------------------------------------------------------------------------------------------------------------- sessions


def holders(session: Session, name: str) -> list[str]:
    """Who is connected as this account, by address. Every session counts, also where its columns are unreadable."""
    rows = session.run(
        "SELECT COALESCE(pg_catalog.host(client_addr),"  # noqa: S608 - libpq quotes the name
        " CASE WHEN client_port = -1 THEN 'a local socket' END,"
        " 'an address that needs pg_monitor to see') AS origin, count(*) AS sessions,"
        " pg_catalog.string_agg(pid::text, ', ' ORDER BY pid) AS pids FROM pg_catalog.pg_stat_activity"
        f" WHERE usename = {session.literal(name)} AND pid <> pg_catalog.pg_backend_pid() GROUP BY 1 ORDER BY 1"
    )[0]
    return [
        f"{row['sessions']} session{'' if row['sessions'] == '1' else 's'} of {name} from {row['origin']}"
        f" (pid {row['pids']})"
        for row in rows
    ]


def terminate(session: Session, name: str) -> None:
    """End every session of this account but our own."""
    session.run(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"  # noqa: S608 - as above
        f" WHERE usename = {session.literal(name)} AND pid <> pg_catalog.pg_backend_pid()"
    )


# --------------------------------------------------------------------------------------------------------- doctor --sql


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    escaped = text.replace("'", "''")
    return f" E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in text else f"'{escaped}'"


def _grant(role: str, admin: str) -> str:
    return f"GRANT {quoted(role)} TO {quoted(admin)} WITH ADMIN OPTION, INHERIT FALSE, SET FALSE"


def doctor_sql(plan: Plan) -> str:
    """Statements for a superuser, in psql. Two ways; the second is the narrower. Contains no password."""
    if plan.admin is None:
        return f"-- admin: self: {plan.accounts[0]} changes its own password and needs no privilege.\n"
    admin = quoted(plan.admin)
    reached = [*plan.accounts, *([plan.owner] if plan.owner and plan.create else [])]
    grants = "\n".join(_grant(role, plan.admin) + ";" for role in reached)
    signal = "" if plan.close_sessions else "-- only for close_sessions and --emergency: "
    return f"""-- As a superuser, with psql, in database {quoted(plan.database)}:
SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {_literal(plan.admin)}) AS vk_exists \\gset
\\if :vk_exists
\\else
CREATE ROLE {admin} LOGIN;
\\password {admin}
\\endif
GRANT pg_monitor TO {admin};         -- sees whose sessions still use the old password
{signal}GRANT pg_signal_backend TO {admin};

-- EITHER by role attribute. Before PostgreSQL 16 this reaches every role that is no superuser.
ALTER ROLE {admin} CREATEROLE;
-- From PostgreSQL 16 on, for each account that exists (those that it creates, it may change anyway):
{grants}

-- OR by functions that reach these accounts only and take nothing but a SCRAM verifier.
{_functions(plan, admin)}"""  # noqa: S608 - for a person to read; names are quoted


def _functions(plan: Plan, admin: str) -> str:
    names = ", ".join(f"({_literal(name)})" for name in plan.accounts)
    guard = "IF NOT EXISTS (SELECT FROM vaultkeeper.accounts a WHERE a.name = account) THEN"
    head = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $vaultkeeper$\nBEGIN"
    return f"""CREATE SCHEMA IF NOT EXISTS vaultkeeper;
CREATE TABLE IF NOT EXISTS vaultkeeper.accounts (name name PRIMARY KEY);
INSERT INTO vaultkeeper.accounts VALUES {names} ON CONFLICT DO NOTHING;
CREATE OR REPLACE FUNCTION vaultkeeper.verifier(account name) RETURNS text {head}
  {guard} RETURN '{UNLISTED}'; END IF;
  RETURN (SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = account);
END $vaultkeeper$;
CREATE OR REPLACE FUNCTION vaultkeeper.set_login(account name, verifier text, login boolean) RETURNS void {head}
  {guard} RAISE insufficient_privilege; END IF;
  IF verifier !~ '^SCRAM-SHA-256[$][0-9]+:[A-Za-z0-9+/=]+[$][A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+$' THEN
    RAISE invalid_parameter_value;
  END IF;
  EXECUTE format('ALTER ROLE %I %s PASSWORD %L', account,
    CASE WHEN login THEN 'LOGIN' WHEN NOT login THEN 'NOLOGIN' ELSE '' END, verifier);
END $vaultkeeper$;
CREATE OR REPLACE FUNCTION vaultkeeper.set_comment(account name, note text) RETURNS void {head}
  {guard} RAISE insufficient_privilege; END IF;
  EXECUTE format('COMMENT ON ROLE %I IS %L', account, note);
END $vaultkeeper$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA vaultkeeper FROM PUBLIC;
GRANT USAGE ON SCHEMA vaultkeeper TO {admin};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA vaultkeeper TO {admin};
"""  # noqa: S608 - for a person to read; names are quoted
