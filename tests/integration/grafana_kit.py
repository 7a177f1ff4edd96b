"""One installation whose secrets are checked or read by a simulated Grafana; sleeping moves both clocks."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.servers.grafana import log_in_by_http
from vaultkeeper import wiring
from vaultkeeper.access.grafana import login
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.model.rotation import Options
from vaultkeeper.model.secret import SecretBytes, StagingLabel, main_field
from vaultkeeper.testing.grafana import Seen, SimulatedGrafana, User
from vaultkeeper.testing.grafana.state import LogIn
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

LONG = timedelta(days=2)


@dataclass
class Hurried:
    """Sleeping moves this clock and Grafana's, and takes no time."""

    grafana: SimulatedGrafana
    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, duration: timedelta) -> None:
        self.ahead += duration
        self.grafana.state.advance(duration.total_seconds())


@cache
def _initialised() -> Path:
    """Made once in a process: scrypt and fsync cost a second."""
    home = Path(mkdtemp(prefix="vk-grafana-"))
    initialise(Wishes(home / "state", None, home / "identity.txt"), Recovery())
    return home


class Home:
    """`policy` writes secrets, `adopt` and `rotate` drive them. The simulator's admin is `ops`, whose file is `ops`.

    Grafana's clock only moves where somebody sleeps, unless `speed` says otherwise: it caches for five seconds, and a
    machine that stalls must not make them pass.
    """

    def __init__(self, folder: Path, *, log_in: LogIn | None = None, speed: float = 0.0, **server: Any) -> None:
        self.folder = folder / "home"
        shutil.copytree(_initialised(), self.folder)
        (self.folder / "policies").mkdir()
        self.grafana = SimulatedGrafana(log_in=log_in or log_in_by_http, speed=speed, **server)
        self.state = self.grafana.state
        self.ops = self.state.user("ops", "ops@example.test", is_admin=True)
        self.write("ops", self.ops.password)
        self.clock = Hurried(self.grafana)
        self.bodies: dict[str, Any] = {}
        self.installed = wiring.open_installed(self.wishes)
        self.parts: Parts = self._parts()

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.folder / "state", self.folder / "policies", self.folder / "identity.txt")

    def _parts(self) -> Parts:
        return replace(wiring.parts(self.installed, self.wishes, parallel=1), clock=self.clock)

    def close(self) -> None:
        self.installed.store.close()
        self.grafana.stop()
        forget_refusals()  # its port may be that of a later one

    def write(self, name: str, value: str) -> dict[str, str]:
        """As a reference."""
        path = self.folder / name
        path.write_text(value)
        path.chmod(0o600)
        return {"file": str(path)}

    @property
    def by_ops(self) -> dict[str, Any]:
        return {"username": "ops", "password": {"file": str(self.folder / "ops")}}

    # ------------------------------------------------------------------------------------------------------- policies

    def policy(self, name: str, **body: Any) -> None:
        """JSON is YAML. What is delivered goes to a file of that name, unless the body says otherwise."""
        file = {"kind": "file", "path": str(self.delivered_file(name)), "read": "per_use"}
        self.bodies[name] = {"min_interval": "0s", "destinations": [file], **body}
        (self.folder / "policies/all.yaml").write_text(json.dumps({"secrets": self.bodies}))
        self.parts = self._parts()

    def delivered_file(self, name: str) -> Path:
        return self.folder / name.replace("/", "-")

    def user(self, name: str, user: User, *, adopted: bool = True, **target: Any) -> None:
        """A policy that rotates this user's password."""
        settings = {"kind": "grafana_admin", "url": self.grafana.url, "user": user.login, "admin": self.by_ops}
        self.policy(name, generator={"kind": "password"}, target={**settings, **target})
        if adopted:
            self.adopt(name, password=user.password)

    def adopt(self, name: str, **fields: str) -> None:
        adopt(name, {key: SecretBytes(value.encode()) for key, value in fields.items()}, self.parts)

    # -------------------------------------------------------------------------------------------------------- rotating

    def rotate(self, *names: str, wait: timedelta = LONG, **options: Any) -> Any:
        """Once, as a command does it; of several names the first one's report."""
        names = names or tuple(self.bodies)
        return rotate(list(names), self.parts, by_name=True, wait=wait, options=Options(**options))[0]

    def to_the_end(self, *names: str) -> Any:
        """On and on, as a timer would, until nothing is open or a person is needed."""
        report = self.rotate(*names)
        for _ in range(6):
            if not self.parts.store.open_rotations():
                break
            self.clock.sleep(timedelta(minutes=10))
            report = resume(list(names or self.bodies), self.parts, wait=LONG)[0]
        return report

    def resume(self, *names: str, wait: timedelta = LONG) -> Any:
        return resume(list(names or self.bodies), self.parts, wait=wait)[0]

    def current(self, name: str) -> str:
        book = Book(name, self.parts.store, self.parts.envelope, self.parts.redactor)
        version = book.labelled(StagingLabel.CURRENT)
        assert version is not None
        return version.fields[main_field(set(version.fields) - {"username"})].text()

    def delivered(self, name: str) -> str:
        return self.delivered_file(name).read_text()

    @contextmanager
    def losing(self, number: int) -> Iterator[None]:
        """The reply to the request of that number is lost."""
        met = [0]

        def strike(_seen: Seen) -> str | None:
            met[0] += 1
            return "lost-reply" if met[0] == number else None

        self.grafana.faults.insert(0, strike)
        yield
        self.grafana.faults.remove(strike)

    def lost_at_each_call(self, name: str, is_whole: Callable[[str], str], before: str, every: int) -> int:
        """In each of many rotations another reply is lost; how many requests a rotation makes."""
        number, calls = 1, 2
        while number < calls:
            self.clock.sleep(timedelta(minutes=10))  # failed logins are forgiven
            self.grafana.seen.clear()
            with self.losing(number):
                report = self.to_the_end(name)
            calls = len(self.grafana.seen) + 1 if number == 1 else calls
            assert (report.exit_code, number, str(report.error)) == (0, number, "None")
            assert self.parts.store.open_rotations() == []
            before, number = is_whole(before), number + every
        return calls


def forget_refusals() -> None:
    """Five minutes of our own clock, which no test turns."""
    login._refused_until_s.clear()


def saw(grafana: SimulatedGrafana, asked: str) -> list[Seen]:
    return [seen for seen in grafana.seen if str(seen).startswith(asked)]


def texts(findings: Any) -> Mapping[str, str]:
    """Level → all of its texts."""
    found: dict[str, str] = {}
    for finding in findings:
        found[finding.level] = f"{found.get(finding.level, '')}{finding.text} {finding.next}\n"
    return found
