"""The stores of tests/unit/store, for processes that are killed or race."""

from __future__ import annotations

from tests.unit.store.conftest import here, place

__all__ = ["here", "place"]
