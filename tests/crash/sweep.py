"""The kill sweep: end a rotation at its state-changing system calls, one after the other, and look at what is left.

Judged before anything is resumed: does a durably stored version log in? After one `vaultkeeper resume`: one CURRENT,
held by the destination and accepted by the target, no stray file. A scenario is one kind and variant of the registry,
on its real server from `tests/servers/`, so a new back end joins by existing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tests import forked
from tests.contract.found import REGISTRY, servers, start_of, variants
from tests.crash import points
from tests.crash.points import Point
from vaultkeeper import wiring
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.rotate import rotate
from vaultkeeper.engine.verdict import awaited
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion, StagingLabel, main_field
from vaultkeeper.testing.servers import MadeByHand
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes

NAME = "swept/secret"
PREFIX = ".vaultkeeper-"  # of our temporary files
SILENCE = timedelta(hours=2)  # longer than a target asks for before it retires a value
WAIT = "240s"  # at most: several rollouts on a busy machine
TRIES = 4  # the first and three more, where a run did not reach its point
GENERATORS = {"password": {"kind": "password"}, "token": {"kind": "token"}}


@dataclass(frozen=True)
class Outcome:
    """`lockout` and `stuck` are empty where all is well."""

    point: Point
    hit: bool
    lockout: str = ""
    stuck: str = ""


@dataclass
class Report:
    """What a sweep of one scenario found."""

    scenario: str
    traced: int
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def hit(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.hit]

    @property
    def missed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.hit]

    @property
    def lockouts(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.lockout]

    @property
    def stuck(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.stuck]

    @property
    def unreached_writes(self) -> list[Outcome]:
        """Missed points that write to store, target or destination: there must be none."""
        return [o for o in self.missed if o.point.where.startswith(("/", "TCP")) and o.point.call != "recvfrom"]

    def line(self) -> str:
        return (
            f"{self.scenario:<26} {len(self.hit):>4}/{len(self.outcomes):<4} of {self.traced:<4} "
            f"lockouts {len(self.lockouts):<3} not converged {len(self.stuck)}"
        )


@dataclass
class World:
    """One adopted secret in a folder of its own, ready to be rotated."""

    folder: Path
    accepted: Callable[[SecretVersion], bool]  #: by an independent client
    delivered: Callable[[], bytes | None]
    places: Sequence[Path]  #: folders in which nothing of ours may be left lying about
    forget: Callable[[], None] = lambda: None  #: let go of consumers that only cost time from now on
    works_today: Fields = field(default_factory=dict)  #: what is adopted; empty: the first version is delivered
    given: bytes = b""  #: what a person imports; empty: nobody is needed
    revoke: Callable[[SecretVersion], None] = lambda _version: None  #: what only that person can do
    fall_silent: Callable[[], None] = lambda: None  #: our own look was a use too, and lies far back from now on

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.folder / "state", self.folder / "policies", self.folder / "identity.txt")

    @property
    def environment(self) -> dict[str, str]:
        places = {"STATE_DIR": "state", "POLICIES": "policies", "IDENTITY": "identity.txt"}
        ours = {f"VAULTKEEPER_{name}": str(self.folder / path) for name, path in places.items()}
        root = str(Path(__file__).parents[2])
        return {**os.environ, **ours, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": root}

    def rotate(self) -> list[str]:
        if self.given:
            return ["import", NAME, "--yes", "--wait", WAIT]
        return ["rotate", "--all", "--yes", "--parallel", "1", "--wait", WAIT]

    def resume(self) -> subprocess.CompletedProcess[bytes]:
        """One resume; where it then asks for a person, that person does as it says."""
        done = self._run("resume", "--all", "--wait", WAIT)
        for _ in ("gives the value", "revokes the old one"):
            asked = self.looked_at(lambda parts, _book: " ".join(map(awaited, parts.store.open_rotations())))
            if asked.startswith("vaultkeeper import"):
                done = self._run(*self.rotate(), stdin=self.given)
            elif asked:
                self.looked_at(self._revoke_the_old)
                done = self._run("resume", NAME, "--wait", WAIT)
        return done

    def _run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return forked.run(arguments, env=self.environment, cwd=Path.cwd(), stdin=stdin, timeout=points.RUN_SECONDS)

    def _revoke_the_old(self, _parts: Any, book: Book) -> str:
        current = book.labelled(StagingLabel.CURRENT)
        for version in (book.version(number) for number in book.records()):
            if current is not None and version.number != current.number and version.fields:
                self.revoke(version)
        return ""

    def looked_at(self, look: Callable[[Any, Book], str]) -> str:
        """Read a copy of the state, so that looking repairs nothing."""
        copy = self.folder / "looked-at"
        shutil.copytree(self.folder / "state", copy)
        try:
            installed = wiring.open_installed(Wishes(copy, self.wishes.policies, self.wishes.identity))
            parts = wiring.parts(installed, Wishes(copy, self.wishes.policies, self.wishes.identity))
            try:
                return look(parts, Book(NAME, parts.store, parts.envelope, parts.redactor))
            finally:
                installed.store.close()
        finally:
            shutil.rmtree(copy)

    def lockout(self) -> str:
        """Before anything is resumed: does a durably stored version work?"""

        def look(_parts: Any, book: Book) -> str:
            versions = [book.version(number) for number in book.records()]
            return "" if any(self.accepted(v) for v in versions if v.fields) else "no stored version is accepted"

        return self.looked_at(look)

    def not_converged(self) -> str:
        def look(parts: Any, book: Book) -> str:
            current = book.labelled(StagingLabel.CURRENT)
            if current is None:
                return "there is no CURRENT"
            if parts.store.open_rotations():
                return f"a rotation is open: {parts.store.open_rotations()[0].state.value}"
            if StagingLabel.PENDING in parts.store.labels(NAME):
                return "a PENDING is left"
            if not self.accepted(current):
                return f"CURRENT (v{current.number}) is not accepted"
            held = self.delivered()
            if held is not None and held != current.fields[main_field(set(current.fields))].reveal():
                return f"the destination does not hold CURRENT (v{current.number})"
            return ""

        strays = [path for place in self.places for path in place.rglob(f"{PREFIX}*")]
        return f"left behind: {strays[0].name}" if strays else self.looked_at(look)


# ---------------------------------------------------------------------------------------------------- scenarios


@dataclass(frozen=True)
class Scenario:
    group: str
    kind: str
    variant: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.variant}"

    @contextmanager
    def server(self) -> Iterator[Any]:
        made = variants(self.kind, self.group)[self.variant] if self.group == "destinations" else None
        found = (made or start_of(self.kind, self.variant, self.group))()
        try:
            yield found
        finally:
            found.stop()

    def world(self, server: Any, template: Path, folder: Path) -> World:
        """A fresh account or place, its first version adopted or delivered."""
        shutil.copytree(template, folder)
        (folder / "policies").mkdir()
        made = self._target(server, folder) if self.group == "targets" else self._destination(server, folder)
        installed = wiring.open_installed(made.wishes)
        try:
            parts = wiring.parts(installed, made.wishes, parallel=1)
            if made.works_today:
                adopt(NAME, made.works_today, parts)
            elif (report := rotate([NAME], parts, by_name=True)[0]).exit_code:
                raise RuntimeError(f"{self.name}: the first delivery failed: {report.error}")
        finally:
            installed.store.close()
        return made

    def _target(self, server: Any, folder: Path) -> World:
        make = variants(self.kind)[self.variant]
        account = make(server) if make else server.account()
        settings = {"kind": self.kind, **account.settings}
        strategies = REGISTRY.target_class(self.kind).capabilities.strategies
        settings.setdefault("strategy", next(iter(strategies)).value)
        named = {"username": account.username} if account.username else {}
        field_name = "password" if account.username else "token"
        adopted = {key: SecretBytes(value.encode()) for key, value in {**named, field_name: account.password}.items()}
        out = folder / "out"
        out.mkdir()
        template = f"{{username}} {{{field_name}}}" if named else f"{{{field_name}}}"
        file = {"kind": "file", "path": str(out / "delivered"), "read": "per_use", "value": template}
        grace = {} if settings["strategy"] == "single" else {"grace_period": "1s"}
        by_hand = isinstance(server, MadeByHand)
        made: dict[str, Any] = {} if settings["strategy"] == "minted" else {"generator": GENERATORS[field_name]}
        if by_hand:
            made = {"fields": [*named, field_name]}
        _policy(folder, {**made, "target": settings, "destinations": [file], **grace})

        def accepted(version: SecretVersion) -> bool:
            user = version.fields["username"].text() if "username" in version.fields else ""
            return bool(server.login(user, version.fields[field_name].text()))

        def delivered() -> bytes | None:
            path = out / "delivered"
            return path.read_bytes().rpartition(b" ")[2] if path.exists() else None

        def revoke(version: SecretVersion) -> None:
            server.revoke(account, version.fields[field_name].text())

        listed = settings.get("path")
        places = [out, *([Path(str(listed)).parent] if listed else [])]
        given = json.dumps({**named, field_name: server.make(account)}).encode() if by_hand else b""
        world = World(folder, accepted, delivered, places, works_today=adopted, given=given, revoke=revoke)
        if hasattr(server, "pass_time"):
            world.fall_silent = partial(server.pass_time, SILENCE)
        return world

    def _destination(self, server: Any, folder: Path) -> World:
        name = server.new_name() if hasattr(server, "new_name") else server.names[0]
        spec = server.spec({name: "{token}"})
        if hasattr(server, "put_foreign"):
            server.put_foreign(spec)
        values = {"values": {name: "{token}"}} if name else {"value": "{token}"}
        _policy(
            folder,
            {
                "generator": GENERATORS["token"],
                "destinations": [{"kind": self.kind, **spec.settings, "read": spec.read.value, **values}],
            },
        )

        def delivered() -> bytes | None:
            found: bytes | None = server.read(spec, name)
            return found

        def accepted(version: SecretVersion) -> bool:
            return delivered() == version.fields["token"].reveal()

        files = [Path(v) for v in spec.settings.values() if isinstance(v, str) and v.startswith("/")]
        forget = partial(server.forget, spec) if hasattr(server, "forget") else World.forget
        return World(folder, accepted, delivered, [file.parent for file in files], forget)


def _policy(folder: Path, body: dict[str, Any]) -> None:
    """JSON is YAML."""
    (folder / "policies" / "swept.yaml").write_text(json.dumps({"secrets": {NAME: {"min_interval": "0s", **body}}}))


def scenarios(only: Sequence[str] = ()) -> list[Scenario]:
    """Every kind and variant that has a server, targets first; those that are `UNSWEPT` only where they are named."""
    from tests.contract.found import cases

    found = [Scenario(group, *case) for group in ("targets", "destinations") for case in cases(group)]
    found = [s for s in found if s.name in only or s.variant not in getattr(servers(s.kind, s.group), "UNSWEPT", ())]
    return [s for s in found if not only or any(part in s.name for part in only)]


# -------------------------------------------------------------------------------------------------------- sweep


def sweep(
    scenario: Scenario,
    work: Path,
    *,
    most: int | None = None,
    seed: int = 0,
    wrong_order: bool = False,
    among: Callable[[Point], bool] = lambda _point: True,
    told: Callable[[Outcome], None] = lambda _outcome: None,
) -> Report:
    """Record two runs, then kill one run per point that both have: all of them, or a seeded choice of `most`."""
    template = work / "template"
    template.mkdir(parents=True)
    initialise(Wishes(template / "state", None, template / "identity.txt"), Recovery())
    with scenario.server() as server:
        traced = _traced(scenario, server, template, work, wrong_order=wrong_order)
        chosen = [point for point in traced if among(point)]
        if most is not None and most < len(chosen):
            chosen = sorted(random.Random(seed).sample(chosen, most))
        report = Report(scenario.name, len(traced))

        def tried(number: int) -> Outcome:
            return _try(scenario, server, template, work / f"point{number}", chosen[number], wrong_order=wrong_order)

        with ThreadPoolExecutor(getattr(servers(scenario.kind, scenario.group), "AT_ONCE", 1)) as pool:
            for outcome in pool.map(tried, range(len(chosen))):
                report.outcomes.append(outcome)
                told(outcome)
    return report


def _traced(scenario: Scenario, server: Any, template: Path, work: Path, *, wrong_order: bool) -> list[Point]:
    """A run that a busy machine makes slow asks more often, and no other run reaches those calls."""
    recordings = []
    for number in (1, 2):
        world = scenario.world(server, template, work / f"recorded{number}")
        recordings.append(
            points.record(world.rotate(), world.environment, work, stdin=world.given, wrong_order=wrong_order)
        )
        world.forget()
    both = set.intersection(*({(point.task, point.call, point.k) for point in run} for run in recordings))
    return [point for point in recordings[0] if (point.task, point.call, point.k) in both]


def _try(scenario: Scenario, server: Any, template: Path, folder: Path, point: Point, *, wrong_order: bool) -> Outcome:
    """Counts differ a little from run to run: a point that was not reached is tried again, in a fresh world."""
    outcome = Outcome(point, hit=False)
    for attempt in range(TRIES):
        here = folder.with_name(f"{folder.name}.{attempt}")
        world = scenario.world(server, template, here)
        run = points.kill_at(point, world.rotate(), world.environment, here, stdin=world.given, wrong_order=wrong_order)
        lockout = world.lockout()
        world.fall_silent()
        resumed = world.resume()
        stuck = world.not_converged()
        if stuck:
            stuck += f" (resume exited {resumed.returncode}: {resumed.stderr.decode().strip()[-300:]})"
        outcome = Outcome(point, run.hit, lockout, stuck)
        world.forget()
        if not (lockout or stuck):
            shutil.rmtree(here)
        if run.hit or lockout or stuck:
            break
    return outcome
