"""Every target of the registry keeps the contract, against the server of `tests/servers/<kind>.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.contract.found import REGISTRY, cases, class_name, has_server, marks, servers, start_of, started, variants
from vaultkeeper.testing.contract import TargetContract
from vaultkeeper.testing.servers import LOST_REPLY, SILENT, UNREACHABLE, Account, Server

Start = Callable[..., Any]


@pytest.mark.parametrize("kind", REGISTRY.kinds("targets"))
def test_every_target_has_a_server_to_be_tried_on(kind: str) -> None:
    assert has_server(kind), f"write tests/servers/{kind}.py"


@pytest.fixture(scope="module")
def running() -> Iterator[dict[Start, Any]]:
    """Servers started for this module, by what started them."""
    kept: dict[Start, Any] = {}
    with ExitStack() as stack:
        yield kept
        for server in kept.values():
            stack.callback(server.stop)


class RegistryTarget(TargetContract):
    """One variant of one kind."""

    variant: str

    @pytest.fixture
    def server(self, running: dict[Start, Any]) -> Server:
        kind, start = self.target.kind, start_of(self.target.kind, self.variant)
        if start not in running:
            running[start] = started(kind, start)
        server: Server = running[start]
        return server

    def account(self, server: Server) -> Account:
        make = variants(self.target.kind)[self.variant]
        account: Account = make(server) if make else server.account()
        return account


for _kind, _variant in cases("targets"):
    globals()[class_name(_kind, _variant)] = type(
        class_name(_kind, _variant),
        (RegistryTarget,),
        {
            "__module__": __name__,
            "pytestmark": marks(_kind),
            "target": REGISTRY.target_class(_kind),
            "variant": _variant,
            "faults": {UNREACHABLE, SILENT, LOST_REPLY} & set(getattr(servers(_kind), "FAULTS", ())),
            "tagged": _variant not in getattr(servers(_kind), "UNTAGGED", ()),
        },
    )
