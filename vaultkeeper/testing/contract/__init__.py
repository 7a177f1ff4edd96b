"""The contracts of back ends as pytest classes. Inherit one, name your class, give it a server:

class TestMyTarget(TargetContract):
    target = MyTarget

    @pytest.fixture
    def server(self) -> Iterator[Server]:
        with my_server() as server:
            yield server
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "vaultkeeper.testing.contract.destination",
    "vaultkeeper.testing.contract.generator",
    "vaultkeeper.testing.contract.target",
)

from vaultkeeper.testing.contract.destination import DestinationContract  # noqa: E402 - after the rewrite is asked for
from vaultkeeper.testing.contract.generator import GeneratorContract  # noqa: E402 - as above
from vaultkeeper.testing.contract.target import TargetContract  # noqa: E402 - as above

__all__ = ["DestinationContract", "GeneratorContract", "TargetContract"]
