"""A simulator of OpenBao's HTTP API, for tests: KV version 2, AppRole, tokens, wrapping, policies, namespaces.

It is no server of anybody: it keeps everything in memory, checks nothing but what is written here, and was held to what
a real OpenBao 2.6.2 answered (`tests/integration/test_vault_recordings.py`). Start it on loopback:

    server = VaultServer()          # server.url, server.root_token; set it up by its API, as a real one
    server.state.sealed = True      # and `standby`, `redirects_to`, `drips`; `lose_reply_of(n)`
    server.log                      # what an audit log would show: no value may stand in it
    server.stop()
"""

from vaultkeeper.testing.vault.server import VaultServer
from vaultkeeper.testing.vault.state import State

__all__ = ["State", "VaultServer"]
