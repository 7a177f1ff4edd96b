"""Create and mint: a version comes into being, sealed and stored before anybody outside hears of it."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from vaultkeeper.engine import judge
from vaultkeeper.engine.book import bound_to
from vaultkeeper.engine.by_hand import asks_for_value, page
from vaultkeeper.engine.groups import asked
from vaultkeeper.engine.moves import advance
from vaultkeeper.engine.parts import power
from vaultkeeper.engine.plan import by_hand
from vaultkeeper.engine.work import Work
from vaultkeeper.model.outcome import (
    Done,
    Finding,
    No,
    NotYet,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.rotation import End, Purpose, Rotation
from vaultkeeper.model.secret import (
    Fields,
    Handle,
    SecretBytes,
    SecretVersion,
    StagingLabel,
    VersionRecord,
)
from vaultkeeper.ports import Change, Fetches, Mints, VersionChange

INPUT_POLL = timedelta(hours=1)


def create(work: Work) -> Change:
    """Generate, complete, seal; durable before it is visible, because the next outward step writes first."""
    parts, rotation, now = work.parts, work.rotation, work.parts.clock.now()
    if by_hand(rotation.policy) and rotation.purpose is not Purpose.ROLLBACK and work.given is None:
        return judge.judge_result(
            rotation, NotYet(asks_for_value(rotation, page(work.target(work.binding()))), INPUT_POLL), now
        )
    refusal = _first_refusal(work)
    if refusal is not None:
        return judge.judge_result(rotation, refusal, now)
    fields = _new_fields(work)
    if isinstance(fields, Refused | NotYet | Unknown):
        return judge.judge_result(rotation, fields, now)
    number = parts.store.next_number(rotation.secret)
    version_id = secrets.token_hex(16)
    sealed = (
        parts.envelope.seal(fields, secret=rotation.secret, bound_to=bound_to(number, version_id)) if fields else None
    )
    handle, expires_at = _inherited(work)
    record = VersionRecord(rotation.secret, number, version_id, work.binding(), now, sealed, handle, expires_at)
    work.book.add(record, fields)
    moved = advance(replace(rotation, to_version=number), now)
    return replace(moved, new_version=record, labels={StagingLabel.PENDING: number})


def _first_refusal(work: Work) -> Refused | None:
    """Privileges and capacity are asked for before anything exists that would have to be undone."""
    target = work.target(work.binding())
    if target is None:
        return None
    findings = asked(work.parts, f"{target.kind}.check", lambda: target.check(work.context()))
    if isinstance(findings, Refused):
        return findings
    if isinstance(findings, Unknown):
        return None  # unreachable shows itself in the step that needs an answer
    refused = next((finding for finding in findings if finding.level == "refuse"), None)
    return Refused(No.PRIVILEGE, _told(refused)) if refused else None


def _told(finding: Finding) -> str:
    return f"{finding.text}; {finding.next}" if finding.next else finding.text


def _new_fields(work: Work) -> Fields | Refused | NotYet | Unknown:
    rotation, parts = work.rotation, work.parts
    if rotation.purpose is Purpose.ROLLBACK:
        source = work.book.maybe(rotation.previous_version)
        return dict(source.fields) if source else Refused(No.UNSUPPORTED, "there is no previous version")
    given = work.given or _generated(rotation, work)
    target = work.target(work.binding())
    if given is None:
        return {}
    if target is None or isinstance(given, Refused | NotYet | Unknown):
        return given
    parts.redactor.learn(given)  # before anybody else is shown it
    completed = asked(parts, f"{target.kind}.complete", lambda: target.complete(given, work.context(), adopting=False))
    if not isinstance(completed, Unknown | Refused):
        parts.redactor.learn(completed)
    return completed


def _generated(rotation: Rotation, work: Work) -> Fields | Refused | NotYet | Unknown | None:
    """None: the system makes the value."""
    policy = rotation.policy
    if policy.static is not None:
        return {"value": SecretBytes(policy.static.encode())}
    if policy.generator is None:
        return None
    generator = work.parts.backends.generator(policy.generator.kind)
    forbidden, max_bytes = frozenset[str](), None
    if policy.target is not None:
        capabilities = work.parts.backends.target_class(policy.target.kind).capabilities
        forbidden, max_bytes = capabilities.forbidden, capabilities.max_bytes
    for spec in policy.destinations:
        forbidden |= work.parts.backends.destination(spec.kind).forbidden
    settings, fetcher = policy.generator.settings, power(generator, Fetches)
    if fetcher is None:
        fields = generator.generate(settings, forbidden, max_bytes)
    else:
        fetch = partial(fetcher.fetch, settings, forbidden, max_bytes, work.context())
        fetched = asked(work.parts, f"{generator.kind}.fetch", fetch)
        if isinstance(fetched, Refused | NotYet | Unknown):
            return fetched
        fields = fetched
    if policy.generator.field is None:
        return fields
    return {policy.generator.field: fields[generator.field]}


def _inherited(work: Work) -> tuple[Handle | None, datetime | None]:
    """A rollback of a minted value carries its handle and expiry along."""
    source = work.book.maybe(work.rotation.previous_version) if work.rotation.purpose is Purpose.ROLLBACK else None
    return (source.handle, source.expires_at) if source else (None, None)


def mint(work: Work) -> Change:
    """The name is durable before the call, the value before any use (rotation.md section 14)."""
    parts, rotation, now = work.parts, work.rotation, work.parts.clock.now()
    pending = work.version(End.TO)
    target = power(work.target(work.binding()), Mints)
    if pending is None or target is None:
        raise RuntimeError("only a target that mints has a mint phase")
    if pending.fields:
        return advance(rotation, now)
    work.begin()
    ctx, kind = work.context(), work.binding().target_kind
    found = asked(parts, f"{kind}.find", lambda: target.find(pending.id, ctx))
    if isinstance(found, Unknown | Refused):
        return judge.judge_result(work.rotation, found, now)
    if found is not None and found[0] is None:
        dropped = collect_orphan(work, pending)
        if not isinstance(dropped, Done):
            return judge.judge_result(work.rotation, dropped, now)
    # Counted from a durable moment: after a crash the token that `find` returns still carries the first call's expiry.
    period = rotation.policy.rotation_period
    expires = pending.created_at + 2 * period + timedelta(days=1) if period else None
    if found is not None and found[0] is not None:
        return _store_minted(work, pending, found[0], found[1], expires)
    minted = asked(parts, f"{kind}.mint", lambda: target.mint(pending.id, expires, ctx))
    if isinstance(minted, Unknown | Refused | NotYet):
        return judge.judge_result(work.rotation, minted, now)
    return _store_minted(work, pending, *minted, expires)


def _store_minted(
    work: Work, pending: SecretVersion, fields: Fields, handle: Handle, expires: datetime | None
) -> Change:
    sealed = work.parts.envelope.seal(fields, secret=pending.secret, bound_to=bound_to(pending.number, pending.id))
    facts = {pending.number: VersionChange(sealed=sealed, handle=handle, expires_at=expires)}
    work.apply(advance(work.rotation, work.parts.clock.now(), facts))
    work.write()
    return Change(work.rotation)


def collect_orphan(work: Work, version: SecretVersion) -> Result:
    """What was minted under this version's name, and never reached the store, is of use to nobody."""
    target, ctx = power(work.target(version.binding), Mints), work.context()
    if target is None:
        return Done()
    found = asked(work.parts, f"{version.binding.target_kind}.find", lambda: target.find(version.id, ctx))
    if isinstance(found, Unknown | Refused):
        return found
    if found is None:
        return Done()
    return asked(work.parts, f"{version.binding.target_kind}.drop", lambda: target.drop(found[1], ctx))
