"""Templates that cannot be filled, and hand-made values that would break out of one."""

from __future__ import annotations

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.engine.preview import check
from vaultkeeper.errors import PolicyInvalid


def test_a_field_that_the_version_has_not_stops_before_the_target_hears_of_it() -> None:
    bench = Bench("misspelt")
    bench.use(bench.make.overlap("a", bench.make.file("f", {"": "{passwort}"})))
    rotation = bench.one("a")
    assert (rotation.state.value, "passwort" in rotation.detail) == ("rolled_back", True)
    assert not bench.world.accepted("db_a")


def test_check_tells_of_it_as_a_finding_of_its_secret_and_goes_on_with_the_others() -> None:
    bench, right = Bench("checked"), "{password}"
    bench.use(*(bench.make.overlap(name, bench.make.file(f"f_{name}", {"": right})) for name in "ab"))
    bench.done("a", "b")
    bench.use(bench.make.overlap("a", bench.make.file("f_a", {"": "{passwort}"})))
    told = check(bench.parts(), offline=False)
    refused = [(name, finding) for name, finding in told if finding.level == "refuse"]
    assert [name for name, _ in refused] == ["a"]
    assert "passwort" in refused[0][1].text
    assert refused[0][1].next
    assert "b" in {name for name, _ in told}


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
