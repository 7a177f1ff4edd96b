"""A secret file or an env file of a Docker Compose project, and the containers of the project that read it.

`path` + `value`: one value per file, mounted into containers; they are restarted. `env_file` + `values`: keys of an
env file; its readers get new containers, because a restart keeps the old environment. Files change by a rename, so that
a mounted *folder* shows the new file at once, and a file that is *itself* a mount stays the old one until its container
is started again: which of the two it is, the Engine tells.

Containers that do not run are left alone; those that ran before a rotation shall run after it, also going back
(`access/readers.py`). A restart attaches no network that a container was disconnected from; recreating does.

Privileges: write permission in the file's folder; the Engine's socket, or a proxy that lets GET, restart and kill of
containers through. Replacing containers needs `docker compose` or `docker-compose` on this machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaultkeeper.access import compose, docker, dotenv, files, project_files, slots
from vaultkeeper.access.answer import Answered
from vaultkeeper.access.docker import Engine, EngineSettings
from vaultkeeper.access.project_files import slot_of
from vaultkeeper.access.readers import AGAIN, How, Readers, ran_before, recreate
from vaultkeeper.access.settings import PolicyPath, Shape, Written
from vaultkeeper.errors import PolicyInvalid, VaultkeeperError
from vaultkeeper.model.outcome import (
    Confirmation,
    Confirmed,
    Done,
    Failed,
    Finding,
    Held,
    Holds,
    Login,
    No,
    NotYet,
    Prepared,
    Proof,
    Receipt,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import DeliveryContext, Item, Spot

_START_UP = timedelta(minutes=3)  # to stop, start and become healthy, where a policy has no `timeout`
_SPARE_S = 5.0  # beyond its grace period, for a container to be stopped and started within a hook's deadline

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class ContainerSignal(Shape):
    """A signal to the first process of each container."""

    signal: Literal["HUP", "INT", "TERM", "USR1", "USR2", "WINCH"]


class Settings(Written, EngineSettings):
    """What a policy may say beside `kind: compose`, `value` or `values`, `read`, `timeout` and `healthy_for`."""

    project: Name | None = Field(default=None, description="its name, as in `docker compose ls`")
    project_dir: PolicyPath | None = Field(default=None, description="or the folder of its Compose file")
    path: PolicyPath | None = Field(default=None, description="a file with one value, mounted into containers")
    env_file: PolicyPath | None = Field(default=None, description="or an env file whose keys `values` names")
    services: tuple[Name, ...] = Field(
        default=(), strict=False, description="who reads it, in this order; default for `path`: who mounts it"
    )
    reload: Literal["restart", "recreate", "none"] | ContainerSignal | None = Field(
        default=None, description="how they read it again; default: recreate for `env_file`, restart for `path`"
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.project is None) == (self.project_dir is None):
            raise ValueError("expected `project` or `project_dir`")
        if (self.path is None) == (self.env_file is None):
            raise ValueError("expected `path` with a `value`, or `env_file` with `values`")
        if self.env_file and not self.services:
            raise ValueError("expected `services`: no container tells which env file it was made from")
        if self.env_file and (self.reload == "restart" or isinstance(self.reload, ContainerSignal)):
            raise ValueError("a container keeps the environment that it was made with; expected `reload: recreate`")
        return self

    @property
    def file(self) -> str:
        return self.path or self.env_file or ""

    @property
    def how(self) -> How:
        if isinstance(self.reload, ContainerSignal):
            return "signal"
        return self.reload or ("recreate" if self.env_file else "restart")


class ComposeDestination:
    """The group is the project: what it reads changes together, and its containers are told once."""

    kind: ClassVar[str] = "compose"
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.DEMONSTRATED
    puts_back: ClassVar[bool] = True
    forbidden: ClassVar[frozenset[str]] = frozenset("\0\n\r'\\$")  # as for dotenv
    max_bytes: ClassVar[int | None] = files.MAX_BYTES
    Settings: ClassVar[type[Settings]] = Settings

    @classmethod
    def open(cls) -> Self:
        return cls()

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        settings = _settings(spec)
        group = GroupKey(f"compose:{settings.endpoint_name()}/{settings.project or settings.project_dir}")
        if settings.path:
            if set(spec.values) != {""}:
                raise PolicyInvalid("a secret file holds one value", next="write `value: template`")
            return [Spot(group, slot_of(settings.path), "", settings.path)]
        for name in spec.values:
            if not dotenv.KEY.fullmatch(name):
                raise PolicyInvalid(f"{name!r} is no name of a variable", next="write `values: {KEY: template}`")
        return [Spot(group, slot_of(settings.file, name), name, f"{settings.file}: {name}") for name in spec.values]

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        findings = [finding for file in _split(items) for finding in file.kind.check(group, file.inner, ctx)]
        try:
            with _engine(items, ctx) as engine:
                for readers in _told(items, engine, ctx).values():
                    findings += readers.findings(ctx.deadline)
        except Answered as error:
            findings.append(Finding("unchecked", error.what, error.next))
        return list(dict.fromkeys(findings))

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held] | Unknown:
        found: dict[Slot, Held] = {}
        for file in _split(items):
            held = file.kind.observe(group, file.inner, ctx)
            if isinstance(held, Unknown):
                return held
            found |= {item.slot: held[inner.slot] for item, inner in file.pairs}
        try:
            return {**found, **_run_on(items, found, ctx)}
        except Answered as error:
            return error.unknown

    def prepare(
        self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext
    ) -> Prepared | Refused | NotYet | Unknown:
        """A receipt also says who ran, so that going back starts again what the new value stopped."""
        receipts: dict[Slot, Receipt] = {}
        for file in _split(items):
            prepared = file.kind.prepare(group, file.inner, ctx)
            if not isinstance(prepared, Prepared):
                return prepared
            receipts |= {item.slot: prepared.receipts[inner.slot] for item, inner in file.pairs}
        try:
            with _engine(items, ctx) as engine:
                told = _told(items, engine, ctx)
        except Answered as error:
            return error.result
        for finding in (finding for readers in told.values() for finding in readers.findings(ctx.deadline)):
            if finding.level == "refuse":
                return Refused(No.UNSUPPORTED, f"{finding.text}; {finding.next}")
        for item in items:
            readers = told.get(_destination(item))
            if readers and item.receipt is None:
                made = receipts[item.slot]
                receipts[item.slot] = replace(made, public={**made.public, "ran": readers.running})
        return Prepared(receipts)

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        """Write every file, then tell everybody who was not started since; a repeat goes on where it was cut off."""
        concerned = _driven(items, ctx)
        found = _split(items)
        for file in found:
            for item, inner in file.pairs:  # put right on the way: a neighbour's value that somebody had changed
                if item not in concerned and not isinstance(file.kind.confirm(group, [inner], ctx), Confirmed):
                    concerned.append(item)
        written = project_files.deliver(found, group, ctx)
        if not isinstance(written, Done):
            return written
        try:
            return self._tell(concerned, items, ctx)
        except VaultkeeperError as error:  # whatever it is, never Refused: the files are written
            return Unknown(Login.UNREACHABLE, error.what)

    def _tell(self, concerned: Sequence[Item], items: Sequence[Item], ctx: DeliveryContext) -> Result:
        with _engine(items, ctx) as engine:
            told = list(_told(concerned, engine, ctx, absent_too=True).values())
            if any(readers.how == "recreate" and readers.due() for readers in told):
                recreate(told, engine.environment, ctx.deadline, slots.values(items))
                told = list(
                    _told(concerned, engine, ctx, absent_too=True).values()
                )  # who was replaced needs no restart
            restarted: set[str] = set()
            for readers in told:
                for container in readers.due():
                    if readers.signal:
                        compose.signal(engine, container, readers.signal, ctx.deadline)
                    elif readers.how == "restart" and container.id not in restarted:
                        if restarted and ctx.deadline.left_s(time.monotonic()) < container.stop_s + _SPARE_S:
                            return NotYet(f"{container.name} is to be restarted next", AGAIN)
                        compose.restart(engine, container, ctx.deadline)
                        restarted.add(container.id)
            for container in (doubtful for readers in told for doubtful in readers.doubtful()):
                # Its crashes count anew. Never waited for: who keeps crashing would be restarted for ever.
                if (
                    container.id not in restarted
                    and ctx.deadline.left_s(time.monotonic()) > container.stop_s + _SPARE_S
                ):
                    compose.restart(engine, container, ctx.deadline)
                    restarted.add(container.id)
        return Done()

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        for file in _split(items):
            written = file.kind.confirm(group, file.inner, ctx)
            if not isinstance(written, Confirmed):
                return written
        try:
            with _engine(items, ctx) as engine:
                told = list(_told(_driven(items, ctx), engine, ctx).values())
                waiting: list[NotYet] = []
                for readers in told:
                    for container in readers.wanted:
                        answer = readers.judged(container, engine.now_s)
                        if isinstance(answer, Failed):
                            line = compose.last_words(engine, container, ctx.deadline, slots.values(items))
                            return Failed(answer.consumer, f"{answer.why}{f'; its log ends: {line}' if line else ''}")
                        waiting += [answer] if answer else []
        except Answered as error:
            return error.unknown
        if waiting:
            return NotYet(waiting[0].reason, min(answer.after for answer in waiting))
        return Confirmed(Proof.WRITTEN if any(r.proof() is Proof.WRITTEN for r in told) else Proof.DEMONSTRATED)

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        return _START_UP + max((item.spec.healthy_for for item in items), default=timedelta(0))

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds | Unknown:
        """The file; and of an env file the containers, which keep what they were made with."""
        (file,) = _split([item])
        in_file = file.kind.holds(group, version, file.inner[0], ctx)
        if in_file is not Holds.NOTHING:
            return in_file
        try:
            with _given([item], ctx) as given:
                runs = any(slots.carries(item, name, version, same) for item, name, same in given)
        except Answered as error:
            return error.unknown
        return Holds.RUNNING if runs else Holds.NOTHING

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None:
        (file,) = _split([item])
        return file.kind.read(group, file.inner[0], ctx)


# ------------------------------------------------------------------------------------------------------ its readers


def _engine(items: Sequence[Item], ctx: DeliveryContext) -> Engine:
    return docker.engine(_settings(items[0].spec), ctx.credentials)


def _driven(items: Sequence[Item], ctx: DeliveryContext) -> list[Item]:
    """Those of secrets that are handed over now: whoever reads only others is neither told nor waited for."""
    return [item for item in items if not ctx.epochs or item.secret in ctx.epochs]


def _told(
    items: Sequence[Item], engine: Engine, ctx: DeliveryContext, *, absent_too: bool = False
) -> dict[str, Readers]:
    """Who reads each destination's file, by destination. `absent_too`: those of no file too. Raises Answered."""
    asked = {_destination(item): item for item in items if item.spec.read not in {Read.FIRST_START, Read.COPY}}
    if not asked:
        return {}
    first = _settings(items[0].spec)
    project = compose.find(engine, ctx.deadline, name=first.project, folder=first.project_dir)
    found = {}
    for destination, item in asked.items():
        settings, was = _settings(item.spec), files.read(_settings(item.spec).file)
        ran = [ran_before(other) for other in items if _destination(other) == destination]
        found[destination] = Readers(
            path=settings.file,
            environment=settings.env_file is not None,
            placed_at=was.placed_at if was.exists or absent_too else 0.0,
            how=settings.how,
            signal=settings.reload.signal if isinstance(settings.reload, ContainerSignal) else None,
            read=item.spec.read,
            healthy_for=item.spec.healthy_for,
            services=settings.services,
            project=project,
            ran=frozenset().union(*ran),
        )
    return found


