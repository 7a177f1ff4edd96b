"""The loop. Opening, driving, recovering and going back are one: drive what the journal says.

Rotations that share a delivery group or depend on one another form a cluster; a cluster is driven by one thread, so
that five secrets of one service restart it once. Clusters run beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from vaultkeeper.engine.book import Book
from vaultkeeper.engine.cluster import clusters
from vaultkeeper.engine.groups import Layout
from vaultkeeper.engine.handover import hand_over
from vaultkeeper.engine.keeping import discard_expired
from vaultkeeper.engine.opening import newest_open, open_work, overtakable, replaceable, take_up
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.plan import by_hand
from vaultkeeper.engine.repair import repair
from vaultkeeper.engine.schedule import due_at
from vaultkeeper.engine.steps import take_step
from vaultkeeper.engine.verdict import awaited, described, exit_code, told, works_now
from vaultkeeper.engine.work import Work
from vaultkeeper.errors import Locked, NotFound, UsageError, VaultkeeperError
from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Cause, Options, Purpose, Rotation, State, Step
from vaultkeeper.model.secret import GroupKey, StagingLabel
from vaultkeeper.ports import Pause

DEFAULT_WAIT = timedelta(minutes=10)


@dataclass(frozen=True)
class Report:
    """What became of one secret in one command. `skipped` says why nothing was done, or what was `repaired`.

    With a `rotation` and `skipped` it only reminds of what stands.
    """

    secret: str
    rotation: Rotation | None = None
    skipped: str = ""
    skip_code: int = 0  #: exit code of the skip: 7 where it was asked for by name
    seconds: float = 0.0
    error: VaultkeeperError | None = None
    repaired: bool = False

    @property
    def state(self) -> str:
        if self.rotation is None:
            return "repaired" if self.repaired else "skipped"
        return self.rotation.state.value

    @property
    def exit_code(self) -> int:
        if self.rotation is not None:
            return exit_code(self.rotation)
        return self.skip_code

    @property
    def changed(self) -> bool:
        return self.repaired or (self.rotation is not None and self.rotation.finished and not self.skipped)


def drive(works: Sequence[Work], layout: Layout) -> datetime | None:
    """Act until nobody is awake; returns when the next one wakes. Recovery is calling it with what the journal says."""
    clock = layout.parts.clock
    while True:
        now = clock.now()
        awake = [work for work in works if work.awake(now)]
        movers = [work for work in awake if not work.at_rendezvous]
        at_barrier = [
            w for w in awake if w.at_rendezvous and w.rotation.phase and w.rotation.phase.step is Step.BARRIER
        ]
        retrying = [w for w in works if w.rotation.state is State.RUNNING and w not in awake]
        if movers or at_barrier:
            for work in movers or at_barrier:
                take_step(work)
        elif awake and not retrying:
            hand_over(awake, works, layout)
        else:
            return _next_waking(works)


def _next_waking(works: Sequence[Work]) -> datetime | None:
    """Everything asleep is in the journal before anybody sleeps."""
    for work in works:
        work.write()
    asleep = [w.rotation.not_before for w in works if w.rotation.state in {State.RUNNING, State.WAITING}]
    return min((moment for moment in asleep if moment is not None), default=None)


@dataclass
class Cluster:
    """Secrets that are opened, held and driven together, by one thread at a time."""

    openers: dict[str, Callable[[], Work]]
    layout: Layout
    until: datetime
    by_name: bool
    wakes: datetime | None = None
    reports: list[Report] = field(default_factory=list)
    _works: list[Work] = field(default_factory=list)
    _held: ExitStack = field(default_factory=ExitStack)
    _started_s: float = 0.0

    def begin(self) -> None:
        """Open everybody and do what can be done now."""
        self._started_s = self.layout.parts.clock.monotonic_s()
        for name, opener in self.openers.items():
            self._open(name, opener)
        self.go_on()

    def _open(self, name: str, opener: Callable[[], Work]) -> None:
        try:
            with ExitStack() as own:
                own.enter_context(self.layout.parts.store.hold(f"secret:{name}"))
                self._works.append(opener())
                self._held.push(own.pop_all())
        except Locked as busy:
            code = busy.exit_code if self.by_name else 0
            self.reports.append(Report(name, skipped=str(busy), skip_code=code, error=busy))
        except VaultkeeperError as error:
            self.reports.append(Report(name, error=error, skip_code=error.exit_code))

    def go_on(self) -> None:
        """Drive until nobody is awake. What stops this cluster (a full disk, a lost epoch) stops no other."""
        self.wakes = None
        stopped: VaultkeeperError | None = None
        try:
            self.wakes = drive(self._works, self.layout)
        except VaultkeeperError as error:
            stopped = error
        finally:
            for work in self._works:
                work.close()
        if self.wakes is None or self.wakes > self.until:
            self.wakes = None
            for work in self._works:
                self._report(work, stopped)
            self.let_go()

    def let_go(self) -> None:
        """Release the secrets."""
        self._held.close()

    def _report(self, work: Work, stopped: VaultkeeperError | None) -> None:
        parts, rotation = self.layout.parts, work.journalled
        if rotation.state is State.DONE and stopped is None:
            discard_expired(work.book, rotation.policy.keep_versions, parts)
        seconds = parts.clock.monotonic_s() - self._started_s
        cut_short = stopped is not None and rotation.state in {State.RUNNING, State.WAITING}
        error = stopped if cut_short else told(rotation)
        self.reports.append(Report(rotation.secret, rotation, seconds=seconds, error=error))


# ------------------------------------------------------------------------------------------------------------- commands


def rotate(
    names: Sequence[str],
    parts: Parts,
    *,
    by_name: bool,
    purpose: Purpose = Purpose.ROTATE,
    options: Options | None = None,
    wait: timedelta | None = None,
) -> list[Report]:
    """Open a rotation for each secret and drive them until they end, sleep past `wait`, or need a person."""
    options = options or Options()
    reports: list[Report] = []
    wanted: list[str] = []
    meant = [name for name in names if _means_the_open_one(name, parts, purpose, options)]
    if meant:
        reports += resume(meant, parts, wait=wait, said=options)
    for name in [name for name in names if name not in meant]:
        skipped = _left_to_a_person(name, parts, purpose, by_name=by_name) or reason_to_skip(
            name, parts, purpose, by_name=by_name, replace=options.replace
        )
        reports += [skipped] if skipped else []
        wanted += [] if skipped else [name]
    if purpose is Purpose.EMERGENCY:
        # What cannot end now, the emergency takes the place of: the leaked value is in use as long as it waits.
        resume([n for n in wanted if newest_open(n, parts)], parts, wait=timedelta(0), hasten=True)
    openers: dict[str, Callable[[], Work]] = {
        name: partial(open_work, name, parts, purpose, options) for name in wanted
    }
    return reports + run(openers, parts, by_name=by_name, wait=wait)


def _left_to_a_person(name: str, parts: Parts, purpose: Purpose, *, by_name: bool) -> Report | None:
    """`--all` calls for nobody's work before its time; by name, when due and after a leak it is called for."""
    policy = parts.policies.get(name)
    if policy is None or by_name or purpose is not Purpose.ROTATE or not by_hand(policy) or newest_open(name, parts):
        return None
    if not policy.enabled or is_due(policy, parts, parts.clock.now()):
        return None
    return Report(name, skipped=f"not due, and only a person can change it: vaultkeeper import {name}")


