"""Files are handed to workers as `tests/order.py` says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.order import FIRST, TOGETHER, Scheduler, put_in_order

ROOT = Path(__file__).parents[2]
LEAKS, UNIT = TOGETHER[0], "tests/unit/test_order.py"


@pytest.mark.parametrize("file", sorted({*TOGETHER, *FIRST}))
def test_every_file_that_is_named_is_there(file: str) -> None:
    assert (ROOT / file).is_file()


def test_a_file_that_stays_together_is_one_piece_of_work_and_other_tests_are_one_each() -> None:
    split: Any = Scheduler._split_scope
    assert split(None, f"{LEAKS}::test_a[x::y]") == split(None, f"{LEAKS}::test_b")
    assert split(None, f"{UNIT}::test_a") != split(None, f"{UNIT}::test_b")


def test_long_files_come_first_and_nothing_else_changes_places() -> None:
    names = [f"{UNIT}::b", f"{FIRST[1]}::x", f"{UNIT}::a", f"{FIRST[0]}::y", f"{FIRST[0]}::x"]
    items: list[Any] = [SimpleNamespace(nodeid=name) for name in names]
    put_in_order(items)
    assert [item.nodeid for item in items] == [names[3], names[4], names[1], names[0], names[2]]
