"""Random policies over every simulated system."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from tests.unit.engine_steps.bench import Shapes
from vaultkeeper.model.policy import DestinationSpec, RotationPolicy
from vaultkeeper.model.secret import Strategy

if TYPE_CHECKING:
    from tests.crash.simulation import Run

GRACES = (timedelta(minutes=10), timedelta(hours=1), timedelta(days=3))
PERIODS = (None, timedelta(days=1), timedelta(days=2), timedelta(days=30))
INTERVALS = (timedelta(0), timedelta(0), timedelta(minutes=5))
PAIR, BARE, TOKEN = "{username}:{password}", "{password}", "{token}"


def stock(run: Run) -> None:
    """One to five secrets; some share a service, some depend on another."""
    rng, names = run.rng, ["alpha", "beta", "gamma", "delta", "epsilon"]
    for name in names[: rng.choice((1, 2, 2, 3, 3, 4, 5))]:
        policy = rng.choice(MAKERS)(run.make, name, rng)
        run.policies[name] = policy
        target = policy.target.kind if policy.target else "-"
        run.log.append(f"{name}: {policy.strategy} {target} {[_told(spec) for spec in policy.destinations]}")


def _told(spec: DestinationSpec) -> str:
    return f"{spec.kind}:{spec.settings['system']}{dict(spec.values)}"


def _common(name: str, rng: Random) -> dict[str, Any]:
    before = ["alpha", "beta", "gamma", "delta", "epsilon"]
    earlier = before[: before.index(name)]
    depends = (rng.choice(earlier),) if earlier and rng.random() < 0.2 else ()
    return {"rotation_period": rng.choice(PERIODS), "min_interval": rng.choice(INTERVALS), "depends_on": depends}


def _places(make: Shapes, name: str, template: str, rng: Random, *, clients: bool) -> list[DestinationSpec]:
    """Own file or service, the stack that all share, machines that are offline for days; or nothing at all."""
    days = timedelta(days=10)
    makers: list[Callable[[], DestinationSpec]] = [
        lambda: make.file(f"file_{name}", {"": template}),
        lambda: make.service(f"service_{name}", {"": template}, services=("web", "worker")),
        lambda: make.service("stack", {name: template}, services=("api",)),
        lambda: make.service("stack", {name: template}, services=("api", "cron")),
    ]
    if clients:
        makers.append(lambda: make.to("sim_clients", f"clients_{name}", {"": template}, timeout=days))
    chosen = [maker() for maker in rng.sample(makers, rng.choice((0, 1, 1, 1, 2)))]
    if sum(spec.settings["system"] == "stack" for spec in chosen) > 1:
        chosen = chosen[:1]  # two secrets in one slot are refused at load
    return chosen


def overlap(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    places = _places(make, name, PAIR, rng, clients=True)
    return make.overlap(name, *places, grace_period=rng.choice(GRACES), **_common(name, rng))


def alternating(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    places = _places(make, name, PAIR, rng, clients=True)
    closes = rng.random() < 0.3
    return make.alternating(name, *places, grace_period=rng.choice(GRACES), close_sessions=closes, **_common(name, rng))


def single(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    return make.single(name, *_places(make, name, PAIR, rng, clients=False), **_common(name, rng))


def throttling(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    return make.throttling(name, *_places(make, name, PAIR, rng, clients=False), **_common(name, rng))


def minted(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    places = _places(make, name, TOKEN, rng, clients=True)
    readable = {"readable": rng.random() < 0.5}
    common = {**_common(name, rng), "rotation_period": rng.choice((None, timedelta(days=30)))}
    return make.minted(name, *places, target=readable, grace_period=rng.choice(GRACES), **common)


def via(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    strategy = rng.choice((Strategy.OVERLAP, Strategy.SINGLE))
    carrier = rng.choice(("sim_file", "sim_service"))
    places = _places(make, name, BARE, rng, clients=strategy is Strategy.OVERLAP)
    grace = rng.choice(GRACES) if strategy is Strategy.OVERLAP else timedelta(0)
    return make.via(name, strategy, carrier, *places, grace_period=grace, **_common(name, rng))


def keys(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    services = rng.choice((("app",), ("app", "queue")))
    return make.keys(name, f"keyring_{name}", services, **_common(name, rng))


def unchecked(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    return make.unchecked(name, *_places(make, name, BARE, rng, clients=True), **_common(name, rng))


def manual(make: Shapes, name: str, rng: Random) -> RotationPolicy:
    places = _places(make, name, BARE, rng, clients=False)
    return make.manual(name, *places, grace_period=rng.choice(GRACES), **_common(name, rng))


MAKERS = (
    overlap,
    overlap,
    alternating,
    alternating,
    single,
    throttling,
    minted,
    minted,
    via,
    via,
    keys,
    unchecked,
    manual,
)