@contextmanager
def _given(items: Sequence[Item], ctx: DeliveryContext) -> Iterator[list[tuple[Item, str, slots.Same]]]:
    """Items of env files that are read at start: the template's name, and whether a container was given a content.

    Raises Answered; not where nobody is told by us (`reload: none`), because then no Engine need be there.
    """
    asked = [item for item in items if item.spec.read is Read.AT_START and _settings(item.spec).env_file]
    if not asked:
        yield []
        return
    try:
        with _engine(asked, ctx) as engine:
            told = _told(asked, engine, ctx)
    except Answered:
        if any(_settings(item.spec).how != "none" for item in asked):
            raise
        told = {}
    names = {item.slot: inner.slot for file in _split(asked) for item, inner in file.pairs}
    there = [(item, names[item.slot], told[_destination(item)]) for item in asked if _destination(item) in told]
    yield [(item, name, partial(readers.given, name)) for item, name, readers in there]


def _run_on(items: Sequence[Item], in_file: Mapping[Slot, Held], ctx: DeliveryContext) -> dict[Slot, Held]:
    """Slots of env files whose containers run on another version of ours than the file has. Raises Answered."""
    found = {}
    with _given(items, ctx) as given:
        for item, name, same in given:
            for version in item.accepted:
                other = version.number != in_file[item.slot].version
                if other and slots.carries(item, name, version, same):
                    found[item.slot] = Held(version.number)
    return found


def _destination(item: Item) -> str:
    """Equal for the items of one destination."""
    return json.dumps([item.spec.read.value, item.spec.settings], sort_keys=True)


def _settings(spec: DestinationSpec) -> Settings:
    return Settings.model_validate(spec.settings)


def _split(items: Sequence[Item]) -> list[project_files.File]:
    def file_of(spec: DestinationSpec) -> tuple[str, bool, Written]:
        settings = _settings(spec)
        return settings.file, settings.env_file is not None, settings

    return project_files.split(items, file_of)
