"""What became of rotations: the table, the JSON document, the errors and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaultkeeper.cli.guard import worst
from vaultkeeper.cli.output import STATE_STYLES, error_document
from vaultkeeper.cli.session import Session

if TYPE_CHECKING:
    from vaultkeeper.engine.rotate import Report


def show(session: Session, done: Sequence[Report]) -> int:
    """Data on stdout, one error per failed rotation on stderr; the worst exit code."""
    out = session.out
    if out.json:
        out.document({"changed": sum(map(changed, done)), "rotations": [document(report) for report in done]})
    elif done:
        out.table(("SECRET", "RESULT", "VERSION", "TIME", ""), [_row(report) for report in done], STATE_STYLES)
    else:
        out.say("Nothing is due.")
    for report in done:
        if report.error and report.exit_code:
            out.error(report.error)
    return worst(report.exit_code for report in done)


def changed(report: Report) -> bool:
    """Whether CURRENT moved."""
    return report.rotation is not None and not report.skipped and report.rotation.finished


def document(report: Report) -> dict[str, object]:
    """One rotation in JSON."""
    return {
        "secret": report.secret,
        "rotation": report.rotation.id if report.rotation else None,
        "state": "skipped" if report.skipped else report.state,
        "from_version": report.from_version,
        "to_version": report.to_version,
        "seconds": round(report.seconds, 3),
        "error": error_document(report.error) if report.error else None,
        "detail": detail(report),
    }


def detail(report: Report) -> str:
    """Why it was skipped, what it waits for, what could not be proven."""
    if report.skipped:
        return report.skipped
    rotation = report.rotation
    if rotation is None:
        return ""
    texts = []
    if rotation.waiting:
        texts.append(f"waiting: {rotation.waiting.value}")
    if rotation.waiting_for:
        texts.append(", ".join(rotation.waiting_for))
    if rotation.cause:
        texts.append(rotation.cause.value.replace("_", " "))
    if rotation.unverified:
        texts.append(f"unverified: {rotation.unverified}")
    return "; ".join(texts)


def _row(report: Report) -> tuple[str, str, str, str, str]:
    version = ""
    if report.to_version is not None:
        version = f"v{report.from_version} → v{report.to_version}" if report.from_version else f"v{report.to_version}"
    seconds = f"{report.seconds:.1f}s" if report.seconds else ""
    return report.secret, "skipped" if report.skipped else report.state, version, seconds, detail(report)
