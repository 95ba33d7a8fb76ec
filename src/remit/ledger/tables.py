"""The tables of the ledger, in SQLAlchemy Core; the migrations make exactly these.

The log itself is `entry` and `checkpoint`. `sealed` holds the values behind commitments and can
be emptied without changing the log. All else is state that the log's entries tell the story of.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    text,
)
from sqlalchemy.dialects import sqlite

metadata = MetaData()

entry = Table(
    "entry",
    metadata,
    Column("seq", Integer, primary_key=True),
    # The nodes that this leaf completed, 32 bytes each from level 0 upward: enough for every
    # proof, so that neither a proof nor a restart reads the leaves again.
    Column("nodes", LargeBinary, nullable=False),
    Column("text", LargeBinary, nullable=False),
)

sealed = Table(
    "sealed",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("commitment", String, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("packed", Integer, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Index("sealed_commitment", "commitment"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("size", Integer, primary_key=True),
    Column("note", String, nullable=False),
)

plan = Table(
    "plan",
    metadata,
    Column("hash", String, primary_key=True),
    Column("text", LargeBinary, nullable=False),
)

UNSETTLED = "(state IS NULL OR state = 'unknown')"
"""Runs whose effect is open or unknown: few, so an index of these alone stays small."""

run = Table(
    "run",
    metadata,
    Column("fence", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    # NULL while the run is open; `started_ms` then tells intended from started.
    Column("state", String),
    Column("plan_hash", String, ForeignKey("plan.hash"), nullable=False),
    Column("call_digest", String, nullable=False),
    Column("caller_id", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("tool_name", String, nullable=False),
    Column("effect", String, nullable=False),
    Column("idempotent", Integer, nullable=False),
    Column("environment", String, nullable=False),
    Column("intent_index", Integer, nullable=False),
    Column("outcome_index", Integer),
    Column("approval_id", String),
    Column("intended_ms", Integer, nullable=False),
    Column("started_ms", Integer),
    Column("settled_ms", Integer),
    Column("deadline_ms", Integer, nullable=False),
    Column("code", String),
    Column("resolved_by", String),
    Column("resolved_as", String),
    Column("ending", String),
    Column("exit_code", Integer),
    Column("wall_ms", Integer),
    Column("parent_run_id", String),
    Column("idempotency", String),
    # What policy is told of a caller's earlier calls; `session` is the client's own word.
    Column("tenant", String, nullable=False),
    Column("session", String, nullable=False),
    Column("system", String, nullable=False),
    Column("untrusted", Integer, nullable=False),
    Column("sensitive", Integer, nullable=False),
    Index("run_call", "call_digest"),
    Index("run_subject", "tenant", "subject", "intended_ms"),
    Index("run_unsettled", "fence", sqlite_where=text(UNSETTLED)),
    Index("run_idempotency", "idempotency", sqlite_where=text("idempotency IS NOT NULL")),
)

reply = Table(
    "reply",
    metadata,
    Column("fence", Integer, ForeignKey("run.fence"), primary_key=True),
    Column("packed", Integer, nullable=False),
    Column("value", LargeBinary, nullable=False),
)

LIVE = "state IN ('pending', 'approved')"

approval = Table(
    "approval",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("state", String, nullable=False),
    Column("plan_hash", String, ForeignKey("plan.hash"), nullable=False),
    Column("call_digest", String, nullable=False),
    Column("caller", String, nullable=False),
    Column("tool_name", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("opened_ms", Integer, nullable=False),
    Column("expires_ms", Integer, nullable=False),
    Column("shown", LargeBinary, nullable=False),
    Column("supersedes", String),
    Column("run_id", String, unique=True),
    Index("approval_call", "call_digest"),
    # At most one live approval of a call, whatever the code above thinks.
    Index("approval_live", "call_digest", unique=True, sqlite_where=text(LIVE)),
)

vote = Table(
    "vote",
    metadata,
    Column("approval_id", String, ForeignKey("approval.id"), primary_key=True),
    Column("subject", String, primary_key=True),
    Column("verdict", String, nullable=False),
    Column("voted_ms", Integer, nullable=False),
    Column("groups", String, nullable=False),
    Column("reason", String),
)

PENDING = "state = 'pending'"

access_request = Table(
    "access_request",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("state", String, nullable=False),
    Column("caller_id", String, nullable=False),
    Column("asked", String, nullable=False),
    Column("caller", String, nullable=False),
    Column("tool_name", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("arguments", LargeBinary, nullable=False),
    Column("reason", String, nullable=False),
    Column("decision_id", String, nullable=False),
    Column("codes", String, nullable=False),
    Column("filed_ms", Integer, nullable=False),
    Column("closed_ms", Integer),
    Column("closed_by", String),
    Column("note", String, nullable=False),
    # At most one pending request for the same, and a quick count of a caller's.
    Index("request_pending", "asked", unique=True, sqlite_where=text(PENDING)),
    Index("request_caller", "caller_id", sqlite_where=text(PENDING)),
)

control = Table(
    "control",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("frozen", String),
    Column("revision", String),
)

active_tool = Table(
    "active_tool",
    metadata,
    Column("name", String, primary_key=True),
    Column("digest", String, nullable=False),
)

active_key = Table("active_key", metadata, Column("id", String, primary_key=True))

_DIALECT = sqlite.dialect(paramstyle="named")


def insert_into(table: Table, *, ignore: bool = False) -> str:
    """The text of an INSERT of all columns, with named parameters."""
    statement = str(insert(table).compile(dialect=_DIALECT))
    return statement.replace("INSERT", "INSERT OR IGNORE", 1) if ignore else statement


def columns(table: Table, *, without: frozenset[str] = frozenset()) -> str:
    """The table's columns for a SELECT, in the order in which rows are read back."""
    return ", ".join(f"{table.name}.{c.name}" for c in table.c if c.name not in without)
