"""The versions and receipts of one secret, unsealed when they are needed and only once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vaultkeeper.engine.guard import Redactor
from vaultkeeper.errors import NotFound
from vaultkeeper.model.secret import (
    Acceptance,
    Binding,
    Fields,
    SecretBytes,
    SecretVersion,
    StagingLabel,
    VersionRecord,
)
from vaultkeeper.ports import Change, Envelope, Store


def bound_to(number: int, version_id: str) -> str:
    """What a version's envelope is tied to (invariant 10)."""
    return f"{number}:{version_id}"


@dataclass
class Book:
    """Reads the store once. Who writes tells it what was written (`learn`), or lets it read again (`forget`)."""

    secret: str
    store: Store
    envelope: Envelope
    redactor: Redactor
    rebind: Callable[[Binding], Binding] = lambda binding: binding  #: today's way to the system a version was made for
    _records: dict[int, VersionRecord] = field(default_factory=dict)
    _fields: dict[int, Fields] = field(default_factory=dict)
    _versions: dict[int, tuple[VersionRecord, SecretVersion]] = field(default_factory=dict)  #: made of which record
    _receipts: dict[tuple[str, bytes], SecretBytes] = field(default_factory=dict)

    def records(self) -> dict[int, VersionRecord]:
        """Number → record, oldest first."""
        if not self._records:
            self._records = {record.number: record for record in self.store.versions(self.secret)}
        return self._records

    def record(self, number: int) -> VersionRecord:
        try:
            return self.records()[number]
        except KeyError:
            raise NotFound(f"{self.secret} has no version {number}") from None

    def version(self, number: int) -> SecretVersion:
        """With its fields; a minted version whose value was not made yet has none."""
        record = self.record(number)
        made_of, version = self._versions.get(number, (None, None))
        if version is None or made_of is not record:
            version = self._version(record)
            self._versions[number] = record, version
        return version

    def _version(self, record: VersionRecord) -> SecretVersion:
        return SecretVersion(
            secret=record.secret,
            number=record.number,
            id=record.id,
            fields=self._open(record),
            binding=self.rebind(record.binding),
            created_at=record.created_at,
            handle=record.handle,
            expires_at=record.expires_at,
            acceptance=record.acceptance,
            verified=record.verified,
            compromised=record.compromised,
        )

    def _open(self, record: VersionRecord) -> Fields:
        if record.sealed is None:
            return {}
        if record.number not in self._fields:
            fields = self.envelope.open(
                record.sealed, secret=record.secret, bound_to=bound_to(record.number, record.id)
            )
            self.redactor.learn(fields)
            self._fields[record.number] = fields
        return self._fields[record.number]

    def seal_receipt(self, receipt: SecretBytes, binding: str) -> bytes:
        """For `receipt`, which then need not open it."""
        fields = {"receipt": receipt}
        self.redactor.learn(fields)
        sealed = self.envelope.seal(fields, secret=self.secret, bound_to=binding)
        self._receipts[binding, sealed] = receipt
        return sealed

    def receipt(self, sealed: bytes, binding: str) -> SecretBytes:
        """The secret part of a receipt of one of its rotations; `binding`: what that is tied to (invariant 10)."""
        if (binding, sealed) not in self._receipts:
            opened = self.envelope.open(sealed, secret=self.secret, bound_to=binding)
            self.redactor.learn(opened)
            self._receipts[binding, sealed] = opened["receipt"]
        return self._receipts[binding, sealed]

    def maybe(self, number: int | None) -> SecretVersion | None:
        return None if number is None else self.version(number)

    def add(self, record: VersionRecord, fields: Fields) -> None:
        """A version just made, before it is written and without unsealing it again."""
        self.redactor.learn(fields)
        self.records()[record.number] = record
        if fields:  # a minted version has none yet: its emptiness must not be remembered
            self._fields[record.number] = fields

    def learn(self, change: Change) -> None:
        """What was just written. Only who holds a secret writes its versions, so nothing else can have changed."""
        if change.new_version is not None:
            self.records()[change.new_version.number] = change.new_version
        for number, facts in (change.facts or {}).items():
            told = {name: value for name, value in vars(facts).items() if value is not None}
            self.records()[number] = replace(self.record(number), **told)

    def still_accepted(self, besides: set[int]) -> list[SecretVersion]:
        """Every other version that was not discarded, newest first: data may be encrypted with it (previous_keys)."""
        kept = [n for n, r in self.records().items() if r.acceptance is not Acceptance.REFUSED and r.sealed is not None]
        numbers = [n for n in kept if n not in besides]
        return [self.version(n) for n in sorted(numbers, reverse=True)]

    def labelled(self, label: StagingLabel) -> SecretVersion | None:
        return self.maybe(self.store.labels(self.secret).get(label))

    def forget(self) -> None:
        """What the store says may have changed."""
        self._records = {}
