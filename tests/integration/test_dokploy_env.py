"""Environments are read as Dokploy reads them: compared with the npm package itself over random documents and edits.

5,000 documents and 5,000 edits here; `scripts/dotenv-differential` compares 100,000 of each.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.dotenv_oracle import Oracle, compare
from tests.servers import ServerMissing
from vaultkeeper.access.dokploy.env import parse

COUNT, SEED = 5_000, 20261121


@pytest.fixture(scope="module")
def oracle(request: pytest.FixtureRequest) -> Oracle:
    assert request.config.cache is not None
    try:
        return Oracle.install(Path(request.config.cache.mkdir("dotenv-16.4.5")))
    except ServerMissing as missing:
        pytest.skip(str(missing))


def test_random_environments_are_read_and_edited_as_the_package_says(oracle: Oracle) -> None:
    found = compare(oracle, COUNT, SEED)
    print(found.line())
    assert found.wrong == []
    assert found.edits > COUNT * 0.8


def test_the_oracle_is_the_package(oracle: Oracle) -> None:
    """It knows the trap that gave it its place here: a quote that swallows the next line."""
    trap = "A='abc\\'\nB='#foo'\n"
    assert oracle.parse([trap, "A=x#c"]) == [parse(trap), {"A": "x"}]
    assert json.dumps(oracle.parse([trap])) != json.dumps([{"A": "abc\\", "B": "#foo"}])
