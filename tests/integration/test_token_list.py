from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.token_list import TokenListServer, start
from vaultkeeper.targets.token_list import TokenListTarget
from vaultkeeper.testing.contract import TargetContract


class TestTokenList(TargetContract):
    target = TokenListTarget
    field = "token"

    @pytest.fixture
    def server(self) -> Iterator[TokenListServer]:
        server = start()
        yield server
        server.stop()
