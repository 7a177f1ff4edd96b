"""What became of rotations: the table, the JSON document, the errors and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaultkeeper.cli.guard import worst
from vaultkeeper.cli.output import STATE_STYLES, Output
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import Locked, VaultkeeperError

if TYPE_CHECKING:
    from vaultkeeper.engine.rotate import Report


def show(session: Session, done: Sequence[Report]) -> int:
    """Data on stdout, one error per failed rotation on stderr; the worst exit code."""
    out = session.out
    if out.json:
        changed = sum(report.changed for report in done)
        out.document({"changed": changed, "rotations": [document(report, out) for report in done]})
    elif done:
        out.table(("SECRET", "RESULT", "VERSION", "TIME", ""), [_row(report) for report in done], STATE_STYLES)
    else:
        out.say("Nothing to do.")
    for report in done:
        error = error_of(report)
        if error:
            out.error(error)
    return worst(report.exit_code for report in done)


def error_of(report: Report) -> VaultkeeperError | None:
    """None where the exit code is 0: a secret in grace is skipped by `--all`, and that is no error."""
    if report.exit_code == 0:
        return None
    if report.error:
        return report.error
    if report.skipped.startswith("paused"):
        hint = f"vaultkeeper unpause {report.secret}   ends it; --emergency does not wait"
    elif report.skipped.startswith("its policy is disabled"):
        hint = f"enabled: true in its policy, then   vaultkeeper rotate {report.secret}"
    elif report.skipped.startswith("rotated less than min_interval"):
        hint = f"then   vaultkeeper rotate {report.secret}   (a leak: with --emergency at once)"
    else:
        hint = "vaultkeeper status   says when; --emergency does not wait"
    return Locked(f"{report.secret}: {_skipped(report)}", works="nothing was changed", next=hint)


def _skipped(report: Report) -> str:
    """A pause may have no reason."""
    return report.skipped.removesuffix(": ")


def document(report: Report, out: Output) -> dict[str, object]:
    """One rotation in JSON."""
    error = error_of(report)
    return {
        "secret": report.secret,
        "rotation": report.rotation.id if report.rotation else None,
        "state": report.state,
        "from_version": report.rotation.from_version if report.rotation else None,
        "to_version": report.rotation.to_version if report.rotation else None,
        "seconds": round(report.seconds, 3),
        "error": out.error_document(error) if error else None,
        "detail": detail(report),
        "next": _following(report) or (error.next if error else None),
    }


def detail(report: Report) -> str:
    """Why it was skipped, what it waits for, what could not be proven."""
    from vaultkeeper.engine.verdict import awaited, described

    rotation = report.rotation
    if rotation is None:
        return _skipped(report)
    texts = [_skipped(report)]
    if rotation.waiting or rotation.cause:
        texts.append(described(rotation))
    if rotation.waiting_for:
        texts.append(", ".join(rotation.waiting_for))
    if awaited(rotation):
        texts.append(rotation.detail)
    if rotation.unverified:
        texts.append(f"unverified: {rotation.unverified}")
    if awaited(rotation):
        texts.append(f"next: {awaited(rotation)}")
    return "; ".join(text for text in texts if text)


def _following(report: Report) -> str:
    """The next command, where a person is waited for."""
    from vaultkeeper.engine.verdict import awaited

    return awaited(report.rotation) if report.rotation else ""


def _row(report: Report) -> tuple[str, str, str, str, str]:
    rotation = report.rotation
    version = ""
    if rotation and rotation.to_version is not None:
        old = f"v{rotation.from_version} → " if rotation.from_version else ""
        version = f"{old}v{rotation.to_version}"
    seconds = f"{report.seconds:.1f}s" if report.seconds else ""
    state = "failed" if rotation is None and error_of(report) and not report.skipped else report.state
    return report.secret, state, version, seconds, detail(report)
