"""What `doctor` looks at here: everything around vaultkeeper that can go wrong without a rotation or a server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from vaultkeeper.access import sops
from vaultkeeper.errors import VaultkeeperError
from vaultkeeper.model.outcome import Finding
from vaultkeeper.wiring import Installed, open_installed, places, policies
from vaultkeeper.wiring.places import Wishes

ROOM_BYTES = 64 * 1024 * 1024  # below this a log rotation elsewhere can fill the disk
Subject = tuple[str, Finding]


def examine(wishes: Wishes) -> list[Subject]:
    """Every finding, good ones too; `refuse`: vaultkeeper cannot work like this. Raises nothing that it can show."""
    found: list[Subject] = []
    installed: Installed | None = None
    try:
        installed = open_installed(wishes)
    except VaultkeeperError as error:
        found.append(("installation", _refusal(error)))
    if installed:
        found += _installed(installed)
    found += _caught("policies", lambda: _policies(wishes))
    found.append(("sops", _sops()))
    return found


def _installed(installed: Installed) -> Iterator[Subject]:
    public = installed.installation.public
    yield "state", Finding("ok", f"{installed.state_dir}, integrity check passed")
    yield "disk", _room(installed.state_dir)
    yield "identity", Finding("ok", f"{installed.identity} opens installation {public.id}")
    if public.recovery:
        yield "recovery", Finding("ok", ", ".join(public.recovery))
    else:
        lost = "no recovery recipient: if the identity is lost, every value is"
        yield "recovery", Finding("warn", lost, "keep a copy of the identity somewhere else")
    yield from _caught("audit log", lambda: _audit(installed))
    yield from _caught("rotations", lambda: _open_rotations(installed))


def _audit(installed: Installed) -> Finding:
    bad = installed.store.verify_audit()
    if bad:
        return Finding("refuse", f"record {bad.index} is {bad.fault.value}", "vaultkeeper audit verify")
    return Finding("ok", f"{installed.store.audit_head().seq} records, whole and in order")


def _open_rotations(installed: Installed) -> Finding:
    stuck = [r.secret for r in installed.store.open_rotations() if r.state.value in {"parked", "ambiguous"}]
    if stuck:
        return Finding("warn", f"need a person: {', '.join(stuck)}", "vaultkeeper status")
    return Finding("ok", f"{len(installed.store.open_rotations())} open, none of them stuck")


def _policies(wishes: Wishes) -> Finding:
    found = policies(wishes)
    disabled = sum(not policy.enabled for policy in found.values())
    return Finding("ok", f"{len(found)} in {places.policies(wishes)}, {disabled} disabled")


def _room(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    text = f"{free // (1024 * 1024)} MiB free"
    if free < ROOM_BYTES:
        return Finding("warn", text, "a full disk stops rotations before they change anything: make room")
    return Finding("ok", text)


def _sops() -> Finding:
    try:
        return Finding("ok", sops.locate())
    except VaultkeeperError as error:
        return Finding("unchecked", f"{error}; only sops destinations need it", error.next)


def _caught(subject: str, look: Callable[[], Finding]) -> Iterator[Subject]:
    try:
        yield subject, look()
    except VaultkeeperError as error:
        yield subject, _refusal(error)


def _refusal(error: VaultkeeperError) -> Finding:
    return Finding("refuse", str(error), error.next)
