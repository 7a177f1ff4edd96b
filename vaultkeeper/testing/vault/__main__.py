"""`python -m vaultkeeper.testing.vault [PORT]`: run the simulator, print its address and root token, until killed."""

from __future__ import annotations

import signal
import sys

from vaultkeeper.testing.vault.server import VaultServer

server = VaultServer(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
sys.stdout.write(f"{server.url} {server.root_token}\n")
sys.stdout.flush()
signal.pause()
