"""Every generator of the registry keeps the contract, with its defaults and with settings of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.contract.found import REGISTRY, class_name, servers, started
from vaultkeeper.ports import Fetches
from vaultkeeper.testing.contract import GeneratorContract

BESIDE_DEFAULTS: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "password": (
        {"length": 20, "symbols": "!#%", "minimum": {"upper": 2, "digits": 2, "symbols": 1}},
        {"length": 64, "first": "any", "exclude": "Il1O0"},
    ),
    "token": ({"bytes": 48, "prefix": "vk_"}, {"bytes": 20}),
    "base64": ({"bytes": 32, "prefix": "base64:"},),
    "hex": ({"bytes": 20},),
}


def test_settings_to_try_belong_to_kinds_that_exist() -> None:
    assert set(BESIDE_DEFAULTS) <= set(REGISTRY.kinds("generators"))


class FetchedGenerator(GeneratorContract):
    """A kind whose values another system makes: `tests/servers/<kind>.py` has it, and the settings to try."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _running(cls) -> Iterator[None]:
        found = servers(cls.generator.kind)
        server = started(cls.generator.kind, found.start)
        cls.settings = found.settings_to_try(server)
        yield
        server.stop()


for _kind in REGISTRY.kinds("generators"):
    _fetched = issubclass(type(REGISTRY.generator(_kind)), Fetches)
    globals()[class_name(_kind, "kind")] = type(
        class_name(_kind, "kind"),
        (FetchedGenerator if _fetched else GeneratorContract,),
        {
            "__module__": __name__,
            "generator": type(REGISTRY.generator(_kind)),
            "settings": ({}, *BESIDE_DEFAULTS.get(_kind, ())),
        },
    )