def _means_the_open_one(name: str, parts: Parts, purpose: Purpose, options: Options) -> bool:
    """`--forget-old`, and `--emergency --cut` of an emergency that somebody holds up, speak of what stands there."""
    cuts = purpose is Purpose.EMERGENCY and options.cut
    rotation = newest_open(name, parts) if options.forget_old or cuts else None
    if rotation is None:
        return False
    at_release = rotation.phase is not None and rotation.phase.step is Step.RELEASE
    held_up = rotation.purpose is Purpose.EMERGENCY and (not rotation.finished or at_release)
    return options.forget_old or held_up


def resume(
    names: Sequence[str] | None,
    parts: Parts,
    *,
    wait: timedelta | None = None,
    hasten: bool = False,
    forward: bool = True,
    said: Options | None = None,
) -> list[Report]:
    """Take open rotations over and drive them on. `forward`: parked ones too, as a person's word."""
    open_now = {rotation.secret: rotation for rotation in parts.store.open_rotations()}
    for name in names or ():
        if name not in open_now and name not in parts.policies and name not in parts.store.secrets():
            raise NotFound(f"no secret is called {name}", next="vaultkeeper status   lists them")
    if said is not None and said.revoked:
        _refuse_needless_word(names or (), open_now)
    chosen = [open_now[name] for name in (names if names is not None else open_now) if name in open_now]
    openers: dict[str, Callable[[], Work]] = {
        rotation.secret: partial(take_up, rotation, parts, hasten=hasten, forward=forward, said=said)
        for rotation in chosen
    }
    return run(openers, parts, by_name=names is not None, wait=wait)


