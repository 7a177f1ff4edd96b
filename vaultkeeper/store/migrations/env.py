"""Alembic's entry: runs inside the transaction that `store/schema.py` has opened."""

from __future__ import annotations

from alembic import context

from vaultkeeper.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
