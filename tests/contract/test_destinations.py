"""Every destination of the registry keeps the contract, in the places of `tests/servers/<kind>.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.found import REGISTRY, cases, class_name, has_server, servers, started, variants
from vaultkeeper.testing.contract import DestinationContract
from vaultkeeper.testing.servers import ReadingPlace

GROUP = "destinations"


@pytest.mark.parametrize("kind", REGISTRY.kinds("destinations"))
def test_every_destination_has_a_place_to_be_tried_in(kind: str) -> None:
    assert has_server(kind, GROUP), f"write tests/servers/{kind}.py"


class RegistryDestination(DestinationContract):
    """One variant of one kind."""

    variant: str

    @pytest.fixture
    def place(self) -> Iterator[ReadingPlace]:
        kind = self.destination.kind
        place: ReadingPlace = started(kind, variants(kind, GROUP)[self.variant] or servers(kind, GROUP).start)
        yield place
        place.stop()


for _kind, _variant in cases("destinations"):
    globals()[class_name(_kind, _variant)] = type(
        class_name(_kind, _variant),
        (RegistryDestination,),
        {
            "__module__": __name__,
            "destination": type(REGISTRY.destination(_kind)),
            "variant": _variant,
            "refuses_some": getattr(variants(_kind, GROUP)[_variant], "refuses_some", False),
        },
    )
