"""Every state of one group that one fault can reach.

In tests/crash: two faults, a checker behind a destination, values that died, and that the search finds what is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.unit.engine.cases import CASES
from tests.unit.engine.search import Found, search

NAMES = [case.name for case in CASES if not (case.via or case.dead)]  # they take as long as all others


@cache
def found_in(name: str) -> Found:
    (case,) = (case for case in CASES if case.name == name)
    return search(replace(case, faults=1, groups=min(case.groups, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_invariant_02_in_every_state_that_one_fault_can_reach_a_stored_value_works(name: str) -> None:
    found = found_in(name)
    print(found)
    assert found.violations == {}
    assert found.states > 20


def test_the_search_reaches_every_kind_of_end() -> None:
    reached = {end for name in ("single", "overlap, emergency", "manual") for end in found_in(name).ends}
    assert {"done", "rolled_back", "ambiguous(none_accepted)"} <= reached
    assert {f"parked({cause})" for cause in ("value", "privilege", "stale", "conflict", "laggards")} <= reached
    assert {f"parked({cause})" for cause in ("target_went_back", "checks_nothing", "confirm_timeout")} <= reached


@pytest.mark.parametrize("name", ["alternating users, emergency", "single", "overlap, via, first"])
def test_invariant_07_from_every_state_one_restart_without_faults_reaches_an_end(name: str) -> None:
    found = found_in(name)
    assert not [wrong for wrong in found.violations if "restart" in wrong or "never ends" in wrong]
    assert found.ends["done"]
    assert found.ends["rolled_back"]
