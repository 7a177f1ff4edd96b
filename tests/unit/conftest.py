from __future__ import annotations

from hypothesis import HealthCheck, settings

# A machine that stands still for a moment is no finding.
settings.register_profile("however slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("however slow")
