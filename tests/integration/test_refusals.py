"""The plan says how many logins fail on purpose. The servers' own logs say whether that is so."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.contract.found import servers
from tests.crash.sweep import NAME, Scenario, World, scenarios
from tests.servers import ServerMissing
from vaultkeeper import wiring
from vaultkeeper.cli.given import read_fields
from vaultkeeper.engine.book import Book
from vaultkeeper.engine.importing import import_value
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.preview import preview
from vaultkeeper.engine.rotate import resume, rotate
from vaultkeeper.model.rotation import State
from vaultkeeper.model.secret import StagingLabel
from vaultkeeper.wiring.beginning import Recovery, initialise
from vaultkeeper.wiring.places import Wishes


def tells(scenario: Scenario) -> bool:
    """Does its server say how many logins it refused?"""
    made = vars(servers(scenario.kind)).values()
    return scenario.group == "targets" and any(hasattr(c, "refused_logins") for c in made if inspect.isclass(c))


TOLD = [scenario for scenario in scenarios() if tells(scenario)]


def test_some_servers_tell() -> None:
    assert len(TOLD) >= 4


@pytest.mark.parametrize("scenario", TOLD, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_as_many_logins_fail_as_the_plan_says(scenario: Scenario, tmp_path: Path) -> None:
    template = tmp_path / "template"
    initialise(Wishes(template / "state", None, template / "identity.txt"), Recovery())
    try:
        with scenario.server() as server:
            world = scenario.world(server, template, tmp_path / "world")
            opened = wiring.open_installed(world.wishes)
            parts = wiring.parts(opened, world.wishes, parallel=1)
            before = server.refused_logins()
            (plan,) = preview([NAME], parts, ask_servers=True)
            _rotate(parts, world)
            opened.store.close()
            assert plan.deliberate is not None
            assert server.refused_logins() - before == len(plan.deliberate.refusals)
            assert plan.deliberate.address.startswith("127.0.0.1:")
            assert all(refusal.account for refusal in plan.deliberate.refusals)
    except ServerMissing as missing:
        pytest.skip(str(missing))


def _rotate(parts: Parts, world: World) -> None:
    if not world.given:
        (report,) = rotate([NAME], parts, by_name=True)
    else:
        import_value(NAME, read_fields(world.given), parts)
        book = Book(NAME, parts.store, parts.envelope, parts.redactor)
        old = book.labelled(StagingLabel.PREVIOUS)
        assert old is not None
        world.revoke(old)
        (report,) = resume([NAME], parts)
    assert report.rotation is not None, report.error
    assert report.rotation.state is State.DONE
