"""Every state that two faults can reach, wherever they strike: some 2.9 million, in three or four minutes.

`tests/unit/engine` walks those of one group that one fault can reach; `test_mutated_rows.py` shows that it finds what
is wrong. `python -m tests.unit.engine.search 2` counts each case and, for a violation, prints how one gets there.
"""

from __future__ import annotations

import pytest

from tests.unit.engine.cases import CASES, Case
from tests.unit.engine.search import search


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_invariant_02_in_every_state_that_two_faults_can_reach_a_stored_value_works(case: Case) -> None:
    found = search(case)
    print(found)
    assert found.violations == {}
