"""Templates that cannot be filled, and hand-made values that would break out of one."""

from __future__ import annotations

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.errors import PolicyInvalid


def test_a_field_that_the_version_has_not_stops_before_the_target_hears_of_it() -> None:
    bench = Bench("misspelt")
    bench.use(bench.make.overlap("a", bench.make.file("f", {"": "{passwort}"})))
    rotation = bench.one("a")
    assert (rotation.state.value, "passwort" in rotation.detail) == ("rolled_back", True)
    assert not bench.world.accepted("db_a")


@pytest.mark.parametrize("value", ["pa@ss/word:2026", "a b?c#d"])
def test_adopting_a_value_that_would_break_out_of_a_url_is_refused_without_showing_it(value: str) -> None:
    bench = Bench("url")
    bench.use(bench.make.unchecked("a", bench.make.file("f", {"": "postgresql://app:{password}@db/shop"})))
    with pytest.raises(PolicyInvalid) as refused:
        bench.adopt("a", value)
    assert "|url" in refused.value.next
    assert value not in f"{refused.value} {refused.value.next}"
    assert not bench.store.versions("a")


def test_the_same_value_is_adopted_where_the_template_escapes_it() -> None:
    bench = Bench("escaped")
    bench.use(bench.make.unchecked("a", bench.make.file("f", {"": "postgresql://app:{password|url}@db/shop"})))
    assert bench.adopt("a", "pa@ss/word").number == 1
