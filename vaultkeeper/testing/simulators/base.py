"""What all simulated systems share: their place in a world, and hooks that pass the fault switchboard.

A subclass writes its hooks plainly; `__init_subclass__` puts the switchboard before each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from vaultkeeper.model.outcome import (
    Basis,
    Confirmation,
    Confirmed,
    Done,
    Finding,
    Held,
    Holds,
    Login,
    No,
    NotYet,
    Observation,
    Prepared,
    Proof,
    Receipt,
    Refused,
    Tag,
)
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import Fields, GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import Capabilities, Context, DeliveryContext, Item, Spot
from vaultkeeper.testing.faults import CHANGES, READS, call
from vaultkeeper.testing.world import State, World, secret_value

FORBIDDEN = frozenset("\n\r\0")


def _struck(hook: Callable[..., Any], where: Callable[..., tuple[World, str]]) -> Callable[..., Any]:
    @wraps(hook)
    def struck(self: Any, *args: Any, **kwargs: Any) -> Any:
        world, system = where(self, *args)
        name = f"{system}.{hook.__name__}"
        return call(world.faults, name, lambda: hook(self, *args, **kwargs), lambda: world.restore_backup(system))

    return struck


class Place(BaseModel):
    """Which world, and which system in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    world: str
    system: str


class Settings(Place):
    """And the account of those that have one."""

    user: str = "app"
    address: str = ""  #: what failed logins are charged to, which are rationed there; "": this machine


class SimulatedTarget:
    """A system that accepts (account, value) pairs. Switch `state["trusting"]` on, and it checks nothing at all."""

    kind: ClassVar[str]
    codec: ClassVar[int] = 1
    capabilities: ClassVar[Capabilities]
    Settings: ClassVar[type[Any]] = Settings

    def __init_subclass__(cls) -> None:
        for name in (CHANGES | READS | {"complete"}) & vars(cls).keys():
            setattr(cls, name, _struck(vars(cls)[name], lambda self, *_: (self.world, self.home)))

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.home: str = settings.system
        self.world = World.named(settings.world)

    @classmethod
    def open(cls, settings: Mapping[str, object], codec: int) -> Self:  # noqa: ARG003 - there is one codec yet
        return cls(cls.Settings.model_validate(dict(settings)))

    @property
    def state(self) -> State:
        return self.world.system(self.home)

    @property
    def accounts(self) -> dict[str, list[bytes]]:
        """Account → values that it accepts, primary first."""
        accounts: dict[str, list[bytes]] = self.state.setdefault("accounts", {})
        return accounts

    def pair(self, version: SecretVersion) -> tuple[str, bytes]:
        username = version.fields.get("username")
        return (username.text() if username else self.settings.user, secret_value(version))

    def login_key(self, version: SecretVersion) -> tuple[str, str]:
        return self.pair(version)[0], self.settings.address or f"localhost:{self.home}"

    def decoy(self, version: SecretVersion) -> SecretVersion | None:
        return None

    def shown(self, candidates: Sequence[SecretVersion], basis: Basis, *ours: str) -> Observation:
        """What a system knows that shows exactly what it accepts. `ours`: accounts whose use would be noticed."""
        there, tag = self.world.accepted(self.home), self.state.get("tag")
        return Observation(
            {v.number: Login.ACCEPTED if self.pair(v) in there else Login.REJECTED for v in candidates},
            basis,
            tag=Tag(*tag) if tag else None,
            handles={v.number: v.handle for v in candidates if v.handle},
            foreign=len(there - {self.pair(v) for v in candidates}),
            durable=True,
            account_usable=any(account in ours for account, _ in there) if ours else None,
        )

    def exchange(self, wanted: Mapping[str, bytes], refuse: Sequence[SecretVersion]) -> None:
        """One value an account: the wanted ones in, refused ones out where nothing replaced them."""
        for account, value in map(self.pair, refuse):
            if self.accounts.get(account) == [value]:
                self.accounts[account] = []
        self.accounts.update({account: [value] for account, value in wanted.items()})

    def stale(self, versions: Sequence[SecretVersion], ctx: Context) -> Refused | None:
        """Invariant 12: a newer generation, or the same one written under a newer epoch, wins over us."""
        theirs = self.state.get("tag")
        at_hand = [*versions, *(v for v in (ctx.current, ctx.pending) if v is not None)]
        ours = (max(version.number for version in at_hand), ctx.epoch)
        if theirs and tuple(theirs[:2]) == (ctx.installation, ctx.secret) and tuple(theirs[2:]) > ours:
            return Refused(No.STALE, f"generation {theirs[2]}, epoch {theirs[3]} was here")
        self.state["tag"] = [ctx.installation, ctx.secret, *ours]
        return None

    def unfit(self, versions: Sequence[SecretVersion]) -> Refused | None:
        """The system's own rules about values."""
        if any(set(secret_value(v).decode("utf-8", "replace")) & self.capabilities.forbidden for v in versions):
            return Refused(No.VALUE, "control characters")
        return None


class Plain(SimulatedTarget):
    """Hooks that every plain password target has alike."""

    def check(self, ctx: Context) -> Sequence[Finding]:
        return [Finding("ok", f"{self.home} is there")]

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return {"username": SecretBytes(self.settings.user.encode()), **given}

    def test(self, version: SecretVersion, ctx: Context) -> Login:
        known = self.pair(version) in self.world.accepted(self.home)
        return Login.ACCEPTED if known or self.state.get("trusting") else Login.REJECTED


