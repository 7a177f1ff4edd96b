"""Swarm services on a dockerd of our own: five secrets of one service at once, and one secret of many services."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

from bench_stage import Stage
from bench_turns import Line, take_turns

from tests.servers import docker
from tests.servers.docker import Engine
from tests.servers.docker_service import Service
from vaultkeeper.destinations.swarm import MOST_MOVING
from vaultkeeper.model.policy import DestinationSpec, Read

SHARED = 5


def coalesced(stage: Stage, seconds: float) -> Iterator[Line]:
    """Five secrets of one service in one command against one command each: one restart against five."""
    engine = docker.start()
    try:
        names = stage.adopted(SHARED)
        service = _service(engine, "shop", _by_hand(engine, names))
        for name in names:
            _deliver_to(stage, engine, name, [service])
        stage.rotate(names, parallel=SHARED)  # from the objects made by hand to ours

        tasks: dict[str, set[str]] = {"at once": set(), "one by one": set()}

        def at_once() -> None:
            before = _tasks(service)
            stage.rotate(names, parallel=SHARED)
            tasks["at once"] |= _tasks(service) - before

        def one_by_one() -> None:
            for name in names:
                before = _tasks(service)
                stage.rotate([name])
                tasks["one by one"] |= _tasks(service) - before

        turns = take_turns(at_once, one_by_one, rounds=3, seconds=seconds, at_least=1)
        line = turns.line(f"{SHARED} secrets of one service / one by one", at_most=0.3, unit="s")
        starts = ", ".join(f"{len(found) / line.rounds:g} {how}" for how, found in tasks.items())
        print(f"    restarts of the service in a round: {starts}")
        yield line
    finally:
        engine.stop()


def shared(stage: Stage, seconds: float, services: int = 20) -> Iterator[Line]:
    """One secret of many services against one of one service, and what memory that takes."""
    engine = docker.start()
    try:
        many, few = stage.adopted(2)
        files = _by_hand(engine, [many])
        made = [_service(engine, f"shop{number}", files, started=False) for number in range(services)]
        for service in made:
            engine.wait_for(f"{service.name} runs", service.all_running, timeout=300)
        _deliver_to(stage, engine, many, made)
        _deliver_to(stage, engine, few, [_service(engine, "alone", _by_hand(engine, [few]))])
        stage.rotate([many])
        stage.rotate([few])
        turns = take_turns(
            lambda: stage.rotate([many]), lambda: stage.rotate([few]), rounds=3, seconds=seconds, at_least=1
        )
        line = turns.line(f"one secret of {services} services / of one", at_most=1 + services / MOST_MOVING, unit="s")
        yield line
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"    peak memory of this process: {peak:.0f} MB")
    finally:
        engine.stop()


def _by_hand(engine: Engine, names: list[str]) -> dict[str, dict[str, str]]:
    """One object for each secret, by the name of the file that it becomes."""
    return {name: engine.secret(_object(engine, name), f"by hand {time.time_ns()}") for name in names}


def _service(engine: Engine, base: str, files: dict[str, dict[str, str]], *, started: bool = True) -> Service:
    """A hundred health checks at once would be measured too: it has none."""
    secret = {"SECRET": next(iter(files))}
    return engine.service(base, files, environment=secret, healthcheck=False, started=started)


def _tasks(service: Service) -> set[str]:
    return {task["ID"] for task in service.tasks()}


def _object(engine: Engine, name: str) -> str:
    return f"{engine.run}-{name}"


def _deliver_to(stage: Stage, engine: Engine, name: str, services: list[Service]) -> None:
    settings = {
        "host": engine.url,
        "secret": _object(engine, name),
        "services": [service.name for service in services],
        "mount": {"target": name},
    }
    stage.deliver_to(name, DestinationSpec("swarm", {"": "{password}"}, Read.AT_START, settings))
