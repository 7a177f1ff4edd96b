"""`on_drift: repair`: who was put back to an older version by somebody is handed CURRENT again, without being asked."""

from __future__ import annotations

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.groups import Holder, delivery_context, find_places
from vaultkeeper.engine.observe import drift
from vaultkeeper.engine.opening import new_rotation, newest_open
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.reconcile import DELIVER, STUCK, apply
from vaultkeeper.engine.work import Work
from vaultkeeper.model.rotation import Cause, Options, Purpose, Rotation
from vaultkeeper.model.secret import StagingLabel


def repair(name: str, parts: Parts) -> str:
    """Deliver CURRENT where a consumer holds an older version of ours. Returns what was found, empty where all is well.

    Idempotent. Leaves alone what an open rotation delivers anyway, and places that cannot be asked: the next run asks.
    Raises what `reconcile.apply` raises.
    """
    opened = newest_open(name, parts)
    stopped = _stopped_by_drift(opened)
    if opened is not None and not opened.finished and not stopped:
        return ""
    policy = parts.policies[name]
    places = find_places(policy, parts, delivery_context(parts))
    if not isinstance(places, tuple) or parts.store.labels(name).get(StagingLabel.CURRENT) is None:
        return ""
    book = Book(name, parts.store, parts.envelope, parts.redactor)
    work = Work(new_rotation(name, parts, Purpose.ROTATE, Options()), parts, book)
    found = "; ".join(drift(work, Holder(name, policy, places, None, book)))
    if stopped and not found:
        found = "all agree, and what drift had stopped is closed"
    if found:
        apply(name, DELIVER, parts)
    return found


def _stopped_by_drift(opened: Rotation | None) -> bool:
    """Before its finish, so that a delivery of CURRENT ends it; one of our own that failed is such a one too."""
    return opened is not None and not opened.finished and opened.state in STUCK and opened.cause is Cause.DRIFT
