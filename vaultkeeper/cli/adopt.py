"""`adopt`: take over what works today. Proven at the target, stored as CURRENT; nothing is changed anywhere."""

from __future__ import annotations

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.given import given
from vaultkeeper.cli.rotate import Yes
from vaultkeeper.cli.select import Name, named
from vaultkeeper.cli.session import Session
from vaultkeeper.model.secret import StagingLabel


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "adopt", panel="Change")(adopt)


def adopt(session: Session, name: Name, yes: Yes = False) -> None:
    """Store the value that works today, read from stdin, as CURRENT. It is proven first and nothing is changed.

    The bare value (one trailing newline is dropped), or a JSON object where a version has several fields:
    an object with username and password, for example. On a terminal each field is asked for without echo.
    """
    parts = session.parts
    named([name], parts.policies)
    policy = parts.policies[name]
    value = given(session, policy, "vaultkeeper adopt")
    question = f"Prove this value of {name}, and store it as current? Nothing is changed at the target."
    if session.out.interactive and not yes and not session.out.confirmed(question):
        session.out.say("Nothing was stored.")
        return
    from vaultkeeper.engine import adopt as engine

    before = parts.store.labels(name).get(StagingLabel.CURRENT)
    version = engine.adopt(name, value, parts)
    if session.out.json:
        session.out.document({"secret": name, "version": version.number, "fields": sorted(version.fields)})
    else:
        which = "is already current" if version.number == before else "is now current"
        unverified = policy.target.unverified if policy.target else None
        proof = f"is unverified ({unverified})" if unverified else "works"
        session.out.say(f"{name}: v{version.number} {proof} and {which}. Nothing was changed at the target.")
