"""Fixtures for real servers, and the rule that CI may skip nothing.

``postgres``        a PostgreSQL 18 that lives as long as the pytest worker; make accounts of your own on it
                    ``@every_postgres`` (import it from tests.servers.postgres) runs such a test on every version
``new_postgres``    ``new_postgres("15", settings={…}, ssl=True)``: a server for this test alone, to crash or restore
``docker``          the worker's Docker Engine, a swarm of one node, cleared after the test: tests/servers/docker.py
``new_docker``      ``new_docker()``: an Engine for this test alone, to be killed and started again
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.order import Scheduler, put_in_order
from tests.servers import ServerMissing, in_ci
from tests.servers import docker as docker_module
from tests.servers import postgres as postgres_module
from tests.servers.docker import Engine
from tests.servers.postgres import PostgresServer

StartPostgres = Callable[..., PostgresServer]


def _or_skip(version: str, **options: Any) -> PostgresServer:
    try:
        return postgres_module.start(version, **options)
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def postgres_of() -> Iterator[StartPostgres]:
    """Return the worker's server of a version, started when first asked for."""
    servers: dict[str, PostgresServer] = {}
    with ExitStack() as stack:

        def of(version: str) -> PostgresServer:
            if version not in servers:
                servers[version] = _or_skip(version)
                stack.callback(servers[version].stop)
            return servers[version]

        yield of


@pytest.fixture
def postgres(request: pytest.FixtureRequest, postgres_of: StartPostgres) -> PostgresServer:
    """Return the worker's PostgreSQL, 18 unless ``@every_postgres`` says otherwise."""
    return postgres_of(getattr(request, "param", postgres_module.NEWEST))


@pytest.fixture
def new_postgres() -> Iterator[StartPostgres]:
    """Start servers that end with the test."""
    with ExitStack() as stack:

        def start(version: str = postgres_module.NEWEST, **options: Any) -> PostgresServer:
            server = _or_skip(version, **options)
            stack.callback(server.stop)
            return server

        yield start


def _engine_or_skip(start: Callable[[], Engine]) -> Engine:
    try:
        return start()
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def docker() -> Iterator[Engine]:
    """Return the worker's Engine, started when first asked for, and clear it of everything when the test is over."""
    engine = _engine_or_skip(docker_module.shared)
    yield engine
    engine.clear()


@pytest.fixture
def new_docker() -> Iterator[Callable[[], Engine]]:
    """Start Engines that end with the test."""
    with ExitStack() as stack:

        def start() -> Engine:
            engine = _engine_or_skip(docker_module.start)
            stack.callback(engine.stop)
            return engine

        yield start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    config.option.loadscopereorder = False
    return Scheduler(config, log)


# In CI a skipped test is a failed one: a missing server must not look like success.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and in_ci() and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and in_ci():
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {_reason(report.longrepr)}"
    return report


def _reason(longrepr: object) -> object:
    return longrepr[2] if isinstance(longrepr, tuple) else longrepr
