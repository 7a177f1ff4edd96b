"""A simulator of Dokploy v0.30.2's REST interface: stateful, on loopback. It is no Dokploy.

Projects, environments, services and their variables, members' rights, keys with limits, rolling updates in which Swarm
goes back while Dokploy says `done`, a queue that a restart forgets, replies that are lost. Where it and the real server
agree is written down in `tests/data/dokploy-shapes.json`, made from exchanges with a real one; it holds none of them.
The test suite tries the kind `dokploy` on this simulator only, never on a real server.
"""

from __future__ import annotations

from vaultkeeper.testing.dokploy.server import SimulatedDokploy
from vaultkeeper.testing.dokploy.state import Key, Service, State, User

__all__ = ["Key", "Service", "SimulatedDokploy", "State", "User"]
