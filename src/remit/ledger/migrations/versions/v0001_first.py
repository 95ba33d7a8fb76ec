"""The first tables, and the triggers that keep the log's rows as they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _log()
    _runs()
    _replies()
    _approvals()
    _in_force()


def _log() -> None:
    op.create_table(
        "entry",
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("nodes", sa.LargeBinary(), nullable=False),
        sa.Column("text", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "checkpoint",
        sa.Column("size", sa.Integer(), primary_key=True),
        sa.Column("note", sa.String(), nullable=False),
    )
    for table in ("entry", "checkpoint"):
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"
            )
    op.create_table(
        "sealed",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("commitment", sa.String(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("packed", sa.Integer(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
    )
    op.create_index("sealed_commitment", "sealed", ["commitment"])
    op.create_table(
        "plan",
        sa.Column("hash", sa.String(), primary_key=True),
        sa.Column("text", sa.LargeBinary(), nullable=False),
    )


def _runs() -> None:
    op.create_table(
        "run",
        sa.Column("fence", sa.Integer(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String()),
        sa.Column("plan_hash", sa.String(), sa.ForeignKey("plan.hash"), nullable=False),
        sa.Column("call_digest", sa.String(), nullable=False),
        sa.Column("caller_id", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("tool_name", sa.String(), nullable=False),
        sa.Column("effect", sa.String(), nullable=False),
        sa.Column("idempotent", sa.Integer(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("intent_index", sa.Integer(), nullable=False),
        sa.Column("outcome_index", sa.Integer()),
        sa.Column("approval_id", sa.String()),
        sa.Column("intended_ms", sa.Integer(), nullable=False),
        sa.Column("started_ms", sa.Integer()),
        sa.Column("settled_ms", sa.Integer()),
        sa.Column("deadline_ms", sa.Integer(), nullable=False),
        sa.Column("code", sa.String()),
        sa.Column("resolved_by", sa.String()),
        sa.Column("resolved_as", sa.String()),
        sa.Column("ending", sa.String()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("wall_ms", sa.Integer()),
        sa.Column("parent_run_id", sa.String()),
        sa.Column("idempotency", sa.String()),
    )
    unsettled = sa.text("(state IS NULL OR state = 'unknown')")
    keyed = sa.text("idempotency IS NOT NULL")
    op.create_index("run_call", "run", ["call_digest"])
    op.create_index("run_unsettled", "run", ["fence"], sqlite_where=unsettled)
    op.create_index("run_idempotency", "run", ["idempotency"], sqlite_where=keyed)


def _replies() -> None:
    op.create_table(
        "reply",
        sa.Column("fence", sa.Integer(), sa.ForeignKey("run.fence"), primary_key=True),
        sa.Column("packed", sa.Integer(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
    )


def _approvals() -> None:
    op.create_table(
        "approval",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("plan_hash", sa.String(), sa.ForeignKey("plan.hash"), nullable=False),
        sa.Column("call_digest", sa.String(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("tool_name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("opened_ms", sa.Integer(), nullable=False),
        sa.Column("expires_ms", sa.Integer(), nullable=False),
        sa.Column("shown", sa.LargeBinary(), nullable=False),
        sa.Column("supersedes", sa.String()),
        sa.Column("run_id", sa.String(), unique=True),
    )
    live = sa.text("state IN ('pending', 'approved')")
    op.create_index("approval_call", "approval", ["call_digest"])
    op.create_index("approval_live", "approval", ["call_digest"], unique=True, sqlite_where=live)
    op.create_table(
        "vote",
        sa.Column("approval_id", sa.String(), sa.ForeignKey("approval.id"), primary_key=True),
        sa.Column("subject", sa.String(), primary_key=True),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("voted_ms", sa.Integer(), nullable=False),
        sa.Column("groups", sa.String(), nullable=False),
        sa.Column("reason", sa.String()),
    )


def _in_force() -> None:
    op.create_table(
        "control",
        sa.Column("id", sa.Integer(), sa.CheckConstraint("id = 1"), primary_key=True),
        sa.Column("frozen", sa.String()),
        sa.Column("revision", sa.String()),
    )
    op.execute("INSERT INTO control (id, frozen, revision) VALUES (1, NULL, NULL)")
    op.create_table(
        "active_tool",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("digest", sa.String(), nullable=False),
    )
    op.create_table("active_key", sa.Column("id", sa.String(), primary_key=True))


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back to older tables")
