"""A simulator of Grafana's HTTP API (after 12.4.0, open source edition): stateful, on loopback. It is no Grafana.

Users with failed logins that are counted by name over time, organisations, service accounts with permissions, tokens
with an end and a last use, data sources with a version, a cache and a pool, whose health check really logs in where it
is told how. Where it and the real server agree is written down in `tests/data/grafana-shapes.json`, made from exchanges
with a real one; it holds none of them. The test suite tries the Grafana kinds on this simulator, and on a real server
only where `VAULTKEEPER_TEST_GRAFANA_URL` names one.

    grafana = SimulatedGrafana()
    grafana.url, grafana.state.admin        # its first server admin
    with grafana.fault("lost-reply", "PUT /api/datasources/"): …
    grafana.stop()
"""

from __future__ import annotations

from vaultkeeper.testing.grafana.server import Seen, SimulatedGrafana
from vaultkeeper.testing.grafana.state import Source, State, Token, User

__all__ = ["Seen", "SimulatedGrafana", "Source", "State", "Token", "User"]
