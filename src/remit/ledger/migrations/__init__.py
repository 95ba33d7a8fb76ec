"""Migrations of the ledger's tables; Alembic runs them when a ledger is opened."""
