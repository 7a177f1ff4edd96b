"""An installation in this process, with targets of any kind and a clock that sleeps at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.integration.shop_kit import identity_of, installed, state_of
from tests.servers import TestAccount
from vaultkeeper import wiring
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.preview import preview
from vaultkeeper.engine.reconcile import reconcile
from vaultkeeper.engine.rotate import Report, resume, rotate
from vaultkeeper.model.outcome import Finding
from vaultkeeper.model.secret import SecretBytes, SecretVersion, StagingLabel
from vaultkeeper.wiring.places import Wishes

LONG = timedelta(hours=3)  # of its own time: a rotation that waits for nothing ends soon


class Hurried:
    """Sleeping only moves it; `meanwhile` is called first."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self.meanwhile: Callable[[timedelta], object] = lambda _duration: None

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, duration: timedelta) -> None:
        self.meanwhile(duration)
        self.ahead += duration


@dataclass
class House:
    """Secrets by name; each is delivered to `out/<its number>` as "username password"."""

    home: Path
    clock: Hurried = field(default_factory=Hurried)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.installed = wiring.open_installed(self.wishes)
        self.parts: Parts

    @property
    def wishes(self) -> Wishes:
        return Wishes(state_of(self.home), self.home / "policies", identity_of(self.home))

    def secret(self, name: str, settings: Mapping[str, object], kind: str, **keys: Any) -> None:
        """Name a secret, or change it. `settings`: those of a server's account."""
        grace = {} if settings["strategy"] == "single" else {"grace_period": "1h"}
        place = {
            "kind": "file", "path": str(self.delivered_file(name)), "read": "per_use", "value": "{username} {password}",
        }  # fmt: skip
        self.secrets[name] = {
            "generator": {"kind": "password"}, "target": {"kind": kind, **settings}, "destinations": [place],
            "min_interval": "0s", **grace, **keys,
        }  # fmt: skip
        (self.home / "policies/all.yaml").write_text(json.dumps({"secrets": self.secrets}))
        fresh = wiring.parts(self.installed, self.wishes, parallel=1)
        self.parts = replace(fresh, clock=self.clock)

    def delivered_file(self, name: str) -> Path:
        return self.home / "out" / name.replace("/", "_")

    def delivered(self, name: str) -> tuple[str, str]:
        username, _, password = self.delivered_file(name).read_text().partition(" ")
        return username, password

    def adopt(self, name: str, account: TestAccount) -> SecretVersion:
        given = {"username": account.username, "password": account.password}
        return adopt(name, {key: SecretBytes(value.encode()) for key, value in given.items()}, self.parts)

    def rotate(self, *names: str) -> list[Report]:
        """As a timer would, until nothing is open or a person is needed."""
        reports = {r.secret: r for r in rotate(names, self.parts, by_name=True, wait=LONG)}
        for _ in range(5):
            still = [rotation.secret for rotation in self.parts.store.open_rotations()]
            if not still:
                break
            reports |= {report.secret: report for report in resume(still, self.parts, wait=LONG)}
        return [reports[name] for name in names]

    def current(self, name: str) -> tuple[str, str]:
        book = Book(name, self.parts.store, self.parts.envelope, self.parts.redactor)
        version = book.labelled(StagingLabel.CURRENT)
        assert version is not None
        return version.fields["username"].text(), version.fields["password"].text()

    def stored(self, name: str) -> list[SecretVersion]:
        book = Book(name, self.parts.store, self.parts.envelope, self.parts.redactor)
        return [book.version(number) for number in book.records()]

    def findings(self, name: str) -> list[Finding]:
        """What `plan` and `check` would say."""
        return list(preview([name], self.parts, ask_servers=True)[0].findings)

    def told(self, name: str) -> str:
        return "\n".join(f"{finding.level} {finding.text} {finding.next}" for finding in self.findings(name))

    def settled(self, name: str, login: Callable[[str, str], bool]) -> tuple[str, str]:
        """CURRENT works, consumers hold it, and nothing is left to be said; returns it."""
        current = self.current(name)
        assert login(*current)
        assert self.delivered(name) == current
        assert reconcile(name, self.parts) == []
        return current

    def close(self) -> None:
        self.installed.store.close()


def house(folder: Path) -> House:
    return House(installed(folder))


class Client:
    """Reads what a house delivered for each of `names` and logs in with it on a new connection, every 20 ms."""

    def __init__(self, given: House, names: Sequence[str], login: Callable[[str, str], bool]) -> None:
        self.given, self.names, self.login = given, names, login
        self.turns, self.refused = 0, list[str]()
        self._turned, self._over = threading.Condition(), threading.Event()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.refused += [name for name in self.names if not self.login(*self.given.delivered(name))]
            with self._turned:
                self.turns += 1
                self._turned.notify()

    def _looks_again(self, duration: timedelta) -> None:
        if duration < timedelta(minutes=30):
            return
        with self._turned:
            after = self.turns + 2
            assert self._turned.wait_for(lambda: self.turns >= after, 300)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """For a block. Grace is as long as two turns of it, so that it has used what it read before."""
        self.given.clock.meanwhile = self._looks_again
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
