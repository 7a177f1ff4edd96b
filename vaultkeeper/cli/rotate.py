"""`rotate`, `resume`, `rollback`: change a secret, go on with a change, or go back."""

from __future__ import annotations

from typing import Annotated

import typer

from vaultkeeper.cli import progress, reports, spell
from vaultkeeper.cli.command import command
from vaultkeeper.cli.plan import planned, show_plans
from vaultkeeper.cli.select import Name, Names, chosen, named
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import UsageError
from vaultkeeper.model.rotation import Options, Purpose

PANEL = "Change"

All = Annotated[bool, typer.Option("--all", help="Every enabled policy, now, within min_interval.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Every enabled policy with this tag; repeatable.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Reason = Annotated[str, typer.Option("--reason", help="For history and the audit log.")]
Wait = Annotated[
    str | None,
    typer.Option("--wait", metavar="DURATION", help="How long to wait for consumers and servers. [default: 10min]"),
]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=64, help="Secrets worked on at a time.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Overwrite an account that can log in already. There is no way back.")
]


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "rotate", panel=PANEL)(rotate)
    command(app, "resume", panel=PANEL)(resume)
    command(app, "rollback", panel=PANEL)(rollback)


def rotate(
    session: Session,
    *,
    names: Names = None,
    every: All = False,
    due: Annotated[bool, typer.Option("--due", help="What is due: retire, then rotate. For a timer.")] = False,
    tags: Tags = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Set and test, take it away again; no consumer.")
    ] = False,
    yes: Yes = False,
    reason: Reason = "",
    emergency: Annotated[bool, typer.Option("--emergency", help="A leak: no grace, the old value is dead.")] = False,
    cut: Annotated[bool, typer.Option("--cut", help="With --emergency: wait for nobody.")] = False,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="DURATION", help="With --emergency: for consumers. 10min.")
    ] = None,
    replace: Replace = False,
    forget_old: Annotated[
        bool, typer.Option("--forget-old", help="The old version's own target is gone for good: do not retire there.")
    ] = False,
    keep_old_key: Annotated[
        bool, typer.Option("--keep-old-key", help="With --emergency: the leaked key still opens old data.")
    ] = False,
    data_loss: Annotated[
        bool, typer.Option("--data-loss", help="With --emergency: give up data under the old key.")
    ] = False,
    wait: Wait = None,
    parallel: Parallel = 4,
) -> int:
    """Make a new value, prove it, deliver it, retire the old one.

    Killed half-way? `vaultkeeper resume --all` goes on where it stopped.
    """
    if not emergency and (cut or deadline or keep_old_key or data_loss):
        raise UsageError("--cut, --deadline, --keep-old-key and --data-loss go with --emergency")
    if due and (names or every or tags or rehearse or emergency or replace):
        raise UsageError("--due decides by itself which secrets, and how", next="vaultkeeper rotate --due")
    purpose = _purpose(emergency=emergency, rehearse=rehearse)
    options = Options(
        reason=reason,
        replace=replace,
        cut=cut,
        deadline=spell.read_duration(deadline, "--deadline") or Options.deadline,
        keep_old_key=keep_old_key,
        data_loss=data_loss,
        forget_old=forget_old,
    )
    waiting = spell.read_duration(wait, "--wait")
    session.parallel = parallel
    parts = session.parts
    from vaultkeeper.engine import rotate as engine

    selected = engine.due_names(parts) if due else chosen(names, parts.policies, every=every, tags=tags or ())
    if dry_run:
        show_plans(session, planned(session, selected, purpose=purpose))
        return 0
    if session.out.interactive and not yes and selected:
        show_plans(session, planned(session, selected, purpose=purpose), to_stderr=True)
        if not session.out.confirmed(f"Rotate {_count(selected)} now?"):
            session.out.say("Nothing was changed.")
            return 0
    with progress.shown(session):
        if due:
            done = engine.run_due(parts, wait=waiting)
        else:
            done = engine.rotate(
                selected,
                parts,
                by_name=bool(names),
                purpose=purpose,
                options=options,
                wait=waiting,
            )
    return reports.show(session, done)


def resume(
    session: Session,
    *,
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Every open rotation.")] = False,
    revoked: Annotated[
        bool, typer.Option("--revoked", help="A person has revoked the old value, which nothing here can prove.")
    ] = False,
    wait: Wait = None,
    parallel: Parallel = 4,
) -> int:
    """Go on with open rotations, also parked ones, after a crash or once the cause is gone."""
    if bool(names) == every:
        raise UsageError("say which rotations", next="vaultkeeper resume NAME…   or   vaultkeeper resume --all")
    if revoked and every:
        raise UsageError("--revoked is said of one secret at a time", next="vaultkeeper resume NAME --revoked")
    session.parallel = parallel
    parts = session.parts
    from vaultkeeper.engine import rotate as engine

    known = {*parts.policies, *parts.store.secrets()}
    selected = None if every else named(names or (), known)
    with progress.shown(session):
        said = Options(revoked=True) if revoked else None
        done = engine.resume(selected, parts, wait=spell.read_duration(wait, "--wait"), said=said)
    return reports.show(session, done)


def rollback(
    session: Session,
    name: Name,
    *,
    reason: Reason = "",
    yes: Yes = False,
    again: Annotated[bool, typer.Option("--again", help="Also where the last change was a rollback: undo it.")] = False,
    wait: Wait = None,
) -> int:
    """Go back: undo an open rotation, or bring the previous value back as a new version."""
    parts = session.parts
    named([name], {*parts.policies, *parts.store.secrets()})
    if session.out.interactive and not yes and not session.out.confirmed(f"Bring the previous value of {name} back?"):
        session.out.say("Nothing was changed.")
        return 0
    from vaultkeeper.engine import rollback as engine

    with progress.shown(session):
        report = engine.rollback(name, parts, wait=spell.read_duration(wait, "--wait"), reason=reason, again=again)
    return reports.show(session, [report])


def _purpose(*, emergency: bool, rehearse: bool) -> Purpose:
    if emergency and rehearse:
        raise UsageError("--emergency and --rehearse exclude each other")
    if emergency:
        return Purpose.EMERGENCY
    return Purpose.REHEARSE if rehearse else Purpose.ROTATE


def _count(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"these {len(names)} secrets"
