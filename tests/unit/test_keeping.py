"""Old values are kept for old backups, and no longer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vaultkeeper.engine.keeping import expired
from vaultkeeper.model.policy import KeepVersions
from vaultkeeper.model.secret import Acceptance, Binding, VersionRecord

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def record(
    number: int, days: int, acceptance: Acceptance = Acceptance.REFUSED, *, sealed: bool = True
) -> VersionRecord:
    return VersionRecord(
        "a", number, f"{number:032x}", Binding(None, None, {}, 0), NOW - timedelta(days=days),
        b"x" if sealed else None, acceptance=acceptance,
    )  # fmt: skip


def gone(records: list[VersionRecord], labelled: tuple[int, ...] = (9,), **keep: object) -> list[int]:
    return expired(records, labelled, KeepVersions(**keep), NOW)  # type: ignore[arg-type]


def test_what_is_both_surplus_and_old_goes() -> None:
    records = [record(n, days=(10 - n) * 100) for n in range(1, 10)]
    assert gone(records, at_least=3, keep_for=timedelta(days=450)) == [1, 2, 3, 4, 5]


def test_at_least_so_many_stay_however_old() -> None:
    assert gone([record(n, days=5000) for n in range(1, 6)], at_least=5) == []


def test_younger_ones_stay_however_many() -> None:
    assert gone([record(n, days=10) for n in range(1, 50)], at_least=2) == []


def test_forever_is_forever() -> None:
    assert gone([record(n, days=9000) for n in range(1, 50)], at_least=1, keep_for=None) == []


def test_a_label_or_an_accepted_value_is_never_discarded() -> None:
    records = [record(1, 9000), record(2, 9000), record(3, 9000, Acceptance.ACCEPTED), record(4, 9000)]
    assert gone(records, labelled=(2,), at_least=1) == [1]


def test_what_is_gone_already_does_not_count() -> None:
    assert gone([record(1, 9000, sealed=False), record(2, 9000), record(3, 9000)], at_least=2) == []
