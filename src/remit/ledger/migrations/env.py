"""Alembic's way in: runs the steps on the connection that `remit.ledger.schema` hands over."""

from __future__ import annotations

from alembic import context

from remit.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
