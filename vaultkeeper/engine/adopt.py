"""The first version: take what works today, prove it, store it as CURRENT, change nothing (rotation.md section 8)."""

from __future__ import annotations

import secrets
from dataclasses import replace

from vaultkeeper.engine import moves
from vaultkeeper.engine.book import Book, bound_to
from vaultkeeper.engine.budget import budget_of
from vaultkeeper.engine.given import named, refuse_breaking_out
from vaultkeeper.engine.groups import asked
from vaultkeeper.engine.observe import explained, made_up, same_credential, tried
from vaultkeeper.engine.opening import giving_way, newest_open
from vaultkeeper.engine.parts import Parts, open_target, present_binding
from vaultkeeper.errors import AlreadyOpen, BackendError, NotFound, RotationFailed
from vaultkeeper.model import duration
from vaultkeeper.model.outcome import Basis, Login, No, Observation, Refused, Unknown
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, Rotation, State
from vaultkeeper.model.secret import Acceptance, Fields, SecretVersion, StagingLabel, VersionRecord
from vaultkeeper.ports import Change, Context, Deadline, Target, VersionChange


def adopt(name: str, given: Fields, parts: Parts) -> SecretVersion:
    """Store what a person says works. `given`: fields by name, or a bare value under the key "".

    Idempotent: the value that is CURRENT already is proven again, and nothing is stored.
    Proven at the target first: RotationFailed where it is not accepted, BackendError where that cannot be asked;
    nothing is stored then. An open rotation is an error (AlreadyOpen), unless it is stuck because store and target
    disagree: adopting ends it.
    """
    policy = parts.policies.get(name)
    if policy is None:
        raise NotFound(f"no policy is called {name}", next="vaultkeeper status   lists them")
    with parts.store.hold(f"secret:{name}"):
        stuck = _stuck(name, parts)
        version = _version(policy, named(policy, given, parts), parts)
        refuse_breaking_out(policy, version.fields)
        _prove(policy, version, parts)
        return _keep(version, stuck, parts)


def _stuck(name: str, parts: Parts) -> Rotation | None:
    rotation = newest_open(name, parts)
    disagree = {Cause.NONE_ACCEPTED, Cause.STALE, Cause.TARGET_WENT_BACK}
    if rotation is not None and not (rotation.state in {State.AMBIGUOUS, State.PARKED} and rotation.cause in disagree):
        raise AlreadyOpen(f"a rotation of {name} is open", next=f"vaultkeeper resume {name}")
    return rotation


def _version(policy: RotationPolicy, given: Fields, parts: Parts) -> SecretVersion:
    """Without a number: those are taken for what is stored only."""
    parts.redactor.learn(given)
    binding = present_binding(policy, parts)
    version = SecretVersion(policy.name, 0, secrets.token_hex(16), given, binding, parts.clock.now())
    target = open_target(parts, binding)
    if target is None:
        return version
    ctx = _context(version, parts)
    completed = asked(parts, f"{target.kind}.complete", lambda: target.complete(given, ctx, adopting=True))
    if isinstance(completed, Refused | Unknown):
        raise BackendError(
            f"{policy.name}: the value cannot be adopted",
            why=completed.detail,
            works="whatever worked before; nothing was stored or changed",
            next=f"vaultkeeper adopt {policy.name}   once what is named above is right",
        )
    parts.redactor.learn(completed)
    return replace(version, fields=completed)


def _numbered(version: SecretVersion, parts: Parts) -> SecretVersion:
    """A number above what the target was tagged with last, or every later run would find this store stale."""
    target, least = open_target(parts, version.binding), 1
    if target is not None:
        ctx = _context(version, parts)
        seen = asked(parts, f"{target.kind}.observe", lambda: target.observe([], ctx))
        tag = None if isinstance(seen, Refused | Unknown) else seen.tag
        if tag and (tag.installation, tag.secret) == (parts.store.installation, version.secret):
            least = tag.generation + 1
    return replace(version, number=parts.store.next_number(version.secret, least))


def _prove(policy: RotationPolicy, version: SecretVersion, parts: Parts) -> None:
    target = open_target(parts, version.binding)
    if target is None or policy.target is None or policy.target.unverified or not target.capabilities.probes:
        return
    heard = tried(parts, target, version, _context(version, parts))
    answer = heard.said
    if heard.refused is not None:
        raise _not_asked(policy.name, heard.refused.detail)
    if answer in {Login.UNREACHABLE, Login.THROTTLED}:
        wait = f"; wait {duration.show(heard.delay)}" if heard.delay else ""
        raise _not_asked(policy.name, f"{heard.detail}{wait}")
    if answer is not Login.ACCEPTED:
        why = explained(parts, target, version, answer, _context(version, parts))
        raise RotationFailed(
            f"{policy.name}: this value was not accepted",
            why=why or f"the login was {answer.value}",
            works="whatever worked before; nothing was stored or changed",
            next=f"vaultkeeper adopt {policy.name}   with the value that works today",
        )
    _refuse_unchecked(target, version, parts)