def _refuse_needless_word(names: Sequence[str], open_now: Mapping[str, Rotation]) -> None:
    """`--revoked` is about an old value that a person revokes, when consumers have the new one."""
    for name in names:
        rotation = open_now.get(name)
        if rotation is None or not (rotation.finished and by_hand(rotation.policy)):
            state = f"its rotation is open: {described(rotation)}" if rotation else "none of its rotations is open"
            raise UsageError(
                f"{name}: no old value waits to be revoked by a person",
                why=state,
                works="nothing was changed by this command",
                next=(awaited(rotation) if rotation else "") or f"vaultkeeper history {name}",
            )


def run_due(parts: Parts, *, wait: timedelta | None = None) -> list[Report]:
    """What the daemon would do now: repair drift, go on with what is open and awake, rotate what is due, and remind."""
    repairs = [
        report
        for name, policy in parts.policies.items()
        if policy.on_drift_repair
        for report in _repaired(name, parts, wait)
    ]
    now = parts.clock.now()
    ready = [
        r.secret
        for r in parts.store.open_rotations()
        if r.state in {State.RUNNING, State.WAITING}
        and (r.not_before is None or r.not_before <= now or r.entered_at > now)
    ]
    reports = resume(ready, parts, wait=wait, forward=False) if ready else []
    reports += rotate(due_names(parts), parts, by_name=False, wait=wait)
    return repairs + reports + _reminders(parts, {report.secret for report in reports})


def _reminders(parts: Parts, told_of: set[str]) -> list[Report]:
    """Whoever waits for a person is named each time, until that person comes."""
    waiting = [r for r in parts.store.open_rotations() if awaited(r) and r.secret not in told_of]
    return [Report(rotation.secret, rotation, skipped=f"reminder{_since(rotation, parts)}") for rotation in waiting]


def _since(rotation: Rotation, parts: Parts) -> str:
    """Since when it is due, while its value is still to come."""
    policy = parts.policies.get(rotation.secret)
    due = next_due(policy, parts, parts.clock.now()) if policy and not rotation.finished else None
    return f", due {due:%Y-%m-%d}" if due else ""


def _repaired(name: str, parts: Parts, wait: timedelta | None) -> list[Report]:
    """What stops here keeps no other secret waiting. A rotation that only drift had stopped goes on."""
    if not parts.policies[name].enabled or pause_of(name, parts):
        return []
    try:
        found = repair(name, parts)
    except Locked as busy:
        return [Report(name, skipped=str(busy))]
    except VaultkeeperError as error:
        return [Report(name, error=error, skip_code=error.exit_code)]
    if not found:
        return []
    opened = newest_open(name, parts)
    stopped = opened is not None and opened.state is State.PARKED and opened.cause is Cause.DRIFT
    done = Report(name, skipped=f"delivered again: {found}", repaired=True)
    return [done, *(resume([name], parts, wait=wait) if stopped else [])]


def due_names(parts: Parts) -> list[str]:
    """Enabled, not paused, nothing open, and due by the store's own record."""
    now = parts.clock.now()
    open_now = {rotation.secret for rotation in parts.store.open_rotations()}
    return [
        name
        for name, policy in parts.policies.items()
        if policy.enabled and name not in open_now and not pause_of(name, parts) and is_due(policy, parts, now)
    ]


def pause_of(name: str, parts: Parts) -> Pause | None:
    """The pause that holds now; one whose time is over holds no longer."""
    pause = parts.store.pauses().get(name)
    return pause if pause and (pause.until is None or pause.until > parts.clock.now()) else None


def is_due(policy: RotationPolicy, parts: Parts, now: datetime) -> bool:
    """By the store's own record."""
    due = next_due(policy, parts, now)
    return due is not None and due <= now


def next_due(policy: RotationPolicy, parts: Parts, now: datetime) -> datetime | None:
    """Recomputed from the store each time; a changed `static` is due at once."""
    current = parts.store.labels(policy.name).get(StagingLabel.CURRENT)
    records = {record.number: record for record in parts.store.versions(policy.name)}
    record = records.get(current) if current is not None else None
    if policy.static is not None:
        return now if _static_changed(policy, parts) else None
    return due_at(policy, record.created_at if record else None, record.expires_at if record else None, now)


