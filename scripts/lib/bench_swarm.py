"""Swarm services on a dockerd of our own: five secrets of one service at once, and one secret of many services."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import replace

from bench_stage import Stage
from bench_turns import Line, take_turns

from tests.servers import docker
from tests.servers.docker import Engine
from tests.servers.docker_service import Service
from vaultkeeper.model.policy import DestinationSpec, Read

SHARED = 5


def coalesced(stage: Stage, seconds: float) -> Iterator[Line]:
    """Five secrets of one service in one command against one command each: one restart against five."""
    engine = docker.start()
    try:
        names = stage.adopted(SHARED)
        service = _service(engine, "shop", names)
        for name in names:
            _deliver_to(stage, engine, name, [service])
        stage.rotate(names, parallel=SHARED)  # from the objects made by hand to ours

        def one_by_one() -> None:
            for name in names:
                stage.rotate([name])

        before = len(service.tasks())
        turns = take_turns(
            lambda: stage.rotate(names, parallel=SHARED), one_by_one, rounds=3, seconds=seconds, at_least=1
        )
        line = turns.line(f"{SHARED} secrets of one service / one by one", at_most=0.3, unit="s")
        restarts = (len(service.tasks()) - before) / line.rounds
        print(f"    restarts of the service per round, both sides: {restarts:g} (wanted: {1 + SHARED})")
        yield line
    finally:
        engine.stop()


def shared(stage: Stage, seconds: float, services: int = 20) -> Iterator[Line]:
    """One secret of many services against one of one service, and what memory that takes."""
    engine = docker.start()
    try:
        many, few = stage.adopted(2)
        made = [_service(engine, f"shop{number}", [many], started=False) for number in range(services)]
        for service in made:
            engine.wait_for(f"{service.name} runs", service.all_running, timeout=300)
        _deliver_to(stage, engine, many, made)
        _deliver_to(stage, engine, few, [_service(engine, "alone", [few])])
        stage.rotate([many])
        stage.rotate([few])
        turns = take_turns(
            lambda: stage.rotate([many]), lambda: stage.rotate([few]), rounds=3, seconds=seconds, at_least=1
        )
        line = turns.line(f"one secret of {services} services / of one", at_most=services / 2, unit="s")
        yield replace(line, parts={})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"    peak memory of this process: {peak:.0f} MB")
    finally:
        engine.stop()


def _service(engine: Engine, base: str, names: list[str], *, started: bool = True) -> Service:
    """It has one file for each secret, made by hand so far."""
    files = {name: engine.secret(_object(engine, name), f"by hand {time.time_ns()}") for name in names}
    return engine.service(base, files, environment={"SECRET": names[0]}, started=started)


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
