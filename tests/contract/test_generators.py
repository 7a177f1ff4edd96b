"""Every generator of the registry keeps the contract, with its defaults and with settings of its own."""

from __future__ import annotations

from collections.abc import Mapping

from tests.contract.found import REGISTRY, class_name
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


for _kind in REGISTRY.kinds("generators"):
    globals()[class_name(_kind, "kind")] = type(
        class_name(_kind, "kind"),
        (GeneratorContract,),
        {
            "__module__": __name__,
            "generator": type(REGISTRY.generator(_kind)),
            "settings": ({}, *BESIDE_DEFAULTS.get(_kind, ())),
        },
    )