class Bare(Plain):
    """Systems that know values and no accounts."""

    def complete(self, given: Fields, ctx: Context, *, adopting: bool) -> Fields:
        return given

    def pair(self, version: SecretVersion) -> tuple[str, bytes]:
        return "", secret_value(version)


class ServiceSettings(Place):
    """And the services that read there."""

    services: tuple[str, ...] = ("app",)
    order: tuple[str, ...] = ()  #: of those services that must run on it before the next one is touched

    def in_order(self) -> list[str]:
        return [*self.order, *(service for service in self.services if service not in self.order)]


class SimulatedDestination:
    """Consumers ("services") that read their slots when they start, like a Swarm service: one group each.

    `state["running"][service][slot]` is what it runs on, `["previous"]` its rollback path, `["objects"]` what prepare
    made. The settings name `services`; the group key is "<kind>:<system>/<service>".
    """

    kind: ClassVar[str]
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.DEMONSTRATED
    puts_back: ClassVar[bool] = True
    forbidden: ClassVar[frozenset[str]] = FORBIDDEN
    max_bytes: ClassVar[int | None] = None
    rolls_back: ClassVar[bool] = True  #: keeps a rollback path to what it ran on before, until released
    Settings: ClassVar[type[Any]] = ServiceSettings

    def __init_subclass__(cls) -> None:
        for name in CHANGES | READS:
            if hasattr(cls, name):
                setattr(cls, name, _struck(getattr(cls, name), cls._where))

    @classmethod
    def open(cls) -> Self:
        return cls()

    def _where(self, first: GroupKey | DestinationSpec, *rest: Any) -> tuple[World, str]:
        """The world and system of a call, from its spec, its item or its first item."""
        if isinstance(first, DestinationSpec):
            return World.named(str(first.settings["world"])), str(first.settings["system"])
        given = next(arg for arg in rest if isinstance(arg, Item | list | tuple))
        item: Item = given if isinstance(given, Item) else given[0]
        return self._where(item.spec)

    def state(self, item: Item) -> State:
        world, system = self._where(item.spec)
        state = world.system(system)
        for part in ("running", "previous", "objects"):
            state.setdefault(part, {})
        return state

    def service(self, group: GroupKey) -> str:
        return group.partition("/")[2]

    def there(self, group: GroupKey, item: Item) -> State | None:
        """What a slot holds now: `content`, and the id of its `version`."""
        held: State | None = self.state(item)["running"].get(self.service(group), {}).get(item.slot)
        return held

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot]:
        system, services = spec.settings["system"], self.Settings.model_validate(dict(spec.settings)).in_order()
        return [
            Spot(GroupKey(f"{self.kind}:{system}/{service}"), Slot(value), value, f"{service}: {value or 'secret'}")
            for service in services
            for value in spec.values
        ]

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        return [Finding("ok", f"{self.service(group)} is there")]

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held]:
        held: dict[Slot, Held] = {}
        for item in items:
            there = self.there(group, item)
            known = [v.number for v in item.accepted if there and there["version"] == v.id]
            held[item.slot] = Held(known[0] if known else None, foreign=bool(there) and not known)
        return held

    def prepare(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Prepared | Refused:
        for item in items:
            if item.primary and item.content:
                self.state(item)["objects"][f"{group}|{item.slot}|{item.primary.id}"] = item.content.reveal()
        return Prepared(self.receipts(group, items))

    def receipts(self, group: GroupKey, items: Sequence[Item]) -> Mapping[Slot, Receipt]:
        receipts: dict[Slot, Receipt] = {}
        for item in items:
            there = self.there(group, item)
            sealed = SecretBytes(there["content"]) if there else None
            receipts[item.slot] = item.receipt or Receipt({"version": there["version"] if there else None}, sealed)
        return receipts

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Done | Refused:
        for item in items:
            state, service = self.state(item), self.service(group)
            running = state["running"].setdefault(service, {})
            there, wanted = running.get(item.slot), self.wanted(item)
            if there == wanted:
                continue
            if there and self.rolls_back:
                state["previous"].setdefault(service, {})[item.slot] = there["version"]
            if wanted is None:
                del running[item.slot]
            else:
                running[item.slot] = wanted
        return Done()

    def wanted(self, item: Item) -> State | None:
        """What a slot shall hold: its content, else what the receipt says was there."""
        if item.content is not None and item.primary is not None:
            return {"content": item.content.reveal(), "version": item.primary.id}
        if item.receipt is None or item.receipt.sealed is None:
            return None
        return {"content": item.receipt.sealed.reveal(), "version": item.receipt.public["version"]}

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        for item in items:
            if self.there(group, item) != self.wanted(item):
                return NotYet("it runs on something else", timedelta(seconds=5), (self.service(group),))
        return Confirmed(self.proof)

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        return timedelta(minutes=2)

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds:
        there = self.there(group, item)
        if there and there["version"] == version.id:
            return Holds.RUNNING
        closed = self.state(item)["previous"].get(self.service(group), {}).get(item.slot) != version.id
        return Holds.NOTHING if closed else Holds.ROLLBACK_PATH

    def release(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Done:
        state, service = self.state(item), self.service(group)
        if state["previous"].get(service, {}).get(item.slot) == version.id:
            del state["previous"][service][item.slot]
        there = self.there(group, item)
        if there is None or there["version"] != version.id:
            state["objects"].pop(f"{group}|{item.slot}|{version.id}", None)
        return Done()