def _static_changed(policy: RotationPolicy, parts: Parts) -> bool:
    version = Book(policy.name, parts.store, parts.envelope, parts.redactor).labelled(StagingLabel.CURRENT)
    return version is None or version.fields["value"].reveal() != (policy.static or "").encode()


def run(
    openers: dict[str, Callable[[], Work]], parts: Parts, *, by_name: bool, wait: timedelta | None = None
) -> list[Report]:
    """Drive every cluster, at most `parts.parallel` at once; nobody's waiting keeps another from its work."""
    layout = Layout(parts)
    until = parts.clock.now() + (DEFAULT_WAIT if wait is None else wait)
    found = [
        Cluster({name: openers[name] for name in names}, layout, until, by_name)
        for names in clusters(list(openers), layout)
    ]
    with ExitStack() as ending:
        if len(found) > 1 and parts.parallel > 1:
            layout.secrets_in(GroupKey(""))  # read once, before threads share it
            pool = ending.enter_context(ThreadPoolExecutor(parts.parallel, thread_name_prefix="cluster"))
            each: Callable[..., Iterable[None]] = pool.map
        else:
            each = map
        for cluster in found:
            ending.callback(cluster.let_go)
        _all(each(Cluster.begin, found))
        while wakes := [cluster.wakes for cluster in found if cluster.wakes is not None]:
            parts.clock.sleep(max(min(wakes) - parts.clock.now(), timedelta(0)))
            now = parts.clock.now()
            _all(each(Cluster.go_on, [c for c in found if c.wakes is not None and c.wakes <= now]))
    return [report for cluster in found for report in cluster.reports]


def _all(done: Iterable[None]) -> None:
    """Wait for each, and raise what one of them raised."""
    for _ in done:
        pass


def reason_to_skip(name: str, parts: Parts, purpose: Purpose, *, by_name: bool, replace: bool = False) -> Report | None:
    """Paused, open, or too soon: named and skipped; exit 7 where it was asked for by name (rotation.md section 10)."""
    policy = parts.policies.get(name)
    if policy is None:
        error = NotFound(f"no policy is called {name}", next="vaultkeeper status   lists them")
        return Report(name, error=error, skip_code=error.exit_code)
    code = 7 if by_name else 0
    if not policy.enabled:
        return Report(name, skipped="its policy is disabled (enabled: false)", skip_code=code)
    emergency = purpose is Purpose.EMERGENCY
    pause = pause_of(name, parts)
    if pause is not None and not emergency:
        return Report(name, skipped=f"paused: {pause.reason}" if pause.reason else "paused", skip_code=code)
    recent = parts.store.rotations(name, limit=5)
    rotation = recent[0] if recent and recent[0].open else None
    if (
        rotation is not None
        and not (emergency and overtakable(rotation))
        and not replaceable(rotation, replace=replace)
    ):
        return _open_already(rotation, by_name=by_name)
    # A last time far ahead of now only says that the clock was wrong then: it must not stop anybody for years.
    last = _last_rotated(recent)
    too_soon = abs(parts.clock.now() - last) < policy.min_interval
    if too_soon and not emergency:
        until = f"not again before {last + policy.min_interval:%Y-%m-%d %H:%M:%S} UTC"
        return Report(name, skipped=f"rotated less than min_interval ago, {until}", skip_code=code)
    return None


def _open_already(rotation: Rotation, *, by_name: bool) -> Report:
    skipped = f"rotation {rotation.id[:8]} is open: {described(rotation)}"
    stuck, asked_for = told(rotation), awaited(rotation)
    if stuck is None and not asked_for:
        return Report(rotation.secret, skipped=skipped, skip_code=7 if by_name else 0)
    following = stuck.next if stuck else asked_for
    if not by_name:
        return Report(rotation.secret, skipped=f"{skipped}; next: {following}")
    why, works = (stuck.why, stuck.works) if stuck else (rotation.detail, works_now(rotation))
    error = Locked(f"{rotation.secret}: {skipped}", why=why, works=works, next=following)
    return Report(rotation.secret, skipped=skipped, skip_code=error.exit_code, error=error)


def _last_rotated(recent: Sequence[Rotation]) -> datetime:
    done = [r.opened_at for r in recent if r.state is State.DONE and r.purpose is not Purpose.REHEARSE]
    return max(done, default=datetime.min.replace(tzinfo=UTC))