def _refuse_unchecked(target: Target, version: SecretVersion, parts: Parts) -> None:
    """Where anybody is let in a login proves nothing (invariant 5). Most targets say so without a failed one.

    Where accounts are locked, or as many logins as may fail have failed, it is left to the first rotation.
    """
    ctx = _context(version, parts)
    seen = asked(parts, f"{target.kind}.observe", lambda: target.observe([version], ctx))
    open_to_all = isinstance(seen, Refused) and seen.why is No.UNCHECKED
    why = seen.detail if isinstance(seen, Refused) else "the login with a made-up value was accepted too"
    charged = budget_of(target, version)
    locks = charged is not None and charged.own
    if isinstance(seen, Observation) and seen.basis is Basis.LOGIN and not target.capabilities.mutual and not locks:
        open_to_all = tried(parts, target, made_up(target, version), ctx, must_fail=True).said is Login.ACCEPTED
    if open_to_all:
        raise RotationFailed(
            f"{version.secret}: this value was accepted, as any other would be",
            why=why,
            works="whatever worked before; nothing was stored or changed",
            next=f"put right what is named above, then   vaultkeeper adopt {version.secret}",
        )


def _not_asked(name: str, why: str) -> BackendError:
    """It says nothing about the value."""
    return BackendError(
        f"{name}: the target could not be asked",
        why=why,
        works="whatever worked before; nothing was stored or changed",
        next=f"vaultkeeper check   once that is put right, then   vaultkeeper adopt {name}   with the same value",
    )


def _keep(version: SecretVersion, stuck: Rotation | None, parts: Parts) -> SecretVersion:
    book = Book(version.secret, parts.store, parts.envelope, parts.redactor)
    known = None if stuck is not None and stuck.cause is Cause.STALE else _known(version, book)
    before = parts.store.labels(version.secret).get(StagingLabel.CURRENT)
    settled = known is not None and known.verified and known.acceptance is Acceptance.ACCEPTED
    if known and known.number == before and settled and stuck is None:
        return known
    kept = known or _numbered(version, parts)
    labels = {StagingLabel.CURRENT: kept.number, StagingLabel.PENDING: None}
    if before not in (None, kept.number):
        labels[StagingLabel.PREVIOUS] = before
    parts.store.audit({"event": "adopt", "secret": version.secret, "to": kept.number})
    proven = {kept.number: VersionChange(acceptance=Acceptance.ACCEPTED, verified=True)}
    change = Change(new_version=None if known else _record(kept, parts), facts=proven, labels=labels)
    if stuck is None:
        parts.store.amend(version.secret, change)
    else:
        ended = moves.replaced(giving_way(stuck, parts), parts.clock.now())
        parts.store.commit(replace(change, rotation=ended))
    book.forget()
    return book.version(kept.number)


def _known(version: SecretVersion, book: Book) -> SecretVersion | None:
    """A value that is stored already is not stored twice: two versions of one value could never be told apart.

    CURRENT first: a discarded candidate may have had the same value, and consumers do not run on that one's objects.
    """
    stored = [book.version(number) for number, record in book.records().items() if record.sealed is not None]
    current = book.labelled(StagingLabel.CURRENT)
    newest_first = [*([current] if current else []), *reversed(stored)]
    return next((other for other in newest_first if same_credential(version, other)), None)


def _record(version: SecretVersion, parts: Parts) -> VersionRecord:
    bound = bound_to(version.number, version.id)
    sealed = parts.envelope.seal(version.fields, secret=version.secret, bound_to=bound)
    number, made_for = version.number, version.binding
    return VersionRecord(version.secret, number, version.id, made_for, version.created_at, sealed)


def _context(version: SecretVersion, parts: Parts) -> Context:
    deadline = Deadline(parts.clock.monotonic_s() + parts.hook_deadline.total_seconds())
    current = Book(version.secret, parts.store, parts.envelope, parts.redactor).labelled(StagingLabel.CURRENT)
    return Context(parts.store.installation, version.secret, 0, deadline, parts.credentials, current or version, None)
