"""`import`: a person supplies the next value of a secret that only a person can change (rotation.md section 8).

It goes on with the rotation that waits for a value, or opens one. From there on it is a rotation like any other: the
value is stored before anybody hears of it, proven, delivered, and the old one stays an open matter until it is dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

from vaultkeeper.engine import moves
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.by_hand import page
from vaultkeeper.engine.given import named, refuse_breaking_out
from vaultkeeper.engine.opening import (
    awaits_value,
    giving_way,
    newest_open,
    open_work,
    replaceable,
    take_up,
    takes_value,
)
from vaultkeeper.engine.parts import Parts, open_target, power, present_binding
from vaultkeeper.engine.plan import by_hand
from vaultkeeper.engine.rotate import Report, reason_to_skip, run
from vaultkeeper.engine.verdict import awaited, described, told
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import AlreadyOpen, NotFound, RotationFailed, UsageError
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Options, Purpose, Rotation, State
from vaultkeeper.model.secret import Fields, StagingLabel, VersionRecord
from vaultkeeper.ports import ByHand, Target

UNTOUCHED = "whatever worked before; nothing was stored or changed"


def import_value(name: str, given: Fields, parts: Parts, *, wait: timedelta | None = None, reason: str = "") -> Report:
    """Take a person's value as the next version and drive it on. `given`: by field, or a bare value under "".

    Raises NotFound and UsageError for what cannot be imported, and RotationFailed where the target could not be looked
    at: nothing is stored then. Never the value in any text.
    """
    policy = refuse_machine_made(name, parts)
    parts.redactor.learn(given)
    fields = named(policy, given, parts)
    target = open_target(parts, present_binding(policy, parts))
    _judge(policy, fields, target)
    opened = newest_open(name, parts)
    if opened is None:
        skipped = reason_to_skip(name, parts, Purpose.ROTATE, by_name=True)
        if skipped is not None:
            return skipped
    report = run({name: partial(_open, policy, fields, parts, page(target), reason)}, parts, by_name=True, wait=wait)[0]
    _refuse_unstored(report)
    return report


def refuse_machine_made(name: str, parts: Parts) -> RotationPolicy:
    """The policy of a secret that is imported; raises NotFound or UsageError for any other, before a value is read."""
    policy = parts.policies.get(name)
    if policy is None:
        raise NotFound(f"no policy is called {name}", next="vaultkeeper status   lists them")
    if by_hand(policy):
        return policy
    opened = newest_open(name, parts)  # it may still wait for a value from before its policy was changed
    ending = f"vaultkeeper rollback {name}   and then   " if opened and awaits_value(opened) else ""
    over = " --replace" if opened and replaceable(opened, replace=True) else ""
    raise UsageError(
        f"{name}: its values are not made by a person",
        why="only a secret with the strategy `manual` is imported",
        works=UNTOUCHED,
        next=f"{ending}vaultkeeper rotate {name}{over}   or, for what works today,   vaultkeeper adopt {name}",
    )


def _judge(policy: RotationPolicy, fields: Fields, target: Target | None) -> None:
    """By its looks alone, before anything is opened."""
    made_there = power(target, ByHand)
    faults = made_there.faults(fields) if made_there else ()
    if faults:
        raise UsageError(
            f"{policy.name}: this value cannot be right",
            why="; ".join(faults),
            works=UNTOUCHED,
            next=f"vaultkeeper import {policy.name}   with the whole value, copied again",
        )
    refuse_breaking_out(policy, fields)


def _open(policy: RotationPolicy, fields: Fields, parts: Parts, where: str, reason: str) -> Work:
    """The caller holds the secret.

    A rotation that began to wait under an older policy gives way to one of today's, and one of which nothing is
    accepted to one with the new value.
    """
    name, waiting = policy.name, newest_open(policy.name, parts)
    if waiting is not None and not takes_value(waiting):
        raise _open_already(waiting)
    _refuse_old(policy, fields, parts, where)
    # A person may have revoked the old value already, so that it need not be accepted any more.
    options = Options(reason=reason, replace=True)
    if waiting is None:
        work = open_work(name, parts, Purpose.ROTATE, options)
    elif waiting.policy == policy and waiting.state in {State.RUNNING, State.WAITING}:
        work = take_up(waiting, parts, said=options)
    else:
        ended = moves.replaced(giving_way(waiting, parts), parts.clock.now())
        purpose = Purpose.EMERGENCY if waiting.purpose is Purpose.EMERGENCY else Purpose.ROTATE
        work = open_work(name, parts, purpose, replace(waiting.options, replace=True), ended)
    work.given = fields
    return work


def _open_already(rotation: Rotation) -> AlreadyOpen:
    stuck = told(rotation)
    number = f"v{rotation.to_version}" if rotation.to_version else "a value"
    return AlreadyOpen(
        f"{rotation.secret}: {number} was given already, and its rotation is open: {described(rotation)}",
        why=stuck.why if stuck else rotation.detail,
        works=stuck.works if stuck else "nothing was changed by this command",
        next=stuck.next if stuck else awaited(rotation) or f"vaultkeeper resume {rotation.secret}",
    )


def _refuse_old(policy: RotationPolicy, fields: Fields, parts: Parts, where: str) -> None:
    """What was in use once is no new value. A candidate that was never put to use may be given again."""
    book, labels = Book(policy.name, parts.store, parts.envelope, parts.redactor), parts.store.labels(policy.name)
    in_use = {labels.get(StagingLabel.CURRENT), labels.get(StagingLabel.PREVIOUS)}
    for number, record in book.records().items():
        once_used = record.verified or number in in_use
        if record.sealed is None or not once_used:
            continue
        stored = book.version(number).fields  # a target may have added some
        if all(stored.get(name) == value for name, value in fields.items()):
            raise UsageError(
                f"{policy.name}: this is the value of v{number}, {_which(record, labels)}",
                works=UNTOUCHED,
                next=f"make a new one{f' at {where}' if where else ''}, then   vaultkeeper import {policy.name}",
            )


def _which(record: VersionRecord, labels: Mapping[StagingLabel, int]) -> str:
    leaked = ", and it leaked" if record.compromised else ""
    is_current = labels.get(StagingLabel.CURRENT) == record.number
    return ("which is current" if is_current else "which was in use before") + leaked


def _refuse_unstored(report: Report) -> None:
    """It waits for an answer before it may take the value, and the value is in no place but the person's hands."""
    rotation = report.rotation
    if rotation is None or not rotation.open or rotation.to_version is not None:
        return
    raise RotationFailed(
        f"{report.secret}: the value was not stored, because nothing could be asked first",
        why=f"{described(rotation)}{f': {rotation.detail}' if rotation.detail else ''}",
        works=UNTOUCHED,
        next=f"vaultkeeper import {report.secret}   again, with the same value, once that is put right",
    )
