"""Simulated systems: stateful, with faults, one file each. They simulate the remote world, not the calls to it.

Open them as any kind is opened, from a document like `{"world": "w1", "system": "db"}`; make the `World` first and keep
it. `TARGETS`, `DESTINATIONS` and `GENERATORS` map each kind to its class.
"""

from __future__ import annotations

from vaultkeeper.ports import Destination, Generator, Target
from vaultkeeper.testing.simulators.alternating import AlternatingTarget
from vaultkeeper.testing.simulators.checker import CheckerTarget
from vaultkeeper.testing.simulators.clients import ClientsDestination
from vaultkeeper.testing.simulators.counter import CounterGenerator
from vaultkeeper.testing.simulators.file import FileDestination
from vaultkeeper.testing.simulators.keyring_app import KeyringAppDestination
from vaultkeeper.testing.simulators.manual import ManualTarget
from vaultkeeper.testing.simulators.minting import MintingTarget
from vaultkeeper.testing.simulators.overlap import OverlapTarget
from vaultkeeper.testing.simulators.service import ServiceDestination
from vaultkeeper.testing.simulators.single import SingleTarget
from vaultkeeper.testing.simulators.throttling import ThrottlingTarget

TARGETS: dict[str, type[Target]] = {
    target.kind: target
    for target in (
        AlternatingTarget,
        CheckerTarget,
        ManualTarget,
        MintingTarget,
        OverlapTarget,
        SingleTarget,
        ThrottlingTarget,
    )
}
DESTINATIONS: dict[str, type[Destination]] = {
    destination.kind: destination
    for destination in (ClientsDestination, FileDestination, KeyringAppDestination, ServiceDestination)
}
GENERATORS: dict[str, type[Generator]] = {CounterGenerator.kind: CounterGenerator}
