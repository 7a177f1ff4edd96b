"""Do the services of a group run on what was delivered? What Dokploy says of it counts only where it is bad news."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from vaultkeeper.access import consumers, slots
from vaultkeeper.access.dokploy import RightMissing
from vaultkeeper.access.dokploy import running as dokploy_running
from vaultkeeper.access.dokploy.group import NOBODY_WAITS, Group
from vaultkeeper.access.dokploy.running import CannotSee
from vaultkeeper.access.dokploy.service import DATABASES, Holder, How, deployments
from vaultkeeper.model.outcome import Confirmation, Confirmed, Failed, NotYet, Proof
from vaultkeeper.ports import DeliveryContext

SOON, LATER = timedelta(seconds=2), timedelta(minutes=1)


def confirmed(here: Group, service: Holder, ctx: DeliveryContext) -> Confirmation:
    """Does this service run on it? What Dokploy itself says counts only where it is bad news."""
    how, probe = here.how(service), here.settings.confirm
    if how == "none":
        nobody_waits = here.spec.read in NOBODY_WAITS
        return Confirmed(Proof.DEMONSTRATED if nobody_waits else Proof.WRITTEN)
    bad = _told_by_dokploy(here, service, how)
    if bad is not None:
        return bad
    healthy_s = here.spec.healthy_for.total_seconds()
    missing = f"which containers of {service.name} get it, its Compose file decides"
    if service.kind != "compose":
        try:
            return dokploy_running.effective(here.server, service, here.wanted(service), healthy_s)
        except (RightMissing, CannotSee) as error:
            missing = error.what
    if probe is None:
        return NotYet(f"{missing}, and no `confirm` is declared", LATER, (service.name,))
    if service.kind != "compose":
        doubt = dokploy_running.looks_healthy(here.server, service, healthy_s, forward=here.forward)
        if doubt is not None:
            return doubt
    wrong = consumers.unhealthy(probe, ctx.deadline)
    return NotYet(wrong, SOON, (service.name,)) if wrong else Confirmed(Proof.DEMONSTRATED)


def _told_by_dokploy(here: Group, service: Holder, how: How) -> NotYet | Failed | None:
    if how == "reload" or service.kind in DATABASES:
        if service.failed:
            return Failed(service.name, "Dokploy could not apply it (status error): a reference that names nothing?")
        return None
    record = _own_deployment(here, service)
    if record is None:
        return NotYet("its deployment has not begun; a restart of Dokploy forgets those that wait", SOON)
    if record.get("status") in ("error", "cancelled"):
        return Failed(service.name, f"its deployment in Dokploy ended: {record['status']}")
    return None if record.get("status") == "done" else NotYet("its deployment is under way", SOON)


def _own_deployment(here: Group, service: Holder) -> Mapping[str, object] | None:
    """The newest since `prepare` that has our title; `deploy` of a git repository puts the commit in its place."""
    pins = next((r.public.get("newest") for i in here.items if (r := slots.receipt_of(i)) is not None), None)
    before = pins.get(service.id) if isinstance(pins, Mapping) else None
    for record in deployments(here.server, service):
        if before is not None and record.get("deploymentId") == before:
            return None
        if record.get("title") == here.title or (before is not None and here.how(service) == "deploy"):
            return record
    return None


def newest(here: Group, service: Holder) -> str:
    """Empty: none so far, and later ones are all newer."""
    if service.kind in DATABASES:
        return ""
    return next((str(record.get("deploymentId")) for record in deployments(here.server, service)), "")


def applied(here: Group, service: Holder) -> bool:
    """Was it applied already, by an earlier try of this delivery?"""
    how = here.how(service)
    if how in ("redeploy", "deploy") and service.kind not in DATABASES:
        record = _own_deployment(here, service)
        return record is not None and record.get("status") in ("running", "done")
    if how == "none":
        return True
    with suppress(RightMissing, CannotSee):
        return dokploy_running.runs_on(here.server, service, here.wanted(service))
    return False
