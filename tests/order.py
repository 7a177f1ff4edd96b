"""Who runs what, and in which order, where several workers share the tests.

`--dist loadgroup` would do the first, but pytest-xdist 3.8 ignores every group under pytest 9.2, without a word
(https://github.com/pytest-dev/pytest-xdist/issues/1386).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/integration/test_leaks.py", "tests/unit/test_docs.py", "tests/integration/test_dokploy_env.py")
"""Files that share something that takes long to set up: each is run by one worker, not a piece by each."""

FIRST = (
    "tests/integration/test_leaks.py",
    "tests/crash/test_races.py",
    "tests/cli/test_quickstart.py",
    "tests/crash/test_sweep.py",
    "tests/crash/test_every_state.py",
    "tests/integration/test_swarm_rotations.py",
    "tests/integration/test_swarm_others.py",
    "tests/integration/test_swarm_dockerd.py",
    "tests/integration/test_swarm_broken.py",
    "tests/crash/test_simulation.py",
)
"""Files with the longest tests: begun last, one of them would be waited for while the other workers are idle."""


class Scheduler(LoadScopeScheduling):  # type: ignore[misc] # ships no types
    """Hands out single tests in their order, but for files that stay together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid


def put_in_order(items: list[pytest.Item]) -> None:
    """The longest first, the rest as it was collected."""
    items.sort(key=lambda item: _place(item.nodeid.partition("::")[0], FIRST))


def _place(file: str, order: Sequence[str]) -> int:
    return order.index(file) if file in order else len(order)
