"""What runs touched, for policies over several calls; and requests for access.

Runs from before have the system `command`, as tools that name none have, and no session; nothing
was said of their results then, so nothing is now.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _touches()
    _requests()


def _touches() -> None:
    for name, kind, default in (
        ("tenant", sa.String(), ""),
        ("session", sa.String(), ""),
        ("system", sa.String(), "command"),
        ("untrusted", sa.Integer(), "0"),
        ("sensitive", sa.Integer(), "0"),
    ):
        column = sa.Column(name, kind, nullable=False, server_default=default)
        op.add_column("run", column)
    op.execute("UPDATE run SET tenant = json_extract(caller_id, '$[0]')")
    op.create_index("run_subject", "run", ["tenant", "subject", "intended_ms"])


def _requests() -> None:
    op.create_table(
        "access_request",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("caller_id", sa.String(), nullable=False),
        sa.Column("asked", sa.String(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("tool_name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("arguments", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("codes", sa.String(), nullable=False),
        sa.Column("filed_ms", sa.Integer(), nullable=False),
        sa.Column("closed_ms", sa.Integer()),
        sa.Column("closed_by", sa.String()),
        sa.Column("note", sa.String(), nullable=False),
    )
    pending = sa.text("state = 'pending'")
    op.create_index(
        "request_pending", "access_request", ["asked"], unique=True, sqlite_where=pending
    )
    op.create_index("request_caller", "access_request", ["caller_id"], sqlite_where=pending)


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back to older tables")
